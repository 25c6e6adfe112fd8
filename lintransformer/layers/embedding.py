"""A ReLU MLP on the covariates before the blocks (Appendix B): x -> W2 relu(W1 x + b1) + b2; y stays as it is.

Conventions
-----------
Tokens Z (D, N, B), batch last; X = Z[:d] the covariates. w = [W1 (h, d), b1 (h,), W2 (d, h), b2 (d,)]. On a kink,
W1 x + b1 = 0, the ReLU's derivative is taken as 0. Z does not depend on any weight: it has no adjoint and no tangent.
Derivation: derivations/09-mlp-embedding.md, eq. 9.1 and eq. 9.3-9.6.
"""

import numpy as np

MEANING = {"W1": "embedding, first layer's weights", "b1": "embedding, first layer's biases",
           "W2": "embedding, second layer's weights", "b2": "embedding, second layer's biases"}


class MLPEmbedding:
    """The embedding of width h = `hidden` on d = `dimension` covariates; 2 h d + h + d parameters."""

    smooth = False

    def __init__(self, hidden, dimension):
        self.hidden, self.dimension = hidden, dimension
        self.shapes = [(hidden, dimension), (hidden,), (dimension, hidden), (dimension,)]

    def init(self, rng):
        """Uniform on +-1/sqrt(fan-in), PyTorch's default for a Linear layer ("authors' code")."""
        fans = (self.dimension, self.dimension, self.hidden, self.hidden)
        return [rng.uniform(-fan**-0.5, fan**-0.5, shape) for fan, shape in zip(fans, self.shapes)]

    def forward(self, w, Z):
        W1, b1, W2, b2 = w
        X = Z[:-1]
        H = _left(W1, X) + b1[:, None, None]
        active = H.real > 0
        R = H * active
        return _with_responses(_left(W2, R) + b2[:, None, None], Z), (W2, X, active, R)          # (9.1)

    def backward(self, cache, dZ):
        W2, X, active, R = cache
        dE = dZ[:-1]
        dH = _left(W2.T, dE) * active                                                            # (9.3)
        return None, [_outer_sum(dH, X), dH.sum(axis=(-2, -1)), _outer_sum(dE, R), dE.sum(axis=(-2, -1))]

    def tangent(self, cache, tw, tZ):
        (W2, X, active, R), (tW1, tb1, tW2, tb2) = cache, tw
        tR = (_left(tW1, X) + tb1[..., None, None]) * active
        tE = _left(tW2, R) + _left(W2, tR) + tb2[..., None, None]
        return np.concatenate([tE, np.zeros_like(tE[..., :1, :, :])], axis=-3), (tW2, tR)

    def backward_tangent(self, cache, tcache, dZ, tdZ):
        (W2, X, active, R), (tW2, tR) = cache, tcache
        dE, tdE = dZ[:-1], tdZ[..., :-1, :, :]
        tdH = (_left(np.swapaxes(tW2, -1, -2), dE) + _left(W2.T, tdE)) * active
        return None, None, [_outer_sum(tdH, X), tdH.sum(axis=(-2, -1)),
                            _outer_sum(tdE, R) + _outer_sum(dE, tR), tdE.sum(axis=(-2, -1))]


def _left(W, X):
    """W X: one matrix product over (d, N B)."""
    flat = W @ X.reshape(X.shape[:-2] + (-1,))
    return flat.reshape(flat.shape[:-1] + X.shape[-2:])


def _outer_sum(X, Y):
    """X Y^T summed over tokens and prompts."""
    return X.reshape(X.shape[:-2] + (-1,)) @ np.swapaxes(Y.reshape(Y.shape[:-2] + (-1,)), -1, -2)


def _with_responses(E, Z):
    return np.concatenate([E, Z[-1:]], axis=0)
