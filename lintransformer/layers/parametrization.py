"""Which numbers of P and Q are trained: all of them, a block, or a product of two matrices.

    name      trained         size m of a matrix   what attention sees
    full      P, Q            d + 1                P, Q as they are                            eq. 7
    block     P', Q'          d                    P = diag(P', 1), Q = diag(Q', 0)            authors' code
    separate  P', W_q, W_k    d                    the same, with Q' = W_q^T W_k               Fig. 8 left

theta's part of a layer is the C-order of [head, part, row, column]. Each map to (P, Q) comes with its pullback
(adjoint), its tangent and the tangent of its pullback; a leading axis (layers, or directions) may stand before all.
Derivation: derivations/08-separate-heads.md, eq. 8.1-8.3.
"""

import numpy as np

from lintransformer.checks import check_choice

PARTS = {"full": ("P", "Q"), "block": ("P", "Q"), "separate": ("P", "W_q", "W_k")}


class Parametrization:
    """How arrays (..., H, parts, m, m) stand for P' and Q', and these for P and Q."""

    def __init__(self, name, heads, dimension):
        self.name, self.heads, self.dimension = check_choice("parametrization", name, PARTS), heads, dimension
        self.width = dimension + (name == "full")
        self.shape = heads, len(PARTS[name]), self.width, self.width

    def matrices(self, parts):
        """The trained matrices at their own size: P', Q', each (..., H, m, m)."""
        if self.name != "separate":
            return parts[..., 0, :, :], parts[..., 1, :, :]
        P, W_q, W_k = np.moveaxis(parts, -3, 0)
        return P, np.einsum("...ki,...kj->...ij", W_q, W_k)                                      # (8.1)

    def pullback(self, parts, dP, dQ):
        """The adjoint of `matrices`: from dP', dQ' to the gradient (..., H, parts, m, m)."""
        return self._stack(dP, *self._pull_product(parts, dQ))

    def tangent(self, parts, directions):
        """The derivative of `matrices` along directions."""
        if self.name != "separate":
            return directions[..., 0, :, :], directions[..., 1, :, :]
        (_, W_q, W_k), (tP, tW_q, tW_k) = np.moveaxis(parts, -3, 0), np.moveaxis(directions, -3, 0)
        return tP, np.einsum("...ki,...kj->...ij", tW_q, W_k) + np.einsum("...ki,...kj->...ij", W_q, tW_k)

    def pullback_tangent(self, parts, directions, dQ, tdP, tdQ):
        """The derivative of `pullback` along directions, when dP and dQ themselves move along tdP and tdQ."""
        first = self._pull_product(parts, tdQ)
        second = self._pull_product(directions, dQ) if self.name == "separate" else (0,)         # (8.3)
        return self._stack(tdP, *(a + b for a, b in zip(first, second)))

    def dense(self, P, Q, tangent=False):
        """(..., m, m) to (..., D, D): the corners are 1 for P and 0 for Q; both 0 for a tangent."""
        if self.name == "full":
            return P, Q
        corner = np.ones(P.shape[:-2] + (1, 1), dtype=P.dtype)
        return _bordered(P, 0 * corner if tangent else corner), _bordered(Q, 0 * corner)         # (3.4)

    def restrict(self, dP, dQ):
        """The adjoint of `dense`: keep the rows and columns that are trained."""
        return dP[..., :self.width, :self.width], dQ[..., :self.width, :self.width]

    def _pull_product(self, parts, dQ):
        if self.name != "separate":
            return (dQ,)
        _, W_q, W_k = np.moveaxis(parts, -3, 0)
        return np.einsum("...kj,...ij->...ki", W_k, dQ), np.einsum("...ki,...ij->...kj", W_q, dQ)    # (8.2)

    def _stack(self, *gradients):
        lead = np.broadcast_shapes(*(gradient.shape[:-3] for gradient in gradients))
        parts = np.empty(lead + self.shape, np.result_type(*gradients))
        for part, gradient in enumerate(gradients):
            parts[..., part, :, :] = gradient
        return parts


class Parametrized:
    """A layer of attention whose P and Q are made of what is trained; w = [parts (H, parts, m, m)]."""

    def __init__(self, parametrization, attention, init_scale):
        self.parametrization, self.attention, self.init_scale = parametrization, attention, init_scale
        self.shapes, self.smooth = [parametrization.shape], attention.smooth

    def init(self, rng):
        """N(0, init_scale^2) ("authors' code": 0.05; Appendix B 0.1)."""
        return [self.init_scale * rng.standard_normal(self.shapes[0])]

    def forward(self, w, x):
        shape = self.parametrization
        y, cache = self.attention.forward(shape.dense(*shape.matrices(w[0])), x)
        return y, (w[0], cache)

    def backward(self, cache, dy):
        parts, cache = cache
        dx, dw = self.attention.backward(cache, dy)
        return dx, [self.parametrization.pullback(parts, *self.parametrization.restrict(*dw))]

    def resolved(self, cache):
        return self.attention.resolved(cache[1]) if hasattr(self.attention, "resolved") else True

    def tangent(self, cache, tw, tx):
        (parts, cache), shape = cache, self.parametrization
        ty, tcache = self.attention.tangent(cache, shape.dense(*shape.tangent(parts, tw[0]), tangent=True), tx)
        return ty, (tw[0], tcache)

    def backward_tangent(self, cache, tcache, dy, tdy):
        (parts, cache), (directions, tcache), shape = cache, tcache, self.parametrization
        dx, tdx, tdw = self.attention.backward_tangent(cache, tcache, dy, tdy)
        _, dQ = shape.restrict(*self.attention.backward(cache, dy)[1]) if shape.name == "separate" else (None, None)
        return dx, tdx, [shape.pullback_tangent(parts, directions, dQ, *shape.restrict(*tdw))]


def _bordered(matrix, corner):
    """[[matrix, 0], [0, corner]]."""
    column = np.zeros(matrix.shape[:-1] + (1,), dtype=matrix.dtype)
    row = np.concatenate([np.swapaxes(column, -1, -2), corner], axis=-1)
    return np.concatenate([np.concatenate([matrix, column], axis=-1), row], axis=-2)
