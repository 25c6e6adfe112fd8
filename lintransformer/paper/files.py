"""Files of a results folder: written whole, read strictly, sealed against edits by hand. (Our choice.)"""
from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np

from lintransformer.checks import InputError
from lintransformer.paper.cells import canonical


class StoreError(InputError):
    """The results folder cannot be used: not writable, full, locked, or holding something else."""


class Damaged(ValueError):
    """A stored file is not what was written: cut short, altered, or edited by hand."""


def write_file(path, data: bytes | str) -> Path:
    """Write a file whole or not at all, and make it last (fsync of file and folder).

    Raises
    ------
    StoreError
        If the disk is full or read-only, or the path cannot be written; the old file, if any, is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def write_json(path, value: dict) -> Path:
    """Write a value as readable JSON with sorted keys, after `plain`."""
    return write_file(path, json.dumps(plain(value), indent=1, sort_keys=True, allow_nan=False) + "\n")


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
        value = json.loads(path.read_bytes(), parse_float=finite, parse_constant=finite)
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read: {error.strerror}") from None
    except Damaged:
        raise
    except (ValueError, RecursionError):
        raise Damaged(f"{path.name} is not valid JSON") from None
    if not isinstance(value, dict):
        raise Damaged(f"{path.name} is not a JSON object")
    return value


def seal(record: dict) -> dict:
    """Return the record with a digest of its own content, so that an edit by hand shows."""
    return {**record, "digest": hashlib.sha256(canonical(record).encode()).hexdigest()}


def is_sealed(record: dict) -> bool | None:
    """Whether a record still has the content it was sealed with; None if it was never sealed."""
    if "digest" not in record:
        return None
    return record == seal({name: value for name, value in record.items() if name != "digest"})
