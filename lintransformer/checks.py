"""Refusals: bad input gets one line that names the value and what is allowed."""

import math
import numbers

import numpy as np


class InputError(ValueError):
    """A value that cannot be used; the message is one line naming the value and what is allowed."""


def shown(value):
    """A value's repr in one short line: arrays and long containers are cut."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:76]} ..."


def check_choice(name, value, allowed):
    """Return `value` if it is one of `allowed`, else raise `InputError` listing them."""
    allowed = list(allowed)
    if not any(isinstance(value, type(one)) and value == one for one in allowed):
        raise InputError(f"{name} {shown(value)} is not known; allowed: {', '.join(map(str, allowed))}")
    return value


def check_positive_integer(name, value, minimum=1):
    """Return `value` as an int if it is an integer of at least `minimum`, else raise `InputError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise InputError(f"{name} must be an integer of at least {minimum}, not {shown(value)}")
    return int(value)


def check_finite_positive(name, value, zero_allowed=False):
    """Return `value` as a float if it is finite and positive (or zero, if allowed)."""
    bound = "at least 0" if zero_allowed else "greater than 0"
    return _real_number(name, value, lambda x: math.isfinite(x) and (x > 0 or (x == 0 and zero_allowed)),
                        f"must be a finite number {bound}")


def check_fraction(name, value):
    """Return `value` as a float if it lies in [0, 1), else raise `InputError` (momentum, betas)."""
    return _real_number(name, value, lambda x: 0 <= x < 1, "must lie in [0, 1)")


def check_level(name, value):
    """Return `value` as a float if it lies strictly between 0 and 1 (the level of an interval)."""
    return _real_number(name, value, lambda x: 0 < x < 1, "must lie strictly between 0 and 1")


def _real_number(name, value, fits, what):
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    try:
        if number and fits(float(value)):
            return float(value)
    except OverflowError:                                                    # an int beyond 10^308
        pass
    raise InputError(f"{name} {what}, not {shown(value)}")


def check_dtype(dtype):
    """Return float32 or float64 as a `numpy.dtype`, else raise `InputError`."""
    try:
        name = np.dtype(dtype).name if dtype is not None else "None"
    except (TypeError, ValueError):
        name = shown(dtype).strip("'")
    return np.dtype(check_choice("dtype", name, ["float32", "float64"]))


def check_type(name, value, *types):
    """Return `value` if it is an instance of one of `types`, else raise `InputError`."""
    if not isinstance(value, types):
        allowed = " or ".join(kind.__name__ for kind in types)
        raise InputError(f"{name} must be {allowed}, not {type(value).__name__}")
    return value


def check_abilities(name, value, abilities, example):
    """Return `value` if it has all `abilities` (attributes), else raise `InputError` with an example."""
    if isinstance(value, type) or not all(hasattr(value, ability) for ability in abilities):
        *most, last = abilities
        listed = f"{', '.join(most)} and {last}" if most else last
        raise InputError(f"{name} must have {listed}, as {example} has, not {shown(value)}")
    return value


def check_generator(rng):
    """Return `rng` if it is a `numpy.random.Generator`: the legacy RandomState draws other numbers."""
    if not isinstance(rng, np.random.Generator):
        raise InputError(f"rng must be a numpy.random.Generator, as np.random.default_rng(0) is, not "
                         f"{type(rng).__name__}")
    return rng


def check_callable(name, value):
    """Return `value` if it is None or can be called, else raise `InputError`."""
    if value is not None and not callable(value):
        raise InputError(f"{name} must be None or callable, not {shown(value)}")
    return value


# --- arrays ---

ALLOWED = "float32, float64, complex128, or object arrays of Fractions"


def numeric_array(name, values):
    """`values` as an array of real or complex numbers, integers as float64; no copy where none is needed.

    Raises
    ------
    InputError : a masked or a ragged array, booleans, strings, None, float16 (it ends at 65504), objects that
        are no numbers.
    """
    array = _as_array(name, values)
    if array.dtype.kind in "iu":
        return array.astype(np.float64)
    if array.dtype.kind not in "fcO":
        raise InputError(f"{name} must hold real or complex numbers, not dtype {array.dtype}")
    if array.dtype == np.float16:
        raise InputError(f"{name} must not be of dtype float16, which ends at 65504; allowed: {ALLOWED}")
    if array.dtype == object:
        for entry in array.flat:
            if not isinstance(entry, numbers.Number) or isinstance(entry, (bool, np.bool_)):
                raise InputError(f"{name} must hold numbers, but one entry is {shown(entry)}")
    return array


def real_array(name, values):
    """`values` as a float64 array of real numbers; a complex value is refused, never cut to its real part.

    Raises
    ------
    InputError : as `numeric_array`, and for complex numbers and object arrays.
    """
    array = _as_array(name, values)
    if array.dtype.kind not in "fiu" or array.dtype == np.float16:
        raise InputError(f"{name} must hold real numbers, not dtype {array.dtype}")
    with np.errstate(over="ignore"):                                         # longdouble: infinite, and seen below
        return array.astype(np.float64, copy=False)


def finite(name, array, remark=""):
    """The array, or an `InputError` that says how many entries are not finite and where the first one is."""
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        first = tuple(int(i) for i in np.unravel_index(bad[0], array.shape))
        raise InputError(f"{name} must be finite, but {len(bad)} of {array.size} entries are not{remark}; "
                         f"the first is {array[first]} at {first if len(first) != 1 else first[0]}")
    return array


def refuse_masked(name, values):
    """Raise `InputError` for a masked array: NumPy's functions would use what lies under the mask."""
    if isinstance(values, np.ma.MaskedArray):
        raise InputError(f"{name}: masked arrays are not supported: fill or drop the masked entries")


def _as_array(name, values):
    refuse_masked(name, values)
    if isinstance(values, (list, tuple)) and any(isinstance(part, np.ma.MaskedArray) for part in values):
        refuse_masked(name, np.ma.MaskedArray([]))
    try:
        return np.asarray(values)
    except (ValueError, TypeError, OverflowError) as error:                  # ragged nested lists; objects that refuse
        raise InputError(f"{name} must be a rectangular array of numbers: {shown(str(error))[1:-1]}") from None


def keep(instance, **values):
    """Set fields of a frozen dataclass to their checked values."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)
