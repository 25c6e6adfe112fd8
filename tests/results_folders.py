"""A small results folder for tests of what reads one: a real Figure 2, and a ledger of a made-up world."""
from __future__ import annotations

import json
import shutil

from toy_claims import TRUE

from lintransformer.cli import main
from lintransformer.paper import figures
from lintransformer.paper.figures.base import Figure
from lintransformer.paper.figures.ledger import draw_ledger
from lintransformer.paper.files import seal

LEDGER = Figure("claims", "The paper's claims, judged", "What the paper says.", lambda options: [],
                lambda get, options: draw_ledger("claims", None, TRUE, options))
RUN = ["run", "fig2", "claims", "--preset", "smoke", "--settings", "S1", "--steps", "6", "-q", "--out"]


def register(monkeypatch):
    """Let "claims" be the ledger of the made-up world, which needs no cells."""
    monkeypatch.setitem(figures.FIGURES, "claims", LEDGER)


def make(folder, monkeypatch):
    """Run the command that makes the folder."""
    register(monkeypatch)
    command = [*RUN, str(folder), "--formats", "png", "-j", "1"]
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/lintransformer", *command])
    assert main(command) == 0
    return folder


def copy(folder, to):
    """Return a copy, to be damaged."""
    return shutil.copytree(folder, to)


def edit_manifest(folder, change, sealed=True):
    """Change the manifest; with a seal as a run of these results would have written it, or with the old one."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    digest = manifest.pop("digest")
    change(manifest)
    path.write_text(json.dumps(seal(manifest) if sealed else {**manifest, "digest": digest}))


def at(path, value):
    """Return a change that puts a value at a place such as ``commands.0.seconds`` of the manifest."""
    def change(manifest):
        *outer, last = [int(name) if name.isdecimal() else name for name in path.split(".")]
        for name in outer:
            manifest = manifest[name]
        manifest[last] = value
    return change
