"""Hypothesis strategies for data at which mistakes show.

At special data mistakes are invisible: a missing transpose at a symmetric matrix, exchanged axes of equal length,
exchanged heads that are equal. What is drawn here is never special. Import hypothesis first: it is no dependency of the
package.

    axes("B", "d", "h")           {"B": 3, "d": 5, "h": 2}: all lengths differ
    shapes(3)                     (4, 2, 3), likewise
    generic((4, 4))               never symmetric, no two equal slices, nothing 0
    eighths((4, 3))               the same with multiples of 1/8, exact in every floating-point type
    away_from((4, 3), [0.0])      no entry nearer to a kink than `distance`
    inputs(x="B d", W="d h")      {"x": (B, d), "W": (d, h)}: named arrays for `check_vjp`
    batches()                     `lintransformer.Prompts`
"""
from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from lintransformer.checks import InputError, check_finite_positive, check_positive_integer

LONGEST = 6
SEEDS = st.integers(0, 2**32 - 1)


def axes(*names, least=2, most=None):
    """Lengths by name, all of them different.

    Parameters
    ----------
    names : str, different from one another
    least, most : int, bounds of a length; `most` is by default large enough for all to differ
    """
    check_positive_integer("least", least)
    names = tuple(dict.fromkeys(names))
    most = max(LONGEST, least + len(names)) if most is None else check_positive_integer("most", most, minimum=least)
    if most - least + 1 < len(names):
        raise InputError(f"{len(names)} axes cannot all differ between {least} and {most}")
    return st.permutations(range(least, most + 1)).map(lambda lengths: dict(zip(names, lengths)))


def shapes(dimensions, least=2, most=None):
    """Tuples of lengths, all of them different."""
    names = [str(i) for i in range(check_positive_integer("dimensions", dimensions))]
    return axes(*names, least=least, most=most).map(lambda lengths: tuple(lengths.values()))


def generic(shape, dtype=np.float64, scale=1.0):
    """Arrays of a shape (or of shapes, a strategy) with entries of size about `scale`, none of them special."""
    check_finite_positive("scale", scale)
    return _arrays(shape, lambda rng, shape: rng.uniform(0.2, 1.8, shape) * rng.choice([-1, 1], shape) * scale, dtype)


def eighths(shape, dtype=np.float64, most=16):
    """Arrays of integers / 8 that are not 0, at most `most` / 8 in size: sums and products of a few are exact."""
    check_positive_integer("most", most)
    return _arrays(shape, lambda rng, shape: rng.integers(1, most + 1, shape) * rng.choice([-1, 1], shape) / 8, dtype)


def away_from(shape, kinks=(0.0,), distance=0.05, dtype=np.float64, scale=1.0):
    """Arrays none of whose entries is nearer than `distance` to a kink, as a ReLU has one at 0."""
    check_finite_positive("distance", distance)
    kinks = np.asarray(kinks, dtype=np.float64)

    def draw(rng, shape):
        array = rng.standard_normal(shape) * scale
        while (near := (np.abs(array[..., None] - kinks) < distance).any(axis=-1)).any():
            array = np.where(near, rng.standard_normal(shape) * (scale + 2 * distance), array)
        return array

    return _arrays(shape, draw, dtype)


@st.composite
def inputs(draw, dtype=np.float64, arrays=generic, **axes_of):
    """Named arrays whose axes are named: `inputs(x="B d", W="d h", b="h")`; different names have different lengths.

    Parameters
    ----------
    dtype : of the arrays
    arrays : the strategy of one array, given its shape: `generic`, `eighths`, `away_from`, or your own
    axes_of : for each array the names of its axes, separated by blanks; "" for a number
    """
    lengths = draw(axes(*" ".join(axes_of.values()).split()))
    return {name: draw(arrays(tuple(lengths[axis] for axis in words.split()), dtype=dtype))
            for name, words in axes_of.items()}


@st.composite
def batches(draw, dimension=None, context_length=None, size=None, dtype=np.float64):
    """`lintransformer.Prompts` of generic tokens; d, n and B differ wherever they are not given."""
    from lintransformer.prompts import Prompts
    lengths = draw(axes("d", "n", "B"))
    d, n, B = (lengths[name] if value is None else value
               for name, value in (("d", dimension), ("n", context_length), ("B", size)))
    Z = draw(generic((B, d + 1, n + 1), dtype))
    Z[:, -1, -1] = 0                                                         # eq. 4: the query has no response
    return Prompts(Z, draw(generic((B,), dtype)))


def _arrays(shape, draw_entries, dtype):
    """Arrays that `special` finds nothing in."""
    from lintransformer.verification.points import special
    shapes_ = shape if isinstance(shape, st.SearchStrategy) else st.just(tuple(np.atleast_1d(shape).tolist())
                                                                         if np.ndim(shape) else (shape,))
    if not isinstance(shape, st.SearchStrategy) and shape == ():
        shapes_ = st.just(())

    def build(pair):
        (shape, seed), attempt = pair, 0
        while True:
            rng = np.random.default_rng([seed, attempt])
            array = np.asarray(draw_entries(rng, shape)).astype(dtype)
            if not any(special(array)) or attempt == 100:
                return array
            attempt += 1

    return st.tuples(shapes_, SEEDS).map(build)
