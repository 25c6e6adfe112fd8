"""Checks of the update rules against their closed forms; derivations/10-optimizers.md."""

import numpy as np

from lintransformer.optimizers import SGD, Adam, SignDescent, clip
from lintransformer.verification.results import Check, combine, relative_error

TOLERANCE = 1e-12
RATE = 0.05


def _gradients():
    """Six gradients of eight entries, of sizes that differ over time and entries; the last one idle."""
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((6, 8)) * np.logspace(-2, 1, 8)
    gradients[:, -1] = 0
    return gradients


def _run(optimizer, theta, gradients):
    state = optimizer.init(theta)
    for gradient in gradients:
        theta, state = optimizer.update(state, theta, gradient)
    return theta


def clipping():
    """The joint norm, one factor for the whole vector; eq. 10.9."""
    parts = []
    for size in (0.3, 0.999, 7.0):
        gradient = _gradients()[0]
        gradient *= size / np.linalg.norm(gradient)
        expected = gradient * min(1.0, 1.0 / (size + 1e-6))
        clipped, norm = clip(gradient, 1.0)
        parts += [Check(f"norm {size}, vector", relative_error(clipped, expected), TOLERANCE),
                  Check(f"norm {size}, norm", relative_error(norm, size), TOLERANCE)]
    return combine("joint clipping, eq. 10.9", parts)


def momentum():
    """SGD after six steps: theta - rate sum_t v_t with v_t = sum_k 0.9^k g_(t-k); eq. 10.2."""
    gradients, expected = _gradients(), np.ones(8)
    for t in range(6):
        expected = expected - RATE * sum(0.9**k * gradients[t - k] for k in range(t + 1))
    return Check("SGD with momentum, unrolled, eq. 10.2",
                 relative_error(_run(SGD(RATE, momentum=0.9), np.ones(8), gradients), expected), TOLERANCE)


def adam():
    """Adam after six steps, its moments as weighted means; eq. 10.4-10.5. Two betas, so that none is lost."""
    gradients, expected = _gradients(), np.ones(8)
    for t in range(6):
        mean = np.average(gradients[:t + 1], axis=0, weights=0.9 ** np.arange(t, -1, -1))
        square = np.average(gradients[:t + 1] ** 2, axis=0, weights=0.7 ** np.arange(t, -1, -1))
        expected = expected - RATE * mean / (np.sqrt(square) + 1e-3)
    found = _run(Adam(RATE, beta1=0.9, beta2=0.7, epsilon=1e-3), np.ones(8), gradients)
    return Check("Adam, weighted means, eq. 10.5", relative_error(found, expected), TOLERANCE)


def sign_descent():
    gradients = _gradients()
    expected = np.ones(8) - RATE * np.sum((gradients > 0).astype(float) - (gradients < 0), axis=0)
    found = _run(SignDescent(RATE), np.ones(8), gradients)
    return Check("sign descent, eq. 10.8", relative_error(found, expected), TOLERANCE)


OPTIMIZER_CHECKS = [clipping, momentum, adam, sign_descent]
