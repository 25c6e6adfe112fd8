"""Files of a results folder: read strictly, sealed against edits by hand. (Our choice.)"""
from __future__ import annotations

import hashlib
import json
import math
import warnings
from pathlib import Path

import numpy as np

from lintransformer.checks import InputError
from lintransformer.files import write_file
from lintransformer.paper.cells import canonical


class StoreError(InputError):
    """The results folder cannot be used: not writable, full, locked, or holding something else."""


class Damaged(ValueError):
    """A stored file is not what was written: cut short, altered, or edited by hand."""


def write_json(path, value: dict) -> Path:
    """Write a value as readable JSON with sorted keys, after `plain`."""
    return write_file(path, json_text(value))


def json_text(value: dict) -> str:
    """Return what `write_json` writes."""
    return json.dumps(plain(value), indent=1, sort_keys=True, allow_nan=False) + "\n"


def plain(value):
    """Return the value in plain JSON types: NumPy's become numbers and lists, NaN and infinities strings."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def read_bytes(path: Path) -> bytes:
    """Read a stored file.

    Raises
    ------
    Damaged
        If it cannot be read, or is a pipe or a device, which would be waited for.
    """
    try:
        if path.exists() and not path.is_file():
            raise Damaged(f"{path.name} cannot be read: not a file")
        return path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read: {error.strerror}") from None


def read_json(path) -> dict:
    """Read a stored JSON object.

    Raises
    ------
    Damaged
        If it is not there, or is not what `write_json` writes: `json` would take 1e908 for infinity.
    """
    def finite(text):
        if not math.isfinite(number := float(text)):
            raise Damaged(f"{path.name} holds {text}, which is no finite number")
        return number

    try:
        value = json.loads(read_bytes(path), parse_float=finite, parse_constant=finite)
    except Damaged:
        raise
    except (ValueError, RecursionError):
        raise Damaged(f"{path.name} is not valid JSON") from None
    if not isinstance(value, dict):
        raise Damaged(f"{path.name} is not a JSON object")
    return value


def hold(path, seconds: float = 1.0):
    """Take a lock that is a file; return it, to be used by ``with``, or None if another process has it.

    The system frees it when its process ends, however that ends. It is tried for a moment, as a worker that a
    killed run was just starting may hold that run's lock until it has closed the files it was born with.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")            # where only a lock that is a file's existence can be had
        from filelock import FileLock, Timeout
    try:
        return FileLock(path).acquire(timeout=seconds, poll_interval=0.02)
    except Timeout:
        return None


def seal(record: dict) -> dict:
    """Return the record with a digest of its own content, so that an edit by hand shows."""
    return {**record, "digest": hashlib.sha256(canonical(record).encode()).hexdigest()}


def is_sealed(record: dict) -> bool | None:
    """Whether a record still has the content it was sealed with; None if it was never sealed."""
    if "digest" not in record:
        return None
    return record == seal({name: value for name, value in record.items() if name != "digest"})
