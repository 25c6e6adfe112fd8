"""Directional smoothness along training (Figure 5), and against the gradient norm (Figure 16).

A logarithmic axis cannot show negative curvature: such steps are drawn as marks along the lower edge, and
counted.
"""
from __future__ import annotations

from functools import partial

import numpy as np

from lintransformer.checks import InputError
from lintransformer.diagnostics.smoothness import SmoothnessFit, fit_smoothness, over_paths
from lintransformer.paper.diagnostic_cells import path_cells, smoothness_cell
from lintransformer.paper.figures.base import BLACK, LOOKS, Drawing, Figure, axes_row, log_scale, remark_below
from lintransformer.paper.figures.panels import log_across, say_empty, shared_legend
from lintransformer.paper.options import OPTIMIZERS, Options
from lintransformer.paper.settings import SETTINGS

CHOSEN = ("S1", "S2", "S3")
WINDOW = 20              # iterations on either side that a curve's median takes in, but no more than
WINDOW_SHARE = 20        # one in so many of a short path's steps
FEW = 50                 # steps: a curve of fewer has dots, as one between two gaps would have no line
ARRAYS = ("smoothness", "gradient_norm", "loss", "step_norm")
LOWEST = 1e-5            # the axis shows no less than this share of its largest value
DEFINITION = ("(x_{t+1} - x_t)^T H(x_t) (x_{t+1} - x_t) / ||x_{t+1} - x_t||^2, H the Hessian of f on one "
              "fixed batch; by a Hessian-vector product in float64")


def measured(get, options: Options, setting) -> tuple[dict, list]:
    """Return {optimizer: {seed: trace}} of a setting's smoothness, and remarks on what is left out."""
    found, remarks = {}, []
    for optimizer, cells in path_cells(options, setting, smoothness_cell).items():
        found[optimizer] = {}
        for cell in cells:
            trace, seed = get(cell), cell.needs[0].config["seed"]
            who = f"{OPTIMIZERS[optimizer]} seed {seed}"
            if trace.status != "done" or not len(trace["step"]):
                status = "no steps" if trace.status == "done" else trace.status
                remarks.append(f"{who} left out ({status})")
                continue
            found[optimizer][seed] = trace
            if len(trace["step"]) * cell.config["stride"] < cell.config["until"]:
                remarks.append(f"{who} diverged after iteration {trace['step'][-1]}")
    return found, remarks


def smoothness_cells(id, optimizers, options: Options) -> list:
    """Return the smoothness cells of every setting."""
    return [cell for name in options.chosen(id, CHOSEN) for optimizer in optimizers
            for cell in path_cells(options, name, smoothness_cell)[optimizer]]


# --- Figure 5 ---


def draw_paths(get, options: Options) -> Drawing:
    """Draw a panel for each setting: smoothness against iteration for SGDM and Adam."""
    chosen = options.chosen("fig5", CHOSEN)
    figure, axes = axes_row(len(chosen))
    table, left_out, signs = [], [], {}
    for axis, name in zip(axes[0], chosen, strict=True):
        rows, remarks, signs[name] = draw_path_panel(axis, name, get, options)
        table += rows
        left_out += [f"{SETTINGS[name].title}: {line}" for line in remarks]
    axes[0, 0].set_ylabel("directional smoothness")
    shared_legend(figure, axes.flat)
    return Drawing(figure, table, {**_caption(options, chosen, left_out), **PATH_CAPTION, "signs": signs})


PATH_CAPTION = {
    "curve": f"median over seeds and the measured steps up to {WINDOW} iterations away (on short paths: a "
             "twentieth of the measured steps), negative values included; a gap where it is not positive",
    "band": "first to third quartile of the same values, cut where it leaves the axis",
    "marks at the lower edge": "steps at which some seed's smoothness is negative: SGDM above, Adam below",
}


def draw_path_panel(axis, name, get, options: Options) -> tuple[list, list, dict]:
    """Draw one setting's smoothness; return the rows of its table, the remarks, and the counts of signs."""
    found, remarks = measured(get, options, name)
    rows, signs, notes, no_curve, last = [], {}, [], [], 1
    for place, (optimizer, by_seed) in enumerate(found.items()):
        if not by_seed:
            continue
        label = OPTIMIZERS[optimizer]
        steps, values = _together(by_seed)
        no_curve += _draw_quartiles(axis, steps, values, label)
        negative = steps[(values < 0).any(axis=0)]
        axis.plot(negative, np.full(len(negative), 0.045 - 0.03 * place), "|", color=LOOKS[label]["color"],
                  transform=axis.get_xaxis_transform(), markersize=6, markeredgewidth=0.8)
        signs[optimizer] = {"positive": int((values > 0).sum()), "negative": int((values < 0).sum())}
        notes.append(f"{label} {np.mean(values[np.isfinite(values)] < 0):.1%}")
        last = max(last, steps[-1] + 1)
        rows += [{"setting": name, "optimizer": optimizer, "seed": seed, "step": int(step),
                  **{array: trace[array][i] for array in ARRAYS}}
                 for seed, trace in by_seed.items() for i, step in enumerate(trace["step"])]
    axis.set(title=SETTINGS[name].title, xlabel="iteration", xlim=(0, last))
    remark_below(axis, [f"negative: {', '.join(notes)} (marks)" if notes else "", *no_curve, *remarks])
    _finish(axis)
    return rows, remarks, signs


def _together(by_seed) -> tuple:
    """Return the steps of the longest path and the values of all, (seeds, T), NaN where a path has ended."""
    steps = max((trace["step"] for trace in by_seed.values()), key=len)
    values = np.full((len(by_seed), len(steps)), np.nan)
    for row, trace in zip(values, by_seed.values()):
        row[:len(trace["step"])] = trace["smoothness"]
    return steps, values


def _draw_quartiles(axis, steps, values, label) -> list:
    """Draw median and quartiles of a moving window; return a remark if the median is nowhere positive."""
    reach = min(WINDOW // (steps[1] - steps[0]), len(steps) // WINDOW_SHARE) if len(steps) > 1 else 0
    padded = np.pad(values, ((0, 0), (reach, reach)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=1)
    low, middle, high = np.nanquantile(windows, [0.25, 0.5, 0.75], axis=(0, 2))
    axis.plot(steps, np.where(middle > 0, middle, np.nan), label=label, marker="." if len(steps) < FEW else "",
              **LOOKS[label])
    axis.fill_between(steps, low, high, where=high > 0, color=LOOKS[label]["color"], alpha=0.25, linewidth=0)
    return [] if (middle > 0).any() else [f"{label}: no curve, its median is negative throughout"]


def _finish(axis):
    if not any(np.isfinite(line.get_ydata()).any() for line in axis.lines):
        say_empty(axis)
        return
    curves = np.concatenate([line.get_ydata() for line in axis.lines if line.get_transform() == axis.transData])
    shown = curves[np.isfinite(curves)]
    if not len(shown):
        axis.text(0.5, 0.5, "the median is negative throughout", transform=axis.transAxes, ha="center")
        axis.set(yticks=[])
        return
    log_scale(axis)
    axis.set_ylim(max(shown.min() / 4, shown.max() * LOWEST), shown.max() * 3)


# --- Figure 16 ---


def draw_against_gradient(get, options: Options) -> Drawing:
    """Draw a panel for each setting: smoothness against gradient norm along Adam's path, by iteration."""
    chosen = options.chosen("fig16", CHOSEN)
    figure, axes = axes_row(len(chosen), height=4.3)
    table, left_out, fits, points = [], [], {}, None
    for axis, name in zip(axes[0], chosen, strict=True):
        found, remarks = measured(get, options, name)
        paths, remarks = found["adam"], [line for line in remarks if line.startswith(OPTIMIZERS["adam"])]
        left_out += [f"{SETTINGS[name].title}: {line}" for line in remarks]
        fits[name] = _fits(paths)
        points = _draw_points(axis, paths, fits[name], last_step(options)) or points
        axis.set(title=SETTINGS[name].title, xlabel="gradient norm")
        words = _words(fits[name])
        remark_below(axis, [*words, *remarks], most=len(words) + 4)
        table += _fit_rows(name, fits[name])
    axes[0, 0].set_ylabel("directional smoothness")
    if points is not None:
        figure.colorbar(points, ax=axes[0], label="iteration", pad=0.01)
    shared_legend(figure, axes.flat)
    means = {name: over_paths(list(by_seed.values())) for name, by_seed in fits.items() if by_seed}
    caption = {**_caption(options, chosen, left_out), **GRADIENT_CAPTION, "over_seeds": means}
    return Drawing(figure, table, caption)


GRADIENT_CAPTION = {
    "points": "Adam, every measured step of every seed, coloured by iteration; both on the same fixed batch",
    "line": "L0 + L1 gradient_norm, means over seeds of the weighted least-squares fits on the linear scale, "
            "negative curvature included (scatter taken to grow like median + gradient norm)",
    "marks at the lower edge": "steps with negative smoothness, at their gradient norm",
    "numbers": "over_seeds: mean and 95 % t interval over seeds (points of one path are not independent) of "
               "L0, L1, covered (share of points below the line; cut at 0 and 1), rank_correlation (Spearman's, "
               "negative curvature included; on Fisher's scale), log_slope (slope of the logarithms, positive points "
               "only)",
    "axes": "following Zhang et al. 2020a, with the gradient norm across",
}


def _fits(paths) -> dict:
    fits = {}
    for seed, trace in paths.items():
        try:
            fits[seed] = fit_smoothness(trace["gradient_norm"], trace["smoothness"])
        except InputError:                                                   # too few steps were made
            continue
    return fits


def last_step(options) -> int:
    """Return the last iteration that can be measured: every panel's colours end there."""
    return min(options.training_steps, options.numbers.smoothness_steps)


def _draw_points(axis, paths, fits, last):
    if not paths:
        say_empty(axis)
        return None
    step, norm, value = (np.concatenate([trace[array] for trace in paths.values()])
                         for array in ("step", "gradient_norm", "smoothness"))
    order = np.random.default_rng(0).permutation(len(step))                  # no iteration hides another
    step, norm, value = step[order], norm[order], value[order]
    up, down = value > 0, value < 0
    points = axis.scatter(norm[up], value[up], c=step[up], s=5, cmap="viridis", rasterized=True, vmin=0,
                          vmax=last, linewidths=0)
    axis.plot(norm[down], np.full(down.sum(), 0.02), "|", color=BLACK, alpha=0.5, markersize=6,
              transform=axis.get_xaxis_transform(), label="negative curvature")
    if fits:
        mean, x = over_paths(list(fits.values())), np.geomspace(norm[norm > 0].min(), norm.max(), 100)
        line = mean["L0"][0] + mean["L1"][0] * x
        axis.plot(x, np.where(line > 0, line, np.nan), color=BLACK, label="fit L0 + L1 gradient norm")
    log_across(axis)
    if up.any():
        log_scale(axis)
        axis.set_ylim(np.quantile(value[up], 0.001) / 3, value[up].max() * 2)
    return points


def _words(fits) -> list:
    if not fits:
        return []
    mean, signs = over_paths(list(fits.values())), [(fit.positive, fit.negative) for fit in fits.values()]
    below = sum(negative for _, negative in signs) / max(1, sum(map(sum, signs)))
    return [f"rank correlation {_interval(mean['rank_correlation'], '.2f', len(fits))}",
            f"L0 {mean['L0'][0]:.2g}, L1 {_interval(mean['L1'], '.2g', len(fits))}",
            f"negative: {below:.1%} of the steps"]


def _interval(numbers, form, seeds) -> str:
    """Return "mean [low, high]"; of fewer than three seeds the mean alone: their interval says nothing."""
    mean, low, high = (f"{number:{form}}" for number in numbers)
    return f"{mean} [{low}, {high}]" if seeds >= 3 else mean


def _fit_rows(setting, fits) -> list:
    return [{"setting": setting, "optimizer": "adam", "seed": seed,
             **{name: getattr(fit, name) for name in SmoothnessFit._fields}} for seed, fit in fits.items()]


def _caption(options, settings, left_out) -> dict:
    cells = {name: path_cells(options, name, smoothness_cell) for name in settings}
    batch = cells[settings[0]]["adam"][0].config["evaluation"]
    return {"smoothness": DEFINITION, "configuration": options.configuration, "left_out": left_out,
            "batch": f"{batch['prompts']} prompts of evaluation seed {batch['seed']}",
            "seeds": {name: list(options.seeds_of(name)) for name in settings},
            "cells": {name: {optimizer: [cell.key for cell in row] for optimizer, row in of.items()}
                      for name, of in cells.items()}}


FIGURES = (
    Figure("fig5", "Directional smoothness against iteration, SGDM and Adam",
           "Log directional smoothness against iteration in Settings 1, 2, 3: Adam's is lower than SGDM's.",
           partial(smoothness_cells, "fig5", tuple(OPTIMIZERS)), draw_paths, CHOSEN),
    Figure("fig16", "Directional smoothness against gradient norm, Adam",
           "Log gradient norm against log smoothness along Adam's path in Settings 1, 2, 3: they grow "
           "together.",
           partial(smoothness_cells, "fig16", ("adam",)), draw_against_gradient, CHOSEN),
)
