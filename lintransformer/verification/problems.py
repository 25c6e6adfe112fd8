"""Points at which the models of the zoo are checked: generic, away from every kink, in floats or in Fractions."""
from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np

from lintransformer.checks import InputError
from lintransformer.distributions import PromptDistribution
from lintransformer.models.zoo import ZOO, Row
from lintransformer.verification.exact import rational
from lintransformer.verification.reference import kink_distance

KINK_DISTANCE = 2e-3             # of the point that is checked; the steps of all checks stay far below it


@dataclass(frozen=True)
class Problem:
    """A model at a point: what every check of the battery is given."""

    row: Row
    model: Any
    theta: np.ndarray
    batch: Any


def problem(row) -> Problem:
    """A row's model, theta (p,) and `Prompts`, all float64, away from every kink."""
    def draw(rng, model):
        theta = 0.5 * rng.standard_normal(model.size)
        return theta, PromptDistribution(row.dimension, row.context_length).draw(rng, row.batch_size)

    return _away_from_kinks(row, row.build(), 5, draw)


def rational_problem(row, form=None) -> Problem:
    """The same with multiples of 1/8 as Fractions, and d = 2, n = 3: exact arithmetic is slow."""
    def draw(rng, model):
        theta = rational(rng.uniform(-1, 1, model.size))
        batch = PromptDistribution(2, 3).draw(rng, 2)
        return theta, type(batch)(rational(np.clip(batch.Z, -2, 2)), rational(batch.target))

    small = replace(row, dimension=2, context_length=3, batch_size=2)
    return _away_from_kinks(small, small.build(form=form), 7, draw)


def _away_from_kinks(row, model, seed, draw):
    for attempt in count():
        theta, batch = draw(np.random.default_rng([seed, attempt]), model)
        if not row.has_kinks or kink_distance(model, theta, batch) > KINK_DISTANCE:
            return Problem(row, model, theta, batch)


def select_models(name=None) -> list[Row]:
    """One row by its name, or the rows with every word of `name` ("softmax", "mlp-heads2"); all for None.

    Raises
    ------
    InputError : a word that is in no row's name, or words that no row has together.
    """
    wanted = name.split("-") if name is not None else []
    chosen = [row for row in ZOO if row.name == name]
    chosen = chosen or [row for row in ZOO if set(wanted) <= set(row.words)]
    if not chosen:
        words = dict.fromkeys(word for row in ZOO for word in row.words)
        raise InputError(f"model {name!r} is not known; allowed: words joined by '-', of {', '.join(words)}, "
                         f"that occur together")
    return chosen
