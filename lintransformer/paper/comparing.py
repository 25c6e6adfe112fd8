"""Where two versions of a file first differ, in a line: rows and columns of CSV, entries of JSON, lines."""
from __future__ import annotations

import csv
import io
import json
import math
import os

SHOWN = 60             # characters of a long text in a message
ROUNDING = 1e-6        # relative; what is left of differences between machines, in float32 numbers


def first_difference(suffix: str, stored: bytes, derived: bytes, exact: bool) -> str | None:
    """Return what differs first between a stored file and the one derived again; None if nothing does.

    Parameters
    ----------
    suffix : str
        ".csv", ".json", ".md", or that of a picture.
    exact : bool
        Whether every byte is to agree; numbers in CSV and JSON may otherwise differ by rounding, and the
        numbers in Markdown are not compared.
    """
    if stored == derived:
        return None
    if suffix not in (".csv", ".json", ".md"):
        return "not the picture that the traces give"
    try:
        before, after = stored.decode(), derived.decode()
        entries = {".csv": _csv_entries, ".json": _json_entries, ".md": _lines}[suffix]
        old, new = entries(before), entries(after)
    except (ValueError, RecursionError, csv.Error) as error:
        return f"not readable as {suffix[1:].upper()}: {error}"
    for place in dict.fromkeys([*new, *old]):
        if place not in old:
            return f"{place} is missing"
        if place not in new:
            return f"{place} does not come from the traces"
        if old[place] != new[place] and (exact or suffix != ".md" and not _close(old[place], new[place])):
            before, after = _short(old[place], new[place]), _short(new[place], old[place])
            return f"{place} is {before}, from the traces {after}"
    return "the layout of the file was changed" if exact else None


def _csv_entries(text: str) -> dict:
    rows = list(csv.reader(io.StringIO(text), strict=True))
    header = rows[0] if rows else []
    entries = {"the header": ",".join(header)}
    for number, row in enumerate(rows[1:], 2):
        named = [*header, *(f"column {index + 1}" for index in range(len(header), len(row)))]
        entries.update({f"line {number}, {name}": value for name, value in zip(named, row)})
    return entries


def _json_entries(text: str) -> dict:
    entries = {}

    def walk(place, value):
        if isinstance(value, dict):
            for name, item in value.items():
                walk(f"{place}.{name}" if place else name, item)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                walk(f"{place}[{index}]", item)
        if not isinstance(value, (dict, list)) or not value:
            entries[place] = value

    walk("", json.loads(text))
    return entries


def _lines(text: str) -> dict:
    return {f"line {number}": line for number, line in enumerate(text.splitlines(), 1)}


def _close(one, other) -> bool:
    try:
        return math.isclose(float(one), float(other), rel_tol=ROUNDING, abs_tol=1e-12)
    except (TypeError, ValueError, OverflowError):        # an integer may be too large for a float
        return False


def _short(value, other) -> str:
    """Return a value for a message; of a long text the part where the other differs from it."""
    if not isinstance(value, str):
        return json.dumps(value)
    if len(value) <= SHOWN:
        return repr(value)
    start = max(0, len(os.path.commonprefix([value, str(other)])) - SHOWN // 3)
    part = value[start:start + SHOWN]
    return repr(("..." if start else "") + part + ("..." if start + SHOWN < len(value) else ""))
