"""Table 2: final loss against learning rate, with our, the paper's and the README's choice."""
from __future__ import annotations

import math

from lintransformer.paper.cells import Trace, in_order
from lintransformer.paper.claims.grid_search import search
from lintransformer.paper.claims.study import EVALUATIONS, Study, by_seed, loss_at
from lintransformer.paper.claims.verdicts import below
from lintransformer.paper.experiment_cells import (GRID_SETTINGS, README_RATES, grid_seeds, readme_cell,
                                                   short_steps)
from lintransformer.paper.figures.base import BLACK, LOOKS, Drawing, Figure, axes_row, log_scale
from lintransformer.paper.figures.tables import table_files
from lintransformer.paper.options import OPTIMIZERS, Options
from lintransformer.paper.settings import SETTINGS
from lintransformer.paper.training_cells import training_cell

ID, TITLE = "table2", "Learning rates: a grid search"
COLUMNS = 5
SHOWN = 3  # times the loss at the start: what is above is a cross at the top
NOT_PRINTED = ("softmax", "separate")  # settings whose rates the paper does not print


def grid_cells(options: Options) -> list:
    """Return the cells of the grid, and of the full runs at the paper's and the README's rates."""
    study = Study(options, lambda cell: Trace(status="missing"))
    for setting in options.chosen(ID, GRID_SETTINGS):
        for optimizer in OPTIMIZERS:
            search(study, setting, optimizer)
    readme_against_paper(study)
    return in_order(study.cells.values())


def readme_against_paper(study: Study) -> list[dict]:
    """Return full-length final losses at Table 2's rate over those at the README's, where the two differ."""
    rows = []
    for (setting, optimizer), rate in README_RATES.items():
        if optimizer in study.options.rates or not study.has(setting):
            continue
        printed = SETTINGS[setting].learning_rates[optimizer]
        for evaluation in EVALUATIONS:
            reading = by_seed(
                study, f"{SETTINGS[setting].title}, {OPTIMIZERS[optimizer]}",
                f"final loss at Table 2's rate {printed:g} / at the README's {rate:g}", below(1),
                study.options.training_seeds,
                lambda seed: [make(study.options, setting, optimizer, seed)
                              for make in (training_cell, readme_cell)],
                lambda one, two: loss_at(one, evaluation=evaluation) / loss_at(two, evaluation=evaluation),
                untestable=study.too_short)
            favoured = {"agrees": "Table 2", "differs": "README"}.get(reading.verdict, reading.verdict)
            rows.append({"evaluation": str(evaluation), **reading.as_dict(), "favoured": favoured})
    return rows


def draw_grid(get, options: Options) -> Drawing:
    """Draw a panel for each setting, a curve for each optimizer."""
    study, settings = Study(options, get), options.chosen(ID, GRID_SETTINGS)
    rows_of_panels = math.ceil(len(settings) / COLUMNS)
    figure, axes = axes_row(min(COLUMNS, len(settings)), rows_of_panels, width=4.2, height=3.9)
    table, chosen = [], []
    for setting, axis in zip(settings, axes.flat):
        limits = _limits(study, setting)
        for optimizer in OPTIMIZERS:
            found = search(study, setting, optimizer)
            _draw_curve(axis, found, setting, optimizer, limits[1])
            table += _rows(found, setting, optimizer)
            chosen.append(_choice(found, setting, optimizer, options))
        axis.set(title=SETTINGS[setting].title, xscale="log", xlabel="learning rate")
        log_scale(axis)
        if limits[0] is not None:
            axis.set_ylim(*limits)
    for axis in axes.flat[len(settings):]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel(f"loss after {short_steps(options)} iterations")
    _legend(figure, axes.shape[1])
    caption = {
        "curve": f"geometric mean over seeds of the loss after {short_steps(options)} iterations (mean over "
                 "the prompts of the batch of evaluation seed 99)",
        "points": "one a seed", "configuration": options.configuration,
        "grid": "ten neighbours in 1, 2, 5, 10, ... around the setting's own rate (four for softmax); which "
                "ten the paper searched it does not say",
        "crosses": f"at the top of a panel: a seed diverged or ended above {SHOWN} times the loss at the "
                   "start; a rate at which a seed diverged is no candidate",
        "chosen": chosen, "paper_against_readme": readme_against_paper(study)}
    return Drawing(figure, table, caption, table_files(ID, TITLE, chosen, {"caption": caption}))


def _limits(study, setting) -> tuple:
    """Return the losses a panel shows: from the best rate's to `SHOWN` times that at the start."""
    found = [search(study, setting, optimizer) for optimizer in OPTIMIZERS]
    start = loss_at(
        study.trace(training_cell(study.options, setting, "sgdm", study.options.training_seeds[0])), 0)
    least = min((search.score(search.best) for search in found if search.best), default=math.nan)
    if not (math.isfinite(start) and least < SHOWN * start):
        return None, None
    return least / 2, SHOWN * start


def _draw_curve(axis, found, setting, optimizer, top):
    look, rates = LOOKS[OPTIMIZERS[optimizer]], found.rates
    shown = [rate for rate in rates if found.score(rate) < (top or math.inf)]
    axis.plot(shown, [found.score(rate) for rate in shown], **look)
    for rate in rates:
        values = [value for value in found.losses[rate].values() if value < (top or math.inf)]
        axis.plot([rate] * len(values), values, linestyle="", marker=".", color=look["color"], alpha=0.6,
                  markersize=6)
        if len(values) < len(found.losses[rate]):
            axis.plot(rate, 0.97 if optimizer == "adam" else 0.91, marker="x", color=look["color"],
                      markersize=8, markeredgewidth=2, transform=axis.get_xaxis_transform(), clip_on=False)
    marks = [(found.best, "*", 17, look["color"]),
             (SETTINGS[setting].learning_rates[optimizer], "s", 11, "none"),
             (README_RATES.get((setting, optimizer)), "D", 12, "none")]
    for rate, marker, size, face in marks:
        if rate is not None and found.score(rate) < (top or math.inf):
            axis.plot(rate, found.score(rate), marker=marker, markersize=size, markerfacecolor=face,
                      linestyle="", markeredgecolor=look["color"] if face == "none" else BLACK,
                      markeredgewidth=1.8)


def _legend(figure, columns):
    from matplotlib.lines import Line2D
    entries = [Line2D([], [], label=label, **LOOKS[label]) for label in OPTIMIZERS.values()]
    entries += [
        Line2D([], [], linestyle="", color=BLACK, label=label, marker=marker, markersize=size,
               markerfacecolor=face)
        for label, marker, size, face in (("best of the grid", "*", 15, BLACK),
                                          ("our runs' rate (Table 2's, if printed)", "s", 10,
                                           "none"), ("the README's, where it differs", "D", 10,
                                                     "none"), ("diverged, or above the panel", "x", 8, BLACK))
    ]
    figure.legend(handles=entries, loc="outside lower center", ncols=min(len(entries), 2 * columns))


def _rows(found, setting, optimizer) -> list:
    return [{
        "setting": setting, "optimizer": optimizer, "learning_rate": rate, "seed": seed, "loss": loss,
        "status": found.statuses[rate][seed]
    } for rate in found.rates for seed, loss in found.losses[rate].items()]


def _choice(found, setting, optimizer, options) -> dict:
    """Return a row of the table: what was searched, and who chose what."""
    own = SETTINGS[setting].learning_rates[optimizer]
    return {
        "setting": setting, "optimizer": optimizer, "paper": None if setting in NOT_PRINTED else own,
        "readme": None if setting in NOT_PRINTED else README_RATES.get((setting, optimizer), own),
        "ours": found.best, "ours_at_edge": found.at_edge, "loss_at_ours": found.score(
            found.best or own), "loss_at_rate_of_runs": found.score(own), "diverged": ", ".join(
                f"{rate:g}" for rate in found.rates if "diverged" in found.statuses[rate].values()),
        "grid": f"{found.rates[0]:g} to {found.rates[-1]:g}", "seeds": len(grid_seeds(
            options, setting)), "steps": short_steps(options)
    }


FIGURES = (Figure(ID, TITLE, "The learning rates chosen from a grid of ten, for each setting and optimizer.",
                  grid_cells, draw_grid, GRID_SETTINGS),)
