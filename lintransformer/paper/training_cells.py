"""Training runs as cells: the configuration that fixes every number of a run, and the run itself."""
from __future__ import annotations

import numpy as np

from lintransformer.checks import check_choice
from lintransformer.distributions import PromptDistribution
from lintransformer.models.build import build_model
from lintransformer.optimizers import make_optimizer
from lintransformer.paper.cells import KINDS, Cell, Kind, Outcome
from lintransformer.paper.options import OPTIMIZERS, Options
from lintransformer.paper.settings import SETTINGS
from lintransformer.random import stream
from lintransformer.training import evaluation_batch, train

# Momentum 0.9 and betas 0.9: Section 3.2. Epsilon: authors' code.
OPTIMIZER_NUMBERS = {"sgdm": {"name": "sgd", "momentum": 0.9},
                     "adam": {"name": "adam", "beta1": 0.9, "beta2": 0.9, "epsilon": 1e-8}}
EVALUATION_SEEDS = (99, 100, 101)      # 99 is the authors' fixed batch; the others show how much hangs on it
EVALUATION_PROMPTS = 1000


def training_cell(options: Options, setting: str, optimizer: str, seed: int) -> Cell:
    """Return the cell of one training run.

    Parameters
    ----------
    setting : str
        A name in `SETTINGS`. Only its numbers enter the configuration, so settings that differ in name alone
        (S3 and heavy-tailed) share their runs.
    optimizer : str
        "sgdm" or "adam".
    """
    check_choice("optimizer", optimizer, OPTIMIZERS)
    numbers, preset = SETTINGS[check_choice("setting", setting, SETTINGS)], options.numbers
    rate = options.rates.get(optimizer, numbers.learning_rates[optimizer])
    config = {
        "distribution": numbers.distribution_config, "model": numbers.model_config,
        "optimizer": {**OPTIMIZER_NUMBERS[optimizer], "learning_rate": float(rate)},
        "clip_threshold": numbers.clip_threshold, "batch_size": preset.batch_size or numbers.batch_size,
        "steps": options.training_steps, "seed": seed, "dtype": "float32",
        "record_every": preset.record_every,
        "evaluation": {"seeds": list(EVALUATION_SEEDS), "prompts": EVALUATION_PROMPTS},
        "theta_at": {"every": preset.hessian_every,
                     "dense_until": preset.smoothness_steps if numbers.keeps_path else 0}}
    return Cell("train", config, label=f"{setting} {OPTIMIZERS[optimizer]} seed {seed}")


def theta_steps(rule: dict, steps: int) -> np.ndarray:
    """Return the sorted iterations whose parameters are kept: every one before ``dense_until`` and that one,
    every ``every``-th, and the last.
    """
    dense = np.arange(min(rule["dense_until"], steps) + 1)
    return np.union1d(np.union1d(dense, np.arange(0, steps + 1, rule["every"])), [steps])


def train_cell(config: dict, inputs: list, report, full_batch: bool = False) -> Outcome:
    """Compute a cell of kind "train": nothing but the configuration enters.

    With ``full_batch`` every step sees the same sample, which then is evaluation batch 0.
    """
    distribution, model = PromptDistribution.from_config(config["distribution"]), build_model(**config["model"])
    fixed, sample = config["evaluation"], None
    batches = [evaluation_batch(distribution, seed, fixed["prompts"], tokens=model.needs_tokens)
               for seed in fixed["seeds"]]
    if full_batch:
        draw = distribution.draw if model.needs_tokens else distribution.draw_gram
        sample = draw(stream(config["seed"], "training"), config["batch_size"], config["dtype"])
        batches.insert(0, sample)
    history = train(
        model, distribution, make_optimizer(**config["optimizer"]), steps=config["steps"], batch=sample,
        batch_size=config["batch_size"], clip_threshold=config["clip_threshold"], seed=config["seed"],
        dtype=config["dtype"], evaluation=batches, record_every=config["record_every"],
        theta_at=theta_steps(config["theta_at"], config["steps"]), deadline_seconds=report.deadline_seconds,
        progress=lambda step: report(step / config["steps"]))
    return Outcome(history.arrays, history.status, history.summary)


def train_seconds(config: dict) -> float:
    """Return a rough estimate of a run's seconds: milliseconds for 1000 prompts, measured, scaled by size."""
    model, data = config["model"], config["distribution"]
    n, d, layers = data["context_length"], data["dimension"], model["layers"]
    milliseconds = 0.33 * layers * (d / 5) ** 2.1
    if model["attention"] != "linear":
        milliseconds = 5.5 * layers * model["heads"] * ((n + 1) / 21) ** 2
    if data["covariates"] != "gaussian":         # tokens are drawn, not Gram matrices
        milliseconds += 0.8 * n * d / 100
    if model.get("embedding"):
        milliseconds += 5
    return config["steps"] * config["batch_size"] * 1e-6 * milliseconds


KINDS["train"] = Kind(train_cell, train_seconds)
