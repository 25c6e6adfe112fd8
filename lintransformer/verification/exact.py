"""Exact checks: polynomials over the rationals, differentiated and compared without any error.

The loss of a linear Transformer is a polynomial in theta; with ReLUs it is one on each side of the kinks.
Along a line theta + t v it is a polynomial in t of known degree, so that finitely many values determine it,
and its derivative at t = 0, exactly. derivations/11-hessian-vector-products.md, eq. 11.12.
"""

from fractions import Fraction

import numpy as np

from lintransformer.checks import InputError
from lintransformer.verification.results import Check

STEP = Fraction(1, 2**24)        # of the nodes: with ReLUs they must all lie on one side of every kink


def check_exact_gradient(f, gradient, theta, direction, degree, step=STEP):
    """<gradient(theta), direction> EQUALS the derivative at 0 of the polynomial t -> f(theta + t direction).

    Parameters
    ----------
    f : callable, object array (p,) of Fractions -> Fraction; of degree at most `degree` along the line
    gradient : callable, object array (p,) of Fractions -> object array (p,) of Fractions
    theta, direction : object arrays (p,) of Fractions
    degree : int; one more value of f than needed is computed, and must lie on the polynomial too
    step : Fraction, distance of the nodes 0, step, -step, 2 step, ...

    Returns
    -------
    Check : tolerance 0. A degree that is too low fails with an infinite error.
    """
    _require_fractions(theta), _require_fractions(direction)
    nodes = [step * k for k in _alternating(degree + 2)]
    values = [f(theta + t * direction) for t in nodes]
    claimed = _dot(gradient(theta), direction)
    name = "exact gradient"
    wrong_type = next((type(x).__name__ for x in [*values, claimed] if not isinstance(x, Fraction)), None)
    if wrong_type:
        return Check(name, np.inf, 0, f"{wrong_type} where exact arithmetic gives Fractions")
    coefficients = divided_differences(nodes, values)
    if coefficients[-1] != 0:
        return Check(name, np.inf, 0, f"not a polynomial of degree {degree} on the {degree + 2} nodes")
    derivative = _newton_derivative_at_zero(nodes, coefficients)
    error = abs(claimed - derivative)
    relative = error / abs(derivative) if derivative else error
    return Check(name, float(relative) or (0.0 if not error else np.finfo(float).tiny), 0,
                 f"{degree + 2} exact values on a line")


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


def _require_fractions(array):
    wrong = next((x for x in np.asarray(array, dtype=object).ravel() if not isinstance(x, Fraction)), None)
    if wrong is not None:
        raise InputError(f"exact checks need arrays of Fractions, not of {type(wrong).__name__} {wrong!r}")
