"""Optimizers as pure functions of one flat vector, and joint gradient clipping.

Each optimizer is a small frozen record with two methods, after optax's design:
    init(theta) -> state                    update(state, theta, gradient) -> (theta_next, state_next)
Nothing is changed in place. Conventions are the authors' code's (PyTorch's); derivations/10-optimizers.md.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lintransformer.checks import (InputError, check_choice, check_finite_positive, check_fraction, keep,
                                   numeric_array)


class NoState(NamedTuple):
    """The state of an optimizer that remembers nothing."""


class Velocity(NamedTuple):
    """The state of `SGD`."""

    velocity: np.ndarray


class Moments(NamedTuple):
    """The state of `Adam`: steps taken, running means of the gradient and of its square."""

    step: int
    first: np.ndarray
    second: np.ndarray


@dataclass(frozen=True)
class SGD:
    """theta <- theta - learning_rate v, with v <- momentum v + g: no dampening, as in PyTorch.

    derivations/10-optimizers.md, eq. 10.1.

    Parameters
    ----------
    learning_rate : float, > 0
    momentum : float in [0, 1); 0.9 is the paper's SGDM, 0 plain SGD
    """

    learning_rate: float
    momentum: float = 0.0

    def __post_init__(self):
        keep(self, learning_rate=check_finite_positive("learning_rate", self.learning_rate),
             momentum=check_fraction("momentum", self.momentum))

    def init(self, theta):
        return Velocity(np.zeros_like(_real_vector("theta", theta)))

    def update(self, state, theta, gradient):
        velocity = self.momentum * state.velocity + gradient
        return theta - self.learning_rate * velocity, Velocity(velocity)


@dataclass(frozen=True)
class Adam:
    """Adam with bias correction; epsilon stands outside the root, and no weight decay.

    derivations/10-optimizers.md, eq. 10.4-10.5.

    Parameters
    ----------
    learning_rate : float, > 0
    beta1, beta2 : float in [0, 1); 0.9 and 0.9 in the paper (Appendix A)
    epsilon : float, > 0; 1e-8 in the authors' code. Entries whose gradient is always 0 (the last P' of a block
        parametrisation) would move by 0 / 0 without it.
    """

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.9
    epsilon: float = 1e-8

    def __post_init__(self):
        keep(self, learning_rate=check_finite_positive("learning_rate", self.learning_rate),
             beta1=check_fraction("beta1", self.beta1), beta2=check_fraction("beta2", self.beta2),
             epsilon=check_finite_positive("epsilon", self.epsilon))

    def init(self, theta):
        theta = _real_vector("theta", theta)
        return Moments(0, np.zeros_like(theta), np.zeros_like(theta))

    def update(self, state, theta, gradient):
        step = state.step + 1
        first = self.beta1 * state.first + (1 - self.beta1) * gradient
        second = self.beta2 * state.second + (1 - self.beta2) * gradient**2
        direction = first / (1 - self.beta1**step)
        scale = np.sqrt(second / (1 - self.beta2**step)) + self.epsilon
        return theta - self.learning_rate * direction / scale, Moments(step, first, second)


@dataclass(frozen=True)
class SignDescent:
    """theta <- theta - learning_rate sign(g): Adam's limit for beta1 = beta2 = 0 and epsilon to 0.

    derivations/10-optimizers.md, eq. 10.8."""

    learning_rate: float

    def __post_init__(self):
        keep(self, learning_rate=check_finite_positive("learning_rate", self.learning_rate))

    def init(self, theta):
        _real_vector("theta", theta)
        return NoState()

    def update(self, state, theta, gradient):
        return theta - self.learning_rate * np.sign(gradient), state


OPTIMIZERS = {"sgd": SGD, "adam": Adam, "sign": SignDescent}


def make_optimizer(name, **options):
    """An optimizer by name, for configurations: "sgd" (learning_rate, momentum), "adam", "sign"."""
    kind = OPTIMIZERS[check_choice("optimizer", name, OPTIMIZERS)]
    unknown = sorted(set(options) - set(kind.__dataclass_fields__))
    if unknown:
        raise InputError(f"optimizer {name!r} has no option {unknown[0]!r}; "
                         f"allowed: {', '.join(kind.__dataclass_fields__)}")
    return kind(**options)


def clip(gradient, threshold):
    """Scale the whole gradient to a norm of at most `threshold`; derivations/10-optimizers.md, eq. 10.9-10.10.

    Parameters
    ----------
    gradient : array (p,) of real numbers, all parameters together: the joint norm is meant, not one norm a
        matrix; integers are taken as float64
    threshold : float > 0, or None for no clipping; 1 in the paper, 0.1 for spherical covariates in the
        authors' code

    Returns
    -------
    clipped : array (p,); the gradient itself where nothing is to be done, or where its norm is not finite
    norm : float, the norm before clipping; infinite or NaN if an entry is

    Raises
    ------
    InputError : a gradient that is no vector of real numbers (complex, masked, empty), a threshold out of range.

    Notes
    -----
    The factor is min(1, threshold / (norm + 1e-6)), as in PyTorch's clip_grad_norm_ ("authors' code"). The
    norm is taken in float64 and in units of the largest entry (our choice): with many layers a rare prompt
    makes a gradient whose squares overflow though its entries do not. PyTorch's norm is then infinite and its
    clipped gradient 0; ours has norm `threshold`.
    """
    gradient = _real_vector("gradient", gradient)
    if threshold is not None:
        check_finite_positive("threshold", threshold)
    wide = gradient.astype(np.float64)
    largest = np.abs(wide).max()
    if largest > 0 and np.isfinite(largest):
        wide /= largest
        norm = float(largest * np.sqrt(wide @ wide))
    else:
        norm = float(largest)                                                # 0, inf or NaN
    if threshold is None or not np.isfinite(norm):
        return gradient, norm
    factor = min(1.0, threshold / (norm + 1e-6))
    return (gradient if factor == 1 else (wide * (largest * factor)).astype(gradient.dtype)), norm


def _real_vector(name, values):
    """A vector (p,) of float32 or float64, without a copy: cheap, since `clip` is called at each step."""
    if type(values) is not np.ndarray or values.dtype.char not in "fd":
        values = numeric_array(name, values)
        if values.dtype.kind != "f":
            raise InputError(f"{name} must hold real numbers, not dtype {values.dtype}")
    if values.ndim != 1 or values.size == 0:
        raise InputError(f"{name} must have shape (p,) with p at least 1, not {values.shape}")
    return values
