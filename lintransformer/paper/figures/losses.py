"""Loss curves: log loss against iteration; each curve is the mean over seeds of its training runs."""
from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from lintransformer.diagnostics.smoothness import t_interval
from lintransformer.paper.figures.base import BLACK, GREEN, LOOKS, Drawing, Figure, log_scale, remark_below
from lintransformer.paper.figures.panels import over_seeds, panel_rows
from lintransformer.paper.options import OPTIMIZERS, Options
from lintransformer.paper.settings import SETTINGS
from lintransformer.paper.training_cells import EVALUATION_PROMPTS, EVALUATION_SEEDS, training_cell
from lintransformer.training import TRIMMED

CURVE_LOOKS = {**LOOKS, "linear": {"color": BLACK, "linestyle": "-"},           # not the colours of optimizers
               "softmax": {"color": GREEN, "linestyle": "-."}}
OVER_PROMPTS = {"mean": "evaluation_mean", "median": "evaluation_median", "trimmed": "evaluation_trimmed"}
PEAK = 100                  # times a curve's start and upper quartile: what is above is cut off (our choice)
LARGEST = 1e300             # end of an axis: ticks further on are no numbers
ROWS = {"mean": "loss (mean of prompts)", "median": "loss (median of prompts)"}      # above and below


@dataclass(frozen=True)
class Curve:
    """One curve of a panel; its label decides its colour and line style (`CURVE_LOOKS`)."""
    label: str
    setting: str
    optimizer: str


@dataclass(frozen=True)
class Panel:
    """A title and the curves under it."""
    title: str
    curves: tuple[Curve, ...]


def optimizer_panels(*settings) -> tuple[Panel, ...]:
    """Return one panel for each setting, with SGDM and Adam."""
    return tuple(Panel(SETTINGS[name].title,
                       tuple(Curve(label, name, optimizer) for optimizer, label in OPTIMIZERS.items()))
                 for name in settings)


def loss_figure(id: str, title: str, paper: str, panels: tuple[Panel, ...]) -> Figure:
    """Return a figure of loss curves."""
    settings = tuple(dict.fromkeys(curve.setting for panel in panels for curve in panel.curves))
    return Figure(id, title, paper, partial(loss_cells, id, settings, panels),
                  partial(draw_losses, id, settings, panels), settings)


def shown_panels(id, settings, panels, options: Options) -> list[Panel]:
    """Return the panels whose settings are all asked for."""
    chosen = options.chosen(id, settings)
    return [panel for panel in panels if all(curve.setting in chosen for curve in panel.curves)]


def loss_cells(id, settings, panels, options: Options) -> list:
    """Return the training cells of every curve."""
    return [cell for panel in shown_panels(id, settings, panels, options) for curve in panel.curves
            for cell in curve_cells(curve, options)]


def curve_cells(curve: Curve, options: Options) -> list:
    """Return a curve's training cells, one for each seed."""
    return [training_cell(options, curve.setting, curve.optimizer, seed)
            for seed in options.seeds_of(curve.setting)]


def draw_losses(id, settings, panels, get, options: Options) -> Drawing:
    """Draw each panel twice: above the mean over the prompts of the fixed batch, which the paper shows, below
    their median, which a few prompts cannot move.
    """
    panels = shown_panels(id, settings, panels, options)
    figure, axes = panel_rows(len(panels), len(ROWS))
    table, final, gaps, left_out = [], [], [], []
    for column, panel in zip(axes.T, panels, strict=True):
        remarks = []
        for curve in panel.curves:
            traces = [(cell, get(cell)) for cell in curve_cells(curve, options)]
            used = [trace for _, trace in traces if trace.status == "done"]
            remarks += _left_out(curve.label, traces)
            if used:
                rate = traces[0][0].config["optimizer"]["learning_rate"]
                for axis, statistic in zip(column, ROWS, strict=True):
                    _draw_curve(axis, used, statistic, f"{curve.label}, rate {rate:g}",
                                CURVE_LOOKS[curve.label])
                table += _rows(curve, used)
                final.append(_final(curve, rate, traces))
        gaps += panel_gaps(panel, get, options)
        cut = [f"{statistic} of prompts: {remark}" for axis, statistic in zip(column, ROWS, strict=True)
               for remark in finish_loss_axis(axis, options.training_steps)]
        column[0].set_title(panel.title)
        remark_below(column[-1], remarks + cut)
        left_out += [f"{panel.title}: {remark}" for remark in remarks]
    for axis, label in zip(axes[:, 0], ROWS.values(), strict=True):
        axis.set_ylabel(label)
    return Drawing(figure, table, {**_caption(options, final, left_out), "gaps": gaps})


def _draw_curve(axis, traces, statistic, label, look):
    """Draw the mean over seeds, in a band of a quarter of the standard deviation either way."""
    step, values = traces[0]["step"], over_seeds([trace[OVER_PROMPTS[statistic]][0] for trace in traces])
    axis.plot(step, values["mean"], label=label, **look)
    if len(traces) > 1:
        axis.fill_between(step, values["mean"] - values["std"] / 4, values["mean"] + values["std"] / 4,
                          color=look["color"], alpha=0.25, linewidth=0)


def _left_out(label, traces) -> list:
    """Return a remark for each reason why runs are not in the mean."""
    seeds = {}
    for cell, trace in traces:
        if trace.status != "done":
            seeds.setdefault(trace.status, []).append(str(cell.config["seed"]))
    return [f"{label}: seed {', '.join(names)} left out ({status})" for status, names in seeds.items()]


def finish_loss_axis(axis, steps) -> list:
    """Label an axis, and keep its upper quarter free for the legend; return a remark if peaks are cut off.

    A single prompt can lift a mean by dozens of decades, which would press all else into one line.
    """
    axis.set(xlabel="iteration", xlim=(0, steps))
    log_scale(axis)
    if not axis.lines:
        axis.text(0.5, 0.5, "no finished run", transform=axis.transAxes, ha="center")
        return []
    axis.legend(loc="upper right")
    (low, high), values = axis.get_ylim(), np.concatenate([line.get_ydata() for line in axis.lines])
    most = PEAK * max(max(line.get_ydata()[0], np.nanquantile(line.get_ydata(), 0.75)) for line in axis.lines)
    if high > most:
        axis.set_ylim(np.min(values[values > 0]) / 2, most)                  # room for the legend already
        return [f"peaks to {np.nanmax(values):.0e} are cut off"] if np.nanmax(values) > most else []
    with np.errstate(over="ignore"):
        axis.set_ylim(low, min(high * (high / low) ** 0.3, LARGEST))
    return []


def _rows(curve, traces) -> list:
    """Return a curve's table: each evaluation batch, statistic over its prompts, and recorded step."""
    rows = []
    for batch, evaluation_seed in enumerate(EVALUATION_SEEDS):
        for name, array in OVER_PROMPTS.items():
            values = over_seeds([trace[array][batch].astype(float) for trace in traces])
            rows += [{"setting": curve.setting, "optimizer": curve.optimizer,
                      "evaluation_seed": evaluation_seed, "over_prompts": name, "step": int(step),
                      "seeds": len(traces), **{key: value[index] for key, value in values.items()}}
                     for index, step in enumerate(traces[0]["step"])]
    return rows


def _final(curve, rate, traces) -> dict:
    """Return where a curve ends, on the batch that is drawn: the statistics, and each seed's value."""
    ends = {cell.config["seed"]: float(trace["evaluation_mean"][0][-1]) for cell, trace in traces
            if trace.status == "done"}
    statistics = {name: float(value) for name, value in over_seeds(list(ends.values())).items()}
    return {"curve": curve.label, "setting": curve.setting, "learning_rate": rate, **statistics,
            "by_seed": ends, "cells": [cell.key for cell, _ in traces]}


def panel_gaps(panel, get, options) -> list:
    """Return the gap between a panel's two curves at the end of training, for each batch and statistic.

    A gap is the ratio first / second of the final losses: its geometric mean over the seeds both have
    finished, and a 95% t interval on the logarithms. Seeds are paired: the same seed starts both from the
    same numbers.
    """
    by_seed = [{cell.config["seed"]: get(cell) for cell in curve_cells(curve, options)} for curve in panel.curves]
    seeds = [seed for seed in by_seed[0] if all(runs.get(seed) and runs[seed].status == "done" for runs in by_seed)]
    if len(panel.curves) != 2 or not seeds:
        return []
    rows = []
    for name, array in OVER_PROMPTS.items():
        first, second = (np.array([runs[seed][array][:, -1] for seed in seeds]) for runs in by_seed)
        for evaluation_seed, ratios in zip(EVALUATION_SEEDS, np.log(first / second).T, strict=True):
            with np.errstate(over="ignore"):                                 # an upper end may be infinite
                mean, low, high = np.exp(t_interval(ratios))
            rows.append({"panel": panel.title, "ratio": " / ".join(curve.label for curve in panel.curves),
                         "evaluation_seed": evaluation_seed, "over_prompts": name, "seeds": len(seeds),
                         "value": float(mean), "interval": [float(low), float(high)]})
    return rows


def _caption(options, final, left_out) -> dict:
    return {
        "curve": f"mean over seeds of the squared error on one fixed batch of {EVALUATION_PROMPTS} prompts "
                 f"(evaluation seed {EVALUATION_SEEDS[0]}), on logarithmic axes: above their mean, "
                 "as in the paper; below the median, as the mean can hang on a few prompts",
        "band": "mean +- std/4 over seeds (authors' code); std with divisor seeds - 1",
        "table": "for each evaluation batch and each statistic over its prompts (mean; median; mean without "
                 f"the largest and the smallest {TRIMMED:.0%}): mean, std, min and max over seeds",
        "evaluation_seeds": list(EVALUATION_SEEDS), "evaluation_prompts": EVALUATION_PROMPTS,
        "configuration": options.configuration, "final": final, "left_out": left_out}


FIGURES = (
    loss_figure("fig2", "Loss against iteration, SGDM and Adam",
                "Log loss against iteration for SGDM and Adam in Settings 1, 2, 3: Adam ends lower in each.",
                optimizer_panels("S1", "S2", "S3")),
    loss_figure("fig7", "Linear and softmax attention",
                "Log loss against iteration for three layers of linear and of softmax attention in Setting 1: the loss "
                "of linear attention falls much faster.",
                tuple(Panel(name, (Curve("softmax", "softmax", optimizer), Curve("linear", "S1", optimizer)))
                      for optimizer, name in OPTIMIZERS.items())),
    loss_figure("fig8", "Separate query and key matrices; a larger model",
                "Log loss against iteration with separate query and key matrices (left) and for L = 8, d = 20, n = 60 "
                "(right): largely as in Figure 2.",
                optimizer_panels("separate", "L8d20n60")),
    loss_figure("fig9", "Spherical and heavy-tailed covariates",
                "Log loss against iteration: both optimizers converge much faster on spherical than on heavy-tailed "
                "covariates; Adam's relative advantage does not shrink noticeably.",
                optimizer_panels("spherical", "heavy-tailed")),
    loss_figure("fig12", "Loss against iteration for 2, 4, 6 and 8 layers",
                "Log loss against iteration for more and more layers: the gap between SGDM and Adam grows, and the "
                "loss of both falls.",
                optimizer_panels("L2", "L4", "L6", "L8")),
)
