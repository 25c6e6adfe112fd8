"""The zoo: every model there is, one row each. Tests, `verify`, planted mistakes and benchmarks read this table.

A new model is one new row. Sizes are small and all different, so that no transposition goes unnoticed. Two layers: one
would hide an adjoint of G that is not symmetrised (derivations/05-gram.md).
"""
from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

from lintransformer.models.build import build_model


@dataclass(frozen=True)
class Row:
    """A name made of words, and what `build_model` is given.

    name : str, such as "softmax-block-heads2-mlp-before"
    options : dict, arguments of `lintransformer.build_model`
    layers, dimension, context_length, batch_size : int, the sizes at which it is checked
    """

    name: str
    options: dict = field(hash=False)
    layers: int = 2
    dimension: int = 3
    context_length: int = 4
    batch_size: int = 2

    @property
    def words(self) -> list[str]:
        return self.name.split("-")

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms it can be computed in, the default first."""
        return ("gram", "token") if self.options["attention"] == "linear" else ("token",)

    @property
    def has_kinks(self) -> bool:
        return self.build().has_kinks

    @property
    def is_polynomial(self) -> bool:
        """In theta, at least piecewise: whether exact arithmetic applies."""
        return self.options["attention"] != "softmax"

    def build(self, **changes):
        """The model, with some options changed."""
        return build_model(**{"layers": self.layers, "dimension": self.dimension, **self.options, **changes})

    def degree(self) -> int:
        """A bound on the degree of f in theta; derivations/11-hessian-vector-products.md, eq. 11.12.

        Tokens of degree k become tokens of degree 3 k + 2, or 3 k + 3 where Q is a product; embedded tokens
        start at degree 2.
        """
        tokens = 0 if self.options["embedding"] is None else 2
        for _ in range(self.layers):
            tokens = 3 * tokens + (3 if self.options["parametrization"] == "separate" else 2)
        return 2 * tokens


def _rows():
    choices = product(("linear", "relu", "softmax"), ("block", "full", "separate"), (1, 2), (None, 5),
                      ("after", "before"))
    for attention, parametrization, heads, embedding, mask in choices:
        if mask == "before" and attention != "softmax":
            continue                             # an activation of each score alone: both masks are the same
        words = [attention, parametrization] + ["heads2"] * (heads == 2) + ["mlp"] * (embedding is not None)
        yield Row("-".join(words + ["before"] * (mask == "before")),
                  {"attention": attention, "parametrization": parametrization, "heads": heads,
                   "embedding": embedding, "mask": mask})


ZOO = list(_rows())
