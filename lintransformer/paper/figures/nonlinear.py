"""The nonlinear task of Appendix B (Figure 15): loss, noise, robust condition number, smoothness."""
from __future__ import annotations

import numpy as np

from lintransformer.paper.diagnostic_cells import (curvature_cell, noise_cell, noise_seeds, path_cells,
                                                   smoothness_cell)
from lintransformer.paper.figures.base import LOOKS, Drawing, Figure, axes_row
from lintransformer.paper.figures.conditioning import DEFINITIONS as OF_CONDITION
from lintransformer.paper.figures.conditioning import draw_number_panel
from lintransformer.paper.figures.noise import DEFINITIONS as OF_NOISE
from lintransformer.paper.figures.noise import draw_noise_panel
from lintransformer.paper.figures.panels import draw_band, finish_axis, over_seeds, shared_legend
from lintransformer.paper.figures.smoothness import DEFINITION as OF_SMOOTHNESS
from lintransformer.paper.figures.smoothness import PATH_CAPTION, draw_path_panel
from lintransformer.paper.options import OPTIMIZERS, Options
from lintransformer.paper.training_cells import training_cell

SETTING = "nonlinear"
TITLES = ("1. loss", "2. gradient noise", "3. robust condition number", "4. directional smoothness")
LOSS_BAND = 0.25         # standard deviations (authors' code)


def nonlinear_cells(options: Options) -> list:
    """Return the cells of all four panels."""
    options.chosen("fig15", (SETTING,))
    cells = [cell for row in _training(options).values() for cell in row]
    cells += [noise_cell(options, SETTING, seed) for seed in noise_seeds(options, SETTING)]
    return cells + [cell for make in (curvature_cell, smoothness_cell)
                    for row in path_cells(options, SETTING, make).values() for cell in row]


def draw_nonlinear(get, options: Options) -> Drawing:
    """Draw the four panels."""
    figure, axes = axes_row(2, 2, height=4.3)
    loss, noise, condition, smoothness = axes.flat
    losses, no_loss = _draw_losses(loss, get, options)
    draws, no_noise = draw_noise_panel(noise, SETTING, get, options)
    numbers, no_number = draw_number_panel(condition, SETTING, get, options)
    paths, no_path, signs = draw_path_panel(smoothness, SETTING, get, options)
    for axis, title, label in zip(axes.flat, TITLES, ("loss on the fixed batch", "draws", "R", "smoothness")):
        axis.set_title(title)
        axis.set_ylabel(label)
    shared_legend(figure, axes.flat, columns=3)
    parts = {"loss": losses, "noise": draws, "condition number": numbers, "smoothness": paths}
    return Drawing(figure, _one_table(parts), {
        "loss": "mean over seeds of the squared error on the fixed batch; band: +- std/4 (authors' code)",
        "noise": OF_NOISE, "condition number": OF_CONDITION,
        "smoothness": {"definition": OF_SMOOTHNESS, **PATH_CAPTION, "signs": signs},
        "batch": _batches(options), "configuration": options.configuration,
        "left_out": [*no_loss, *no_noise, *no_number, *no_path],
        "cells": [cell.key for cell in nonlinear_cells(options)]})


def _training(options) -> dict:
    return {optimizer: [training_cell(options, SETTING, optimizer, seed) for seed in options.seeds_of(SETTING)]
            for optimizer in OPTIMIZERS}


def _batches(options) -> str:
    """Return in words on which fixed prompts the loss, and its curvature, are measured."""
    training = _training(options)["adam"][0]
    recorded, curvature = training.config["evaluation"], curvature_cell(training).config["evaluation"]
    return (f"fixed; loss: {recorded['prompts']} prompts of evaluation seed {recorded['seeds'][0]}; condition "
            f"number and smoothness: {curvature['prompts']} prompts of evaluation seed {curvature['seed']}")


def _draw_losses(axis, get, options) -> tuple[list, list]:
    rows, remarks = [], []
    for optimizer, cells in _training(options).items():
        label, traces = OPTIMIZERS[optimizer], {cell.config["seed"]: get(cell) for cell in cells}
        done = {seed: trace for seed, trace in traces.items() if trace.status == "done"}
        remarks += [f"{label} seed {seed} left out ({trace.status})" for seed, trace in traces.items()
                    if seed not in done]
        if done:
            step = next(iter(done.values()))["step"]
            values = np.array([trace["evaluation_mean"][0] for trace in done.values()])
            draw_band(axis, step, values, label, {**LOOKS[label], "markevery": len(step)}, LOSS_BAND)
            rows += [{"optimizer": optimizer, "step": int(at), **{name: row[i] for name, row in
                                                                  over_seeds(values).items()}}
                     for i, at in enumerate(step)]
    finish_axis(axis, "", options.training_steps, remarks)
    return rows, remarks


def _one_table(parts) -> list:
    """Return the rows of all panels under one set of columns."""
    names = dict.fromkeys(name for rows in parts.values() for row in rows for name in row)
    return [{"panel": panel, **dict.fromkeys(names), **row} for panel, rows in parts.items() for row in rows]


FIGURES = (
    Figure("fig15", "Nonlinear task: loss, noise, condition number, smoothness",
           "Covariates distorted by a ReLU network (Appendix B): plots similar to those of the linear task.",
           nonlinear_cells, draw_nonlinear, (SETTING,)),
)
