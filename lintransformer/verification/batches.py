"""What a batch holds, whoever made it: its arrays by name, and the same batch in another precision."""
from __future__ import annotations

import numpy as np

from lintransformer.verification.results import relative_error


def arrays_of(batch, name="batch"):
    """{name: array}: every array in tuples, lists, dicts and attributes, two levels of objects deep."""
    return dict(_walk(batch, name, 2))


def _walk(thing, name, depth):
    if isinstance(thing, (np.ndarray, np.generic)):
        yield name, np.asarray(thing)
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from _walk(value, f"{name}[{key!r}]", depth)
    elif isinstance(thing, (tuple, list)):
        for i, value in enumerate(thing):
            yield from _walk(value, f"{name}[{i}]", depth)
    elif depth and hasattr(thing, "__dict__") and not callable(thing):
        for key, value in vars(thing).items():
            if not key.startswith("_"):                                      # what is derived and kept, such as _gram
                yield from _walk(value, f"{name}.{key}", depth - 1)


def snapshot(batch):
    """{name: (dtype, shape, bytes)}, to compare with what it is later."""
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays_of(batch).items()}


def floats(batch):
    """The floating-point arrays among them."""
    return {name: array for name, array in arrays_of(batch).items() if array.dtype.kind == "f"}


def cast(batch, dtype):
    """The batch with its floating-point arrays in another precision, or None if it does not say how."""
    if hasattr(batch, "astype") and not isinstance(batch, np.ndarray):
        return batch.astype(dtype)
    if isinstance(batch, np.ndarray):
        return batch.astype(dtype) if batch.dtype.kind == "f" else batch
    if isinstance(batch, (tuple, list)):
        parts = [cast(part, dtype) for part in batch]
        return None if any(part is None for part in parts) else type(batch)(parts)
    if isinstance(batch, dict):
        parts = {key: cast(value, dtype) for key, value in batch.items()}
        return None if any(part is None for part in parts.values()) else parts
    return batch if isinstance(batch, (int, float, str, bool, np.generic)) else None


def error_of(pair, expected):
    """The larger relative error of a value and a gradient."""
    return max(relative_error(left, right) for left, right in zip(pair, expected))
