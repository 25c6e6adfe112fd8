"""Diagnostics as cells: gradient noise, curvature and directional smoothness, each from one configuration.

Curvature and smoothness read the parameters that a training run kept; the noise needs the initialisation
only. All Hessians are of f on one fixed batch, the first on which the run's loss is recorded: evaluation seed
99, 1000 prompts ("authors' code"), or as many as the run's own batches have where these are smaller. Where f
has kinks Hessians are exact: a difference that crosses one is wrong (derivations/11, eq. 11.9).
"""
from __future__ import annotations

import numpy as np

from lintransformer.checks import InputError
from lintransformer.diagnostics.noise import gradient_noise
from lintransformer.diagnostics.smoothness import PathSmoothness, path_smoothness
from lintransformer.distributions import PromptDistribution
from lintransformer.models.build import build_model
from lintransformer.paper.cells import KINDS, Cell, Kind, Outcome
from lintransformer.paper.options import OPTIMIZERS, Options
from lintransformer.paper.settings import SETTINGS
from lintransformer.paper.training_cells import training_cell
from lintransformer.random import stream
from lintransformer.training import evaluation_batch
from lintransformer.workspace import Workspace

NOISE_SEEDS = 3               # initialisations at which noise is drawn; the paper shows one
DENSE_UNTIL, THEN_EVERY = 10, 4          # curvature: at each kept point up to the 10th, then at each 4th
DEEP = 6                      # Hessians of this many layers take seconds each, as those of slow models do:
SPARSE_POINTS = (0, 3, 5)     # at these kept points only (iterations 750 and 1250), then at each 10th
SLOW_STRIDE = 10              # slow models: smoothness at each 10th step
SLOW_SHARE = 5                # a fifth of the noise draws, at one initialisation


def is_slow(model_config: dict) -> bool:
    """Whether a model costs tens of milliseconds a gradient: diagnostics then look at fewer points."""
    return model_config["attention"] != "linear" or bool(model_config.get("embedding"))


def noise_seeds(options: Options, setting: str) -> tuple[int, ...]:
    """Return the seeds of the initialisations at which the noise of a setting is drawn."""
    return options.training_seeds[:1 if is_slow(SETTINGS[setting].model_config) else NOISE_SEEDS]


def noise_cell(options: Options, setting: str, seed: int) -> Cell:
    """Return the gradient noise at the initialisation that training runs of this seed start from."""
    numbers, preset = SETTINGS[setting], options.numbers
    config = {"distribution": numbers.distribution_config, "model": numbers.model_config, "seed": seed,
              "batch_size": preset.batch_size or numbers.batch_size, "dtype": "float32",
              "draws": preset.noise_draws // (SLOW_SHARE if is_slow(numbers.model_config) else 1),
              "reference": preset.noise_reference}
    return Cell("noise", config, label=f"{setting} gradient noise, seed {seed}")


def curvature_cell(training: Cell) -> Cell:
    """Return the Hessian's diagonal and spectrum at points that a training run keeps."""
    config = {**_of(training), "steps": curvature_steps(training.config)}
    return Cell("curvature", config, (training,), label=f"{training.label}, curvature")


def smoothness_cell(training: Cell) -> Cell:
    """Return the directional smoothness along the first steps of a training run that keeps each of them."""
    until = min(training.config["theta_at"]["dense_until"], training.config["steps"])
    if until < 1:
        raise InputError(f"{training.label} does not keep its first steps: no path to measure")
    stride = SLOW_STRIDE if is_slow(training.config["model"]) else 1
    config = {**_of(training), "until": until, "stride": stride}
    return Cell("smoothness", config, (training,), label=f"{training.label}, smoothness")


def path_cells(options: Options, setting: str, make, training=training_cell) -> dict[str, list[Cell]]:
    """Return ``make(training cell)`` of a setting's runs: for each optimizer, a list over its seeds."""
    seeds = options.seeds_of(setting)
    return {optimizer: [make(training(options, setting, optimizer, seed)) for seed in seeds]
            for optimizer in OPTIMIZERS}


def curvature_steps(config: dict) -> list[int]:
    """Return the iterations of a run at which its Hessian is computed; theta is kept at all of them."""
    every, steps = config["theta_at"]["every"], config["steps"]
    kept = range(steps // every + 1)
    if is_slow(config["model"]) or config["model"]["layers"] >= DEEP:
        chosen = [i for i in kept if i in SPARSE_POINTS or i % DENSE_UNTIL == 0]
    else:
        chosen = [i for i in kept if i <= DENSE_UNTIL or i % THEN_EVERY == 0]
    return sorted({i * every for i in chosen} | {steps})


def compute_noise(config: dict, inputs: list, report) -> Outcome:
    """Compute a cell of kind "noise": norms (draws,), spectrum (p,), gradient (p,); see `gradient_noise`."""
    model, distribution = build_model(**config["model"]), PromptDistribution.from_config(config["distribution"])
    theta = model.init(stream(config["seed"], "initialisation"), config["dtype"])
    noise = gradient_noise(model, theta, distribution, draws=config["draws"], batch_size=config["batch_size"],
                           reference=config["reference"], seed=config["seed"], dtype=config["dtype"],
                           progress=report)
    return Outcome(noise._asdict(), summary={"gradient_norm": float(np.linalg.norm(noise.gradient))})


def compute_curvature(config: dict, inputs: list, report) -> Outcome:
    """Compute a cell of kind "curvature", S points of a path of p parameters.

    step (S,), diagonal (S, p), eigenvalues (S, p) ascending, value (S,), gradient_norm (S,), reaches (p,)
    bool. Rows of points that the run did not reach, or at which f overflows, are NaN, and listed in the
    summary.
    """
    from lintransformer.diagnostics.hessian import hessian                   # SciPy loads in the worker only
    from lintransformer.diagnostics.spectrum import dense_spectrum
    model, batch = _model_and_batch(config)
    steps, kept = config["steps"], dict(zip(inputs[0]["theta_step"].tolist(), inputs[0]["theta"]))
    diagonal, eigenvalues = np.full((2, len(steps), model.size), np.nan)
    value, norm = np.full((2, len(steps)), np.nan)
    workspace, without = Workspace(model, batch.size, "float64"), []
    for i, step in enumerate(steps):
        report(i / len(steps))
        try:
            dense = hessian(model, kept[step], batch, config.get("method")).to_dense()
        except (KeyError, InputError):                                       # not reached, or diverged
            without.append(step)
            continue
        diagonal[i], eigenvalues[i] = np.diag(dense), dense_spectrum(dense)
        value[i], gradient = workspace.value_and_gradient(kept[step], batch)
        norm[i] = np.linalg.norm(gradient)
    arrays = {"step": np.array(steps), "diagonal": diagonal, "eigenvalues": eigenvalues, "value": value,
              "gradient_norm": norm, "reaches": model.reaches_prediction()}
    return Outcome(arrays, summary={"points_without_hessian": without})


def compute_smoothness(config: dict, inputs: list, report) -> Outcome:
    """Compute a cell of kind "smoothness", of T steps: step (T,), and what `PathSmoothness` holds."""
    model, batch = _model_and_batch(config)
    recorded = inputs[0]["theta_step"]
    in_a_row = int(np.argmin(np.append(recorded, -1) == np.arange(len(recorded) + 1)))
    path = inputs[0]["theta"][:min(in_a_row, config["until"] + 1)]
    if len(path) < 2:                                                        # the first step diverged
        return Outcome({name: np.empty(0) for name in ("step", *PathSmoothness._fields)},
                       summary={"negative": 0})
    measured = path_smoothness(model, path, batch, config.get("method"), config["stride"], report)
    arrays = {"step": np.arange(0, len(path) - 1, config["stride"]), **measured._asdict()}
    return Outcome(arrays, summary={"negative": int(np.sum(measured.smoothness < 0))})


def _of(training: Cell) -> dict:
    recorded = training.config["evaluation"]
    prompts = min(recorded["prompts"], training.config["batch_size"])        # small runs: small Hessians
    model = training.config["model"]
    return {"distribution": training.config["distribution"], "model": model,
            "evaluation": {"seed": recorded["seeds"][0], "prompts": prompts},
            # the default by now; it stays, because it names the cells that are stored
            **({"method": "exact"} if build_model(**model).has_kinks else {})}


def _model_and_batch(config):
    model, fixed = build_model(**config["model"]), config["evaluation"]
    distribution = PromptDistribution.from_config(config["distribution"])
    return model, evaluation_batch(distribution, fixed["seed"], fixed["prompts"], tokens=model.needs_tokens)


# --- rough estimates of seconds on one core, for the order of work and the progress bar ---


def gradient_seconds(model: dict, prompts: int) -> float:
    """Return a rough estimate of a float64 gradient's seconds: measured for 1000 prompts, scaled."""
    layers, d = model["layers"], model["dimension"]
    if model["attention"] != "linear":
        milliseconds = 10 * layers * model["heads"]
    elif model.get("embedding"):
        milliseconds = 3.5 * layers
    else:
        milliseconds = 0.1 * layers**1.8 * (d / 5) ** 2.5
    return 1e-6 * prompts * milliseconds


def noise_seconds(config: dict) -> float:
    """Return the estimate for a cell of kind "noise": float32 gradients and their prompts."""
    draw = 0.3e-6 if config["distribution"]["covariates"] == "gaussian" else 0.9e-6
    gradient = 0.7 * gradient_seconds(config["model"], config["batch_size"])
    return (config["draws"] + config["reference"]) * (gradient + draw * config["batch_size"])


def curvature_seconds(config: dict) -> float:
    """Return the estimate for a cell of kind "curvature": two gradients for each parameter and point."""
    gradient = gradient_seconds(config["model"], config["evaluation"]["prompts"])
    return 2 * build_model(**config["model"]).size * len(config["steps"]) * gradient


def smoothness_seconds(config: dict) -> float:
    """Return the estimate for a cell of kind "smoothness": three gradients a point."""
    gradient = gradient_seconds(config["model"], config["evaluation"]["prompts"])
    return 3 * config["until"] / config["stride"] * gradient


KINDS["noise"] = Kind(compute_noise, noise_seconds)
KINDS["curvature"] = Kind(compute_curvature, curvature_seconds)
KINDS["smoothness"] = Kind(compute_smoothness, smoothness_seconds)
