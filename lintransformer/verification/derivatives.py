"""Checks of any gradient, Hessian-vector product or backward pass against the definition of a derivative.

Nothing here knows a model, nor this package: theta is an array of any shape or a dict of arrays, `f` maps it to a
number, `gradient` to an array (or dict) like theta. derivations/11-hessian-vector-products.md, eq. 11.9-11.11;
derivations/17-checks.md.
"""
from __future__ import annotations

import warnings

import numpy as np

from lintransformer.checks import InputError, check_choice, check_positive_integer
from lintransformer.verification import points
from lintransformer.verification.findings import Findings
from lintransformer.verification.numerical import quiet
from lintransformer.verification.points import Mistake, Point, numbers_array, real_array
from lintransformer.verification.results import FAILED, Check, check_tolerance, combine
from lintransformer.verification.slopes import Slopes, in_float64
from lintransformer.verification.tested import Tested

METHODS = ("complex", "difference")
NEARBY = (4.0, 32.0, 0.5, 256.0)      # places to look at where theta itself does not tell, in units of its best steps
HESSIAN_DIFFERENCE = 1e-7             # relative error of an entry of H v that still counts as right by differences
EVERY_COORDINATE = 60                 # check_hessian multiplies by every unit vector up to this many parameters


def check_gradient(f, gradient, theta, method=None, tolerance=None) -> Check:
    """Compare a gradient with numerical derivatives of f, entry by entry.

    Parameters
    ----------
    f : callable theta -> number
    gradient : callable theta -> array like theta (or dict of such), or the gradient at theta itself
    theta : array of any shape or dict of arrays, float32 or float64; it is copied before every call
    method : "complex" (f must be analytic), "difference", or None: complex steps wherever differences do not
        contradict them, differences elsewhere
    tolerance : relative error of an ENTRY that counts as right, beside what rounding explains; by default 1e-12 for
        complex steps, 1e-8 for differences, 1e-4 for differences of float32 code

    Returns
    -------
    Check : "passed": every entry is right. "failed": one is wrong, or f or the gradient is not deterministic or
        changes its argument. "inconclusive": some entries cannot be told (a kink, rounding), and why. An entry
        below the rounding of f at theta is looked at nearby, where it is larger, if `gradient` is callable.

    Raises
    ------
    InputError : shapes or types that do not fit; method="complex" for a function that is not analytic.
    """
    tolerance = check_tolerance(tolerance)
    if method is not None:
        check_choice("method", method, METHODS)
    point = Point("theta", theta)
    f, gradient = Tested("f", f, point, scalar=True), Tested("gradient", gradient, point)
    return _gradient_check("gradient", f, gradient, method, tolerance)


def check_vjp(forward, backward, inputs, tolerance=None, draws=2) -> Check:
    """Compare a hand-written backward pass with numerical derivatives of its forward pass.

    Parameters
    ----------
    forward : callable (**inputs) -> y, an array of any shape
    backward : callable (dy, **inputs) -> {name: array like the input}: the derivative of <dy, y>
    inputs : {name: array}; integer and boolean arrays are handed on, and have no derivative
    tolerance : as in `check_gradient`
    draws : int, random dy that are tried

    Returns
    -------
    Check : as that of `check_gradient`; entries are named as the input, with a d before it: dW[0, 1]

    Warns
    -----
    UserWarning : the inputs are special (symmetric, equal slices): some mistakes cannot show at them.
    """
    tolerance = check_tolerance(tolerance)
    check_positive_integer("draws", draws)
    if not isinstance(inputs, dict) or not inputs:
        raise InputError(f"inputs must be a dict of arrays by name, not {inputs!r}")
    fixed = {name: np.array(value) for name, value in inputs.items() if np.asarray(value).dtype.kind in "iub"}
    if not all(isinstance(name, str) for name in inputs) or len(fixed) == len(inputs) or "dy" in inputs:
        raise InputError("inputs must have strings for names, none of them 'dy', and hold one array that is not of "
                         f"integers: {', '.join(map(repr, inputs))}")
    if not callable(forward) or not callable(backward):
        raise InputError("forward and backward must be callable")
    point = Point("inputs", {name: value for name, value in inputs.items() if name not in fixed})
    for line in point.special():
        warnings.warn(line, stacklevel=2)
    try:
        y = numbers_array("y = forward(**inputs)", _call(forward, fixed, point.unpack(point.vector)))
    except Mistake as mistake:
        return Check("backward pass", np.inf, tolerance or 0.0, str(mistake), decided=FAILED)
    rng, checks = np.random.default_rng(0), []
    for _ in range(draws):
        dy = rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1.0, 1.0], y.shape)
        dy = dy.astype(point.dtype).astype(y.dtype if y.dtype.kind == "f" else np.float64)

        def f(arrays, dy=dy):
            y = numbers_array("y = forward(**inputs)", _call(forward, fixed, arrays))
            if y.shape != dy.shape:
                raise InputError(f"forward gives y of shape {dy.shape} at the inputs, but {y.shape} beside them")
            value = np.sum(dy.astype(np.float64) * y)
            return np.float32(value) if y.dtype == np.float32 else value

        def gradient(arrays, dy=dy):
            found = _call(backward, {**fixed, "dy": dy}, arrays)
            if not isinstance(found, dict):
                raise InputError(f"backward must return a dict {{name: array}}, not {type(found).__name__}")
            return {key: value for key, value in found.items() if key not in fixed}

        tested = Tested("forward", f, point, scalar=True), Tested("backward", gradient, point)
        checks.append(_gradient_check("backward pass", *tested, None, tolerance, prefix="d"))
        if not checks[-1].passed:
            break
    return checks[-1]


def check_hessian(hessian_vector_product, gradient, theta, directions=3, tolerance=None) -> Check:
    """Compare a Hessian-vector product with numerical derivatives of the gradient, and test its symmetry.

    Parameters
    ----------
    hessian_vector_product : callable (theta, v) -> array (or dict) like theta
    gradient : callable theta -> array (or dict) like theta
    theta : as in `check_gradient`
    directions : int, random pairs (u, v); every unit vector too, where theta has at most 60 entries
    tolerance : relative error of an entry, as in `check_gradient` (by differences 1e-7); symmetry is held to the same

    Returns
    -------
    Check : parts are symmetry <u, H v> = <v, H u>, and the products against derivatives of the gradient
    """
    tolerance = check_tolerance(tolerance)
    check_positive_integer("directions", directions)
    if not callable(gradient) or not callable(hessian_vector_product):
        raise InputError("hessian_vector_product and gradient must be callable")
    point = Point("theta", theta)
    name, rng = "Hessian-vector product", np.random.default_rng(0)
    lines = list(rng.standard_normal((2 * directions, point.size)) * point.scales(point.vector))
    lines += list(np.eye(point.size)) if point.size <= EVERY_COORDINATE else []
    lines = [line.astype(point.dtype).astype(np.float64) for line in lines]
    tested = Tested("gradient", gradient, point)

    def products(vector, lines=lines):
        product = [Tested(name, lambda theta, v=v: hessian_vector_product(theta, point.unpack(v)), point)
                   for v in lines]
        return np.array([one(vector) for one in product])

    try:
        tested.again(point.vector, tested(point.vector))
        claimed = products(point.vector)
        slopes = Slopes(tested, point.vector, lines)
        if slopes.analytic is None and point.dtype == np.float64:
            tolerance = tolerance or HESSIAN_DIFFERENCE
        findings = Findings(name, point, slopes, products, tolerance, by_output=True)
        findings.look_nearby(NEARBY)
        Tested(name, lambda theta: hessian_vector_product(theta, point.unpack(lines[0])), point).again(
            point.vector, claimed[0])
    except Mistake as mistake:
        return Check(name, np.inf, tolerance or 0.0, str(mistake), decided=FAILED)
    symmetry = _symmetry(claimed, lines, directions, None if slopes.analytic is None else tolerance, slopes.precision)
    return combine(name, [symmetry, findings.check()])


def _symmetry(claimed, lines, directions, tolerance, precision):
    worst = 0.0
    for a, b in zip(range(directions), range(directions, 2 * directions)):
        u, v, Hu, Hv = lines[a], lines[b], claimed[a], claimed[b]
        scale = np.linalg.norm(u) * np.linalg.norm(Hv) + np.linalg.norm(v) * np.linalg.norm(Hu)
        worst = np.maximum(worst, abs(u @ Hv - v @ Hu) / scale if scale else 0.0)
    return Check("symmetry <u, H v> = <v, H u>", float(worst), tolerance or precision.complex_step)


def _gradient_check(name, f, gradient, method, tolerance, prefix=""):
    """The work of `check_gradient` and `check_vjp`."""
    point, old = f.point, np.seterr(all="ignore")                           # far points may overflow, whatever is set
    try:
        first, value = gradient(point.vector), f(point.vector)
        f.again(point.vector, value)
        if gradient.is_callable:
            gradient.again(point.vector, first)
        wide, rounding = in_float64(f, point.vector, value)
        claimed = gradient if wide is None else _wider(gradient, first)
        slopes = Slopes(wide or f, point.vector, list(range(point.size)), method != "difference", method != "complex",
                        min(gradient.dtype, point.dtype, key=lambda dtype: dtype.itemsize))
        if method == "complex":
            slopes.require_analytic()
        claim = (lambda vector: claimed(vector)[:, None]) if claimed.is_callable else first[:, None]
        findings = Findings(name, point, slopes, claim, tolerance, prefix)
        if wide is not None:
            findings.look_at_rounded(first, rounding)
        if claimed.is_callable:
            findings.look_nearby(NEARBY)
            findings.look_along()
        if gradient.is_callable:
            gradient.again(point.vector, first)
    except Mistake as mistake:
        return Check(name, np.inf, tolerance or 0.0, str(mistake), decided=FAILED)
    finally:
        np.seterr(**old)
    return findings.check()


def _call(function, fixed, arrays):
    """function(**fixed, **arrays), which must leave what is fixed as it is; `Tested` looks after the arrays."""
    what = "backward" if "dy" in fixed else "forward"
    return points.unchanged(what, fixed, lambda given: function(**given, **arrays))


def _wider(gradient, first):
    """A gradient in float32 as one in float64, or, where it cannot be evaluated so, its values."""
    if gradient.is_callable:
        wide = gradient.wider()
        if np.isfinite(quiet(wide, gradient.point.vector)).all():
            return wide
    return Tested(gradient.what, gradient.point.unpack(first), gradient.point)


def check_duality(model, theta, batch, tolerance=1e-12) -> Check:
    """<pbar, forward tangent of v> = <backward of pbar, v>, output of any shape.

    derivations/01-notation.md, eq. 1.11."""
    rng = np.random.default_rng(0)
    output, cache = model.forward(real_array("theta", theta), batch)
    pbar, v = rng.standard_normal(np.shape(output)), rng.standard_normal(model.size)
    tangent, gradient = model.forward_tangent(cache, v)[0], model.backward(cache, pbar)
    scale = np.linalg.norm(pbar) * np.linalg.norm(tangent) or 1.0
    return Check("duality of tangent and adjoint", float(abs(np.sum(pbar * tangent) - gradient @ v) / scale), tolerance)
