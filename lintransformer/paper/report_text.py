"""Values as people read them, for the report: numbers to four digits, captions as definitions and tables."""
from __future__ import annotations

import json
import math
import shlex
from dataclasses import dataclass, replace

from lintransformer.paper.files import Damaged, read_bytes

NOTHING = "–"
# Entries of a caption that are said elsewhere in the report, or of no use to people; keys of cells anywhere.
SAID_ELSEWHERE = {"id", "title", "paper", "configuration", "left_out", "rows", "caption", "preset"}
KEYS = "cells"
IN_A_LINE = 40        # characters: longer entries of a caption stand on a line of their own


@dataclass(frozen=True)
class Table:
    """A table of texts: its caption, its columns, its rows."""
    caption: str
    columns: list
    rows: list


def text(value, digits: int = 4) -> str:
    """Return a stored value as text: lists with commas, dicts as ``name: value``, NaN and None as a dash."""
    if value is None or value == "nan":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return NOTHING if math.isnan(value) else f"{value:.{digits}g}"
    if isinstance(value, dict):
        return "; ".join(f"{words(name)}: {text(item, digits)}" for name, item in value.items()
                         if name != KEYS)
    if isinstance(value, (list, tuple)):
        return ", ".join(text(item, digits) for item in value)
    return {"inf": "∞", "-inf": "−∞"}.get(value, str(value))


def words(name: str) -> str:
    """Return a key of a stored file as words."""
    return name.replace("_", " ")


def shell_word(word: str) -> str:
    """Return a word as a shell takes it, on one line: what cannot be printed stands in quotes of the form $'\\n'."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + word.replace("\\", r"\\").replace("'", r"\'").translate(
        {ord(letter): ascii(letter)[1:-1] for letter in word if not letter.isprintable()}) + "'"


def interval(value, bounds) -> str:
    """Return a number with its interval, ``9.6 [7.1, 13]``; the number alone if the bounds tell no more."""
    shown, low, high = (text(number, digits=3) for number in (value, *bounds))
    return shown if NOTHING in (shown, low, high) or value in bounds else f"{shown} [{low}, {high}]"


def duration(seconds: float) -> str:
    """Return seconds as ``34 s``, ``5 min 20 s`` or ``1 h 27 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def explain(record: dict) -> tuple[list, list[Table]]:
    """Return a stored caption as definitions, (name, text) pairs, and tables.

    A list of dicts, or a dict of dicts, is a table; a dict with long entries is taken apart.
    """
    definitions, tables = [], []
    for name, value in record.items():
        if name in SAID_ELSEWHERE or name == KEYS or value in ([], {}, None):
            continue
        if _is_table(value):
            tables.append(table_of(words(name), value))
        elif isinstance(value, dict) and any(_is_long(item) for item in value.values()):
            inner, more = explain(value)
            of = "" if name == "definitions" else f"{words(name)}: "
            definitions += [(of + part, said) for part, said in inner]
            tables += [replace(table, caption=of + table.caption) for table in more]
        else:
            definitions.append((words(name), text(value)))
    return definitions, tables


def table_of(caption: str, rows) -> Table:
    """Return a list of dicts as a table; a dict of dicts likewise, its keys in the first column."""
    if isinstance(rows, dict):
        rows = [{"": name, **row} for name, row in rows.items()]
    columns = [name for name in dict.fromkeys(name for row in rows for name in row) if name != KEYS]
    return Table(caption, [words(name) for name in columns],
                 [[text(row.get(name)) for name in columns] for row in rows])


def _is_table(value) -> bool:
    rows = list(value.values()) if isinstance(value, dict) else value
    return isinstance(rows, list) and len(rows) > 0 and all(isinstance(row, dict) for row in rows)


def _is_long(value) -> bool:
    return _is_table(value) or isinstance(value, (str, dict)) and len(text(value)) > IN_A_LINE


def read_json(path) -> dict | None:
    """Return a stored JSON object, None if the file is not there; raise `Damaged` if it cannot be read."""
    if not path.exists():
        return None
    try:
        value = json.loads(read_bytes(path))
    except Damaged:
        raise
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path.name} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise Damaged(f"{path.name} is not a JSON object")
    return value
