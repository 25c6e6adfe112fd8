"""Losses: one number an example (or token), its gradient with respect to the model's output, and its curvature.

A loss
------
    value(y, target) -> losses          one number an example; the objective is their mean
    gradient(y, target) -> dy           of the SUM of them, an array like y
    curvature(y, target, ty) -> tdy     optional: the derivative of `gradient` along ty, which may carry a leading axis
"""
from __future__ import annotations

import numpy as np

from lintransformer.checks import InputError


class SquaredError:
    """(y - target)^2, no factor 1/2 (Section 3.1); y and target of one shape, one loss an entry."""

    def value(self, y, target):
        residual = self._residual(y, target)
        return residual * residual

    def gradient(self, y, target):
        return 2 * self._residual(y, target)                                  # derivations/01-notation.md, eq. 1.10

    def curvature(self, y, target, ty):
        return 2 * ty

    def _residual(self, y, target):
        if np.shape(y) != np.shape(target):                                  # (B, 1) beside (B,) would make (B, B)
            raise InputError(f"target must have the output's shape {np.shape(y)}, not {np.shape(target)}")
        return y - target


class CrossEntropy:
    """-log softmax(y)[target], over the last axis: y (..., C) logits, target (...) integers in [0, C).

    With p = softmax(y): gradient p - e_target, curvature (diag p - p p^T) ty; derivations/07-softmax-relu.md,
    eq. 7.3-7.4. The largest real part is taken off the logits first: it cancels, and exp does not overflow.
    """

    def value(self, y, target):
        shifted, target = self._shifted(y, target)
        picked = np.take_along_axis(shifted, target[..., None], axis=-1)[..., 0]
        return np.log(np.exp(shifted).sum(axis=-1)) - picked

    def gradient(self, y, target):
        p, target = self._softmax(y, target)
        dy = p.copy()
        picked = np.take_along_axis(dy, target[..., None], axis=-1)
        np.put_along_axis(dy, target[..., None], picked - 1, axis=-1)
        return dy

    def curvature(self, y, target, ty):
        p, _ = self._softmax(y, target)
        return p * (ty - np.einsum("...c,...c->...", p, ty)[..., None])

    def _shifted(self, y, target):
        target = np.asarray(target)
        if target.dtype.kind not in "iu" or target.shape != y.shape[:-1]:
            raise InputError(f"target must hold integers of shape {y.shape[:-1]} for logits of shape {y.shape}, "
                             f"not {target.dtype} of shape {target.shape}")
        if target.size and (target.min() < 0 or target.max() >= y.shape[-1]):
            raise InputError(f"target must lie between 0 and {y.shape[-1] - 1}, not {target.min()} to {target.max()}")
        return y - y.real.max(axis=-1, keepdims=True), target

    def _softmax(self, y, target):
        shifted, target = self._shifted(y, target)
        weights = np.exp(shifted)
        return weights / weights.sum(axis=-1, keepdims=True), target
