"""The manifest of a results folder: what was asked for, by which commands, with what, on which machine."""
from __future__ import annotations

import sys
import time
from collections import Counter
from datetime import UTC, datetime

from lintransformer.paper.derived import remove_derived, told_by_captions
from lintransformer.paper.environment import environment
from lintransformer.paper.files import Damaged, StoreError
from lintransformer.paper.options import Options, exact
from lintransformer.paper.schema import read_manifest
from lintransformer.paper.store import Store


class Manifest:
    """The manifest of a folder for one command.

    Parameters
    ----------
    figures : list of str
        The ids this command draws; the manifest lists those of all commands.
    force : bool
        Take over a folder of another configuration; what was derived under that one is removed.

    Raises
    ------
    StoreError
        If the folder holds results of another configuration, or of one that cannot be told.
    """

    def __init__(self, store: Store, options: Options, figures, jobs: int, force: bool = False):
        self.store, self.options = store, options
        self.outdated: list | None = None      # ids of another configuration's figures, if it is taken over
        self.problem: str | None = None        # with the manifest that is there
        before = self._before(force)
        held = before.get("configuration", options.configuration)
        if held != options.configuration:
            if not force:
                here, asked = describe(held, options.configuration), describe(options.configuration, held)
                raise StoreError(f"{store.root} holds results of {here}; asked for is {asked}: "
                                 "choose another --out, or use --force")
            self.outdated, before = before["figures"], {}
        self.before = before
        self.figures = sorted({*before.get("figures", ()), *figures})
        self.command = {"argv": sys.argv, "started": datetime.now(UTC).isoformat(timespec="seconds"), "jobs": jobs,
                        "seconds": None, "exit_code": None, "runs": 0, "figures": [], "environment": environment()}
        self.start = time.perf_counter()

    def _before(self, force: bool) -> dict:
        """Return the manifest that is there; what captions tell of it if it is lost: cells are checked on
        their own, so that they are kept in any case.
        """
        try:
            if (manifest := read_manifest(self.store)) is not None:
                return manifest
        except Damaged as error:
            self.problem = str(error)
        try:
            return told_by_captions(self.store.root)
        except Damaged as error:
            if not force:
                lost = self.problem or "there is no manifest.json"
                raise StoreError(f"{self.store.root}: {lost}, and {error}: choose another --out, or use "
                                 "--force, which removes figures and tables") from None
            self.outdated = []
            return {}

    def begin(self, runs: int):
        """Write the manifest before the first of so many runs: a folder of ours is known as such from the start.

        What was derived under another configuration goes first: it is never found under this one's name.
        """
        if self.outdated is not None:
            remove_derived(self.store.root, self.outdated)
        self.command["runs"] = runs
        self._write(self.before.get("cells", {}))

    def end(self, exit_code: int, statuses: dict, drawn, files):
        """Write it again with what came out: the ids of the figures drawn, the paths written (in the folder)."""
        self.command.update(seconds=round(time.perf_counter() - self.start, 3), exit_code=exit_code,
                            figures=list(drawn))
        self._write(dict(Counter(statuses.values())), files)

    def _write(self, cells, files=()):
        """Versions and machine are those of the last command that computed something, never those of one that only
        found what another had computed; each command keeps its own.
        """
        commands, own = [*self.before.get("commands", ()), self.command], self.command["environment"]
        if len(commands) > 1 and "environment" not in commands[-2]:          # as earlier versions left it
            commands[-2] = {**commands[-2], "environment": environment_of(self.before)}
        held = environment_of(self.before) if not self.command["runs"] and "machine" in self.before else own
        self.store.write_manifest({
            "configuration": self.options.configuration, "figures": self.figures, "cells": cells,
            "files": sorted({*self.before.get("files", ()), *files}), "seeds": self.options.training_seeds,
            "commands": commands, "date": self.command["started"],
            "seconds": round(sum(command.get("seconds") or 0.0 for command in commands), 3), **held,
            "threads": {"worker_processes": self.command["jobs"], "blas_threads_per_worker": 1}})


def environment_of(record: dict) -> dict:
    """Return versions and machine of a manifest."""
    return {"versions": record["versions"], "machine": record["machine"]}


def drawn_under(manifest: dict, id: str) -> dict:
    """Return versions and machine that a figure was drawn under."""
    for command in reversed(manifest["commands"]):
        if id in command.get("figures", ()) and "environment" in command:
            return command["environment"]
    return environment_of(manifest)


def describe(configuration: dict, other: dict) -> str:
    """Return in words what a configuration has that the other has not."""
    return ", ".join(f"{name} {show(value)}" for name, value in configuration.items()
                     if value != other.get(name))


def show(value) -> str:
    """Return a value of a configuration as people write it."""
    if isinstance(value, dict):
        return " ".join(f"{name}={exact(item)}" for name, item in value.items()) or "as in the settings"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "all" if value is None else str(value)
