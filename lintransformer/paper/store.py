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
import hashlib
import io
import json
import math
import os
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lintransformer.checks import InputError
from lintransformer.paper.cells import Cell, Trace, canonical, key_of

OWN_NAMES = {"manifest.json", ".lock", "runs", "figures", "tables", "report.html", "report.md", "claims.json"}


class StoreError(InputError):
    """The results folder cannot be used: not writable, full, locked, or holding something else."""


class Damaged(ValueError):
    """A stored cell is not what was written: cut short, altered, or edited by hand."""


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


def npz_bytes(arrays: dict) -> bytes:
    """Return an npz file of the arrays: equal bytes for equal arrays (`numpy.savez` stamps the time)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(arrays[name], order="C"), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), member.getvalue())
    return buffer.getvalue()


def seal(status: dict) -> dict:
    """Return the status with a digest of its own content, so that an edit by hand shows."""
    return {**status, "digest": hashlib.sha256(canonical(status).encode()).hexdigest()}


def read_folder(folder: Path) -> Trace:
    """Read one stored cell, checking every byte of it.

    Raises
    ------
    Damaged
        If a file is missing, unreadable, or not the one that was written; the message says which.
    """
    folder = Path(folder)
    record, status = (_read_json(folder / name) for name in ("config.json", "status.json"))
    if key_of(record) != folder.name:
        raise Damaged("config.json was edited: its hash is not the folder's name")
    digest = status.pop("digest", None)
    if seal(status)["digest"] != digest or status.get("key") != folder.name:
        raise Damaged("status.json was edited")
    try:
        data = (folder / "trace.npz").read_bytes()
    except OSError as error:
        raise Damaged(f"trace.npz cannot be read: {error.strerror}") from None
    if len(data) != status["trace_bytes"]:
        raise Damaged(f"trace.npz has {len(data)} bytes, {status['trace_bytes']} were written")
    if hashlib.sha256(data).hexdigest() != status["trace_sha256"]:
        raise Damaged("trace.npz was altered: its SHA-256 is not the one written")
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return Trace(archive, status["status"], status["summary"])


def _read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read: {error.strerror}") from None
    except ValueError:
        raise Damaged(f"{path.name} is not valid JSON") from None
    if not isinstance(value, dict):
        raise Damaged(f"{path.name} is not a JSON object")
    return value


def _take(lock, seconds=1.0) -> bool:
    """Take the lock of an open file; try for a moment, as a worker that a killed run was just starting may
    hold that run's lock until it has closed the files it was born with.
    """
    import fcntl
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)


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
        self.check_ours()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = open(self.root / ".lock", "ab")
        except OSError as error:
            raise StoreError(f"cannot write {self.root}: {error.strerror or error}") from error
        with lock:
            if not _take(lock):
                raise StoreError(f"{self.root} is in use by another run: wait, or choose another --out")
            for pattern in (".*.tmp", "*/.*.tmp", "runs/*/.*.tmp"):
                for leftover in self.root.glob(pattern):
                    leftover.unlink(missing_ok=True)
            yield self

    def check_ours(self):
        """Raise `StoreError` if the folder holds files that are not results."""
        if self.root.is_dir() and not (self.root / "manifest.json").exists():
            strangers = sorted(path.name for path in self.root.iterdir() if path.name not in OWN_NAMES
                               and not path.name.endswith(".tmp"))
            if strangers:
                raise StoreError(f"{self.root} holds {strangers[0]!r} and no manifest.json: not results")

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

    def forget(self, cell: Cell):
        """Take a cell's status away: it counts as not run."""
        try:
            (self.folder(cell) / "status.json").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write {self.folder(cell)}: {error.strerror}") from error

    def manifest(self) -> dict | None:
        """Return the manifest, None if there is none.

        Raises
        ------
        Damaged
            If it cannot be read as JSON.
        """
        path = self.root / "manifest.json"
        return _read_json(path) if path.exists() else None

    def write_manifest(self, manifest: dict):
        """Write the manifest whole."""
        write_json(self.root / "manifest.json", manifest)
