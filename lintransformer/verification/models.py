"""The table of models that the battery runs over: one row for each combination of the paper's variants.

A new model is one new row. Sizes are small and all different, so that no transposition goes unnoticed. Two
layers: one would hide an adjoint of G that is not symmetrised (derivations/05-gram.md).
"""

from dataclasses import dataclass, field
from itertools import count, product
from typing import Any

import numpy as np

from lintransformer.checks import InputError
from lintransformer.distributions import PromptDistribution
from lintransformer.models.build import build_model
from lintransformer.verification.exact import rational
from lintransformer.verification.reference import kink_distance

KINK_DISTANCE = 2e-3             # of the point that is checked; the steps of all checks stay far below it


@dataclass(frozen=True)
class Model:
    """One row: a name made of words, and what `build_model` is given.

    name : str, such as "softmax-block-heads2-mlp-before"
    options : dict, arguments of `lintransformer.build_model`
    """

    name: str
    options: dict = field(hash=False)
    layers: int = 2
    dimension: int = 3
    context_length: int = 4
    batch_size: int = 2

    @property
    def words(self):
        return self.name.split("-")

    @property
    def has_kinks(self):
        return self.build().has_kinks

    @property
    def is_polynomial(self):
        """In theta, at least piecewise: whether exact arithmetic applies."""
        return self.options["attention"] != "softmax"

    def build(self, **changes):
        options = {"layers": self.layers, "dimension": self.dimension, **self.options, **changes}
        return build_model(**options)

    def problem(self):
        """A model, theta (p,) and `Prompts`, all float64, away from every kink."""
        model = self.build()
        for seed in count():
            rng = np.random.default_rng([5, seed])
            theta = 0.5 * rng.standard_normal(model.size)
            batch = PromptDistribution(self.dimension, self.context_length).draw(rng, self.batch_size)
            if not self.has_kinks or kink_distance(model, theta, batch) > KINK_DISTANCE:
                return Problem(self, model, theta, batch)

    def rational_problem(self, form=None):
        """The same with multiples of 1/8 as Fractions, and d = 2, n = 3: exact arithmetic is slow."""
        small = Model(self.name, self.options, self.layers, 2, 3, 2)
        model = small.build(form=form)
        for seed in count():
            rng = np.random.default_rng([7, seed])
            theta = rational(rng.uniform(-1, 1, model.size))
            batch = PromptDistribution(2, 3).draw(rng, 2)
            batch = type(batch)(rational(np.clip(batch.Z, -2, 2)), rational(batch.target))
            if not self.has_kinks or kink_distance(model, theta, batch) > KINK_DISTANCE:
                return Problem(small, model, theta, batch)

    def degree(self):
        """A bound on the degree of f in theta; derivations/11-hessian-vector-products.md, eq. 11.12.

        Tokens of degree k become tokens of degree 3 k + 2, or 3 k + 3 where Q is a product; embedded tokens
        start at degree 2.
        """
        tokens = 0 if self.options["embedding"] is None else 2
        for _ in range(self.layers):
            tokens = 3 * tokens + (3 if self.options["parametrization"] == "separate" else 2)
        return 2 * tokens


@dataclass(frozen=True)
class Problem:
    """A model at a point: what every check of the battery is given."""

    row: Model
    model: Any
    theta: np.ndarray
    batch: Any


def _rows():
    choices = product(("linear", "relu", "softmax"), ("block", "full", "separate"), (1, 2), (None, 5),
                      ("after", "before"))
    for attention, parametrization, heads, embedding, mask in choices:
        if mask == "before" and attention != "softmax":
            continue                             # an activation of each score alone: both masks are the same
        words = [attention, parametrization] + ["heads2"] * (heads == 2) + ["mlp"] * (embedding is not None)
        yield Model("-".join(words + ["before"] * (mask == "before")),
                    {"attention": attention, "parametrization": parametrization, "heads": heads,
                     "embedding": embedding, "mask": mask})


MODELS = list(_rows())


def select_models(name=None):
    """One row by its name, or the rows with every word of `name` ("softmax", "mlp-heads2"); all for None.

    Raises
    ------
    InputError : a word that is in no row's name, or words that no row has together.
    """
    wanted = name.split("-") if name else []
    chosen = [row for row in MODELS if row.name == name]
    chosen = chosen or [row for row in MODELS if set(wanted) <= set(row.words)]
    if not chosen:
        words = dict.fromkeys(word for row in MODELS for word in row.words)
        raise InputError(f"model {name!r} is not known; allowed: words joined by '-', of {', '.join(words)}, "
                         f"that occur together")
    return chosen
