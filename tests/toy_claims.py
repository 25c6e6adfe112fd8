"""A made-up world in which the paper's claims are true, false, or true for every other seed only."""
import math

import numpy as np
from scipy import stats

from lintransformer.paper.cells import Trace

QUANTILES = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)


class World:
    """Traces of cells that nobody computed.

    sign : callable, seed -> 1 (claims are true), -1 (each is the other way round)
    status : callable, cell -> status of a training run
    """
    def __init__(self, sign, status=lambda cell: "done"):
        self.sign, self.status = sign, status

    def __call__(self, cell):
        return getattr(self, cell.kind.replace("-", "_"))(cell)

    def train(self, cell):
        config, status = cell.config, self.status(cell)
        if status in ("failed", "missing"):
            return Trace(status=status)
        step = np.arange(0, config["steps"] + 1, config["record_every"])
        final = self.final(config)
        curve = np.exp(final + (1 - final) * np.exp(-step / 100))
        curves = np.tile(curve, (4, 1))
        return Trace(
            {
                "step": step, "evaluation_mean": curves, "evaluation_median": curves / 2,
                "evaluation_trimmed": curves / 1.5
            }, status)

    full_batch = train

    def trial(self, cell):
        trace = self.train(cell)
        trace.summary["training"] = trace.status
        trace.status = "done" if trace.status == "diverged" else trace.status
        return trace

    def final(self, config):
        """The logarithm of the final loss."""
        sign, model = self.sign(config["seed"]), config["model"]
        layers, rate = model["layers"], config["optimizer"]["learning_rate"]
        loss = -4 - 0.5 * sign * layers + 0.1 * abs(math.log(rate / 0.02)) * (layers == 3)
        if config["optimizer"]["name"] == "sgd":
            loss += sign * (0.8 + 0.1 * layers)
        if model["attention"] == "softmax":
            loss += {1: 4 * sign, 2: 0 if sign > 0 else 3}.get(model["heads"], 0)
        if model["parametrization"] == "separate":
            loss += 0.1 if sign > 0 else 2
        if config["distribution"]["covariates"] == "spherical":
            loss -= 3 * sign
        return loss + 0.02 * math.sin(7 * config["seed"] + layers)

    def curvature(self, cell):
        """R is 10 for Adam, and larger for SGDM where the claims are true."""
        training = cell.needs[0].config
        covariates, layers = training["distribution"]["covariates"], training["model"]["layers"]
        effect = {"spherical": 0.5, "gamma": 1.5}.get(covariates, {2: 0.3, 3: 1.0}.get(layers, 0.9))
        sgdm = training["optimizer"]["name"] == "sgd"
        number = 10 * math.exp(sgdm * self.sign(training["seed"]) * effect +
                               0.02 * math.sin(training["seed"]))
        step = np.array(cell.config["steps"])
        diagonal = np.ones((len(step), 9))
        diagonal[:, 0] = number
        return Trace({
            "step": step, "diagonal": diagonal, "eigenvalues": np.sort(diagonal), "reaches": np.ones(9, bool)
        })

    def smoothness(self, cell):
        """Larger for SGDM, without clipping, and where gradients are large."""
        training = cell.needs[0].config
        step = np.arange(0, cell.config["until"], cell.config["stride"])
        sign, gradient_norm = self.sign(training["seed"]), np.linspace(2, 0.1, len(step))
        level = (training["optimizer"]["name"] == "sgd") + (training["clip_threshold"] is None)
        values = np.exp(sign * level + 0.02 * math.sin(training["seed"])) * gradient_norm**sign
        return Trace({"step": step, "smoothness": values, "gradient_norm": gradient_norm})

    def noise(self, cell):
        covariates, layers = cell.config["distribution"]["covariates"], cell.config["model"]["layers"]
        width = 0.8 if covariates == "gamma" or layers > 4 else 0.3
        sign = self.sign(cell.config["seed"])
        return Trace({"norms": 30 + sign * np.exp(sign * width * QUANTILES), "spectrum": np.ones(5)})

    def sparsity(self, cell):
        hoyer = np.full((2, 3, 2), 0.3)
        if cell.config["distribution"]["covariates"] == "orthogonal":
            hoyer[1] += 0.2 * self.sign(cell.needs[0].config["seed"]) + 0.01 * math.sin(
                cell.needs[0].config["seed"])
        return Trace({"hoyer": hoyer, "participation": 1 - hoyer})


TRUE, FALSE, MIXED = World(lambda seed: 1), World(lambda seed: -1), World(lambda seed: 1 - 2 * (seed % 2))


def nothing(cell):
    """A store in which no cell is."""
    return Trace(status="missing")
