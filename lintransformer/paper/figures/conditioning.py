"""Robust condition numbers along training: both optimizers' (Figures 11 and 14).

The curves show max |diag H| / median |diag H| over all parameters, which is what the authors' code computes;
the tables hold every other meaning as well (`lintransformer.diagnostics.conditioning`). Figure 4:
`ratios.py`.
"""
from __future__ import annotations

from functools import partial

from lintransformer.diagnostics.conditioning import MEANINGS, robust_condition_number
from lintransformer.paper.diagnostic_cells import curvature_cell, path_cells
from lintransformer.paper.figures.base import LOOKS, Drawing, Figure
from lintransformer.paper.figures.panels import draw_band, finish_axis, panel_rows, shared_legend
from lintransformer.paper.options import OPTIMIZERS, Options
from lintransformer.paper.settings import SETTINGS
from lintransformer.paper.training_cells import training_cell

SHOWN = "diagonal"
BAND = 0.5               # standard deviations (authors' code)
DEFINITIONS = {
    "shown": "max |diag H| / median |diag H| over all parameters (authors' code; Jiang et al. 2022), H the "
             "Hessian of f on one fixed batch",
    "band": "mean +- std/2 over the seeds that have a value there (authors' code); std with divisor seeds - 1; "
            "cut at the axis where it reaches below 0",
    "meanings": {
        "diagonal": "max |H_ii| / median |H_ii|, all parameters",
        "diagonal-reaching": "the same over parameters that can reach the prediction (the last layer's P' "
                             "cannot: its zeros lower the median)",
        "eigenvalues": "lambda_max / lambda_median, all (as the paper prints it); negative where most "
                       "eigenvalues are, infinite where the median is 0",
        "eigenvalues-reaching": "the same without the zeros of parameters that cannot reach the prediction",
        "magnitudes": "max |lambda| / median |lambda|, all", "magnitudes-reaching": "the same, reaching"},
}


def numbers_of(trace) -> dict:
    """Return every meaning's number along a path, {meaning: (S,)}, of a trace of kind "curvature"."""
    diagonal, eigenvalues, reaches = trace["diagonal"], trace["eigenvalues"], trace["reaches"]
    return {meaning: robust_condition_number(diagonal, eigenvalues, reaches, meaning) for meaning in MEANINGS}


def measured(get, options: Options, setting, training=training_cell) -> tuple[dict, list]:
    """Return {optimizer: {seed: (step (S,), {meaning: (S,)})}}, and remarks on what is left out.

    ``training(options, setting, optimizer, seed)`` names the runs. One that diverged counts up to there.
    """
    found, remarks = {}, []
    for optimizer, cells in path_cells(options, setting, curvature_cell, training).items():
        found[optimizer] = {}
        for cell in cells:
            trace, who = get(cell), f"{OPTIMIZERS[optimizer]} seed {cell.needs[0].config['seed']}"
            if trace.status != "done":
                remarks.append(f"{who} left out ({trace.status})")
                continue
            found[optimizer][cell.needs[0].config["seed"]] = trace["step"], numbers_of(trace)
            gone = trace.summary["points_without_hessian"]
            if gone:
                remarks.append(f"{who} diverged before iteration {gone[0]}")
    return found, remarks


def condition_cells(id, settings, options: Options) -> list:
    """Return the curvature cells of every setting."""
    return [cell for name in options.chosen(id, settings)
            for cells in path_cells(options, name, curvature_cell).values() for cell in cells]


def draw_numbers(id, settings, get, options: Options) -> Drawing:
    """Draw a panel for each setting: R along training, mean and band over seeds."""
    chosen = options.chosen(id, settings)
    figure, axes = panel_rows(len(chosen))
    table, left_out = [], []
    for axis, name in zip(axes[0], chosen, strict=True):
        rows, remarks = draw_number_panel(axis, name, get, options)
        table += rows
        left_out += [f"{SETTINGS[name].title}: {line}" for line in remarks]
    axes[0, 0].set_ylabel("R = max / median of |diag H|")
    shared_legend(figure, axes.flat)
    return Drawing(figure, table, condition_caption(options, chosen, left_out))


def draw_number_panel(axis, name, get, options: Options) -> tuple[list, list]:
    """Draw one setting's condition numbers; return the rows of its table and the remarks."""
    found, remarks = measured(get, options, name)
    rows = []
    for optimizer, by_seed in found.items():
        label = OPTIMIZERS[optimizer]
        if by_seed:
            step = next(iter(by_seed.values()))[0]
            values = [numbers[SHOWN] for _, numbers in by_seed.values()]
            draw_band(axis, step, values, label, LOOKS[label], BAND)
        rows += [{"setting": name, "optimizer": optimizer, "seed": seed, "step": int(at), "meaning": meaning,
                  "value": values[i]} for seed, (steps, numbers) in by_seed.items()
                 for meaning, values in numbers.items() for i, at in enumerate(steps)]
    finish_axis(axis, SETTINGS[name].title, options.training_steps, remarks)
    return rows, remarks


def condition_caption(options, settings, left_out) -> dict:
    """Return what is shown: definitions, batch, seeds, cells."""
    cells = {name: path_cells(options, name, curvature_cell) for name in settings}
    batch = cells[settings[0]]["adam"][0].config["evaluation"]
    return {**DEFINITIONS, "batch": f"{batch['prompts']} prompts of evaluation seed {batch['seed']}",
            "configuration": options.configuration, "left_out": left_out,
            "seeds": {name: list(options.seeds_of(name)) for name in settings},
            "cells": {name: {optimizer: [cell.key for cell in row] for optimizer, row in of.items()}
                      for name, of in cells.items()}}


def _figure(id: str, title: str, paper: str, settings: tuple) -> Figure:
    cells, draw = partial(condition_cells, id, settings), partial(draw_numbers, id, settings)
    return Figure(id, title, paper, cells, draw, settings)


FIGURES = (
    _figure("fig11", "Robust condition number, spherical and heavy-tailed covariates",
            "Robust condition number along training for spherical and heavy-tailed covariates: heavier "
            "tails, larger gap between SGD and Adam.", ("spherical", "heavy-tailed")),
    _figure("fig14", "Robust condition number against depth",
            "The same for L = 2, 4, 6, 8: the gap is larger for L = 4, 6, 8 than for L = 2.",
            ("L2", "L4", "L6", "L8")),
)
