"""A ReLU MLP on the covariates before the blocks (Appendix B): x -> W2 relu(W1 x + b1) + b2; y stays as it is.

Conventions
-----------
Tokens Z (D, N, B), batch last; X = Z[:d] the covariates. theta's part is the C-order of W1 (h, d), b1 (h),
W2 (d, h), b2 (d). Adjoints are written d, tangents t and may carry a leading axis K. On a kink, W1 x + b1 = 0,
the ReLU's derivative is taken as 0. Derivation: derivations/09-mlp-embedding.md, eq. 9.1 and eq. 9.3-9.6.
"""

from typing import NamedTuple

import numpy as np

from lintransformer.models.products import left, outer_sum, transposed_shared


class Weights(NamedTuple):
    """The weights of both layers, or what stands in their places: gradients, tangents, meanings."""

    W1: np.ndarray
    b1: np.ndarray
    W2: np.ndarray
    b2: np.ndarray


MEANING = Weights(W1="embedding, first layer's weights", b1="embedding, first layer's biases",
                  W2="embedding, second layer's weights", b2="embedding, second layer's biases")


class MLPEmbedding:
    """The embedding of width h = `hidden` on d = `dimension` covariates; p_e = 2 h d + h + d parameters."""

    def __init__(self, hidden, dimension):
        self.hidden, self.dimension = hidden, dimension
        self.shapes = Weights((hidden, dimension), (hidden,), (dimension, hidden), (dimension,))
        self.size = sum(int(np.prod(shape)) for shape in self.shapes)

    def init(self, rng):
        """Uniform on +-1/sqrt(fan-in), PyTorch's default for a Linear layer ("authors' code")."""
        fans = (self.dimension, self.dimension, self.hidden, self.hidden)
        draws = (rng.uniform(-fan**-0.5, fan**-0.5, shape) for fan, shape in zip(fans, self.shapes))
        return np.concatenate([draw.reshape(-1) for draw in draws])

    def weights(self, theta):
        """Views (..., shape) into theta's embedding part (..., p_e)."""
        parts = np.split(theta, self._ends()[:-1], axis=-1)
        return Weights(*(part.reshape(part.shape[:-1] + shape) for part, shape in zip(parts, self.shapes)))

    def named(self, offset):
        """Rows (name, shape, slice, meaning) of the table `model.describe()` prints."""
        ends = [offset + int(end) for end in self._ends()]
        for name, shape, end, meaning in zip(Weights._fields, self.shapes, ends, MEANING):
            yield name, shape, slice(end - int(np.prod(shape)), end), meaning

    def forward(self, theta, Z):
        """Z with its covariates embedded, and the cache."""
        w, X = self.weights(theta), Z[:-1]
        H = left(w.W1, X) + w.b1[:, None, None]
        active = H.real > 0
        R = H * active
        return _with_responses(left(w.W2, R) + w.b2[:, None, None], Z), (w, X, active, R)

    def backward(self, cache, dZ):
        """dZ (D, N, B) to the gradient of theta's embedding part (p_e,)."""
        w, X, active, R = cache
        dE = dZ[:-1]
        dH = self._through(active, transposed_shared(w.W2, dE))
        return self._flat(outer_sum(dH, X), dH, outer_sum(dE, R), dE), dE

    def tangent(self, cache, v):
        w, X, active, R = cache
        tw = self.weights(v)
        tR = self._through(active, left(tw.W1, X) + tw.b1[..., None, None])
        tE = left(tw.W2, R) + left(w.W2, tR) + tw.b2[..., None, None]
        no_response = np.zeros(tE.shape[:-3] + (1,) + tE.shape[-2:], tE.dtype)
        return np.concatenate([tE, no_response], axis=-3), (tw, tR)

    def backward_tangent(self, cache, tcache, bcache, tdZ):
        (w, X, active, R), (tw, tR), dE = cache, tcache, bcache
        tdE = tdZ[..., :-1, :, :]
        tdH = self._through(active, transposed_shared(tw.W2, dE) + transposed_shared(w.W2, tdE))
        return self._flat(outer_sum(tdH, X), tdH, outer_sum(tdE, R) + outer_sum(dE, tR), tdE)

    def _through(self, active, H):
        """The ReLU's Jacobian, the same forward and backward."""
        return H * active

    def _flat(self, dW1, dH, dW2, dE):
        parts = dW1, dH.sum(axis=(-2, -1)), dW2, dE.sum(axis=(-2, -1))
        parts = [part.reshape(part.shape[:part.ndim - len(shape)] + (-1,)) for part, shape in zip(parts, self.shapes)]
        return np.concatenate(parts, axis=-1)

    def _ends(self):
        return np.cumsum([int(np.prod(shape)) for shape in self.shapes])


def _with_responses(E, Z):
    return np.concatenate([E, np.broadcast_to(Z[-1:], E.shape[:-3] + (1,) + E.shape[-2:])], axis=-3)
