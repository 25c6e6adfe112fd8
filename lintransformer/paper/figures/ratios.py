"""The ratio of robust condition numbers, SGD over Adam (Figure 4), as a figure and as a table.

It is drawn at Table 2's learning rates, and where the authors' README gives another one, at that too: in
Settings 1 and 2 the README has Adam's two rates the other way round, and the ratio depends on it.
"""
from __future__ import annotations

import json

import numpy as np

from lintransformer.diagnostics.conditioning import MEANINGS
from lintransformer.diagnostics.smoothness import t_interval
from lintransformer.paper.diagnostic_cells import curvature_cell, path_cells
from lintransformer.paper.experiment_cells import README_RATES, readme_cell
from lintransformer.paper.figures.base import (BLACK, GREEN, ORANGE, Drawing, Figure, axes_row, csv_text,
                                               log_scale, remark_below)
from lintransformer.paper.figures.conditioning import SHOWN, condition_caption, measured
from lintransformer.paper.figures.panels import draw_band, say_empty, shared_legend
from lintransformer.paper.options import Options
from lintransformer.paper.settings import SETTINGS
from lintransformer.paper.store import plain
from lintransformer.paper.training_cells import training_cell

CHOSEN = ("S1", "S2", "S3")
ITERATIONS = (750, 1250)
BAND = 1                 # standard deviations, as the paper prints beside its numbers
UNTIL = 2500             # the axis ends here: the paper's iterations stay apart
# R_SGD / R_Adam of Fig. 4 as printed: mean and standard deviation over 6 seeds.
PRINTED = {"S1": {750: (1.76, 0.40), 1250: (1.58, 0.41)}, "S2": {750: (3.14, 0.97), 1250: (5.98, 2.86)},
           "S3": {750: (9.57, 13.3), 1250: (6.53, 3.55)}}
LOOKS_OF_RATES = {"Table 2": {"color": GREEN, "linestyle": "-"},
                  "README": {"color": ORANGE, "linestyle": "--"},
                  "as asked for": {"color": GREEN, "linestyle": "-"}}
INTERVAL = ("95 % t interval of the mean log ratio over seeds, taken back: it belongs to the geometric mean; "
            "empty where a ratio is not positive")


def rates_of(options: Options, setting) -> dict:
    """Return {whose rates: training(options, setting, optimizer, seed)} of the runs that are compared."""
    if options.rates:
        return {"as asked for": training_cell}
    readme = any(name == setting for name, _ in README_RATES)
    return {"Table 2": training_cell, **({"README": readme_cell} if readme else {})}


def ratio_cells(options: Options) -> list:
    """Return the curvature cells of every setting, under each choice of rates."""
    return [cell for name in options.chosen("fig4", CHOSEN) for training in rates_of(options, name).values()
            for cells in path_cells(options, name, curvature_cell, training).values() for cell in cells]


def draw_ratios(get, options: Options) -> Drawing:
    """Draw R_SGD / R_Adam along training, beside the paper's printed numbers; a table goes to tables/."""
    chosen = options.chosen("fig4", CHOSEN)
    figure, axes = axes_row(len(chosen))
    table, summary, left_out = [], [], []
    for axis, name in zip(axes[0], chosen, strict=True):
        remarks = []
        for rates, training in rates_of(options, name).items():
            found, gone = measured(get, options, name, training)
            steps, ratios = paired_ratios(found)
            remarks += [f"{line} ({rates})" for line in gone]
            table += _rows(name, rates, steps, ratios)
            summary += ratio_summary(name, rates, steps, ratios)
            if ratios:
                near, look = steps <= UNTIL, LOOKS_OF_RATES[rates]
                shown = [values[near] for values in ratios[SHOWN].values()]
                draw_band(axis, steps[near], shown, f"rates: {rates}, ± std", look, BAND)
        _finish(axis, name, options, remarks)
        left_out += [f"{SETTINGS[name].title}: {line}" for line in remarks]
    axes[0, 0].set_ylabel("R of SGDM / R of Adam")
    shared_legend(figure, axes.flat)
    caption = {**condition_caption(options, chosen, left_out),
               "curve": "mean over seeds of R_SGDM / R_Adam, both of one seed; diamonds: the paper's printed "
                        "means and standard deviations (a bar that reaches below 0 goes down to the axis)",
               "band": "mean +- std over the seeds that have a value there, as the paper's bars; std with divisor "
                       "seeds - 1; cut at the axis where it reaches further down",
               "cells": {name: {rates: _keys(options, name, training)
                                for rates, training in rates_of(options, name).items()} for name in chosen},
               "rates": "Table 2, and the authors' README where it gives Adam another rate"}
    return Drawing(figure, table, caption, ratio_files(summary, caption))


def paired_ratios(found) -> tuple:
    """Return steps (S,) and {meaning: {seed: R_SGDM / R_Adam (S,)}} over seeds that both optimizers have."""
    seeds = [seed for seed in found["sgdm"] if seed in found["adam"]]
    if not seeds:
        return np.empty(0, int), {}
    sgdm, adam = found["sgdm"], found["adam"]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = {meaning: {seed: sgdm[seed][1][meaning] / adam[seed][1][meaning] for seed in seeds}
                  for meaning in MEANINGS}
    return sgdm[seeds[0]][0], ratios


def _keys(options, setting, training) -> dict:
    return {optimizer: [cell.key for cell in cells] for optimizer, cells in
            path_cells(options, setting, curvature_cell, training).items()}


def _finish(axis, name, options, remarks):
    axis.set(title=SETTINGS[name].title, xlabel="iteration", xlim=(0, min(UNTIL, options.training_steps)))
    remark_below(axis, remarks)
    if not axis.lines:
        say_empty(axis)
        return
    log_scale(axis)
    means = np.concatenate([line.get_ydata() for line in axis.lines])
    lowest = np.min(means[means > 0], initial=1) / 2         # a band that nearly reaches 0 does not set the range
    axis.axhline(1, color=BLACK, linewidth=1)
    for step, (mean, std) in PRINTED[name].items():
        if step <= options.training_steps:
            look = {"color": BLACK, "marker": "D", "markersize": 7, "capsize": 5, "linewidth": 1.6}
            axis.errorbar([step], [mean], yerr=[[std if std < mean else 0], [std]], linestyle="none",
                          label="the paper's, ± std", **look)
    low = max(axis.get_ylim()[0], lowest)
    for step, (mean, std) in PRINTED[name].items():
        if step <= options.training_steps and std >= mean:                   # the bar leaves the logarithmic axis
            axis.plot([step, step], [low, mean], color=BLACK, linewidth=1.6)
    axis.set_ylim(bottom=low)


def _rows(setting, rates, steps, ratios) -> list:
    return [{"setting": setting, "rates": rates, "meaning": meaning, "seed": seed, "step": int(step),
             "ratio": value} for meaning, by_seed in ratios.items() for seed, values in by_seed.items()
            for step, value in zip(steps, values)]


def ratio_summary(setting, rates, steps, ratios) -> list:
    """Return rows of the table: each meaning at the paper's iterations (not reached: at the last one)."""
    at, rows = [step for step in ITERATIONS if step in steps] or list(steps[-1:]), []
    for meaning, by_seed in ratios.items():
        for step in at:
            index = list(steps).index(step)
            values = np.array([values[index] for values in by_seed.values()])
            printed = PRINTED[setting].get(step, (None, None)) if meaning == SHOWN else (None, None)
            rows.append({"setting": setting, "rates": rates, "iteration": int(step), "meaning": meaning,
                         **_statistics(values), "paper_mean": printed[0], "paper_std": printed[1]})
    return rows


def _statistics(values) -> dict:
    values = values[~np.isnan(values)]                       # NaN: a run had diverged, or infinite / infinite
    if not len(values):
        return {"seeds": 0, **dict.fromkeys(("mean", "std", "median", "geometric_mean", "low", "high"), np.nan)}
    positive = np.all(np.isfinite(values) & (values > 0))
    with np.errstate(invalid="ignore"):
        mean, median = float(np.mean(values)), float(np.median(values))
        std = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
    geometric, low, high = np.exp(t_interval(np.log(values))) if positive else [np.nan] * 3
    return {"seeds": len(values), "mean": mean, "std": std, "median": median,
            "geometric_mean": float(geometric), "low": float(low), "high": float(high)}


def ratio_files(rows, caption) -> dict:
    """Return the table as CSV, JSON and Markdown: {path in the results folder: text}."""
    record = {"id": "fig4", "title": "R_SGD / R_Adam: robust condition number of SGDM over that of Adam",
              "meanings": caption["meanings"], "interval": INTERVAL, "batch": caption["batch"], "rows": rows,
              "configuration": caption["configuration"]}
    return {"tables/fig4.csv": csv_text(rows), "tables/fig4.md": ratio_markdown(rows),
            "tables/fig4.json": json.dumps(plain(record), indent=1, allow_nan=False) + "\n"}


def ratio_markdown(rows) -> str:
    """Return the table for people: mean (std) as the paper prints it, in every meaning, and the paper's."""
    lines = ["| setting | rates | iteration | meaning of R | mean (std) | geometric mean [95 %] | paper |",
             "|---|---|---|---|---|---|---|"]
    for row in rows:
        paper = "" if row["paper_mean"] is None else f"{row['paper_mean']:.3g} ({row['paper_std']:.3g})"
        interval = f"{row['geometric_mean']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"
        ours = f"{row['mean']:.3g} ({row['std']:.3g}) | {interval}".replace("nan", "-")
        what = " | ".join(str(row[name]) for name in ("setting", "rates", "iteration", "meaning"))
        lines.append(f"| {what} | {ours} | {paper} |")
    return "\n".join(lines) + "\n"


FIGURES = (
    Figure("fig4", "Robust condition number of SGDM over that of Adam",
           "Ratio of robust condition numbers SGD/Adam at iterations 750 and 1250 in Settings 1, 2, 3: above "
           "1 in each.", ratio_cells, draw_ratios, CHOSEN),
)
