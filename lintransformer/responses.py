"""How responses follow from covariates when they are not linear in them (Appendix B)."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from lintransformer.checks import check_positive_integer, keep
from lintransformer.random import stream


@dataclass(frozen=True)
class ResponseNetwork:
    """A fixed random MLP, Linear(d, hidden)-ReLU-Linear(hidden, d): y = <w*, MLP(x)> (Appendix B).

    Weights and biases are uniform on +-1/sqrt(fan-in), PyTorch's default for a Linear layer. `hidden` is 5 in
    the paper and 10 in the authors' code.
    """

    hidden: int
    seed: int = 0

    def __post_init__(self):
        keep(self, hidden=check_positive_integer("response.hidden", self.hidden),
             seed=check_positive_integer("response.seed", self.seed, minimum=0))

    @cache
    def weights(self, dimension):
        """(W1 (h, d), b1 (h,), W2 (d, h), b2 (d,)) in float64."""
        rng = stream(self.seed, "response")
        inner, outer = 1 / np.sqrt(dimension), 1 / np.sqrt(self.hidden)
        return (rng.uniform(-inner, inner, (self.hidden, dimension)), rng.uniform(-inner, inner, self.hidden),
                rng.uniform(-outer, outer, (dimension, self.hidden)), rng.uniform(-outer, outer, dimension))

    def __call__(self, X):
        """The distorted covariates, (d, count, B) to (d, count, B)."""
        W1, b1, W2, b2 = (weight.astype(X.dtype) for weight in self.weights(len(X)))
        hidden = np.maximum(np.einsum("hd,dib->hib", W1, X) + b1[:, None, None], 0)
        return np.einsum("dh,hib->dib", W2, hidden) + b2[:, None, None]
