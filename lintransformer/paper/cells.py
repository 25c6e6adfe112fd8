"""Cells: the units of work behind every figure, named by what they compute.

A cell is a kind of computation ("train"), a configuration that holds every number of it, and the cells it
needs. Its key is a hash of the three, so that equal work has an equal name: two figures that show the same
training run share it, and a finished cell is recognised on the next start. (Our choice; nothing of this is in
the paper.)
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lintransformer.checks import InputError, check_choice

FORMAT = 1                                       # raise it when the layout of stored traces changes
STATUSES = ("done", "diverged", "timed out")     # what a computation may say of itself


@dataclass(frozen=True)
class Kind:
    """How cells of one kind are computed.

    Attributes
    ----------
    compute : function of a module
        Called in a worker process as ``compute(config, inputs, report)``; it returns an `Outcome`;
        ``inputs`` are the `Trace` of the needed cells, in order; ``report(fraction)`` shows
        progress, ``report.deadline_seconds`` is the time allowed (or None).
    seconds : function
        ``seconds(config)`` is a rough estimate on one core, for the order of
        work and the progress bar.
    version : int
        Part of the key: raise it when the same configuration gives other numbers than before. 2 for all kinds since
        normals are made of raw bits: the same seeds draw other prompts.
    """
    compute: Callable
    seconds: Callable
    version: int = 2


@dataclass(frozen=True)
class Outcome:
    """What a computation hands back: named arrays, a status of `STATUSES`, and a JSON-able summary."""
    arrays: dict
    status: str = "done"
    summary: dict = field(default_factory=dict)

    def __post_init__(self):
        check_choice("status", self.status, STATUSES)


class Trace(dict):
    """Stored arrays by name, with the ``status`` and ``summary`` they were stored with.

    The status is one of `STATUSES`, or "failed" or "missing" with no arrays.
    """

    def __init__(self, arrays=(), status="done", summary=None):
        super().__init__(arrays)
        self.status = status
        self.summary = dict(summary or {})


def canonical(value) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN.

    Raises
    ------
    InputError
        If the value is not plain JSON (a NumPy scalar, a NaN, a set).
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"a cell's configuration must be plain JSON: {error}") from None


def key_of(record: dict) -> str:
    """Return the key of a cell's record (its ``config.json``): 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(canonical(record).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Cell:
    """One unit of work; equal and interchangeable with any other cell of the same ``key``.

    Parameters
    ----------
    kind : str
        A name in `KINDS`.
    config : dict
        Every number of the computation, plain JSON. Copied, so that later changes to the argument do not
        reach it.
    needs : tuple of Cell
        Cells whose traces the computation reads.
    label : str
        What people read in a list; not part of the key.
    """
    kind: str
    config: dict
    needs: tuple[Cell, ...] = ()
    label: str = ""
    key: str = field(init=False)

    def __post_init__(self):
        check_choice("kind of cell", self.kind, KINDS)
        object.__setattr__(self, "config", json.loads(canonical(self.config)))
        object.__setattr__(self, "needs", tuple(self.needs))
        object.__setattr__(self, "key", key_of(self.record))
        object.__setattr__(self, "label", self.label or f"{self.kind} {self.key}")

    @property
    def record(self) -> dict:
        """What identifies the cell, as stored in its ``config.json``."""
        return {"format": FORMAT, "kind": self.kind, "version": KINDS[self.kind].version,
                "config": self.config, "needs": [need.key for need in self.needs]}

    @property
    def seconds(self) -> float:
        """Estimated seconds on one core."""
        return float(KINDS[self.kind].seconds(self.config))

    def __eq__(self, other):
        return isinstance(other, Cell) and self.key == other.key

    def __hash__(self):
        return hash(self.key)


def in_order(cells: Iterable[Cell]) -> list[Cell]:
    """Return the cells and all they need, each once, needed ones first."""
    ordered: dict[str, Cell] = {}

    def visit(cell):
        if cell.key not in ordered:
            for need in cell.needs:
                visit(need)
            ordered[cell.key] = cell

    for cell in cells:
        visit(cell)
    return list(ordered.values())


KINDS: dict[str, Kind] = {}                      # each module of cells enters its own
