"""The grid search of learning rates behind Table 2: the losses it measured, and the rates it favours."""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lintransformer.paper.claims.study import DEFAULT, Evaluation, Study, loss_at
from lintransformer.paper.experiment_cells import effort, ending, grid, grid_cell, grid_seeds, short_steps


@dataclass(frozen=True)
class GridSearch:
    """Losses after `short_steps` iterations.

    rates : list of the rates searched
    losses : {rate: {seed: loss}}, NaN for a run that diverged before or did not finish
    statuses : {rate: {seed: "done", "diverged", ...}}, as of the horizon
    """

    rates: list
    losses: dict
    statuses: dict

    def score(self, rate: float) -> float:
        """The geometric mean over seeds of the loss; infinite if a seed has none."""
        values = np.array(list(self.losses[rate].values()))
        return float(np.exp(np.mean(
            np.log(values)))) if len(values) and np.isfinite(values).all() else math.inf

    @property
    def best(self) -> float | None:
        """The rate of least score; None if no rate has one."""
        rate = min(self.rates, key=self.score)
        return rate if math.isfinite(self.score(rate)) else None

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the grid's first or last: the optimum may lie outside."""
        return self.best in (self.rates[0], self.rates[-1])


def search(study: Study, setting: str, optimizer: str, evaluation: Evaluation = DEFAULT) -> GridSearch:
    """Return what the grid search of one setting and optimizer measured."""
    step, rates = short_steps(study.options), grid(setting, optimizer, effort(study.options).grid_stride)
    losses, statuses = {}, {}
    for rate in rates:
        traces = {
            seed: study.trace(grid_cell(study.options, setting, optimizer, rate, seed))
            for seed in grid_seeds(study.options, setting)
        }
        losses[rate] = {seed: loss_at(trace, step, evaluation) for seed, trace in traces.items()}
        statuses[rate] = {
            seed: "done" if math.isfinite(losses[rate][seed]) else ending(trace)
            for seed, trace in traces.items()
        }
    return GridSearch(rates, losses, statuses)
