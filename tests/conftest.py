"""Hypothesis profiles dev (quick), ci (the default) and nightly, by HYPOTHESIS_PROFILE; the fixture `toy`."""

import os

import pytest
import toy_cells
from hypothesis import HealthCheck, settings

from lintransformer.paper import figures

settings.register_profile("dev", max_examples=10, deadline=None)
settings.register_profile("ci", max_examples=40, deadline=None, derandomize=True,
                          suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nightly", max_examples=1000, deadline=None,
                          suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture
def toy(monkeypatch):
    """Register figures of toy cells: ``toy(name, cells)``; returns the command that runs one."""
    def register(name, cells):
        monkeypatch.setitem(figures.FIGURES, name, toy_cells.figure(name, cells))
        return ["run", name, "--formats", "svg", "--out", "out"]
    return register
