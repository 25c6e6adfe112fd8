"""A results folder on disk: written whole, checked when read, locked while in use.

::

    results/NAME/manifest.json    what was asked for, by which commands, on which machine
      runs/KEY/config.json        the cell: its hash is KEY
      runs/KEY/trace.npz          its arrays; equal arrays give equal bytes
      runs/KEY/status.json        written last, with the SHA-256 of trace.npz: no status, not finished

A file appears complete or not at all (temporary file, fsync, rename), so that a process killed at any moment
leaves only cells that are done and cells that are not. (Our choice.)
"""
from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lintransformer.files import write_file
from lintransformer.paper.cells import Cell, Trace, key_of
from lintransformer.paper.files import (Damaged, StoreError, hold, is_sealed, plain, read_bytes, read_json, seal,
                                        write_json)

KEY = "[0-9a-f]{16}"
# The temporary files of `write_file`, by their place in the folder.
TEMPORARY = re.compile(rf"""(\.(manifest\.json|claims\.json|report\.html|report\.md)
                       | (figures|tables)/\.[\w-]+\.(csv|json|md|png|pdf|svg)
                       | runs/{KEY}/\.(config\.json|status\.json|trace\.npz))(\.\d+)?\.tmp""", re.VERBOSE)
# Bytes of a name, and of a path: folders are made by recursion, and more is written below.
LONGEST_PART, LONGEST_PATH = 255, 1000
# A manifest with most of these entries is ours, damaged perhaps.
ENTRIES = ("configuration", "figures", "cells", "commands", "versions", "machine", "threads")


def npz_bytes(arrays: dict) -> bytes:
    """Return an npz file of the arrays: equal bytes for equal arrays (`numpy.savez` stamps the time)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(arrays[name], order="C"), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), member.getvalue())
    return buffer.getvalue()


def read_folder(folder: Path) -> Trace:
    """Read one stored cell, checking every byte of it.

    Raises
    ------
    Damaged
        If a file is missing, unreadable, or not the one that was written; the message says which.
    """
    folder = Path(folder)
    record, status = (read_json(folder / name) for name in ("config.json", "status.json"))
    if key_of(record) != folder.name:
        raise Damaged("config.json was edited: its hash is not the folder's name")
    if not is_sealed(status) or status["key"] != folder.name:
        raise Damaged("status.json was edited")
    data = read_bytes(folder / "trace.npz")
    if len(data) != status["trace_bytes"]:
        raise Damaged(f"trace.npz has {len(data)} bytes, {status['trace_bytes']} were written")
    if hashlib.sha256(data).hexdigest() != status["trace_sha256"]:
        raise Damaged("trace.npz was altered: its SHA-256 is not the one written")
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return Trace(archive, status["status"], status["summary"])


@dataclass(frozen=True)
class State:
    """What the store knows of a cell: "missing", "damaged" or its stored status; and why, in a line."""
    status: str
    reason: str

    @property
    def settled(self) -> bool:
        """Whether running the cell again would only repeat it: done, or diverged (which is deterministic)."""
        return self.status in ("done", "diverged")


class Store:
    """One results folder.

    Parameters
    ----------
    root : path
        The folder; created by `locked`, never by looking at it.
    """

    def __init__(self, root):
        self.root = Path(root)

    def folder(self, cell: Cell) -> Path:
        """Return the folder of a cell."""
        return self.root / "runs" / cell.key

    @contextlib.contextmanager
    def locked(self):
        """Hold the folder for one process, creating it and clearing temporary files that a killed run left.

        Raises
        ------
        StoreError
            If another run holds it, it holds files that are no results, or it cannot be written.
        """
        self.check_usable()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            held = hold(self.root / ".lock")
        except OSError as error:
            raise StoreError(f"cannot write {self.root}: {error.strerror or error}") from error
        if held is None:
            raise StoreError(f"{self.root} is in use by another run: wait, or choose another --out")
        with held:
            self._clear()
            yield self

    def _clear(self):
        """Remove the temporary files that a killed run left, and no others."""
        for pattern in (".*.tmp", "*/.*.tmp", "runs/*/.*.tmp"):
            for path in self.root.glob(pattern):
                if TEMPORARY.fullmatch(path.relative_to(self.root).as_posix()) and not path.is_dir():
                    try:
                        path.unlink(missing_ok=True)
                    except OSError as error:
                        raise StoreError(f"cannot remove {path}: {error.strerror or error}") from error

    def check_usable(self):
        """Raise `StoreError` if a run could not write here, and `OSError` if the system will not look at the path;
        nothing is touched.
        """
        path = os.fsencode(self.root.absolute())
        if len(path) > LONGEST_PATH or max(map(len, path.split(os.fsencode(os.sep)))) > LONGEST_PART:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(self.root))
        place = self.root.absolute()
        while not os.path.lexists(place):
            place = place.parent
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            code = errno.EACCES if place.is_dir() else errno.ENOTDIR
            raise StoreError(f"cannot write {self.root}: {os.strerror(code)}")
        self.check_ours()

    def check_ours(self):
        """Raise `StoreError` if the folder holds files, and neither a manifest of ours nor cells.

        Names alone tell nothing: a ``figures`` folder or a ``manifest.json`` may be anybody's.
        """
        if self.root.is_dir() and not self._has_our_manifest() and not self._has_cells():
            strangers = sorted(path.name for path in self.root.iterdir()
                               if path.name != ".lock" and not TEMPORARY.fullmatch(path.name))  # killed at once
            if strangers:
                raise StoreError(f"{self.root} holds {strangers[0]!r} and no manifest.json that a run wrote: "
                                 "not results")

    def _has_our_manifest(self) -> bool:
        try:
            manifest = self.manifest() or {}
        except Damaged:
            return False
        return sum(name in manifest for name in ENTRIES) > len(ENTRIES) / 2

    def _has_cells(self) -> bool:
        return any(re.fullmatch(KEY, path.name) and (path / "config.json").is_file()
                   for path in self.root.glob("runs/*"))

    def state(self, cell: Cell) -> State:
        """Return what is stored of a cell, after checking its files."""
        folder = self.folder(cell)
        if not (folder / "status.json").exists():
            return State("missing", "not run yet")
        try:
            trace = read_folder(folder)
        except Damaged as error:
            return State("damaged", str(error))
        return State(trace.status, trace.summary.get("reason", trace.status))

    def load(self, cell: Cell) -> Trace:
        """Return the stored trace of a cell; one of status "missing" if there is none that can be trusted."""
        try:
            return read_folder(self.folder(cell))
        except Damaged as error:
            return Trace(status="missing", summary={"reason": str(error)})

    def save(self, cell: Cell, status: str, summary: dict, data: bytes, **more):
        """Store a cell: configuration, trace (npz bytes), last its status, with ``more`` in it."""
        folder = self.folder(cell)
        write_json(folder / "config.json", cell.record)
        write_file(folder / "trace.npz", data)
        write_json(folder / "status.json", seal(plain({
            "key": cell.key, "label": cell.label, "status": status, "summary": summary, **more,
            "trace_bytes": len(data), "trace_sha256": hashlib.sha256(data).hexdigest()})))

    def manifest(self) -> dict | None:
        """Return the manifest, None if there is none.

        Raises
        ------
        Damaged
            If it cannot be read as JSON.
        """
        path = self.root / "manifest.json"
        return read_json(path) if path.exists() else None

    def write_manifest(self, manifest: dict):
        """Write the manifest whole and sealed."""
        write_json(self.root / "manifest.json", seal(plain(manifest)))
