"""Checks of any gradient and any Hessian-vector product against the definition of a derivative.

Nothing here knows a model: `f` maps theta (p,) to a number, `gradient` maps theta to (p,) (or is that array),
`hessian_vector_product` maps theta and v to (p,). derivations/11-hessian-vector-products.md, eq. 11.9-11.11.
"""

import numpy as np

from lintransformer.checks import InputError, check_choice
from lintransformer.verification.results import Check, combine, relative_error

COMPLEX_STEP = 1e-20                     # its square is below every rounding error; eq. 11.11
COMPLEX_TOLERANCE = 1e-12
DIFFERENCE_TOLERANCE = 1e-8
HESSIAN_DIFFERENCE_TOLERANCE = 1e-7
ORDER_TOLERANCE = {1: 0.1, 2: 0.1, 3: 0.2}
METHODS = ("complex", "difference")


def check_gradient(f, gradient, theta, method=None, tolerance=None):
    """Compare a gradient with numerical derivatives of f, coordinate by coordinate.

    Parameters
    ----------
    f : callable (p,) -> scalar
    gradient : callable (p,) -> (p,), or the gradient at theta itself
    theta : array (p,)
    method : "complex" (complex step; f must be analytic), "difference" (central differences), or None:
        complex if f takes complex arguments and its complex step is roughly its difference, else differences
    tolerance : float, of the largest error relative to the largest entry of the gradient;
        by default 1e-12 for complex steps, 1e-8 for differences

    Returns
    -------
    Check : true if it passed; prints its error, tolerance and method

    Raises
    ------
    InputError : shapes that do not fit; method="complex" for a function that is not analytic.
    """
    theta = _vector("theta", theta)
    claimed = np.asarray(gradient(theta) if callable(gradient) else gradient)
    if claimed.shape != theta.shape:
        raise InputError(f"gradient must have theta's shape {theta.shape}, not {claimed.shape}")
    problem = _why_not_analytic(f, theta)
    if method is None:
        method = "difference" if problem else "complex"
    check_choice("method", method, METHODS)
    if method == "complex":
        if problem:
            raise InputError(f"method 'complex' needs an analytic f, but {problem}; allowed: difference")
        numerical, detail = _complex_gradient(f, theta), f"complex step {COMPLEX_STEP:g}"
        tolerance = COMPLEX_TOLERANCE if tolerance is None else tolerance
    else:
        numerical, detail = _difference_gradient(f, theta), "central differences"
        detail += f"; no complex step: {problem}" if problem else ""
        tolerance = DIFFERENCE_TOLERANCE if tolerance is None else tolerance
    return Check(f"gradient, {method}", relative_error(claimed, numerical), tolerance, detail)


def taylor_test(f, gradient, theta, hessian_vector_product=None, direction=None, first=0.05, halvings=5):
    """Measure the orders at which Taylor remainders vanish: 1, 2 and, with a Hessian, 3.

    Along theta + e v, for e = first / 2^i,
        R0 = |f(theta + e v) - f|    R1 = |... - e <gradient, v>|    R2 = |... - e^2 <v, H v> / 2|.
    A wrong gradient leaves R1 at order 1, a wrong Hessian leaves R2 at order 2.

    Parameters
    ----------
    f, gradient, theta : as in `check_gradient`
    hessian_vector_product : None, or callable (theta, v) -> (p,)
    direction : array (p,), or None for a random one of norm 1
    first : float, the largest e
    halvings : int

    Returns
    -------
    Check : its error is how much the last measured order falls short of 2 (tolerance 0.1) or 3 (0.2)
    """
    theta = _vector("theta", theta)
    v = _random_direction(theta) if direction is None else _vector("direction", direction)
    start, steps = f(theta), first / 2.0 ** np.arange(halvings + 1)
    change = np.array([f(theta + e * v) - start for e in steps])
    slope = v @ (gradient(theta) if callable(gradient) else np.asarray(gradient))
    floor = 200 * np.finfo(float).eps * (abs(start) + np.max(np.abs(change)))
    remainders = {1: change, 2: change - steps * slope}
    if hessian_vector_product is not None:
        remainders[3] = remainders[2] - steps**2 / 2 * (v @ hessian_vector_product(theta, v))
    parts = [_order_check(order, np.abs(remainder), floor) for order, remainder in remainders.items()]
    return combine("Taylor remainders", parts[1:], detail=f"{parts[0].detail} for f itself")


def check_hessian(hessian_vector_product, gradient, theta, directions=3, tolerance=COMPLEX_TOLERANCE):
    """Compare a Hessian-vector product with its gradient, in random directions.

    Parameters
    ----------
    hessian_vector_product : callable (theta (p,), v (p,)) -> (p,)
    gradient : callable (p,) -> (p,)
    theta : array (p,)
    directions : int, how many pairs (u, v)
    tolerance : float, for symmetry and for the complex step of the gradient

    Returns
    -------
    Check : parts are symmetry <u, H v> = <v, H u>; the derivative of the gradient along v, by complex step
        where the gradient is analytic, else by central differences (1e-7)
    """
    theta = _vector("theta", theta)
    rng = np.random.default_rng(0)
    problem = _why_not_analytic(lambda th: np.sum(gradient(th)), theta)
    symmetry, slope = [], []
    for u, v in rng.standard_normal((directions, 2, len(theta))):
        Hu, Hv = hessian_vector_product(theta, u), hessian_vector_product(theta, v)
        scale = np.linalg.norm(u) * np.linalg.norm(Hv) + np.linalg.norm(v) * np.linalg.norm(Hu)
        symmetry.append(abs(u @ Hv - v @ Hu) / scale if scale else 0.0)
        slope.append(relative_error(Hv, _slope_of_gradient(gradient, theta, v, bool(problem))))
    parts = [Check("symmetry <u, H v> = <v, H u>", _largest(symmetry), tolerance)]
    if problem:
        parts.append(Check("Hessian-vector product, difference", _largest(slope),
                           HESSIAN_DIFFERENCE_TOLERANCE, f"no complex step: {problem}"))
    else:
        parts.append(Check("Hessian-vector product, complex", _largest(slope), tolerance,
                           f"complex step of the gradient, {COMPLEX_STEP:g}"))
    return combine("Hessian-vector product", parts)


def check_duality(model, theta, batch, tolerance=COMPLEX_TOLERANCE):
    """<pbar, forward tangent of v> = <backward of pbar, v>; derivations/01-notation.md, eq. 1.11."""
    rng = np.random.default_rng(0)
    _, cache = model.forward(theta, batch)
    pbar, v = rng.standard_normal(batch.size), rng.standard_normal(model.size)
    tangent, gradient = model.forward_tangent(cache, v)[0], model.backward(cache, pbar)
    scale = np.linalg.norm(pbar) * np.linalg.norm(tangent)
    return Check("duality of tangent and adjoint", abs(pbar @ tangent - gradient @ v) / scale, tolerance)


def _vector(name, values):
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or vector.size == 0 or not np.all(np.isfinite(vector)):
        raise InputError(f"{name} must be a vector (p,) of finite numbers, not of shape {vector.shape}"
                         if vector.ndim != 1 or vector.size == 0 else f"{name} must hold finite numbers only")
    return vector


def _random_direction(theta):
    v = np.random.default_rng(0).standard_normal(len(theta))
    return v / np.linalg.norm(v)


def _complex_gradient(f, theta):
    """eq. 11.11, one coordinate at a time."""
    point, derivative = theta.astype(np.complex128), np.empty_like(theta)
    for i in range(len(theta)):
        point[i] += 1j * COMPLEX_STEP
        derivative[i] = np.imag(f(point)) / COMPLEX_STEP
        point[i] = theta[i]
    return derivative


def _difference_gradient(f, theta):
    """Central differences of fourth order: their error is h^4 f''''' / 30 + rounding / h."""
    derivative = np.empty_like(theta)
    for i in range(len(theta)):
        e = np.zeros_like(theta)
        e[i] = np.finfo(float).eps ** 0.2 * max(1.0, abs(theta[i]))
        derivative[i] = _central(f, theta, e) / e[i]
    return derivative


def _central(f, theta, e):
    near, far = f(theta + e) - f(theta - e), f(theta + 2 * e) - f(theta - 2 * e)
    return (8 * near - far) / 12


def _slope_of_gradient(gradient, theta, v, by_differences):
    if by_differences:
        h = np.finfo(float).eps ** 0.2 / max(1.0, np.max(np.abs(v)))
        return _central(gradient, theta, h * v) / h
    return np.imag(gradient(theta + 1j * COMPLEX_STEP * v)) / COMPLEX_STEP


def _why_not_analytic(f, theta):
    """None if f's complex step along a random direction is roughly its derivative, else why not."""
    v, h = _random_direction(theta), 1e-4
    try:
        value = f(theta + 1j * COMPLEX_STEP * v)
    except (TypeError, ValueError) as error:
        return f"it fails for complex arguments ({error})".replace("\n", " ")
    if not np.iscomplexobj(value):
        return "it returns real numbers for complex arguments"
    by_step, difference = np.imag(value) / COMPLEX_STEP, (f(theta + h * v) - f(theta - h * v)) / (2 * h)
    if not abs(by_step - difference) <= 1e-3 * (abs(by_step) + abs(difference)) + 1e-9 * abs(value):
        return f"its complex step {by_step:.6g} is not its difference quotient {difference:.6g}"
    return None


def _order_check(order, remainder, floor):
    """The last measurable order of a remainder; one that is at rounding level throughout has none to lose."""
    measurable = remainder > floor
    name = f"Taylor remainder R{order - 1}"
    if remainder[0] <= floor:
        return Check(name, 0.0, ORDER_TOLERANCE[order], "zero up to rounding")
    if not measurable[:2].all():
        return Check(name, np.inf, ORDER_TOLERANCE[order], "lost in rounding: take a larger first step")
    last = len(remainder) if measurable.all() else int(np.argmin(measurable))
    rate = np.log2(remainder[last - 2] / remainder[last - 1])
    return Check(name, max(0.0, order - rate), ORDER_TOLERANCE[order], f"order {rate:.3f}")


def _largest(errors):
    return float(np.max(errors))                         # np.max keeps a NaN, the built-in max may lose it
