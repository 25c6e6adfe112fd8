"""What is read off the last state: TF_L = -[Z_L]_{d+1, n+1} (Section 3.1); no weights."""

from fractions import Fraction

import numpy as np


class ReadTokens:
    """(D, N, B) to the predictions (B,); eq. 3.1 and 4.1."""

    shapes = ()

    def forward(self, w, Z):
        return -Z[-1, -1], (Z.shape, Z.dtype)

    def backward(self, cache, dprediction):
        return self._spread(cache, dprediction), []

    def tangent(self, cache, tw, tZ):
        return -tZ[..., -1, -1, :], None

    def backward_tangent(self, cache, tcache, dprediction, tdprediction):
        return self._spread(cache, dprediction), self._spread(cache, tdprediction), []

    def _spread(self, cache, dprediction):
        shape, dtype = cache
        dZ = zeros(dprediction.shape[:-1] + shape, np.result_type(dtype, dprediction))
        dZ[..., -1, -1, :] = -dprediction
        return dZ


class ReadGram:
    """(G, z, n) to the predictions (B,); eq. 5.3."""

    shapes = ()

    def forward(self, w, state):
        return -state.z[-1], (state.G.shape, state.z.shape, state.z.dtype)

    def backward(self, cache, dprediction):
        return self._spread(cache, dprediction), []

    def tangent(self, cache, tw, tstate):
        return -tstate[1][..., -1, :], None

    def backward_tangent(self, cache, tcache, dprediction, tdprediction):
        return self._spread(cache, dprediction), self._spread(cache, tdprediction), []

    def _spread(self, cache, dprediction):
        G_shape, z_shape, dtype = cache
        lead, dtype = dprediction.shape[:-1], np.result_type(dtype, dprediction)
        dG, dz = zeros(lead + G_shape, dtype), zeros(lead + z_shape, dtype)
        dz[..., -1, :] = -dprediction
        return dG, dz


def zeros(shape, dtype):
    """Zeros of a dtype; an object array gets exact ones, since 0 / n would be a float."""
    return np.full(shape, Fraction(0) if np.dtype(dtype).kind == "O" else 0, dtype)
