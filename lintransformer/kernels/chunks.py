"""What every fast path does around its kernel: a batch in chunks that stay in cache, one kernel a thread and size.

A kernel works on a fixed number c of prompts, in buffers of its own:
    forward(*weights, *inputs) -> predictions (c,), valid until the next call
    backward(*weights, dprediction, *gradients)     adds to the gradients, of the weights' shapes
It may return the adjoints of its inputs, for whatever has made them (`embedding.py`).
"""
from __future__ import annotations

import math
import threading

import numpy as np


class ChunkedEvaluator:
    """Evaluates f, the mean squared error, for one batch size and dtype; threads may share it.

    Parameters
    ----------
    layers : int
    parametrization : `Parametrization`
    batch_size : int, B
    dtype : `numpy.dtype`, float32 or float64
    chunk : None or int, prompts worked on at a time (our choice by default)

    A subclass says which kernel there is, and what it is given, for a context of length n:
        weights(theta, n)                arrays made of theta (p,)
        gradient(theta, n, *gradients)   the pullback of `weights`, a fresh array (p,); it may overwrite the gradients
        prompts_at_once(n)               how many prompts a chunk has by default
        kernel(size, n, pulls_back)      a kernel for `size` prompts
    """

    for_every_length = False             # whether one kernel serves every n
    reads_tokens = False                 # whether kernels read tokens, or Gram statistics
    token_order = 1, 2, 0                # the axes of a batch's tokens (B, D, N) as kernels like them

    def __init__(self, layers, parametrization, batch_size, dtype, chunk=None):
        self.layers, self.parametrization, self.batch_size, self.dtype = layers, parametrization, batch_size, dtype
        self._chunk, self._local = chunk, _Kernels()

    def value_and_gradient(self, theta, batch):
        """f(theta) as a float and its gradient (p,), a fresh array of theta's dtype."""
        n = batch.context_length
        weights = self.weights(theta, n)
        gradients = [np.zeros_like(weight) for weight in weights]
        value = 0.0
        for kernel, part in self._chunks(n):
            residual = self._residual(kernel, weights, batch, part)
            value += float(residual @ residual)
            kernel.backward(*weights, np.multiply(residual, 2 / self.batch_size, out=residual), *gradients)
        return value / self.batch_size, self.gradient(theta, n, *gradients)

    def losses(self, theta, batch):
        """The squared error of every prompt (B,), a fresh array."""
        n = batch.context_length
        weights = self.weights(theta, n)
        residuals = [self._residual(kernel, weights, batch, part).copy() for kernel, part in self._chunks(n)]
        return np.concatenate(residuals)**2

    def evenly(self, most):
        """Prompts of a chunk, at most so many, such that chunks are of one size or nearly: one kernel serves them."""
        return math.ceil(self.batch_size / math.ceil(self.batch_size / max(1, most)))

    def inputs(self, batch, part):
        """What the kernel reads of a slice of the batch: tokens, or G and z."""
        if self.reads_tokens:
            return (batch.Z[part].transpose(self.token_order),)
        gram = batch.gram()
        return gram.G[part].transpose(1, 2, 0), gram.z[part].T

    def parts(self, theta):
        """theta's arrays (L, H, parts, m, m), a view."""
        return theta.reshape((self.layers,) + self.parametrization.shape)

    def _residual(self, kernel, weights, batch, part):
        prediction = kernel.forward(*weights, *self.inputs(batch, part))
        prediction -= batch.target[part]
        return prediction

    def _chunks(self, n):
        chunk = self._chunk or self.prompts_at_once(n)
        for start in range(0, self.batch_size, chunk):
            stop = min(start + chunk, self.batch_size)
            yield self._kernel(stop - start, n), slice(start, stop)

    def _kernel(self, size, n):
        """One kernel for whole chunks, one for the rest of the batch; those for another n go."""
        kernels, n = self._local, None if self.for_every_length else n
        if kernels.context_length != n:
            kernels.by_size, kernels.context_length = {}, n
        if size not in kernels.by_size:
            kernels.by_size[size] = self.kernel(size, n)
        return kernels.by_size[size]


class _Kernels(threading.local):
    """One thread's kernels, by their number of prompts; a copy in another process starts without any."""

    def __init__(self):
        self.by_size, self.context_length = {}, None

    def __reduce__(self):
        return _Kernels, ()
