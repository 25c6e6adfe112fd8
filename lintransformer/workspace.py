"""Value and gradient again and again, of any objective: checked once a call, by its fast path where it has one.

Training, gradient noise and difference quotients evaluate the same model on batches of the same size many thousand
times. An objective with a fast path offers `evaluator(batch_size, dtype, chunk)`, which returns an object with
`value_and_gradient` and `losses`, or None.
"""
from __future__ import annotations

import numpy as np

from lintransformer.checks import InputError, check_abilities, check_dtype, check_positive_integer
from lintransformer.objective import check_objective, check_theta


class Workspace:
    """Evaluates f and its gradient for one objective, batch size and dtype; threads may share it.

    Parameters
    ----------
    model : an objective: what `build_model` returns, or anything with `size` and `value_and_gradient`
    batch_size : int, B
    dtype : "float32" or "float64"; theta and batches (those with `astype`) are converted to it
    chunk : None or int, examples that a fast path works on at a time (its own choice by default)

    Raises
    ------
    InputError : a value out of range, and at each call: theta or a batch that does not fit, or is not real.
    """

    def __init__(self, model, batch_size, dtype="float64", chunk=None):
        self.model, self.batch_size = check_objective(model), check_positive_integer("batch size", batch_size)
        self.dtype = check_dtype(dtype)
        if chunk is not None:
            check_positive_integer("chunk", chunk)
        make = getattr(model, "evaluator", None)
        self._fast = make(self.batch_size, self.dtype, chunk) if make else None

    @property
    def is_fast(self):
        """Whether the objective has a fast path for this."""
        return self._fast is not None

    def value_and_gradient(self, theta, batch):
        """f(theta) as a float and its gradient (p,), a fresh array of the workspace's dtype."""
        theta, batch = self._checked(theta, batch)
        if self._fast:
            return self._fast.value_and_gradient(theta, batch)
        value, gradient = self.model.value_and_gradient(theta, batch)
        gradient = np.asarray(gradient)
        if gradient.shape != theta.shape or gradient.dtype.kind != "f":
            raise InputError(f"the model's gradient must be real and of theta's shape {theta.shape}, not "
                             f"{gradient.dtype} of shape {gradient.shape}")
        return float(value), gradient

    def prompt_losses(self, theta, batch):
        """One loss an example; the squared error of every prompt (B,). A fresh array."""
        theta, batch = self._checked(theta, batch)
        if self._fast:
            return self._fast.losses(theta, batch)
        return check_abilities("model", self.model, ("losses",), "lt.build_model()").losses(theta, batch)

    def check(self, batch):
        """Raise `InputError` unless a batch fits the model and the workspace."""
        if hasattr(self.model, "check_batch"):
            self.model.check_batch(batch)
        if getattr(batch, "size", self.batch_size) != self.batch_size:
            raise InputError(f"batch holds {batch.size} prompts, but the workspace was made for "
                             f"{self.batch_size}")

    def _checked(self, theta, batch):
        theta, dtype = check_theta(self.model, theta), getattr(batch, "dtype", self.dtype)
        self.check(batch)
        if theta.dtype.kind != "f" or dtype.kind != "f":
            raise InputError(f"a workspace computes with real numbers, not dtypes {theta.dtype} and {dtype}")
        if not self._fast and hasattr(batch, "astype"):                      # a fast path converts as it copies
            batch = batch.astype(self.dtype)
        return theta.astype(self.dtype, copy=False), batch
