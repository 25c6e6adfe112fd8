"""The orders at which Taylor remainders vanish; derivations/17-checks.md, eq. 17.5.

Two-sided, M_k(e) = max |R_k(+-e)|: a wrong gradient shows as order 1 at small e, and nowhere else. What counts is
therefore the smallest order over the usable steps: long enough to stand above the rounding of f, short enough that f
itself changes at order 1.
"""
from __future__ import annotations

import numpy as np

from lintransformer.checks import InputError, check_finite_positive, check_positive_integer
from lintransformer.verification.numerical import noise_level
from lintransformer.verification.points import Mistake, Point
from lintransformer.verification.precision import PRECISIONS
from lintransformer.verification.results import FAILED, INCONCLUSIVE, PASSED, Check, combine
from lintransformer.verification.slopes import in_float64
from lintransformer.verification.tested import Tested

ORDER_TOLERANCE = {2: 0.1, 3: 0.2}
ABOVE_NOISE = 100.0       # a remainder is usable from so many standard deviations of f's rounding on
WINDOW = 64.0             # usable steps lie within this factor of the shortest: there a mistake shows first, and there
                          # f is as smooth as it will be, whatever its scale
RATIO = 4.0               # of the steps that are chosen here
SHORTEST = 2.0**-50       # in units of theta's scales
EVERY_COORDINATE = 60     # every coordinate is a direction too, up to this many parameters
KINK_ORDER = 1.5          # the even part of a smooth f vanishes at order 2
# a test that would not see a relative error of this size says "inconclusive"
BLUNT = {np.dtype(np.float64): 1e-3, np.dtype(np.float32): 1e-2}
DROP = 0.21               # R1 = delta e + a e^2 has order 1.9 between e and 4 e where delta = 0.21 a e


def taylor_test(f, gradient, theta, hessian_vector_product=None, direction=None, first=None, halvings=None,
                directions=5, every_entry=None) -> Check:
    """Measure the orders at which Taylor remainders vanish: 1, 2 and, with a Hessian, 3.

    Along theta + e v, e of both signs,
        R0 = |f(theta + e v) - f|    R1 = |... - e <gradient, v>|    R2 = |... - e^2 <v, H v> / 2|.
    A wrong gradient leaves R1 at order 1, a wrong Hessian leaves R2 at order 2.

    Parameters
    ----------
    f, gradient, theta : as in `check_gradient`
    hessian_vector_product : None, or callable (theta, v) -> array (or dict) like theta
    direction : array (or dict) like theta, or None for several random ones
    first, halvings : the largest e, and how often it is halved; by default from theta's scale down to f's rounding
    directions : int, random directions
    every_entry : bool, whether each coordinate is a direction too; None: up to 60 of them

    Returns
    -------
    Check : its error is how much the smallest order over the usable steps falls short of 2 (tolerance 0.1) or 3
        (0.2); its detail says which relative error of the slope would have been seen. "inconclusive" where f itself
        does not change at order 1, where a kink is in reach, or where nothing stands above rounding.
    """
    point = Point("theta", theta)
    check_positive_integer("directions", directions)
    if first is not None:
        check_finite_positive("first", first)
    if halvings is not None:
        check_positive_integer("halvings", halvings, minimum=2)
    f, gradient = Tested("f", f, point, scalar=True), Tested("gradient", gradient, point)
    try:
        at = f(point.vector)
        if at.dtype.kind == "c":
            raise InputError("f must return real numbers for real theta")
        f.again(point.vector, at)
        slope = gradient(point.vector)
        if gradient.is_callable:
            gradient.again(point.vector, slope)
        wide, _ = in_float64(f, point.vector, at)               # there remainders show that float32 drowns
        f = wide or f
        chosen = _directions(point, direction, directions)
        parts = []
        for number, v in enumerate(chosen):
            H = None
            if hessian_vector_product is not None:
                H = Tested("H v", lambda th, v=v: hessian_vector_product(th, point.unpack(v)), point)(point.vector)
            parts.append(_along(f, point, v, slope, H, _steps(point, v, first, halvings), f"direction {number}"))
        if direction is None and (point.size <= EVERY_COORDINATE if every_entry is None else every_entry):
            parts += _wrong_coordinates(f, point, slope, first, halvings, parts[0])
    except Mistake as mistake:
        return Check("Taylor remainders", np.inf, ORDER_TOLERANCE[2], str(mistake), decided=FAILED)
    worst = [combine(name, [orders[name] for orders in parts]) for name in parts[0]]
    worst = [max(check.parts, key=lambda part, c=check: (part.verdict == c.verdict, part.error)) for check in worst]
    return combine("Taylor remainders", worst, detail="; ".join(dict.fromkeys(check.detail for check in worst)))


def _wrong_coordinates(f, point, slope, first, halvings, like):
    """The coordinates along which R1 has order 1, or nothing is seen: a small entry's mistake is lost in a sum."""
    parts = []
    for i, v in enumerate(np.eye(point.size)):
        check = _along(f, point, v, slope, None, _steps(point, v, first, halvings), f"entry {point.entry(i)}")
        check = check["Taylor remainder R1"]
        if check.verdict != PASSED:
            parts.append(dict.fromkeys(like, check))
    return parts


def _directions(point, direction, count):
    if direction is not None:
        v = point.pack("direction", direction if isinstance(direction, (dict, np.ndarray)) else np.asarray(direction))
        if v.dtype.kind != "f" or not np.isfinite(v).all() or not v.any():
            raise InputError("direction must hold finite real numbers, not all of them 0")
        return [v]
    rng, scales = np.random.default_rng(0), point.scales(point.vector)
    draws = rng.choice([-1.0, 1.0], (count, point.size)) * rng.uniform(0.5, 1.5, (count, point.size))
    return list(draws * scales)


def _steps(point, v, first, halvings):
    """Descending e > 0."""
    unit = 1 / np.max(np.abs(v) / point.scales(point.vector))
    longest = unit if first is None else first
    if halvings is not None:
        return longest / 2.0 ** np.arange(halvings + 1)
    return longest / RATIO ** np.arange(max(3, int(np.log(longest / unit / SHORTEST) / np.log(RATIO))) + 1)


def _along(f, point, v, gradient, H, steps, where):
    """{"Taylor remainder R1": Check, ...} along one direction."""
    precision, claims, start = PRECISIONS[f.dtype], PRECISIONS[point.dtype], f(point.vector)[0]
    unit = 1 / np.max(np.abs(v) / point.scales(point.vector))

    def change(e):
        """f(theta + e v) - f(theta), and theta's displacement as it was really taken."""
        x = f.point.rounded(point.vector + e * v)
        return f.near(x)[0] - start, x - point.vector

    noise, = noise_level(lambda k, spacing: change(k * spacing * unit)[0], [precision.eps * abs(start) / 4],
                         precision.spacings)
    moved = [[change(sign * e) for sign in (1, -1)] for e in steps]
    R0 = np.array([[c for c, _ in pair] for pair in moved])
    R1 = R0 - np.array([[gradient @ d for _, d in pair] for pair in moved])
    floor = ABOVE_NOISE * noise + 4 * claims.eps * np.abs(gradient * v).sum() * steps
    remainders = {"Taylor remainder R1": (2, R1, floor)}
    if H is not None:
        R2 = R1 - steps[:, None] ** 2 / 2 * (v @ H)
        remainders["Taylor remainder R2"] = (3, R2, floor + 4 * claims.eps * np.abs(v * H).sum() * steps**2 / 2)
    slope = gradient @ v
    return {name: _order(name, order, R0, remainder, lowest, steps, slope, where, BLUNT[point.dtype])
            for name, (order, remainder, lowest) in remainders.items()}


def _order(name, order, R0, remainder, floor, steps, slope, where, blunt):
    """The smallest order of one remainder over its usable steps."""
    tolerance = ORDER_TOLERANCE[order]
    with np.errstate(invalid="ignore", divide="ignore"):
        M, M0 = np.abs(remainder).max(axis=1), np.abs(R0).max(axis=1)
        even = np.abs(remainder.sum(axis=1)) / 2
        finite = np.isfinite(M)
        if not finite.any():
            return Check(name, np.inf, tolerance, "f is not finite around theta", decided=INCONCLUSIVE)
        if np.isnan(slope) or not np.isfinite(slope):
            return Check(name, np.inf, tolerance, "the gradient is not finite", decided=FAILED)
        if (M[finite] <= floor[finite]).all():
            return _at_rounding(name, tolerance, M0[finite], floor[finite], steps[finite], slope, blunt)
        usable = np.flatnonzero(finite & (M > floor))
        last = usable[-1]
        window = [j for j in range(usable[0], last + 1) if finite[j] and steps[j] <= 1.01 * WINDOW * steps[last]]
        ratios = np.log(steps[window[:-1]] / steps[window[1:]])
        orders, orders0, even_orders = (np.log(values[window][:-1] / values[window][1:]) / ratios
                                        for values in (M, M0, even))
        seen = even[window][1:] > floor[window][1:]
    if len(orders) < 2:
        return Check(name, np.inf, tolerance, "lost in rounding: too few steps above it", decided=INCONCLUSIVE)
    e, stationary = steps[last], M0[last] <= 1.5 * M[last]
    shrinking = (orders0 < 0.5).any()                                        # a longer step, and f changes less
    bent = np.abs(orders0 - 1).max() > 0.3 and np.median(np.abs(orders0 - 1)) > 0.1
    if order == 2 and (shrinking or bent and not stationary):
        return Check(name, np.inf, tolerance, f"f itself changes at order {np.median(orders0):.2f}, not 1: "
                     "the steps are longer than the scale of f", decided=INCONCLUSIVE)
    kinked = seen & (even_orders < KINK_ORDER)
    if kinked.any():
        below = int(np.flatnonzero(kinked)[-1]) + 1
        if len(orders) - below < 2:
            return Check(name, np.inf, tolerance, f"kink near theta along {where}: f has no second order",
                         decided=INCONCLUSIVE)
        orders = orders[below:]
    if order == 3 and (orders[-2:] >= order - tolerance).all():              # what longer steps cross is not here
        orders = orders[-2:]
    worst = float(np.min(orders))
    short = max(0.0, order - worst)
    if short > tolerance and order == 3 and orders[-1] >= order - tolerance:
        return Check(name, short, tolerance, f"a kink near theta, or steps too long, along {where}",
                     decided=INCONCLUSIVE)
    if short > tolerance:
        return Check(name, short, tolerance, f"order {worst:.3f} along {where}", decided=FAILED)
    if order == 3:
        return Check(name, short, tolerance, f"order {worst:.3f}")
    sight = DROP * M[last] / (e * abs(slope)) if slope else np.inf
    if stationary:
        return Check(name, short, tolerance, f"order {worst:.3f}; the slope is at rounding level, as at a minimum",
                     decided=PASSED if short <= tolerance else INCONCLUSIVE)
    detail = f"order {worst:.3f}; a slope off by {sight:.0e} of itself would have been seen"
    return Check(name, short, tolerance, detail, decided=INCONCLUSIVE if sight > blunt else None)


def _at_rounding(name, tolerance, M0, floor, steps, slope, blunt):
    """A remainder that never stands above rounding: zero, if f's own change does."""
    if not M0.any() and slope == 0:
        return Check(name, 0.0, tolerance, "f does not change at all, and the slope is 0")
    sight = np.min(floor / np.maximum(steps * abs(slope), 1e-300))
    if (M0 > floor).any() and sight < blunt:
        return Check(name, 0.0, tolerance,
                     f"zero up to rounding; a slope off by {sight:.0e} of itself would have been seen")
    if (M0 <= floor).all():
        return Check(name, np.inf, tolerance, "f does not change above its rounding", decided=INCONCLUSIVE)
    return Check(name, np.inf, tolerance, f"lost in rounding: only a slope off by {sight:.0e} would have been seen",
                 decided=INCONCLUSIVE)
