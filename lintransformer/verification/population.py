"""One layer against theory: the population loss is known exactly, so that simulation must meet it.

The only check that knows neither our gradients nor our forward pass, but the distribution of the prompts: it
ties samplers, model and objective to a closed form. derivations/16-one-layer.md, eq. 16.1, 16.5 and 16.11.
"""

import numpy as np

from lintransformer.distributions import PromptDistribution
from lintransformer.models.build import build_model
from lintransformer.objective import gradient, prompt_losses
from lintransformer.verification.results import Check, combine

STANDARD_ERRORS = 5.0


def isotropic_minimiser(distribution):
    """q and f* of the best single block layer, Q = q I, and its population loss.

    For covariates sqrt(g) u, u uniform on the sphere; eq. 16.11, and eq. 16.1 where they are Gaussian.
    """
    d, n = distribution.dimension, distribution.context_length
    second, fourth = MOMENTS[distribution.covariates](distribution)
    share, curvature = second / d, (n - 1) / n * (second / d) ** 2 + fourth / (n * d)
    return -share / curvature, second * (1 - share**2 / curvature)


# covariates -> E ||x||^2 and E ||x||^4; derivations/02-task.md, eq. 2.6
MOMENTS = {
    "gaussian": lambda dist: (dist.dimension, dist.dimension * (dist.dimension + 2)),
    "spherical": lambda dist: (1, 1),
    "gamma": lambda dist: (dist.gamma_shape * dist.gamma_scale,
                           dist.gamma_shape * (dist.gamma_shape + 1) * dist.gamma_scale**2),
}


def one_layer_population():
    """Loss and slope at the minimiser, for three kinds of covariates, in standard errors of a simulation."""
    parts, gamma = [], {"covariates": "gamma", "gamma_shape": 1.5, "gamma_scale": 2.0}
    for options in ({}, {"covariates": "spherical"}, gamma):
        distribution = PromptDistribution(3, 6, **options)
        q, loss = isotropic_minimiser(distribution)
        model, rng = build_model(layers=1, dimension=3), np.random.default_rng(0)
        theta = np.concatenate([np.zeros(9), q * np.eye(3).ravel()])
        batches = [distribution.draw_gram(rng, 2000) for _ in range(20)]
        slopes = [gradient(model, theta, batch)[9:].reshape(3, 3).trace() for batch in batches]
        losses = np.concatenate([prompt_losses(model, theta, batch) for batch in batches])
        kind = distribution.covariates
        parts += [Check(f"{kind}, loss", _in_standard_errors(losses, loss), STANDARD_ERRORS),
                  Check(f"{kind}, slope", _in_standard_errors(slopes, 0), STANDARD_ERRORS)]
    return combine("population loss, in standard errors", parts)


def covariances():
    """Second moments of context, query and task under given covariances, in standard errors; Gram draws alike."""
    factor = np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [-0.3, 0.5, 1.2]])
    covariance = factor @ factor.T
    options = {"covariate_covariance": covariance, "task_covariance": covariance[::-1, ::-1]}
    distribution, rng = PromptDistribution(3, 4, **options), np.random.default_rng(0)
    tokens, gram = distribution.draw(rng, 20_000), distribution.draw_gram(rng, 20_000)
    expected = np.einsum("ij,ji->", covariance, covariance[::-1, ::-1])      # E <w, x>^2
    moments = {"context": (tokens.Z[:, :3, 0], covariance), "query": (tokens.Z[:, :3, -1], covariance),
               "query, Gram": (gram.z[:, :3], covariance)}
    parts = [Check(f"{name}, E x_{i} x_{j}", _in_standard_errors(x[:, i] * x[:, j], matrix[i, j]), STANDARD_ERRORS)
             for name, (x, matrix) in moments.items() for i, j in zip(*np.triu_indices(3))]
    parts += [Check(f"target, {name}", _in_standard_errors(batch.target**2, expected), STANDARD_ERRORS)
              for name, batch in (("tokens", tokens), ("Gram", gram))]
    return combine("second moments of prompts, in standard errors", parts)


def _in_standard_errors(samples, expected):
    samples = np.asarray(samples)
    return float(abs(samples.mean() - expected) / (samples.std(ddof=1) / np.sqrt(len(samples))))
