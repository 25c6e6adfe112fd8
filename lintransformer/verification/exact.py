"""Exact checks: polynomials over the rationals, differentiated and compared without any error.

The loss of a linear Transformer is a polynomial in theta; with ReLUs it is one on each side of the kinks.
Along a line theta + t v it is a polynomial in t of known degree, so that finitely many values determine it,
and its derivative at t = 0, exactly. One line with a generic v tells of every coordinate at once: two gradients that
differ anywhere have different products with v, but for one v in a million. derivations/11-hessian-vector-products.md,
eq. 11.12, and derivations/17-checks.md, eq. 17.6.
"""
from __future__ import annotations

from fractions import Fraction

import numpy as np

from lintransformer.checks import InputError, check_positive_integer
from lintransformer.verification.results import FAILED, Check

STEP = Fraction(1, 2**24)        # of the nodes: with ReLUs they must all lie on one side of every kink
GENERIC = 2**20                  # a wrong gradient escapes a direction of integers up to this with probability 2^-20


def check_exact_gradient(f, gradient, theta, direction=None, degree=None, step=STEP) -> Check:
    """gradient(theta) EQUALS the gradient of the polynomial f, in every coordinate.

    Along `direction`, and along a generic one in which no entry is 0, <gradient(theta), v> must equal the derivative
    at 0 of the polynomial t -> f(theta + t v). Where it does not, the coordinates are looked at one by one.

    Parameters
    ----------
    f : callable, object array (p,) of Fractions -> Fraction; of degree at most `degree` along any line
    gradient : callable, object array (p,) of Fractions -> object array (p,) of Fractions
    theta : object array (p,) of Fractions
    direction : object array (p,) of Fractions, not all 0, or None: the generic one alone
    degree : int; one more value of f than needed is computed, and must lie on the polynomial too
    step : Fraction, distance of the nodes 0, step, -step, 2 step, ...

    Returns
    -------
    Check : tolerance 0. A degree that is too low fails with an infinite error.

    Raises
    ------
    InputError : theta or direction is not of Fractions; a gradient that has not theta's shape.
    """
    theta, name = _fractions("theta", theta), "exact gradient"
    degree = check_positive_integer("degree", degree)
    rng = np.random.default_rng(5)
    generic = np.array([Fraction(int(k), 2**16) for k in rng.integers(1, GENERIC, theta.size)], dtype=object)
    lines = [generic * rng.choice([Fraction(-1), Fraction(1)], theta.size)]
    if direction is not None:
        direction = _fractions("direction", direction)
        if direction.shape != theta.shape or not any(direction):
            raise InputError(f"direction must have theta's shape {theta.shape}, and not be 0")
        lines.insert(0, direction)
    claimed = np.asarray(gradient(theta.copy()), dtype=object)
    if claimed.shape != theta.shape:
        raise InputError(f"gradient must have theta's shape {theta.shape}, not {claimed.shape}")
    errors = []
    for v in lines:
        derivative = _derivative(f, theta, v, degree, step)
        slope = _dot(claimed, v)
        problem = derivative if isinstance(derivative, str) else None
        if not isinstance(slope, Fraction):
            problem = f"{type(slope).__name__} where exact arithmetic gives Fractions"
        if problem:
            return Check(name, np.inf, 0, problem, decided=FAILED)
        errors.append(abs(slope - derivative) / (abs(derivative) or 1))
    error = max(errors)
    lines = _wrong_coordinates(f, theta, claimed, degree, step) if error else ()
    return Check(name, float(error) or (0.0 if not error else np.finfo(float).tiny), 0,
                 f"{degree + 2} exact values on a line", lines=lines)


def _derivative(f, theta, v, degree, step):
    """The derivative at 0 of t -> f(theta + t v), or why there is none."""
    nodes = [step * k for k in _alternating(degree + 2)]
    values = [f(theta + t * v) for t in nodes]
    wrong = next((type(x).__name__ for x in values if not isinstance(x, Fraction)), None)
    if wrong:
        return f"{wrong} where exact arithmetic gives Fractions"
    coefficients = divided_differences(nodes, values)
    if coefficients[-1] != 0:
        return f"not a polynomial of degree {degree} on the {degree + 2} nodes"
    return _newton_derivative_at_zero(nodes, coefficients)


def _wrong_coordinates(f, theta, claimed, degree, step):
    """Which entries are not the partial derivatives, in one line."""
    wrong = []
    for i in range(theta.size):
        unit = np.array([Fraction(int(i == j)) for j in range(theta.size)], dtype=object)
        derivative = _derivative(f, theta, unit, degree, step)
        if not isinstance(derivative, str) and derivative != claimed[i]:
            wrong.append((i, derivative))
    if not wrong:
        return ("no single coordinate is wrong: f does not have this degree along every line",)
    i, derivative = max(wrong, key=lambda pair: abs(claimed[pair[0]] - pair[1]))
    ratio = f"ratio {float(claimed[i] / derivative):.6g}; " if derivative else ""
    return (f"theta[{i}]: yours {float(claimed[i]):.6g}, exact {float(derivative):.6g} "
            f"({ratio}{len(wrong)} of {theta.size} entries wrong)",)


def divided_differences(nodes, values):
    """Newton's coefficients of the polynomial through (nodes, values), in exact arithmetic."""
    coefficients = list(values)
    for order in range(1, len(nodes)):
        for i in range(len(nodes) - 1, order - 1, -1):
            coefficients[i] = (coefficients[i] - coefficients[i - 1]) / (nodes[i] - nodes[i - order])
    return coefficients


def rational(array, denominator=8):
    """Round to multiples of 1/denominator, as an object array of Fractions."""
    scaled = np.rint(np.asarray(array) * denominator)
    return np.vectorize(lambda x: Fraction(int(x), denominator), otypes=[object])(scaled)


def _newton_derivative_at_zero(nodes, coefficients):
    """Horner's scheme for Newton's form, for value and derivative at t = 0 together."""
    value, derivative = Fraction(0), Fraction(0)
    for node, coefficient in zip(reversed(nodes), reversed(coefficients)):
        derivative = derivative * (-node) + value
        value = value * (-node) + coefficient
    return derivative


def _alternating(count):
    """0, 1, -1, 2, -2, ..."""
    return [(k + 1) // 2 * (1 if k % 2 else -1) for k in range(count)]


def _dot(left, right):
    return sum((a * b for a, b in zip(left, right)), Fraction(0))


def _fractions(name, array):
    array = np.asarray(array, dtype=object)
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"{name} must be a vector (p,) of Fractions, not of shape {array.shape}")
    wrong = next((x for x in array if not isinstance(x, Fraction)), None)
    if wrong is not None:
        raise InputError(f"exact checks need arrays of Fractions, not of {type(wrong).__name__} {wrong!r}")
    return array
