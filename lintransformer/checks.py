"""Refusals: bad input gets one line that names the value and what is allowed."""

import math
import numbers

import numpy as np


class InputError(ValueError):
    """A value that cannot be used; the message is one line naming the value and what is allowed."""


def check_choice(name, value, allowed):
    """Return `value` if it is one of `allowed`, else raise `InputError` listing them."""
    allowed = list(allowed)
    if value not in allowed:
        raise InputError(f"{name} {value!r} is not known; allowed: {', '.join(map(str, allowed))}")
    return value


def check_positive_integer(name, value, minimum=1):
    """Return `value` as an int if it is an integer of at least `minimum`, else raise `InputError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise InputError(f"{name} must be an integer of at least {minimum}, not {value!r}")
    return int(value)


def check_finite_positive(name, value, zero_allowed=False):
    """Return `value` as a float if it is finite and positive (or zero, if allowed)."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or (value == 0 and not zero_allowed):
        bound = "at least 0" if zero_allowed else "greater than 0"
        raise InputError(f"{name} must be a finite number {bound}, not {value!r}")
    return float(value)


def check_fraction(name, value):
    """Return `value` as a float if it lies in [0, 1), else raise `InputError` (momentum, betas)."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0 <= value < 1:
        raise InputError(f"{name} must lie in [0, 1), not {value!r}")
    return float(value)


def check_dtype(dtype):
    """Return float32 or float64 as a `numpy.dtype`, else raise `InputError`."""
    try:
        name = np.dtype(dtype).name if dtype is not None else "None"
    except TypeError:
        name = str(dtype)
    return np.dtype(check_choice("dtype", name, ["float32", "float64"]))


def check_type(name, value, *types):
    """Return `value` if it is an instance of one of `types`, else raise `InputError`."""
    if not isinstance(value, types):
        allowed = " or ".join(kind.__name__ for kind in types)
        raise InputError(f"{name} must be {allowed}, not {type(value).__name__}")
    return value


def keep(instance, **values):
    """Set fields of a frozen dataclass to their checked values."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)
