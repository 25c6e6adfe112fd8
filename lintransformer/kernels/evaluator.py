"""Value, gradient and losses by the fastest kernel, in chunks that stay in cache, safe under threads.

For linear attention in Gram form, every parametrisation, without an embedding: derivations/06-block-fast-path.md and
derivations/18-vectors-only.md. The numbers are those of the layers up to rounding.
"""
from __future__ import annotations

import threading

import numpy as np

from lintransformer.kernels.block import BlockGramKernel
from lintransformer.kernels.vectors import BlockVectorsKernel, FullVectorsKernel, products

# Larger batches go through in chunks: at most this much memory for one (d, d, c) array.
CHUNK_BYTES = 2_000_000

# The vectors-only kernels pass G_0 over `products` times forward. That wins, measured over L = 2 to 6, d = 2 to 20 and
# 1 to 4 heads, up to this often: derivations/18-vectors-only.md, eq. 18.10
FULL_PRODUCTS = 3                    # times H L D, against the layers, which form A_l and G_l
BLOCK_PRODUCTS = 2                   # times d, against `BlockGramKernel`, which forms S_l up to the last layer but two


def kernel_for(parametrization, layers):
    """The class of the fastest kernel for a stack of linear attention, or None where the layers themselves are."""
    heads, d = parametrization.heads, parametrization.dimension
    if parametrization.name == "full":
        return FullVectorsKernel if products(layers, heads) <= FULL_PRODUCTS * heads * layers * (d + 1) else None
    count = products(layers - 1, heads) // heads * (1 + 2 * heads)           # S_l on c and on every Q_h (w, x)
    return BlockVectorsKernel if count <= BLOCK_PRODUCTS * d else BlockGramKernel


class GramEvaluator:
    """Evaluates f for one number of layers, parametrisation, batch size and dtype.

    Parameters
    ----------
    kernel : class, as of `kernel_for`
    layers : int
    parametrization : `Parametrization`
    batch_size : int, B
    dtype : `numpy.dtype`, float32 or float64
    chunk : None or int, prompts worked on at a time (our choice by default)
    """

    def __init__(self, kernel, layers, parametrization, batch_size, dtype, chunk=None):
        self._make, self.batch_size, self.dtype = kernel, batch_size, dtype
        self.layers, self.parametrization = layers, parametrization
        self._chunk = chunk or max(64, CHUNK_BYTES // (parametrization.dimension**2 * dtype.itemsize))
        self._local = _Kernels()

    def value_and_gradient(self, theta, batch):
        """f(theta) as a float and its gradient (p,), a fresh array of theta's dtype."""
        gram, parts, (P, Q) = self._read(theta, batch)
        dP, dQ = np.zeros_like(P), np.zeros_like(Q)
        value = 0.0
        for kernel, part in self._chunks():
            residual = self._residual(kernel, P, Q, gram, part)
            value += float(residual @ residual)
            kernel.backward(P, Q, np.multiply(residual, 2 / self.batch_size, out=residual), dP, dQ)
        dQ /= gram.context_length
        return value / self.batch_size, self.parametrization.pullback(parts, dP, dQ).reshape(-1)

    def losses(self, theta, batch):
        """The squared error of every prompt (B,), a fresh array."""
        gram, _, (P, Q) = self._read(theta, batch)
        residuals = [self._residual(kernel, P, Q, gram, part).copy() for kernel, part in self._chunks()]
        return np.concatenate(residuals)**2

    def _read(self, theta, batch):
        """Gram statistics, theta's parts, and the trained matrices with Q divided by n."""
        gram = batch.gram()
        parts = theta.reshape((self.layers,) + self.parametrization.shape)
        P, Q = self.parametrization.matrices(parts)
        return gram, parts, (P, Q / gram.context_length)

    def _residual(self, kernel, P, Q, gram, part):
        prediction = kernel.forward(P, Q, gram.G[part].transpose(1, 2, 0), gram.z[part].T)
        prediction -= gram.target[part]
        return prediction

    def _chunks(self):
        for start in range(0, self.batch_size, self._chunk):
            stop = min(start + self._chunk, self.batch_size)
            yield self._kernel(stop - start), slice(start, stop)

    def _kernel(self, size):
        """One kernel for whole chunks, one for the rest of the batch."""
        kernels, shape = self._local.by_size, self.parametrization
        if size not in kernels:
            kernels[size] = self._make(self.layers, shape.heads, shape.dimension, size, self.dtype)
        return kernels[size]


class _Kernels(threading.local):
    """One thread's kernels, by their number of prompts; a copy in another process starts without any."""

    def __init__(self):
        self.by_size = {}

    def __reduce__(self):
        return _Kernels, ()
