"""The step of a difference quotient of gradients, from errors that are measured; nothing is asked of the model.

Conventions
-----------
g(theta) -> (p,) is the gradient, D(h) = (g(theta + h u) - g(theta - h u)) / 2h a quotient along a unit vector u
(p,), H = Hessian. Its error is a h^2 + d / h: truncation and rounding; derivations/11-hessian-vector-products.md,
eq. 11.9-11.10. Neither is known beforehand. The rounding in particular is no multiple of |g|, which vanishes at
a minimiser although every prompt's part of it is rounded as before.
"""

from typing import NamedTuple

import numpy as np

from lintransformer.random import stream

FIRST, FACTOR, MOST = 1e-4, 10, 14           # the largest step tried, in units of length; its divisor; how many
SAFETY = 2                                   # other directions may have larger third derivatives than the one measured


class Step(NamedTuple):
    """h, and the error that D(h) then has, relative to the largest entry of D: an estimate, to a factor of 40."""

    h: float
    error: float


def difference_step(value_and_gradient, theta):
    """Measure both errors along one direction and return the step that balances them (our choice).

    Parameters
    ----------
    value_and_gradient : function theta -> (f, g), g (p,), all float64
    theta : array (p,), float64

    Returns
    -------
    Step; its error is infinite where no quotient agrees with the next, or where H lies below the rounding of f

    Notes
    -----
    u is D along a random vector: one step of the power method, towards the largest entries of H, to which errors
    are relative. Steps fall by `FACTOR`; |D(h) - D(h / FACTOR)| falls with a h^2 and then rises with d / h, and
    the ladder ends where it has begun to rise: 10 gradients in most cases. Scales: eps f / unit^2 is what
    rounding f alone would make of H.
    """
    unit = length_unit(theta)
    f, _ = value_and_gradient(theta)

    def quotient(h, u):
        return (value_and_gradient(theta + h * u)[1] - value_and_gradient(theta - h * u)[1]) / (2 * h)

    u = stream(0, "probe").standard_normal(len(theta))
    u = u / np.linalg.norm(u)
    towards = quotient(0.1 * FIRST * unit, u)
    if np.isfinite(towards).all() and towards.any():
        towards = towards / np.abs(towards).max()
        u = towards / np.linalg.norm(towards)
    steps, quotients, changes = [FIRST * unit], [quotient(FIRST * unit, u)], []
    while len(changes) < MOST:
        steps.append(steps[-1] / FACTOR)
        quotients.append(quotient(steps[-1], u))
        change = np.abs(quotients[-1] - quotients[-2]).max()
        changes.append(change if np.isfinite(change) else np.inf)
        least = min(changes)
        if least == 0 or least < changes[-1] / 3 < np.inf:
            break
    return _balanced(steps, quotients, changes, np.finfo(float).eps * abs(f) / unit**2)


def length_unit(theta):
    """1, or a tenth of theta's largest entry: far out lengths grow with theta."""
    return max(1.0, np.abs(theta).max() / 10)


def _balanced(steps, quotients, changes, rounding_of_f):
    """h of eq. 11.10 from the changes before and after the least one."""
    k = int(np.argmin(changes))
    size = np.abs(quotients[k + 1]).max()
    if changes[k] == 0:                                                      # a quadratic, or nothing at all
        return Step(steps[k + 1], np.inf if 0 < size < rounding_of_f else 0.0)
    rounding = changes[-1] * steps[-1]                                       # d: the ladder ended because of it
    before = k - 1 if k > 0 and np.isfinite(changes[k - 1]) else k
    truncation = changes[before] / steps[before] ** 2                        # a, or a bound on it
    h = (rounding / (2 * truncation)) ** (1 / 3) / SAFETY
    h = float(np.clip(h, steps[-1], steps[before]))
    if not np.isfinite(changes[k]) or size < rounding_of_f:
        return Step(h, np.inf)
    return Step(h, float((truncation * h**2 + rounding / h) / size))
