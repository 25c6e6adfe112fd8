"""One flat vector theta, and the matrices P and Q of every layer and head that it stands for.

Conventions
-----------
L layers, H heads, D = d + 1. The attention part of theta is the C-order of [layer, head, part, row, column].

    name      parts           size m of a matrix   what the layers see
    full      P, Q            d + 1                P, Q as they are                            eq. 7
    block     P', Q'          d                    P = diag(P', 1), Q = diag(Q', 0)            authors' code
    separate  P', W_q, W_k    d                    the same, with Q' = W_q^T W_k               Fig. 8 left

Each map theta -> (P, Q) comes with its pullback (adjoint), its tangent and the tangent of its pullback; a
tangent may carry a leading axis K, one entry for each of K directions. Derivation:
derivations/08-separate-heads.md, eq. 8.1-8.3.
"""

import math
from dataclasses import dataclass

import numpy as np

from lintransformer.checks import check_choice

PARTS = {"full": ("P", "Q"), "block": ("P", "Q"), "separate": ("P", "W_q", "W_k")}

MEANING = {
    "P": "value projection P (eq. 7)",
    "Q": "query-key matrix Q (eq. 7): score of key i for query j is z_i^T Q z_j",
    "W_q": "query matrix; Q = W_q^T W_k",
    "W_k": "key matrix; Q = W_q^T W_k",
}


@dataclass(frozen=True)
class Parametrization:
    """How theta (or its attention part) stands for the matrices P, Q of L layers and H heads."""

    name: str
    layers: int
    heads: int
    dimension: int

    def __post_init__(self):
        check_choice("parametrization", self.name, PARTS)

    @property
    def width(self):
        """Rows (and columns) of a trained matrix: d + 1 for "full", d otherwise."""
        return self.dimension + (self.name == "full")

    @property
    def shape(self):
        return self.layers, self.heads, len(PARTS[self.name]), self.width, self.width

    @property
    def size(self):
        return math.prod(self.shape)

    def parts(self, theta):
        """(..., p) to (..., L, H, parts, m, m), a view."""
        return theta.reshape(theta.shape[:-1] + self.shape)

    def named(self, offset=0):
        """Rows (name, shape, slice, meaning) of the table `model.describe()` prints."""
        size = self.width**2
        for index in np.ndindex(self.shape[:3]):
            layer, head, part = index
            start = offset + int(np.ravel_multi_index(index, self.shape[:3])) * size
            symbol = PARTS[self.name][part]
            corner = {"P": ", P = diag(P', 1)", "Q": ", Q = diag(Q', 0)"}.get(symbol, "")
            meaning = MEANING[symbol] + (corner if self.name != "full" else "")
            yield f"{symbol}[{layer},{head}]", (self.width, self.width), slice(start, start + size), meaning

    def matrices(self, theta):
        """The trained matrices at their own size: P', Q', each (..., L, H, m, m)."""
        return self._product(self.parts(theta))

    def pullback(self, theta, dP, dQ):
        """The adjoint of `matrices`: gradients (L, H, m, m) of P' and Q' to the gradient (p,) of theta."""
        parts = self.parts(theta)
        return self._flat(dP, *self._pull_product(parts, dQ))

    def tangent(self, theta, v):
        """The derivative of `matrices` along v (p,) or (K, p)."""
        parts, directions = self.parts(theta), self.parts(v)
        if self.name != "separate":
            return directions[..., 0, :, :], directions[..., 1, :, :]
        W_q, W_k = parts[..., 1, :, :], parts[..., 2, :, :]
        tW_q, tW_k = directions[..., 1, :, :], directions[..., 2, :, :]
        tQ = np.einsum("...ki,...kj->...ij", tW_q, W_k) + np.einsum("...ki,...kj->...ij", W_q, tW_k)
        return directions[..., 0, :, :], tQ

    def pullback_tangent(self, theta, v, dQ, tdP, tdQ):
        """The derivative of `pullback` along v, when dP and dQ themselves move along tdP and tdQ."""
        parts, directions = self.parts(theta), self.parts(v)
        first = self._pull_product(parts, tdQ)
        second = self._pull_product(directions, dQ) if self.name == "separate" else (0,)
        return self._flat(tdP, *(a + b for a, b in zip(first, second)))

    def dense(self, P, Q, tangent=False):
        """(..., m, m) to (..., D, D): the corners are 1 for P and 0 for Q; both 0 for a tangent."""
        if self.name == "full":
            return P, Q
        corner = np.ones(P.shape[:-2] + (1, 1), dtype=P.dtype)
        return _bordered(P, 0 * corner if tangent else corner), _bordered(Q, 0 * corner)

    def restrict(self, dP, dQ):
        """The adjoint of `dense`: keep the rows and columns that are trained."""
        return dP[..., :self.width, :self.width], dQ[..., :self.width, :self.width]

    def reaches_prediction(self):
        """Which entries of theta can change the prediction (p,), by structure.

        The prediction reads row d of Z_L only. The last layer's P therefore matters through its row d alone:
        not at all when that row is fixed (block, separate). With one layer, column d of a full Q multiplies
        the query's own response, which eq. 4 sets to 0. derivations/03-linear-attention.md, eq. 3.7.
        """
        reaches = np.ones(self.shape, dtype=bool)
        reaches[-1, :, 0] = False
        if self.name == "full":
            reaches[-1, :, 0, -1] = True
            if self.layers == 1:
                reaches[0, :, 1, :, -1] = False
        return reaches.reshape(-1)

    def _product(self, parts):
        if self.name != "separate":
            return parts[..., 0, :, :], parts[..., 1, :, :]
        W_q, W_k = parts[..., 1, :, :], parts[..., 2, :, :]
        return parts[..., 0, :, :], np.einsum("...ki,...kj->...ij", W_q, W_k)

    def _pull_product(self, parts, dQ):
        if self.name != "separate":
            return (dQ,)
        W_q, W_k = parts[..., 1, :, :], parts[..., 2, :, :]
        return np.einsum("...kj,...ij->...ki", W_k, dQ), np.einsum("...ki,...ij->...kj", W_q, dQ)

    def _flat(self, *gradients):
        lead = np.broadcast_shapes(*(gradient.shape[:-4] for gradient in gradients))
        parts = np.empty(lead + self.shape, np.result_type(*gradients))
        for part, gradient in enumerate(gradients):
            parts[..., part, :, :] = gradient
        return parts.reshape(lead + (self.size,))


def _bordered(matrix, corner):
    """[[matrix, 0], [0, corner]]."""
    column = np.zeros(matrix.shape[:-1] + (1,), dtype=matrix.dtype)
    row = np.concatenate([np.swapaxes(column, -1, -2), corner], axis=-1)
    return np.concatenate([np.concatenate([matrix, column], axis=-1), row], axis=-2)
