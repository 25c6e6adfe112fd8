"""Directional smoothness with and without clipping (claim 19)."""
from __future__ import annotations

import numpy as np

from lintransformer.paper.claims.landscape import mean, median
from lintransformer.paper.claims.study import cut_short
from lintransformer.paper.diagnostic_cells import smoothness_cell
from lintransformer.paper.experiment_cells import unclipped_cell
from lintransformer.paper.figures.base import BLACK, LOOKS, Drawing, Figure, axes_row, remark_below
from lintransformer.paper.figures.panels import say_empty
from lintransformer.paper.options import OPTIMIZERS, Options
from lintransformer.paper.settings import SETTINGS
from lintransformer.paper.training_cells import training_cell

THREE = ("S1", "S2", "S3")


def signed_log_scale(axis, linear=0.1):
    """Make the vertical axis logarithmic beyond +-`linear` and linear between; its limits are then fixed.

    Ticks, in plain numbers: 0 where it is in view, and decades; where that makes fewer than three, halves and
    fifths of decades; where that does, round numbers.
    """
    from matplotlib.ticker import MaxNLocator, NullLocator
    axis.set_yscale("symlog", linthresh=linear)
    low, high = axis.get_ylim()
    axis.set_ylim(low, high)
    largest = max(abs(low), abs(high), linear)
    decades = linear * 10.0 ** np.arange(np.ceil(np.log10(largest / linear)) + 1)
    for parts in ((1,), (1, 2, 5)):
        marks = np.outer(decades, parts).ravel()
        ticks = _apart(axis, [0, *(value for mark in marks for value in (mark, -mark))])
        if len(ticks) >= 3:
            break
    else:
        ticks = _apart(axis, MaxNLocator(4).tick_values(low, high))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.set_yticks(ticks, [f"{value:g}" for value in ticks])


def _apart(axis, values, share=0.08):
    """Return those of the values in view that stand apart by a share of the height, the first of them first."""
    low, high = axis.transScale.transform([(0, end) for end in axis.get_ylim()])[:, 1]
    kept, places = [], []
    for value in values:
        place = (axis.transScale.transform((0, value))[1] - low) / (high - low)
        if 0 <= place <= 1 and all(abs(place - other) >= share for other in places):
            kept.append(float(value))
            places.append(place)
    return kept


def clipping_cells(options: Options) -> list:
    """Return smoothness along the first steps, clipped and not."""
    return [
        smoothness_cell(make(options, setting, optimizer, seed))
        for setting in options.chosen("clipping", THREE) for optimizer in OPTIMIZERS
        for make in (training_cell, unclipped_cell) for seed in options.training_seeds
    ]


CLIPPING = {"clipped": (training_cell, "-", 1.6), "not clipped": (unclipped_cell, ":", 1.4)}


def draw_clipping(get, options: Options) -> Drawing:
    """Draw the median over seeds of directional smoothness, SGDM above, Adam below; negative values too."""
    settings = options.chosen("clipping", THREE)
    figure, axes = axes_row(len(settings), len(OPTIMIZERS), height=3.6)
    table, left_out, remarks, ends = [], [], {}, {}
    for column, setting in enumerate(settings):
        for axis, (optimizer, label) in zip(axes[:, column], OPTIMIZERS.items()):
            remarks[axis], ends[axis] = [], []
            for name, (make, style, width) in CLIPPING.items():
                cells = [
                    smoothness_cell(make(options, setting, optimizer, seed))
                    for seed in options.training_seeds
                ]
                traces = [(cell, get(cell)) for cell in cells]
                used = [(cell.needs[0].config["seed"], trace) for cell, trace in traces
                        if trace and len(trace["step"])]
                short = [line for pair in traces for line in cut_short(*pair)]
                left_out += [f"{cell.needs[0].label}: {trace.status}" for cell, trace in traces if not trace]
                left_out += short
                remarks[axis] += [f"{name}: {len(short)} of {len(cells)} seeds diverge (crosses)"] if short else []
                if used:
                    longest = max((trace["step"] for _, trace in used), key=len)
                    paths = np.full((len(used), len(longest)), np.nan)
                    for path, (_, trace) in zip(paths, used):
                        path[:len(trace["smoothness"])] = trace["smoothness"]
                    color = LOOKS[label]["color"] if name == "clipped" else BLACK
                    axis.plot(longest, _median_of_finite(paths), linestyle=style, linewidth=width, label=name,
                              color=color)
                    ends[axis] += [(trace["step"][-1], color) for cell, trace in traces
                                   if cut_short(cell, trace) and len(trace["step"])]
                table += [{
                    "setting": setting, "optimizer": optimizer, "clipping": name, "seed": seed,
                    "steps": len(trace["step"]), "median": median(trace["smoothness"]), "mean": mean(
                        trace["smoothness"]), "share_negative": float(np.mean(trace["smoothness"] < 0))
                } for seed, trace in used]
            axis.set(title=f"{SETTINGS[setting].title}, {label}", xlabel="iteration")
            remark_below(axis, remarks[axis] + _keep_peaks_out(axis))
            if not axis.lines:
                say_empty(axis)
                continue
            signed_log_scale(axis)
            axis.legend(loc="best", fontsize=10)
            for step, color in ends[axis]:
                axis.plot(step, 0.97, marker="x", color=color, markersize=8, markeredgewidth=2, zorder=3,
                          transform=axis.get_xaxis_transform())
    for axis in axes[:, 0]:
        axis.set_ylabel("directional smoothness")
    return Drawing(
        figure, table, {
            "curve": "median at each step over the seeds that get there; linear between -0.1 and 0.1, "
            "logarithmic beyond: negative curvature shows",
            "crosses": "at the upper edge, where the path of a seed ends because its training diverged",
            "table": "for each seed: median and mean over steps, share of steps with negative curvature",
            "clipped": "joint norm at most 1, as everywhere", "configuration": options.configuration,
            "left_out": left_out
        })


def _keep_peaks_out(axis, share=0.005) -> list:
    """Limit the vertical axis to what all but a small share of the steps need, with room for a decade; return
    a remark on what is then off the axis.
    """
    values = np.concatenate([line.get_ydata() for line in axis.lines] or [np.zeros(1)])
    low, high = np.nanquantile(values, [share, 1 - share]) if np.isfinite(values).any() else (0.0, 1.0)
    if np.nanmax(values, initial=high) <= 100 * high:
        return []
    axis.set_ylim(min(low, 0) * 3, high * 10)
    down, up = np.nanmin(values), np.nanmax(values)
    return [f"off the axis: values up to {up:.2g}" + f" and down to {down:.2g}" * bool(down < min(low, 0) * 3)]


def _median_of_finite(paths):
    """The median over seeds (rows) at each step, of the seeds that have a value there."""
    middle, some = np.full(paths.shape[1], np.nan), np.isfinite(paths).any(axis=0)
    middle[some] = np.nanmedian(paths[:, some], axis=0)
    return middle


FIGURES = (
    Figure("clipping", "Directional smoothness with and without clipping",
           "Section 2.4, of full Transformers: "
           "clipping reduces directional smoothness.", clipping_cells, draw_clipping, THREE),
)
