"""Causal softmax attention with several heads, forward, backward and both tangents; batch first.

    q = x W_q^T / sqrt(c)   k = x W_k^T   v = x W_v^T   W = softmax(q k^T, over keys <= query)   y = (W v) W_o^T

Conventions
-----------
x, y (B, T, width); q, k, v, A = W v (B, H, T, c), c = width / H; scores and weights (B, H, T, T), row the query, column
the key. The softmax and its pull: derivations/07-softmax-relu.md, eq. 7.2, 7.4, 7.8; products:
derivations/01-notation.md, eq. 1.6. A dot is written t, a bar d; tangents may carry an axis K before all others.
"""

import numpy as np
from small_layers import back_tangent, outer, outer_tangent, times, times_tangent

from lintransformer.checks import InputError


class CausalAttention:
    """Weights W_q, W_k, W_v, W_o, each (width, width)."""

    def __init__(self, width, heads=1):
        if width % heads:
            raise InputError(f"width must be a multiple of the {heads} heads, not {width}")
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.shapes = [(width, width)] * 4

    def forward(self, w, x):
        W_q, W_k, W_v, W_o = w
        q, k, v = self._split(times(x, W_q)) * self.scale, self._split(times(x, W_k)), self._split(times(x, W_v))
        W = causal_softmax(q @ swap(k))                              # (B, H, T, T)
        A = merge(W @ v)                                             # (B, T, width)
        return times(A, W_o), (w, x, q, k, v, W, A)

    def backward(self, cache, dy):
        (W_q, W_k, W_v, W_o), x, q, k, v, W, A = cache
        dA = self._split(dy @ W_o)                                   # (B, H, T, c)                          (1.6)
        dW, dv = dA @ swap(v), merge(swap(W) @ dA)                   # (B, H, T, T), (B, T, width)           (1.6)
        dR = W * (dW - inner(W, dW))                                 # (B, H, T, T)                          (7.4)
        dq, dk = merge(dR @ k) * self.scale, merge(swap(dR) @ q)     # (B, T, width)                         (1.6)
        dx = dq @ W_q + dk @ W_k + dv @ W_v                          # (B, T, width)                         (1.4)
        return dx, [outer(dq, x), outer(dk, x), outer(dv, x), outer(dy, A)]

    def tangent(self, cache, tw, tx):
        (W_q, W_k, W_v, W_o), x, q, k, v, W, A = cache
        tW_q, tW_k, tW_v, tW_o = tw
        tq = self._split(times_tangent(x, W_q, tx, tW_q)) * self.scale
        tk = self._split(times_tangent(x, W_k, tx, tW_k))            # (K, B, H, T, c)
        tv = self._split(times_tangent(x, W_v, tx, tW_v))
        tR = tq @ swap(k) + q @ swap(tk)
        tW = W * (tR - inner(W, tR))                                 # (K, B, H, T, T)                       (7.4)
        tA = merge(tW @ v + W @ tv)                                  # (K, B, T, width)
        return times_tangent(A, W_o, tA, tW_o), (tw, tx, tq, tk, tv, tW, tA)

    def backward_tangent(self, cache, tcache, dy, tdy):
        (W_q, W_k, W_v, W_o), x, q, k, v, W, A = cache
        (tW_q, tW_k, tW_v, tW_o), tx, tq, tk, tv, tW, tA = tcache
        dA, tdA = self._split(dy @ W_o), self._split(back_tangent(dy, W_o, tdy, tW_o))
        dW, tdW = dA @ swap(v), tdA @ swap(v) + dA @ swap(tv)
        dv, tdv = merge(swap(W) @ dA), merge(swap(tW) @ dA + swap(W) @ tdA)
        rest = dW - inner(W, dW)
        dR, tdR = W * rest, tW * rest + W * (tdW - inner(tW, dW) - inner(W, tdW))                            # (7.8)
        dq, tdq = merge(dR @ k) * self.scale, merge(tdR @ k + dR @ tk) * self.scale
        dk, tdk = merge(swap(dR) @ q), merge(swap(tdR) @ q + swap(dR) @ tq)
        dx = dq @ W_q + dk @ W_k + dv @ W_v
        tdx = back_tangent(dq, W_q, tdq, tW_q) + back_tangent(dk, W_k, tdk, tW_k) + back_tangent(dv, W_v, tdv, tW_v)
        return dx, tdx, [outer_tangent(dq, x, tdq, tx), outer_tangent(dk, x, tdk, tx),
                         outer_tangent(dv, x, tdv, tx), outer_tangent(dy, A, tdy, tA)]

    def _split(self, x):
        """(B, T, width) to (B, H, T, c)."""
        return np.swapaxes(x.reshape(x.shape[:-1] + (self.heads, -1)), -2, -3)


def merge(x):
    """(B, H, T, c) to (B, T, width): the adjoint of `_split`, and its inverse."""
    x = np.swapaxes(x, -2, -3)
    return x.reshape(x.shape[:-2] + (-1,))


def causal_softmax(R):
    """Over the keys up to each query's own; the largest real part is taken off first."""
    R = np.where(np.tri(R.shape[-1], dtype=bool), R, -np.inf)
    W = np.exp(R - R.real.max(axis=-1, keepdims=True))
    return W / W.sum(axis=-1, keepdims=True)                         # (7.2)


def inner(W, dW):
    """<w, dw> of each query's row, kept as a column."""
    return (W * dW).sum(axis=-1, keepdims=True)


def swap(x):
    return np.swapaxes(x, -1, -2)
