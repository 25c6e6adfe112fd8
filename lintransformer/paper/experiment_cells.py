"""Cells of the small experiments behind the ledger: variants of training runs, and three more kinds.

A variant is a training run's configuration with some numbers changed, so that runs that turn out equal are
one cell. Where an experiment needs fewer iterations than a run that exists, it reads that run's record at
its own horizon: the first iterations of a longer run are the shorter run, because all random streams are
the same.

A "trial" is a training run that is there to find out whether it diverges (rates far too large, no
clipping): its cell is done either way, and ``summary["training"]`` says how it ended.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lintransformer.checks import check_choice
from lintransformer.distributions import PromptDistribution
from lintransformer.models.build import build_model
from lintransformer.paper.cells import KINDS, Cell, Kind, Outcome
from lintransformer.paper.options import OPTIMIZERS, Options
from lintransformer.paper.settings import PRESETS, SETTINGS
from lintransformer.paper.training_cells import EVALUATION_SEEDS, train_cell, train_seconds, training_cell
from lintransformer.training import evaluation_batch

SHORT = 5  # short runs have a fifth of the preset's iterations (our choice)
README_RATES = {("S1", "adam"): 0.02,
                ("S2", "adam"): 0.005}  # authors' README: the other way round than Table 2
GRID_BELOW, GRID_ABOVE = 4, 5  # grid points on either side of the setting's own rate: ten in all
GRID_SETTINGS = ("S1", "S2", "S3", "spherical", "L2", "L4", "L6", "L8", "separate", "softmax")
SOFTMAX_BELOW, SOFTMAX_ABOVE = 0, 3  # a softmax step costs twenty linear ones: four rates
HEADS_RATE = 0.02  # Adam, the README's for S1: softmax gains by it (our choice)
SPARSITY_PROMPTS = 200


@dataclass(frozen=True)
class Effort:
    """What the small experiments spend under a preset.

    grid_stride : 1 for ten learning rates, more to leave some out
    grid_seeds, softmax_seeds : how many of the preset's seeds the grid, and short runs of softmax, have
    heads_batch : prompts a step in the comparison of heads (a softmax step of 4 heads costs 80 linear ones)
    """

    grid_stride: int
    grid_seeds: int
    softmax_seeds: int
    heads_batch: int


EFFORTS = {"smoke": Effort(3, 1, 2, 50), "laptop": Effort(1, 1, 2, 100), "paper": Effort(1, 1, 3, 250)}


def effort(options: Options) -> Effort:
    """Return what the preset spends on small experiments."""
    return EFFORTS[check_choice("preset", options.preset, PRESETS)]


def short_steps(options: Options) -> int:
    """Return the iterations of short runs: a fifth, ending where losses are recorded and theta kept."""
    stride = math.lcm(options.numbers.record_every, options.numbers.hessian_every)
    return min(options.training_steps, stride * max(1, options.training_steps // SHORT // stride))


def variant(cell: Cell, label: str, kind: str = "train", **changes) -> Cell:
    """Return a training run with some of its configuration changed; dicts are merged one level deep."""
    config = {
        name: {**value, **changes[name]} if isinstance(changes.get(name), dict) else changes.get(name, value)
        for name, value in cell.config.items()
    }
    return Cell(kind, config, label=f"{cell.label}, {label}")


def short_variant(options: Options, cell: Cell, label: str, **changes) -> Cell:
    """Return a variant of `short_steps` iterations that keeps theta at its two ends only."""
    steps = short_steps(options)
    return variant(cell, label, **{"steps": steps, "theta_at": {"every": steps, "dense_until": 0}, **changes})


def grid(setting: str, optimizer: str, stride: int = 1) -> list[float]:
    """Return the learning rates searched: ten neighbours in 1, 2, 5, 10, ... around the setting's own.

    The paper says "a grid search over 10 different choices" and not which (Section 3.2): the numbers are our
    choice. Table 2's and the README's rates are among them, also where a stride leaves some out.
    """
    own = SETTINGS[setting].learning_rates[optimizer]
    ladder = [float(f"{digit}e{power}") for power in range(-9, 6) for digit in (1, 2, 5)]
    below, above = (SOFTMAX_BELOW, SOFTMAX_ABOVE) if setting == "softmax" else (GRID_BELOW, GRID_ABOVE)
    rates = ladder[ladder.index(own) - below:ladder.index(own) + above + 1]
    readme = README_RATES.get((setting, optimizer))
    return [rate for place, rate in enumerate(rates) if (place - below) % stride == 0 or rate == readme]


def readme_cell(options: Options, setting: str, optimizer: str, seed: int) -> Cell:
    """Return a full run at the rate the authors' README gives (Table 2's where it gives the same)."""
    own = training_cell(options, setting, optimizer, seed)
    if (setting, optimizer) not in README_RATES:
        return own
    return variant(own, "README's rate", optimizer={"learning_rate": README_RATES[setting, optimizer]})


def grid_cell(options: Options, setting: str, optimizer: str, rate: float, seed: int) -> Cell:
    """Return a run that holds the loss at `short_steps` for a rate: a full run, if there is one."""
    for full in (training_cell(options, setting, optimizer,
                               seed), readme_cell(options, setting, optimizer, seed)):
        if full.config["optimizer"]["learning_rate"] == rate:
            return full
    own = training_cell(options, setting, optimizer, seed)
    return short_variant(options, own, f"rate {rate:g}", kind="trial", optimizer={"learning_rate": rate})


def grid_seeds(options: Options, setting: str) -> tuple[int, ...]:
    """Return the seeds of a setting's grid search: all where paper and README differ, and one more than
    elsewhere of softmax, whose best rate is compared with linear attention."""
    if any(setting == name for name, _ in README_RATES):
        return options.training_seeds
    return options.training_seeds[:effort(options).grid_seeds + (setting == "softmax")]


def softmax_seeds(options: Options) -> tuple[int, ...]:
    """Return the seeds of the experiments that train softmax attention."""
    return options.training_seeds[:effort(options).softmax_seeds]


def full_parametrization_cell(options: Options, optimizer: str, seed: int) -> Cell:
    """Return S1 with P and Q full (eq. 7): up to iteration 1250 or more, first steps kept one by one."""
    steps = min(options.training_steps, max(short_steps(options), 1250))
    kept = {"every": options.numbers.hessian_every, "dense_until": options.numbers.smoothness_steps // 4}
    return variant(training_cell(options, "S1", optimizer, seed), "full P and Q", steps=steps, theta_at=kept,
                   model={"parametrization": "full"})


def unclipped_cell(options: Options, setting: str, optimizer: str, seed: int) -> Cell:
    """Return the steps whose smoothness is measured, made without clipping."""
    steps = min(options.training_steps, options.numbers.smoothness_steps)
    return variant(training_cell(options, setting, optimizer, seed), "no clipping", "trial",
                   clip_threshold=None, steps=steps, theta_at={"every": steps, "dense_until": steps})


def try_training(config: dict, inputs: list, report) -> Outcome:
    """Compute a cell of kind "trial": as kind "train", and done if it diverges."""
    outcome = train_cell(config, inputs, report)
    status = "timed out" if outcome.status == "timed out" else "done"
    return Outcome(outcome.arrays, status, {**outcome.summary, "training": outcome.status})


def ending(trace) -> str:
    """Return how a run ended: its status, or, of a trial, that of the training."""
    return trace.summary.get("training", trace.status)


def heads_cell(options: Options, model: dict, seed: int) -> Cell:
    """Return a short run of S1's data with Adam for a model of the comparison of heads."""
    label = ", ".join(f"{name} {value}" for name, value in model.items())
    return short_variant(options, training_cell(options, "S1", "adam", seed), label, model=model,
                         optimizer={"learning_rate": HEADS_RATE}, batch_size=effort(options).heads_batch)


def sparsity_cell(options: Options, setting: str, covariates: str, optimizer: str, seed: int) -> Cell:
    """Return the sparsity of attention scores at the start and after `short_steps`, and its training run."""
    training = training_cell(options, setting, optimizer, seed)
    if covariates != training.config["distribution"]["covariates"]:
        training = short_variant(options, training, f"{covariates} covariates",
                                 distribution={"covariates": covariates})
    config = {
        "distribution": training.config["distribution"], "model": training.config["model"],
        "step": short_steps(options),
        "evaluation": {"seed": EVALUATION_SEEDS[0], "prompts": SPARSITY_PROMPTS}
    }
    return Cell("sparsity", config, (training,), label=f"attention scores of {training.label}")


def sparsity_of_trace(config: dict, inputs: list, report) -> Outcome:
    """Compute a cell of kind "sparsity": hoyer and participation, each (2 points, L, 2 scopes)."""
    distribution = PromptDistribution.from_config(config["distribution"])
    model = build_model(**{**config["model"], "form": "token"})
    batch = evaluation_batch(distribution, config["evaluation"]["seed"], config["evaluation"]["prompts"],
                             tokens=True)
    measured = np.full((2, 2, model.layers, 2), np.nan)
    if inputs[0]:
        steps = list(inputs[0]["theta_step"])
        for point, step in enumerate((0, config["step"])):
            if step in steps:
                measured[:, point] = score_sparsity(
                    model, inputs[0]["theta"][steps.index(step)].astype(float), batch)
    return Outcome({"hoyer": measured[0], "participation": measured[1]},
                   summary={"scopes": ["query", "all columns"]})


def score_sparsity(model, theta, batch) -> np.ndarray:
    """Return (hoyer, participation) of the scores (2, L, 2): each layer's mean over heads and prompts.

    Scores are what multiplies the values, act(Z^T Q Z), of the n context keys (the mask M drops the query
    as a key), seen by the query alone (scope 0), or by every column (scope 1).
    """
    weights = model.attention_weights(theta, batch)
    result = np.empty((2, len(weights), 2))
    for layer, scores in enumerate(W[:, :-1] for W in weights):              # (H, n, N, B)
        result[:, layer] = np.transpose([sparsity(scores[:, :, -1:]), sparsity(scores)])
    return result


def sparsity(scores) -> tuple[float, float]:
    """Return two measures of sparsity along axis 1, of length n, averaged over the rest.

    Hoyer's (sqrt n - |a|_1 / |a|_2) / (sqrt n - 1): 0 if all are equally large, 1 if one is not zero. The
    participation ratio (sum a^2)^2 / (n sum a^4): the share of the keys that carry the scores, 1/n to 1.
    Neither depends on the scale. The paper names no measure: our choice. Columns of zeros have none, and
    are left out.
    """
    n, square = scores.shape[1], scores**2
    with np.errstate(invalid="ignore"):
        hoyer = (math.sqrt(n) - np.abs(scores).sum(axis=1) / np.sqrt(square.sum(axis=1))) / (math.sqrt(n) - 1)
        participation = square.sum(axis=1)**2 / (n * (square**2).sum(axis=1))
    return tuple(
        float(np.nanmean(values)) if np.isfinite(values).any() else np.nan
        for values in (hoyer, participation))


def full_batch_cell(options: Options, setting: str, optimizer: str, seed: int) -> Cell:
    """Return training on one fixed sample: the first batch of the run on fresh prompts, at every step."""
    own = training_cell(options, setting, optimizer, seed)
    config = {**own.config, "theta_at": {"every": own.config["steps"], "dense_until": 0}}
    return Cell("full-batch", config, label=f"{setting} {OPTIMIZERS[optimizer]} seed {seed}, full batch")


def train_full_batch(config: dict, inputs: list, report) -> Outcome:
    """Compute a cell of kind "full-batch": as kind "train"; evaluation batch 0 is the sample itself."""
    return train_cell(config, inputs, report, full_batch=True)


def sparsity_seconds(config: dict) -> float:
    """Return a rough estimate of the seconds of a cell of kind "sparsity"."""
    return 0.5


KINDS["trial"] = Kind(try_training, train_seconds)
KINDS["full-batch"] = Kind(train_full_batch, train_seconds)
KINDS["sparsity"] = Kind(sparsity_of_trace, sparsity_seconds)
