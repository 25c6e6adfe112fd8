"""The small experiments: heads of softmax attention, sparsity of scores, full-batch training."""
from __future__ import annotations

import numpy as np

from lintransformer.paper.claims.experiments import HEADS, MEASURES
from lintransformer.paper.experiment_cells import (HEADS_RATE, SPARSITY_PROMPTS, effort, full_batch_cell,
                                                   heads_cell, short_steps, softmax_seeds, sparsity_cell)
from lintransformer.paper.figures.base import (BLUE, GREEN, LOOKS, ORANGE, PURPLE, RED, Drawing,
                                               Figure, axes_row, log_scale, remark_below)
from lintransformer.paper.options import OPTIMIZERS, Options
from lintransformer.paper.settings import SETTINGS

THREE = ("S1", "S2", "S3")
BAND = "line: geometric mean over seeds; band: from the least to the largest seed"


def draw_band(axis, traces, values, label, look):
    """Draw the geometric mean over seeds of positive curves, in the band of all of them."""
    curves = np.array([values(trace) for trace in traces], dtype=np.float64)
    step = traces[0]["step"]
    axis.plot(step, np.exp(np.mean(np.log(curves), axis=0)), label=label, **look)
    if len(traces) > 1:
        axis.fill_between(step, curves.min(axis=0), curves.max(axis=0), color=look["color"], alpha=0.2,
                          linewidth=0)


def finished(cells, get, label, remarks) -> list:
    """Return (seed, trace) of the runs that are done, and remark those that are not."""
    pairs = [(cell, get(cell)) for cell in cells]
    remarks += [
        f"{label}: seed {cell.config['seed']} left out ({trace.status})" for cell, trace in pairs
        if trace.status != "done"
    ]
    return [(cell.config["seed"], trace) for cell, trace in pairs if trace.status == "done"]


def head_models(model: dict) -> dict:
    """Return the models compared with one linear head, by their names in the figure."""
    return {
        "1 linear head": {**model, "attention": "linear", "heads": 1}, **{
            f"{heads} softmax head{'s' * (heads > 1)}": {**model, "attention": "softmax", "heads": heads}
            for heads in (1, 2, 4)
        }
    }


HEAD_LOOKS = dict(
    zip(head_models({}), ({"color": RED, "linestyle": "-"}, {"color": ORANGE, "linestyle": ":"},
                          {"color": GREEN, "linestyle": "-."}, {"color": PURPLE, "linestyle": "--"})))


def heads_cells(options: Options) -> list:
    """Return the runs of every model of the comparison of heads."""
    options.chosen("softmax-heads", ("S1",))
    return [
        heads_cell(options, model, seed) for shared in HEADS.values()
        for model in head_models(shared).values() for seed in softmax_seeds(options)
    ]


def draw_heads(get, options: Options) -> Drawing:
    """Draw a panel for each parametrisation and depth."""
    figure, axes = axes_row(len(HEADS))
    table, left_out = [], []
    for axis, (name, shared) in zip(axes[0], HEADS.items()):
        remarks = []
        for label, model in head_models(shared).items():
            runs = finished([heads_cell(options, model, seed) for seed in softmax_seeds(options)], get, label,
                            remarks)
            if runs:
                draw_band(axis, [trace for _, trace in runs], lambda trace: trace["evaluation_mean"][0],
                          label, HEAD_LOOKS[label])
            table += [{
                "model": name, "attention": label, "seed": seed, "step": int(step), "loss": float(loss)
            } for seed, trace in runs for step, loss in zip(trace["step"], trace["evaluation_mean"][0])]
        axis.set(title=name.replace(" parametrisation", ""), xlabel="iteration")
        log_scale(axis)
        remark_below(axis, remarks)
        left_out += remarks
    axes[0, 0].set_ylabel("loss on a fixed batch (log scale)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return Drawing(
        figure, table, {
            "curves": BAND,
            "training": f"Adam, rate {HEADS_RATE:g}, batches of {effort(options).heads_batch}, data of S1",
            "block": "P = diag(P', 1) in every head: heads add with weight 1, and cannot subtract",
            "seeds": softmax_seeds(options), "configuration": options.configuration, "left_out": left_out
        })


SPARSITY_LOOKS = {"orthogonal": {"color": BLUE, "marker": "o"}, "gaussian": {"color": ORANGE, "marker": "s"}}
BESIDE = (-0.12, -0.04, 0.04, 0.12)  # layers that the four curves are moved by, so that none hides another
ATTENTIONS = {"S1": "linear attention", "softmax": "softmax attention"}


def sparsity_cells(options: Options) -> list:
    """Return the sparsity of scores, for both attentions and both laws of covariates."""
    return [
        cell for setting in options.chosen("sparsity", ATTENTIONS) for covariates in SPARSITY_LOOKS
        for cell in sparsity_cells_of(options, setting, covariates)
    ]


def sparsity_cells_of(options: Options, setting: str, covariates: str) -> list:
    """Return one curve's cells, one for each seed."""
    seeds = softmax_seeds(options) if setting == "softmax" else options.training_seeds
    return [sparsity_cell(options, setting, covariates, "adam", seed) for seed in seeds]


def draw_sparsity(get, options: Options) -> Drawing:
    """Draw Hoyer's measure by layer: trained (filled, solid) and at initialisation (open, dotted)."""
    settings = options.chosen("sparsity", ATTENTIONS)
    figure, axes = axes_row(len(settings))
    table, left_out = [], []
    for axis, setting in zip(axes[0], settings):
        remarks, places, largest = [], iter(BESIDE), 0
        for covariates, look in SPARSITY_LOOKS.items():
            cells = sparsity_cells_of(options, setting, covariates)
            traces = [(cell.needs[0].config["seed"], get(cell)) for cell in cells]
            remarks += [
                f"{covariates}: seed {seed} left out ({trace.status})" for seed, trace in traces if not trace
            ]
            used = [(seed, trace) for seed, trace in traces if trace]
            for point, (when, style, face) in enumerate(
                (("at initialisation", ":", "white"), ("trained", "-", None))):
                values, place = np.array([trace["hoyer"][point, :, 0] for _, trace in used]), next(places)
                if len(values):
                    layers, largest = np.arange(1, values.shape[1] + 1) + place, max(largest, np.nanmax(values))
                    axis.plot(layers, values.mean(axis=0), linestyle=style,
                              label=f"{covariates.replace('gauss', 'Gauss')}, {when}", markerfacecolor=face
                              or look["color"], markersize=9, **look)
                    axis.plot(
                        np.tile(layers, (len(values), 1)).T, values.T, linestyle="", marker=".", alpha=0.5,
                        color=look["color"], markersize=5)
            table += [{
                "attention": ATTENTIONS[setting], "covariates": covariates, "seed": seed, "measure": array,
                "layer": layer + 1, "scope": ("query", "all columns")[scope], "at_initialisation": float(
                    trace[array][0, layer, scope]), "trained": float(trace[array][1, layer, scope])
            } for seed, trace in used for array, _ in MEASURES.values()
                      for layer in range(trace[array].shape[1]) for scope in (0, 1)]
        axis.set(title=ATTENTIONS[setting], xlabel="layer", ylim=(0, min(1, 1.1 * largest) or 1))
        axis.xaxis.get_major_locator().set_params(integer=True)
        remark_below(axis, remarks)
        left_out += [f"{ATTENTIONS[setting]}, {remark}" for remark in remarks]
    axes[0, 0].set_ylabel("sparsity of the scores\nthe query sees (Hoyer)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(settings))
    return Drawing(
        figure, table, {
            "scores": "act(Z^T Q Z) of the n context keys, mean over heads and prompts; drawn: the query's",
            "hoyer": "(sqrt n - |a|_1 / |a|_2) / (sqrt n - 1): 0 all equal, 1 a single one",
            "participation": "(sum a^2)^2 / (n sum a^4): share of the keys that carry the scores",
            "covariates": "orthogonal: x = sqrt(5) e_k, k uniform (after Huang et al. 2023; E x x^T = I)",
            "trained": f"Adam, {short_steps(options)} iterations, rates of the settings",
            "prompts": SPARSITY_PROMPTS,
            "lines": "mean over seeds; dots: seeds; moved aside a little, to be seen apart",
            "configuration": options.configuration, "left_out": left_out
        })


def full_batch_cells(options: Options) -> list:
    """Return training on a fixed sample, for both optimizers."""
    return [
        full_batch_cell(options, setting, optimizer, seed) for setting in options.chosen("full-batch", THREE)
        for optimizer in OPTIMIZERS for seed in options.training_seeds
    ]


def draw_full_batch(get, options: Options) -> Drawing:
    """Draw the loss on the sample (thick) and on fresh prompts (thin)."""
    settings = options.chosen("full-batch", THREE)
    figure, axes = axes_row(len(settings))
    table, left_out = [], []
    for axis, setting in zip(axes[0], settings):
        remarks = []
        for optimizer, label in OPTIMIZERS.items():
            runs = finished(
                [full_batch_cell(options, setting, optimizer, seed) for seed in options.training_seeds], get,
                label, remarks)
            if not runs:
                continue
            traces = [trace for _, trace in runs]
            draw_band(axis, traces, lambda trace: trace["evaluation_mean"][0], f"{label}, on the sample",
                      LOOKS[label])
            fresh = np.exp(np.mean([np.log(trace["evaluation_mean"][1]) for trace in traces], axis=0))
            axis.plot(traces[0]["step"], fresh, color=LOOKS[label]["color"], linestyle=":", linewidth=1.2,
                      label=f"{label}, fresh prompts")
            table += [{
                "setting": setting, "optimizer": optimizer, "seed": seed, "step": int(step),
                "loss_on_sample": float(sample), "loss_on_fresh_prompts": float(other)
            } for seed, trace in runs
                      for step, sample, other in zip(trace["step"], *trace["evaluation_mean"][:2])]
        axis.set(title=SETTINGS[setting].title, xlabel="iteration")
        log_scale(axis)
        remark_below(axis, remarks)
        left_out += remarks
        if axis.lines:
            axis.legend(loc="best", fontsize=10)
    axes[0, 0].set_ylabel("loss (log scale)")
    return Drawing(
        figure, table, {
            "training": "every step on one batch, the first of the run on fresh prompts: no gradient noise",
            "curves": BAND + "; dotted: geometric mean of the loss on the batch of evaluation seed 99",
            "configuration": options.configuration, "left_out": left_out
        })


FIGURES = (
    Figure("softmax-heads", "One linear head and 1, 2, 4 softmax heads",
        "Section 3.1: two softmax heads are needed to recover one linear head (von Oswald et al. 2023).",
        heads_cells, draw_heads, ("S1",)),
    Figure(
        "sparsity", "Sparsity of attention scores",
        "Section 3.1: orthogonal covariates give sparser attention "
        "scores, for linear and softmax attention.", sparsity_cells, draw_sparsity, tuple(ATTENTIONS)),
    Figure("full-batch", "Training without gradient noise",
           "Section 2.2, of full Transformers: Adam is better than "
           "SGD with full batches too.", full_batch_cells, draw_full_batch, THREE),
)
