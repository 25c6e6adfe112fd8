"""The point of a check: an array of any shape, a number, or a dict of arrays, as one flat vector and back.

What a check is given belongs to somebody else: it is copied before every call, and a call that writes into its
argument is noticed. derivations/17-checks.md, Step 5.
"""
from __future__ import annotations

from copy import copy

import numpy as np

from lintransformer.checks import InputError

TINY = 2.0**-42           # of an array's typical entry: smaller ones count as 0
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class Mistake(Exception):
    """What a function did that no derivative survives: it changed its argument, or gave other numbers later."""


class Point:
    """theta: its shapes and names, its flat vector (p,), and the way back.

    Parameters
    ----------
    name : str, what theta is called in messages
    theta : array of any shape, number, or dict {name: array}; float32 or float64 (integers become float64)

    Raises
    ------
    InputError : empty, not real, not finite, masked, or of a type that is none of these.
    """

    def __init__(self, name, theta):
        self.name, self.is_dict = name, isinstance(theta, dict)
        given = theta if self.is_dict else {name: theta}
        if not given:
            raise InputError(f"{name} must hold at least one array, but the dict is empty")
        arrays = {key: real_array(f"{name}[{key!r}]" if self.is_dict else name, value)
                  for key, value in given.items()}
        self.shapes = {key: array.shape for key, array in arrays.items()}
        self.dtypes = {key: array.dtype for key, array in arrays.items()}
        self.dtype = min(self.dtypes.values(), key=lambda dtype: dtype.itemsize)
        self.vector = np.concatenate([array.reshape(-1).astype(np.float64) for array in arrays.values()])
        if self.vector.size == 0:
            raise InputError(f"{name} must hold at least one number, not an array of shape "
                             f"{next(iter(self.shapes.values()))}")
        self.blocks, start = {}, 0
        for key, shape in self.shapes.items():
            self.blocks[key] = slice(start, start := start + int(np.prod(shape)))

    @property
    def size(self):
        return self.vector.size

    def unpack(self, vector):
        """What a caller's function is given: fresh arrays of theta's own shapes and dtypes, complex if vector is."""
        arrays = {}
        for key, block in self.blocks.items():
            dtype = vector.dtype if vector.dtype.kind == "c" else self.dtypes[key]
            arrays[key] = vector[block].reshape(self.shapes[key]).astype(dtype)
        return arrays if self.is_dict else arrays[self.name]

    def rounded(self, vector):
        """The vector, as theta's own types hold it."""
        for key, block in self.blocks.items():
            vector[block] = vector[block].astype(self.dtypes[key])
        return vector

    def wider(self):
        """The same point in float64: for float32 code that computes in the type it is given."""
        wide = copy(self)
        wide.dtype, wide.dtypes = np.dtype(np.float64), dict.fromkeys(self.dtypes, np.dtype(np.float64))
        return wide

    def pack(self, what, values):
        """A result of theta's structure (a gradient, say) as a flat vector (p,), copied.

        Raises
        ------
        InputError : names, shapes or types that are not theta's.
        """
        if isinstance(values, dict) != self.is_dict:
            raise InputError(f"{what} must be {'a dict of arrays' if self.is_dict else 'one array'} like {self.name}, "
                             f"not {type(values).__name__}")
        given = values if self.is_dict else {self.name: values}
        missing = [key for key in self.shapes if key not in given]
        unknown = [key for key in given if key not in self.shapes]
        if missing or unknown:
            problem = f"lacks {missing[0]!r}" if missing else f"has {unknown[0]!r}"
            raise InputError(f"{what} {problem}; {self.name} has {', '.join(map(repr, self.shapes))}")
        parts = []
        for key, shape in self.shapes.items():
            label = f"{what}[{key!r}]" if self.is_dict else what
            array = numbers_array(label, given[key])
            if array.shape != shape:
                raise InputError(f"{label} must have {self.name}'s shape {shape}, not {array.shape}")
            parts.append(array.reshape(-1))
        return np.concatenate(parts).astype(np.complex128 if any(part.dtype.kind == "c" for part in parts)
                                            else np.float64)

    def entry(self, i, prefix=""):
        """The name of entry i of the flat vector: `W[0, 1]`, `theta[3]`."""
        key = next(key for key, block in self.blocks.items() if block.start <= i < block.stop)
        index = np.unravel_index(i - self.blocks[key].start, self.shapes[key])
        where = f"[{', '.join(map(str, map(int, index)))}]" if index else ""
        return f"{prefix if self.is_dict else ''}{key}{where}"

    def scales(self, vector):
        """A first guess of the length on which f changes, for each entry (p,): its size; of a 0, that of its array.

        Too short a guess costs steps; too long a one may never see f. Hence the entry's own size: one vector may hold
        parts of very different lengths.
        """
        scale = np.abs(vector)
        for block in self.blocks.values():
            part = scale[block]
            typical = np.median(part[part > 0]) if (part > 0).any() else 1.0
            scale[block] = np.where(part > typical * TINY, part, typical)
        return np.maximum(scale, np.finfo(np.float64).tiny * 2.0**60)

    def special(self):
        """What about theta's numbers may hide a mistake, a line each: symmetric matrices, equal slices."""
        lines = []
        for key, block in self.blocks.items():
            array = self.vector[block].reshape(self.shapes[key])
            lines += [f"special data: {key} {what}" for what in special(array)]
        return lines


def special(array):
    """Which mistakes cannot show at this array: texts, none for generic numbers."""
    if array.size > 1 and (array == array.flat[0]).all():
        yield f"has all entries equal to {array.flat[0]:g}: entries that are exchanged do not show"
        return
    if array.ndim >= 2 and array.shape[-1] == array.shape[-2] > 1 and (array == np.swapaxes(array, -1, -2)).all():
        yield "is symmetric: a missing transpose does not show"
    for axis in range(array.ndim):
        if array.ndim > 1 and array.shape[axis] > 1:
            slices = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
            if slices.shape[1] > 1 and len(np.unique(slices, axis=0)) < len(slices):
                yield f"has equal slices along axis {axis}: exchanged ones do not show"


def numbers_array(name, values):
    """`values` as an array of real or complex floats, or one clear line."""
    if isinstance(values, np.ma.MaskedArray):
        raise InputError(f"{name} is a masked array, which is not supported: fill or drop the masked entries")
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:                                 # ragged nested lists
        raise InputError(f"{name} must be a rectangular array of numbers: {error}") from None
    if array.dtype.kind in "iu":
        array = array.astype(np.float64)
    if array.dtype.kind not in "fc":
        raise InputError(f"{name} must hold real numbers, not {type(values).__name__} of dtype {array.dtype}")
    return array


def real_array(name, values):
    """`values` as a finite float32 or float64 array, or one clear line."""
    array = numbers_array(name, values)
    if array.dtype not in FLOATS:
        raise InputError(f"{name} must be float32 or float64, not of dtype {array.dtype}")
    if not np.isfinite(array).all():
        raise InputError(f"{name} must hold finite numbers only, but {(~np.isfinite(array)).sum()} of {array.size} "
                         "are not")
    return array


def unchanged(what, before, call):
    """`call(argument)` on a copy of its own, which must come back as it went in."""
    argument = _copy(before)
    result = call(argument)
    if not _same(argument, before):
        raise Mistake(f"{what} changes its argument")
    return result


def _copy(theta):
    return {key: array.copy() for key, array in theta.items()} if isinstance(theta, dict) else theta.copy()


def _same(left, right):
    if isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in right)
    return np.shape(left) == right.shape and left.dtype == right.dtype and left.tobytes() == right.tobytes()
