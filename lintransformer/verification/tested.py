"""Somebody's function under test: its arguments are copied, its results checked, and it is called again.

derivations/17-checks.md.
"""
from __future__ import annotations

import numpy as np

from lintransformer.checks import InputError
from lintransformer.verification import points
from lintransformer.verification.numerical import quiet
from lintransformer.verification.points import Mistake

SAME = 1e3                # units of rounding within which two calls count as the same (threads add in any order)


class Tested:
    """A function of theta that is called with copies, and whose results are checked.

    Parameters
    ----------
    what : str, its name in messages
    function : callable theta -> number, or an array of theta's structure; or such an array itself
    point : `Point`
    scalar : whether it is to give one number
    """

    def __init__(self, what, function, point, scalar=False):
        self.what, self.function, self.point, self.scalar = what, function, point, scalar
        self.is_callable, self.dtype = callable(function), point.dtype
        if scalar and not self.is_callable:
            raise InputError(f"{what} must be callable, not {type(function).__name__}")

    def __call__(self, vector):
        """(1,) or (p,), float64 or complex128, at theta (p,)."""
        if not self.is_callable:
            self._note_dtype(self.function)
            return self.point.pack(self.what, self.function)
        value = points.unchanged(self.what, self.point.unpack(vector), self.function)
        self._note_dtype(value)
        return self._number(value) if self.scalar else self.point.pack(self.what, value)

    def _note_dtype(self, value):
        """The least precise type in what was given, and in what came back."""
        for part in value.values() if isinstance(value, dict) else [value]:
            if getattr(part, "dtype", self.dtype) == np.float32:
                self.dtype = np.dtype(np.float32)

    def wider(self):
        """The same function, given float64."""
        return Tested(self.what, self.function, self.point.wider(), self.scalar)

    def again(self, vector, first):
        """Raise `Mistake` unless another call gives the numbers of the first, to rounding."""
        second = self(vector)
        with np.errstate(invalid="ignore"):
            apart = np.abs(second - first) > SAME * np.finfo(self.point.dtype).eps * np.max(np.abs(first), initial=0)
        if (apart | (np.isnan(second) != np.isnan(first))).any():
            i = int(np.argmax(apart))
            where = "" if self.scalar else f" in {self.point.entry(i)}"
            raise Mistake(f"{self.what} is not deterministic: called twice at one point it gives {first[i]:.6g}, "
                          f"then {second[i]:.6g}{where}")

    def near(self, vector):
        """The same far from the point that was asked for: NaN where it raises."""
        return np.broadcast_to(quiet(self, vector), 1 if self.scalar else self.point.size)

    def _number(self, value):
        array = points.numbers_array(f"the value of {self.what}", value)
        if array.size != 1:
            raise InputError(f"{self.what} must return one number, not an array of shape {array.shape}; "
                             "for functions with many outputs: check_vjp")
        return array.reshape(1).astype(np.complex128 if array.dtype.kind == "c" else np.float64)
