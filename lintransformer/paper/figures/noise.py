"""Gradient noise at initialisation: histograms of error norms, Gaussian Q-Q plots (Figures 3, 10, 13)."""
from __future__ import annotations

from functools import partial
from statistics import NormalDist

import numpy as np

from lintransformer.diagnostics.noise import (STATISTICS, effective_dimensions, gaussian_norms, hill,
                                              noise_statistics, quantile_plot)
from lintransformer.paper.diagnostic_cells import noise_cell, noise_seeds
from lintransformer.paper.figures.base import BLACK, ORANGE, SKY, Drawing, Figure, remark_below
from lintransformer.paper.figures.panels import panel_rows, say_empty, shared_legend
from lintransformer.paper.options import Options
from lintransformer.paper.settings import SETTINGS

BINS = 60
SHOWN = 0.995            # the horizontal axis ends at this quantile: rare draws would flatten the rest
NULL_DRAWS = 20_000      # of the Gaussian errors that the histogram is compared with
DEFINITIONS = {
    "error norm": "norm of (gradient of a batch of B prompts - gradient of `reference` such batches "
                  "together), at the initialisation of the seed; float32",
    "histogram": f"of the first seed's draws, up to their {SHOWN:.1%} quantile",
    "fitted Gaussian": "mean and standard deviation of the draws",
    "Gaussian errors": "norms of Gaussian errors with the measured covariance (simulated): a norm is skewed "
                       "even then, so this, not the fitted Gaussian, is the null",
    "Q-Q plot": "all ordered draws (the middle ones thinned out) against quantiles of the fitted Gaussian, "
                "with y = x; above it on the right: heavier tails",
    "statistics": "skewness; excess kurtosis; upper_tail = 99 % tail length (q99 - q50)/(q75 - q50), "
                  "far_upper_tail with q99.9, lower_tail (q50 - q01)/(q50 - q25), each divided by a "
                  "Gaussian's. Intervals: 95 % percentile bootstrap over draws (too short for kurtosis under "
                  "heavy tails)",
    "hill": "Hill's tail index over k, the number of largest draws used, with its asymptotic 95 % interval; "
            "no single index is claimed",
}


def noise_figure(id: str, title: str, paper: str, settings: tuple) -> Figure:
    """Return a figure with one panel of gradient noise for each setting."""
    cells, draw = partial(noise_cells, id, settings), partial(draw_noise, id, settings)
    return Figure(id, title, paper, cells, draw, settings)


def noise_cells(id, settings, options: Options) -> list:
    """Return the noise cells of every setting."""
    return [noise_cell(options, name, seed) for name in options.chosen(id, settings)
            for seed in noise_seeds(options, name)]


def draw_noise(id, settings, get, options: Options) -> Drawing:
    """Draw a panel for each setting."""
    chosen = options.chosen(id, settings)
    figure, axes = panel_rows(len(chosen), height=4.4)
    table, left_out = [], []
    for axis, name in zip(axes[0], chosen, strict=True):
        rows, missing = draw_noise_panel(axis, name, get, options)
        table += rows
        left_out += missing
    axes[0, 0].set_ylabel("draws")
    shared_legend(figure, axes.flat)
    return Drawing(figure, table, {"definitions": DEFINITIONS, "configuration": options.configuration,
                                   "draws": settings_of_draws(options, chosen), "left_out": left_out})


def settings_of_draws(options: Options, settings) -> dict:
    """Return what the draws of each setting rest on: numbers of draws and prompts, seeds, cells."""
    found = {}
    for name in settings:
        cells = [noise_cell(options, name, seed) for seed in noise_seeds(options, name)]
        found[name] = {key: cells[0].config[key] for key in ("draws", "batch_size", "reference")}
        found[name]["seeds"] = [cell.config["seed"] for cell in cells]
        found[name]["cells"] = [cell.key for cell in cells]
    return found


def draw_noise_panel(axis, name, get, options: Options) -> tuple[list, list]:
    """Draw one setting's noise; return the rows of its table and the remarks about cells that are missing."""
    cells = [noise_cell(options, name, seed) for seed in noise_seeds(options, name)]
    traces = {cell.config["seed"]: get(cell) for cell in cells}
    done = {seed: trace for seed, trace in traces.items() if trace.status == "done"}
    missing = [f"{SETTINGS[name].title}: noise of seed {seed} left out ({trace.status})"
               for seed, trace in traces.items() if seed not in done]
    axis.set(title=SETTINGS[name].title, xlabel="gradient error norm", yticks=[])
    if not done:
        say_empty(axis)
        return [], missing
    rows = [row for seed, trace in done.items() for row in noise_rows(name, seed, trace)]
    seed, trace = next(iter(done.items()))
    norms = trace["norms"]
    bins = min(BINS, max(10, int(np.sqrt(len(norms)))))
    edges = np.linspace(norms.min(), np.quantile(norms, SHOWN), bins + 1)
    null = gaussian_norms(trace["spectrum"], NULL_DRAWS)
    counts = axis.hist(norms, edges, color=SKY, label="batch gradients")[0]
    middle = (edges[1:] + edges[:-1]) / 2
    scale = len(norms) * np.diff(edges)
    fitted = np.array([NormalDist(norms.mean(), norms.std(ddof=1)).pdf(x) for x in middle])
    axis.plot(middle, fitted * scale, color=BLACK, linestyle="--", label="fitted Gaussian")
    expected = np.histogram(null, edges)[0] * len(norms) / len(null)
    axis.plot(middle, expected, color=ORANGE, drawstyle="steps-mid", label="Gaussian errors, same covariance")
    axis.set_xlim(edges[0], edges[0] + 1.5 * (edges[-1] - edges[0]))         # room for the Q-Q plot
    axis.set_ylim(0, 1.05 * max(counts.max(), expected.max()))
    axis.grid(False)
    _draw_quantiles(axis.inset_axes([0.66, 0.5, 0.33, 0.44]), norms)
    remark_below(axis, _remarks(rows, seed, norms, edges[-1]))
    rows += [{**_row(name, seed, "histogram", "draws"), "x": low, "value": count}
             for low, count in zip(edges, counts)]
    return rows, missing


def _draw_quantiles(axis, norms):
    plot = quantile_plot(norms)
    shown = _thinned(len(norms))
    ends = [plot.theoretical[0], plot.theoretical[-1]]
    axis.plot(ends, ends, color=BLACK, linewidth=1)
    axis.plot(plot.theoretical[shown], plot.ordered[shown], ".", color=SKY, markersize=4)
    axis.text(0.05, 0.95, "Q-Q", transform=axis.transAxes, va="top", fontsize=10)
    axis.tick_params(labelsize=10, length=2)
    axis.locator_params(nbins=2)
    low, high = axis.get_xlim()
    shown = [tick for tick in axis.get_xticks() if low <= tick <= high]
    axis.set(xticks=[shown[0], shown[-1]], xlim=(low, high))                 # there is room for two labels
    axis.grid(False)


def _thinned(count, middle=300, ends=50):
    """Which of `count` ordered draws a Q-Q plot shows: both ends whole, the middle evenly."""
    inner = np.linspace(0, count - 1, min(middle, count)).astype(int)
    return np.unique(np.concatenate([np.arange(count)[:ends], inner, np.arange(count)[-ends:]]))


def _remarks(rows, seed, norms, end):
    found = {(row["part"], row["name"]): row["value"] for row in rows if row["seed"] == seed}
    lines = [f"{words} {found['statistic', key]:.2f} (Gaussian errors: {found['Gaussian errors', key]:.2f})"
             for words, key in (("skewness", "skewness"), ("99 % tail length", "upper_tail"))]
    beyond = int(np.sum(norms > end))
    return [*lines, f"{beyond} of {len(norms)} draws lie further right, up to {norms.max():.3g}"]


def noise_rows(setting, seed, trace) -> list:
    """Return the table of one cell: statistics of its draws and of the null, Hill's index over k."""
    norms, null = trace["norms"], gaussian_norms(trace["spectrum"], NULL_DRAWS)
    rows = [{**_row(setting, seed, "statistic", name), "value": value, "low": low, "high": high}
            for name, (value, low, high) in noise_statistics(norms).items()]
    rows += [{**_row(setting, seed, "statistic", name), "value": value} for name, value in (
        ("min", norms.min()), ("max", norms.max()), ("draws", len(norms)),
        ("effective_dimensions", effective_dimensions(trace["spectrum"])),
        ("large_batch_gradient_norm", np.linalg.norm(trace["gradient"])))]
    rows += [{**_row(setting, seed, "Gaussian errors", name), "value": float(statistic(null))}
             for name, statistic in STATISTICS.items()]
    estimate = hill(norms)
    return rows + [{**_row(setting, seed, "hill", "index over k"), "x": k, "value": index, "low": low,
                    "high": high} for k, index, low, high in zip(*estimate)]


def _row(setting, seed, part, name) -> dict:
    return {"setting": setting, "seed": seed, "part": part, "name": name,
            "x": None, "value": None, "low": None, "high": None}


FIGURES = (
    noise_figure("fig3", "Gradient noise at initialisation, Settings 1-3",
                 "Histogram of the gradient error norm with a Gaussian Q-Q plot for Settings 1, 2, 3: the "
                 "Q-Q plot lies above y = x on the right, heavier-tailed than Gaussian.", ("S1", "S2", "S3")),
    noise_figure("fig10", "Gradient noise at initialisation, spherical and heavy-tailed covariates",
                 "The same for spherical and heavy-tailed covariates: heavier-tailed covariates give "
                 "heavier-tailed noise.", ("spherical", "heavy-tailed")),
    noise_figure("fig13", "Gradient noise at initialisation against depth",
                 "The same for L = 2, 4, 6, 8: heavier-tailed for L = 6, 8 than for L = 2, 4.",
                 ("L2", "L4", "L6", "L8")),
)
