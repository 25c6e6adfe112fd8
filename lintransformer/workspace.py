"""Value and gradient again and again: one set of buffers, and the fast path where there is one.

Training, gradient noise and difference quotients evaluate the same model on batches of the same size many
thousand times. A `Workspace` keeps the buffers between calls. For linear attention in Gram form, block or
separate parametrisation, no embedding, it runs `lintransformer/models/block.py`; for every other model the
reference of `lintransformer/objective.py`. The numbers are the same up to rounding.

Threads may share a workspace: each has buffers of its own, made when it first asks.
"""

import threading

import numpy as np

from lintransformer.checks import InputError, check_abilities, check_dtype, check_positive_integer
from lintransformer.kernels.block import BlockGramKernel
from lintransformer.objective import prompt_losses, value_and_gradient

# Larger batches go through in chunks: at most this much memory for one (d, d, c) array.
CHUNK_BYTES = 2_000_000


class Workspace:
    """Evaluates f and its gradient for one model, batch size and dtype.

    Parameters
    ----------
    model : `Transformer`
    batch_size : int, B
    dtype : "float32" or "float64"; theta and batches are converted to it
    chunk : None or int, prompts worked on at a time (our choice by default)

    Raises
    ------
    InputError : a value out of range, and at each call: theta or a batch that does not fit, or is not real.
    """

    def __init__(self, model, batch_size, dtype="float64", chunk=None):
        check_abilities("model", model, ("size", "forward", "backward"), "lt.build_model()")
        self.model, self.batch_size = model, check_positive_integer("batch size", batch_size)
        self.dtype = check_dtype(dtype)
        self.is_fast = (model.form_name == "gram" and model.embedding is None
                        and model.parametrization.name in ("block", "separate"))
        self._local = _Kernels()
        self._chunk = _chunk_size(model, self.dtype) if chunk is None else check_positive_integer("chunk", chunk)

    def value_and_gradient(self, theta, batch):
        """f(theta) as a float and its gradient (p,), a fresh array of the workspace's dtype."""
        theta, batch = self._checked(theta, batch)
        if not self.is_fast:
            value, gradient = value_and_gradient(self.model, theta, batch)
            return float(value), gradient
        gram, (P, Q) = batch.gram(), self._matrices(theta, batch)
        dP, dQ = np.zeros_like(P), np.zeros_like(Q)
        value = 0.0
        for kernel, part in self._chunks():
            residual = self._residual(kernel, P, Q, gram, part)
            value += float(residual @ residual)
            kernel.backward(P, Q, np.multiply(residual, 2 / self.batch_size, out=residual), dP, dQ)
        dQ /= gram.context_length
        return value / self.batch_size, self.model.parametrization.pullback(theta, dP, dQ)

    def prompt_losses(self, theta, batch):
        """The squared error of every prompt (B,), a fresh array."""
        theta, batch = self._checked(theta, batch)
        if not self.is_fast:
            return prompt_losses(self.model, theta, batch)
        gram, (P, Q) = batch.gram(), self._matrices(theta, batch)
        residuals = [self._residual(kernel, P, Q, gram, part).copy() for kernel, part in self._chunks()]
        return np.concatenate(residuals)**2

    def _residual(self, kernel, P, Q, gram, part):
        prediction = kernel.forward(P, Q, gram.G[part].transpose(1, 2, 0), gram.z[part].T)
        prediction -= gram.target[part]
        return prediction

    def _matrices(self, theta, batch):
        P, Q = self.model.parametrization.matrices(theta)
        return P, Q / batch.gram().context_length

    def _chunks(self):
        for start in range(0, self.batch_size, self._chunk):
            stop = min(start + self._chunk, self.batch_size)
            yield self._kernel(stop - start), slice(start, stop)

    def _kernel(self, size):
        """One kernel for whole chunks, one for the rest of the batch."""
        kernels = self._local.by_size
        if size not in kernels:
            shape = self.model.parametrization
            kernels[size] = BlockGramKernel(shape.layers, shape.heads, shape.dimension, size, self.dtype)
        return kernels[size]

    def _checked(self, theta, batch):
        theta = self.model.check_theta(theta)
        self.model.check_batch(batch)
        if batch.size != self.batch_size:
            raise InputError(f"batch holds {batch.size} prompts, but the workspace was made for "
                             f"{self.batch_size}")
        if theta.dtype.kind != "f" or batch.dtype.kind != "f":
            raise InputError(f"a workspace computes with real numbers, not dtypes {theta.dtype} and {batch.dtype}")
        if not self.is_fast and batch.dtype != self.dtype:                   # the kernel converts as it copies
            batch = batch.astype(self.dtype)
        return theta.astype(self.dtype, copy=False), batch


class _Kernels(threading.local):
    """One thread's kernels, by their number of prompts; a copy in another process starts without any."""

    def __init__(self):
        self.by_size = {}

    def __reduce__(self):
        return _Kernels, ()


def _chunk_size(model, dtype):
    return max(64, CHUNK_BYTES // (model.dimension**2 * dtype.itemsize))
