"""A small results folder for tests of what reads one: a real Figure 2, and a ledger of a made-up world."""
from __future__ import annotations

import shutil

from toy_claims import TRUE

from lintransformer.cli import main
from lintransformer.paper import figures
from lintransformer.paper.figures.base import Figure
from lintransformer.paper.figures.ledger import draw_ledger

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
