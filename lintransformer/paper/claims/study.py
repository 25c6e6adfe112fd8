"""What the claims are judged by: traces, read through one door, so that each claim's cells are known."""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lintransformer.paper.cells import Cell, Trace
from lintransformer.paper.claims.verdicts import Reading, Region, combine
from lintransformer.paper.experiment_cells import README_RATES, ending
from lintransformer.paper.options import OPTIMIZERS, Options
from lintransformer.paper.settings import SETTINGS
from lintransformer.paper.training_cells import EVALUATION_SEEDS, training_cell

CURVES = {"step", "evaluation_mean", "evaluation_median",
          "evaluation_trimmed"}  # what is read of a training run
OVER_PROMPTS = {
    "mean": "evaluation_mean", "median": "evaluation_median", "trimmed mean": "evaluation_trimmed"
}
# They decide beside Table 2's: for Adam the two differ, and no figure says with which it was made.
README = "Adam's rates of the authors' README"
TESTABLE_STEPS = 1000  # iterations below which a claim about trained models is not judged (our choice)


@dataclass
class Study:
    """Options, traces (each read once), and the cells that were read.

    Parameters
    ----------
    get : callable
        ``get(cell)`` returns its `Trace`.
    """

    options: Options
    get: Callable[[Cell], Trace]
    cells: dict = field(default_factory=dict)
    left_out: dict = field(default_factory=dict)       # settings a claim asked for that the options leave out

    def __post_init__(self):
        self.get = once(self.get)

    def trace(self, cell: Cell) -> Trace:
        """Return a cell's trace, and remember that it was read."""
        self.cells[cell.key] = cell
        return self.get(cell)

    def has(self, setting: str) -> bool:
        """Whether the options ask for this setting; remember it if not."""
        asked = self.options.settings is None or setting in self.options.settings
        if not asked:
            self.left_out[setting] = title(setting)
        return asked

    def with_readme_rates(self, settings) -> list[str]:
        """Return the settings, or none if the README gives none of them another rate than Table 2, or if rates
        are asked for."""
        differ = {setting for setting, _ in README_RATES} & set(settings)
        return list(settings) if differ and not self.options.rates else []

    @property
    def too_short(self) -> str | None:
        """Why the preset cannot judge trained models, or None."""
        steps, batch = self.options.training_steps, self.options.numbers.batch_size
        if steps < TESTABLE_STEPS:
            return f"{steps} iterations are too few to judge a training (fewer than {TESTABLE_STEPS})"
        return batch and f"batches of {batch} prompts are not the paper's"


def once(get):
    """Return ``get`` with a memory: each trace is read once; of training runs, loss curves are kept."""
    if hasattr(get, "kept"):
        return get

    def read(cell):
        if cell.key not in read.kept:
            trace = get(cell)
            if cell.kind in ("train", "trial", "full-batch"):
                trace = Trace({name: trace[name]
                               for name in CURVES & set(trace)}, trace.status, trace.summary)
            read.kept[cell.key] = trace
        return read.kept[cell.key]

    read.kept = {}
    return read


@dataclass(frozen=True)
class Evaluation:
    """How a loss is read off a run: which fixed batch, which statistic over its prompts."""

    batch: int = 0
    over: str = "mean"

    def __str__(self):
        return f"{self.over} over prompts, evaluation seed {EVALUATION_SEEDS[self.batch]}"

    def losses(self, trace: Trace):
        """The recorded losses (T,)."""
        return np.asarray(trace[OVER_PROMPTS[self.over]][self.batch], dtype=np.float64)


DEFAULT = Evaluation()
EVALUATIONS = [Evaluation(batch, over) for over in OVER_PROMPTS for batch in range(len(EVALUATION_SEEDS))]


def loss_at(trace: Trace, step: int | None = None, evaluation: Evaluation = DEFAULT) -> float:
    """Return the recorded loss at an iteration, or at the end of a finished run; NaN if there is none."""
    if not trace or (step is None and ending(trace) != "done"):
        return math.nan
    losses = evaluation.losses(trace)
    if step is None:
        return float(losses[-1])
    found = np.flatnonzero(trace["step"] == step)
    return float(losses[found[0]]) if len(found) else math.nan


@dataclass(frozen=True)
class Convention:
    """A way of measuring a claim: its name and its readings; `primary` ones decide the claim's verdict."""

    name: str
    readings: tuple
    primary: bool = False

    @property
    def verdict(self) -> str:
        return combine(reading.verdict for reading in self.readings)

    def as_dict(self) -> dict:
        return {
            "name": self.name, "verdict": self.verdict, "primary": self.primary,
            "parts": [reading.as_dict() for reading in self.readings]
        }


def by_seed(study: Study, part: str, statistic: str, region: Region, seeds, cells: Callable,
            measure: Callable, partial: bool = False, ratio: bool = True, **more) -> Reading:
    """Return a reading with one value a seed.

    Parameters
    ----------
    cells : callable
        ``cells(seed) -> list of Cell``, all read before any is judged.
    measure : callable
        ``measure(*traces) -> float``; NaN, or a ratio that is not positive, means no value.
    partial : bool
        Whether a path that ends before it should, because its training diverged, is as good as a whole one.
    """
    values, problems, diverged = {}, [], False
    for seed in seeds:
        pairs = [(cell, study.trace(cell)) for cell in cells(seed)]
        bad = [f"{cell.label}: {ending(trace)}" for cell, trace in pairs if ending(trace) != "done"]
        short = [] if partial else [line for pair in pairs for line in cut_short(*pair)]
        diverged |= bool(short) or any(ending(trace) == "diverged" for _, trace in pairs)
        problems += bad + short
        value = measure(*(trace for _, trace in pairs)) if all(trace for _, trace in pairs) else math.nan
        values[seed] = float(value) if np.isfinite(value) and (value > 0 or not ratio) else None
        if values[seed] is None and not bad:
            problems.append(f"seed {seed}: no such {'positive ' if ratio else ''}number ({statistic})")
    return Reading(part, statistic, values, region, ratio=ratio, problems=tuple(problems), diverged=diverged,
                   **more)


def cut_short(cell: Cell, trace: Trace) -> list[str]:
    """Return a line if a path of directional smoothness ends before it should: its training diverged."""
    if cell.kind != "smoothness" or not trace:
        return []
    made, asked = len(trace["step"]), len(range(0, cell.config["until"], cell.config["stride"]))
    return [f"{cell.label}: training diverged after {made} of {asked} measured steps"] if made < asked else []


def runs_of(study: Study, *settings_and_optimizers, make: Callable = training_cell) -> Callable:
    """Return ``cells(seed)``: one training run for each (setting, optimizer)."""
    return lambda seed: [
        make(study.options, setting, optimizer, seed) for setting, optimizer in settings_and_optimizers
    ]


def title(setting: str) -> str:
    """Return a setting's title, as parts are called."""
    return SETTINGS[setting].title


def optimizer_name(optimizer: str) -> str:
    """Return an optimizer's name in words."""
    return OPTIMIZERS[optimizer]
