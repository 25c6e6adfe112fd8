"""What is measured: one frozen `Case` per model and data distribution, and NumPy prompts to compare peers on.

The paper's cases are read from `lintransformer.paper.settings`, so that what is timed is what is trained.
"""
from dataclasses import dataclass, replace

import numpy as np

from lintransformer.paper.settings import SETTINGS


@dataclass(frozen=True)
class Case:
    """One model with its data and its optimizer settings.

    `covariates` is "gaussian", "spherical" or "gamma" (sqrt(Gamma(gamma_shape, gamma_scale)) times a uniform
    direction). `response` is None for y = <w, x>, else the hidden width of the fixed random MLP of Appendix B
    with y = <w, MLP(x)>.
    """

    name: str
    layers: int = 3
    dimension: int = 5
    context_length: int = 20
    covariates: str = "gaussian"
    gamma_shape: float = 0.1
    gamma_scale: float = 10.0
    response: int | None = None
    attention: str = "linear"
    parametrization: str = "block"
    heads: int = 1
    embedding: int | None = None
    mask: str = "after"
    init_scale: float = 0.05
    batch_size: int = 1000
    learning_rate: float = 0.005
    clip_threshold: float = 1.0

    def with_(self, **changes):
        """A copy with some fields changed."""
        return replace(self, **changes)

    @property
    def model(self):
        """The keyword arguments of `lintransformer.build_model`, and all that a peer's model depends on."""
        names = ("layers", "dimension", "attention", "parametrization", "heads", "embedding", "mask",
                 "init_scale")
        return {name: getattr(self, name) for name in names}


NAMES = ("S1", "S2", "S3", "spherical", "L2", "L4", "L6", "L8", "L8d20n60", "softmax", "separate",
         "nonlinear")


def from_setting(setting):
    """The case of one of the paper's settings, trained with Adam."""
    config = {**setting.distribution_config, **setting.model_config}
    response = config.pop("response", None)
    return Case(setting.name, response=response and response["hidden"], batch_size=setting.batch_size,
                learning_rate=setting.learning_rates["adam"], clip_threshold=setting.clip_threshold, **config)


CASES = {name: from_setting(SETTINGS[name]) for name in NAMES}


def covariates(case, rng, size):
    """Covariates X of shape (size, d, n+1), float64."""
    shape = (size, case.dimension, case.context_length + 1)
    X = rng.standard_normal(shape)
    if case.covariates == "gaussian":
        return X
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    if case.covariates == "gamma":
        X *= np.sqrt(rng.gamma(case.gamma_shape, case.gamma_scale, (size, 1, shape[2])))
    elif case.covariates != "spherical":
        raise ValueError(f"unknown covariates {case.covariates!r}: gaussian, spherical or gamma")
    return X


def prompts(case, seed, size=None):
    """Token matrices Z (B, d+1, n+1) of eq. 4 and targets (B,), float64: the same for every peer."""
    rng = np.random.default_rng(seed)
    size = case.batch_size if size is None else size
    X = covariates(case, rng, size)
    features = X if case.response is None else teacher(case, rng)(X)
    y = np.einsum("bi,bin->bn", rng.standard_normal((size, case.dimension)), features)
    target = y[:, -1].copy()
    y[:, -1] = 0.0
    return np.concatenate([X, y[:, None]], axis=1), target


def teacher(case, rng):
    """The fixed random Linear(d, h)-ReLU-Linear(h, d) of Appendix B, uniform on +-1/sqrt(fan in)."""
    d, h = case.dimension, case.response
    uniform = lambda fan_in, *shape: rng.uniform(-1, 1, shape) / np.sqrt(fan_in)
    W1, b1, W2, b2 = uniform(d, h, d), uniform(d, h, 1), uniform(h, d, h), uniform(h, d, 1)
    return lambda X: W2 @ np.maximum(W1 @ X + b1, 0) + b2


def gram(Z, context_length):
    """Gram matrices G = Z M Z^T (B, d+1, d+1) and query columns z (B, d+1): all linear attention sees."""
    context = Z[:, :, :context_length]
    return context @ context.swapaxes(1, 2), Z[:, :, context_length]
