"""What a wrong gradient looks like: the mistakes that people make leave a mark."""
from __future__ import annotations

import numpy as np

CLOSE = 1e-3              # relative: a mark is recognised, not measured
FACTORS = {2.0: "2", 0.5: "1/2", -1.0: "-1 (the sign)", -2.0: "-2", -0.5: "-1/2", 4.0: "4", 0.25: "1/4"}


def pattern(point, claimed, measured, wrong, prefix=""):
    """Lines that name what the wrong entries have in common; empty if nothing is recognised.

    Parameters
    ----------
    point : `Point`, for names and shapes
    claimed, measured : arrays (p,)
    wrong : indices of the wrong entries
    """
    lines = []
    for key, block in point.blocks.items():
        inside = wrong[(wrong >= block.start) & (wrong < block.stop)]
        if not len(inside):
            continue
        shape = point.shapes[key]
        found = (_constant_ratio(claimed[inside], measured[inside], point)
                 or _rearranged(claimed[block].reshape(shape), measured[block].reshape(shape))
                 or _missing(claimed[block], measured[block], point.vector[block])
                 or _exchanged(point, claimed, measured, key))
        if found:
            where = f"{prefix}{key}: " if point.is_dict else ""
            lines.append(f"pattern: {where}{found}")
    return lines


def _alike(left, right):
    scale = np.max(np.abs(right), initial=0)
    return bool(np.isfinite(left).all() and scale > 0 and np.max(np.abs(left - right)) <= CLOSE * scale)


def _constant_ratio(claimed, measured, point):
    if not np.isfinite(claimed).all():
        return "not a number" if np.isnan(claimed).any() else "infinite"
    if (claimed == 0).all():
        return "claimed 0: their term is missing"
    if (measured == 0).any():
        return None
    ratio = claimed / measured
    middle = float(np.median(ratio))
    if np.max(np.abs(ratio - middle)) > CLOSE * abs(middle) or abs(middle - 1) < CLOSE:
        return None
    for factor, name in FACTORS.items():
        if abs(middle - factor) <= CLOSE * abs(factor):
            return f"a factor {name}"
    for factor in (middle, 1 / middle):
        n = round(factor)
        if n > 1 and abs(factor - n) <= CLOSE * n:
            axes = [f"axis {axis} of {key}" for key, shape in point.shapes.items() for axis, length in enumerate(shape)
                    if length == n]
            name = f"{n}" if factor is middle else f"1/{n}"
            return f"a factor {name}" + (f", the length of {' and of '.join(axes[:2])}" if axes else
                                         ": n, B, or another count")
    return f"a factor {middle:.6g} throughout" if len(claimed) > 1 else None


def _rearranged(claimed, measured):
    if _alike(claimed, measured):                                            # a little off, and not in another place
        return None
    square = claimed.ndim >= 2 and claimed.shape[-1] == claimed.shape[-2] > 1
    if square:
        flipped = np.swapaxes(measured, -1, -2)
        for candidate, name in ((flipped, "transposed"), ((measured + flipped) / 2, "symmetrised"),
                                (measured + flipped, "symmetrised, without the 1/2")):
            if _alike(claimed, candidate):
                return name
    if claimed.ndim >= 2 and _alike(claimed.ravel(), measured.ravel(order="F")):
        return "the entries in column order (transposed, then flattened)"
    if claimed.size > 2 and _alike(np.sort(claimed.ravel()), np.sort(measured.ravel())):
        return "the right numbers in other places"
    return None


def _missing(claimed, measured, theta):
    residual = measured - claimed
    for direction, name in ((theta, "proportional to theta is missing: of an L2 term"),
                            (np.sign(theta), "proportional to sign(theta) is missing: of an L1 term"),
                            (np.ones_like(theta), "constant over the entries is missing")):
        weight = direction @ residual / max(direction @ direction, 1e-300)
        if theta.size > 2 and weight and _alike(weight * direction, residual):
            return f"a part {name} ({weight:.3g})"
    return None


def _exchanged(point, claimed, measured, key):
    for other, block in point.blocks.items():
        if other != key and point.shapes[other] == point.shapes[key] and \
                _alike(claimed[point.blocks[key]], measured[block]):
            return f"it is the gradient of {other}"
    return None
