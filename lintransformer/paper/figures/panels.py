"""What panels of the diagnostics share: a curve with its band, an axis over iterations, one legend."""
from __future__ import annotations

import warnings

import numpy as np

from lintransformer.paper.figures.base import axes_row, log_scale, remark_below


def panel_rows(count, rows=1, **size):
    """Return a figure and its (rows, count) panels: four are narrower, so that letters stay large when
    projected.
    """
    return axes_row(count, rows, **{"width": 4.6 if count < 4 else 3.7, **size})


def over_seeds(values) -> dict:
    """Return mean, standard deviation, min and max over axis 0, of the seeds that have a value there.

    The divisor of the standard deviation is seeds - 1; it is NaN for one seed, and all are NaN for none. A
    seed has no value (NaN) where its run has diverged; an infinite value counts.
    """
    values = np.asarray(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)                      # of slices without a value
        return {"mean": np.nanmean(values, axis=0), "std": np.nanstd(values, axis=0, ddof=1),
                "min": np.nanmin(values, axis=0), "max": np.nanmax(values, axis=0)}


def draw_band(axis, step, values, label, look, share):
    """Draw the mean of values (seeds, S) over seeds, in a band of `share` standard deviations either way."""
    values = over_seeds(values)
    axis.plot(step, values["mean"], marker="o", markersize=4, label=label, **look)
    low, high = values["mean"] - share * values["std"], values["mean"] + share * values["std"]
    axis.fill_between(step, low, high, color=look["color"], alpha=0.25, linewidth=0)


def finish_axis(axis, title, steps, remarks):
    """Label a panel over iterations, with a logarithmic vertical axis and remarks below it."""
    axis.set(title=title, xlabel="iteration", xlim=(0, steps))
    remark_below(axis, remarks)
    if axis.lines:
        log_scale(axis)
    else:
        say_empty(axis)


def log_across(axis):
    """Make the horizontal axis logarithmic, with plain numbers at few enough ticks to stay apart, two at least."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks = [tick for tick in np.outer(decades, (1, 2, 5)).ravel() if low <= tick <= high]
    if high >= 50 * low:
        locator = LogLocator(numticks=6)
    else:
        locator = FixedLocator(ticks) if len(ticks) >= 2 else MaxNLocator(4)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def say_empty(axis):
    """Say that a panel has nothing to show."""
    axis.text(0.5, 0.5, "no finished run", transform=axis.transAxes, ha="center")
    axis.set(yticks=[])


def shared_legend(figure, axes, columns=4):
    """Draw one legend under the panels, of everything that is labelled in any of them."""
    found = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels()):
            found.setdefault(label, handle)
    if found:
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=columns, frameon=False)
