"""Layers by hand, for models that are not eq. 7-8: dense, embeddings, norms, pointwise functions, causal attention.

Conventions
-----------
Batch first: x (B, T, width) for text, (B, width) for vectors; S stands for the leading axes (B, T) or (B,). Weights are
(out, in), y = x W^T. A bar is written d (dy is the adjoint of y), a dot t (ty is the tangent of y). A tangent may carry
one axis K before all others, an adjoint dy never does. Rules (1.4), (1.6), (1.7): derivations/01-notation.md. All runs
in float32, float64 and complex128, where it is analytic: shifts and kinks look at the real part.
"""

import numpy as np

from lintransformer.checks import InputError
from lintransformer.layers.compose import Chain


class Dense:
    """y = x W^T + b, over the last axis of x."""

    def __init__(self, inputs, outputs):
        self.shapes = [(outputs, inputs), (outputs,)]

    def forward(self, w, x):
        W, b = w                                                     # (out, in), (out,)
        return times(x, W) + b, (W, x)                               # (S, out)

    def backward(self, cache, dy):
        W, x = cache
        return dy @ W, [outer(dy, x), over(dy, x)]                   # (S, in), (out, in), (out,)           (1.6)

    def tangent(self, cache, tw, tx):
        (W, x), (tW, tb) = cache, tw
        return times_tangent(x, W, tx, tW) + spread(tb, x), (tW, tx)                                      # (1.5)

    def backward_tangent(self, cache, tcache, dy, tdy):
        (W, x), (tW, tx) = cache, tcache
        return dy @ W, back_tangent(dy, W, tdy, tW), [outer_tangent(dy, x, tdy, tx), over(tdy, x)]


class TokenEmbedding:
    """y = E[tokens] (+ the learned vector of each position): integers (B, T) to (B, T, width)."""

    def __init__(self, vocabulary, width, positions=None):
        self.vocabulary, self.positions = vocabulary, positions
        self.shapes = [(vocabulary, width)] + ([] if positions is None else [(positions, width)])

    def forward(self, w, tokens):
        tokens = np.asarray(tokens)
        if tokens.dtype.kind not in "iu" or tokens.ndim != 2:
            raise InputError(f"tokens must be integers of shape (B, T), not {tokens.dtype} of shape {tokens.shape}")
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocabulary:
            raise InputError(f"tokens must lie between 0 and {self.vocabulary - 1}, "
                             f"not {tokens.min()} to {tokens.max()}")
        if self.positions is not None and tokens.shape[1] > self.positions:
            raise InputError(f"tokens have length {tokens.shape[1]}, but there are {self.positions} positions")
        return self._look_up(w, tokens), tokens

    def _look_up(self, w, tokens):
        """Linear in w, hence its own tangent."""
        y = w[0][..., tokens, :]                                     # (B, T, width), or (K, B, T, width)
        return y if self.positions is None else y + w[1][..., None, :tokens.shape[1], :]

    def backward(self, tokens, dy):
        """Tokens are integers: they have no adjoint. A token that is used twice receives the sum, (1.4)."""
        lead = dy.shape[:-3]
        dw = [np.zeros(lead + shape, dy.dtype) for shape in self.shapes]
        np.add.at(dw[0], (..., tokens, slice(None)), dy)             # (V, width)
        if self.positions is not None:
            dw[1][..., :tokens.shape[1], :] = dy.sum(axis=-3)        # (positions, width)
        return None, dw

    def tangent(self, tokens, tw, tx):
        return self._look_up(tw, tokens), None

    def backward_tangent(self, tokens, tcache, dy, tdy):
        return None, None, self.backward(tokens, tdy)[1]


class Sinusoids:
    """y = x + the sines and cosines of each position (Vaswani et al. 2017, Section 3.5); no weights."""

    shapes = []

    def forward(self, w, x):
        T, width = x.shape[-2:]
        angle = np.arange(T)[:, None] / 10_000 ** (np.arange(0, width, 2) / width)           # (T, width / 2)
        table = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(T, -1)[:, :width]  # sin, cos, sin, ...
        return x + table.astype(x.real.dtype), None

    def backward(self, cache, dy):
        return dy, []

    def tangent(self, cache, tw, tx):
        return tx, None

    def backward_tangent(self, cache, tcache, dy, tdy):
        return dy, tdy, []


class RMSNorm:
    """y = g u, u = x / r, r = sqrt(<x, x> / width + epsilon), over the last axis (Zhang and Sennrich 2019).

    r moves by tr = <u, tx> / width, hence tu = (tx - u tr) / r. From <du, tu> = <dx, tx>: dx = (du - u <u, du> / width)
    / r. The map tx -> tu is symmetric: it is the backward pass, too.
    """

    def __init__(self, width, epsilon=1e-5):
        self.shapes, self.epsilon = [(width,)], epsilon

    def init(self, rng):
        return [np.ones(self.shapes[0])]

    def forward(self, w, x):
        g, r = w[0], np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.epsilon)            # (width,), (S, 1)
        u = x / r                                                    # (S, width)
        return g * u, (g, u, r)

    def backward(self, cache, dy):
        g, u, r = cache
        return self._pull(u, r, g * dy), [over(dy * u, u)]           # (S, width), (width,)           (1.6), (1.7)

    def _pull(self, u, r, du):
        return (du - u * mean(u * du)) / r

    def tangent(self, cache, tw, tx):
        (g, u, r), tg = cache, spread(tw[0], cache[1])
        tx = np.zeros_like(u) if tx is None else tx
        tu, tr = self._pull(u, r, tx), mean(u * tx)
        return tg * u + g * tu, (tg, tu, tr)

    def backward_tangent(self, cache, tcache, dy, tdy):
        (g, u, r), (tg, tu, tr) = cache, tcache
        du, tdu = g * dy, tg * dy + g * tdy
        dx = self._pull(u, r, du)
        tdx = self._pull(u, r, tdu) - (tu * mean(u * du) + u * mean(tu * du) + dx * tr) / r
        return dx, tdx, [over(tdy * u + dy * tu, u)]


class LayerNorm(RMSNorm):
    """y = RMSNorm(x - mean) + b. Taking off the mean is a symmetric projection: its adjoint is itself."""

    def __init__(self, width, epsilon=1e-5):
        self.shapes, self.epsilon = [(width,), (width,)], epsilon

    def init(self, rng):
        return [np.ones(self.shapes[0]), np.zeros(self.shapes[1])]

    def forward(self, w, x):
        y, cache = super().forward(w, centred(x))
        return y + w[1], cache                                       # (S, width)

    def backward(self, cache, dy):
        dx, dw = super().backward(cache, dy)
        return centred(dx), [*dw, over(dy, dy)]

    def tangent(self, cache, tw, tx):
        ty, tcache = super().tangent(cache, tw, None if tx is None else centred(tx))
        return ty + spread(tw[1], cache[1]), tcache

    def backward_tangent(self, cache, tcache, dy, tdy):
        dx, tdx, tdw = super().backward_tangent(cache, tcache, dy, tdy)
        return centred(dx), centred(tdx), [*tdw, over(tdy, dy)]


class Pointwise:
    """y = phi(x), entry by entry: `value(x)` gives y and what `slope` phi' and `curvature` phi'' need; (1.7)."""

    shapes = []

    def forward(self, w, x):
        return self.value(x)

    def backward(self, cache, dy):
        return self.slope(cache) * dy, []

    def tangent(self, cache, tw, tx):
        return None if tx is None else self.slope(cache) * tx, tx

    def backward_tangent(self, cache, tx, dy, tdy):
        slope = self.slope(cache)
        return slope * dy, slope * tdy + (0 if tx is None else self.curvature(cache) * tx * dy), []


class Tanh(Pointwise):
    def value(self, x):
        y = np.tanh(x)
        return y, y

    def slope(self, y):
        return 1 - y * y

    def curvature(self, y):
        return -2 * y * (1 - y * y)


class ReLU(Pointwise):
    """max(x, 0); on its kink the derivative is 0, as in PyTorch."""

    smooth = False

    def value(self, x):
        active = x.real > 0
        return x * active, active

    def slope(self, active):
        return active

    def curvature(self, active):
        return 0


class GELU(Pointwise):
    """x (1 + tanh s) / 2, s = c (x + a x^3): the tanh form of Hendrycks and Gimpel (2016); the erf form needs SciPy."""

    c, a = float(np.sqrt(2 / np.pi)), 0.044715

    def value(self, x):
        t = np.tanh(self.c * (x + self.a * x * x * x))
        return x * (1 + t) / 2, (x, t)

    def slope(self, cache):
        x, t = cache
        return (1 + t + x * (1 - t * t) * self._inner(x)) / 2

    def curvature(self, cache):
        x, t = cache
        inner = self._inner(x)
        return (1 - t * t) * (inner + x * (3 * self.c * self.a * x - t * inner * inner))

    def _inner(self, x):
        """s' = c (1 + 3 a x^2)."""
        return self.c * (1 + 3 * self.a * x * x)


class FeedForward(Chain):
    """Dense, an activation (GELU), Dense."""

    def __init__(self, width, hidden, activation=None):
        super().__init__(Dense(width, hidden), activation or GELU(), Dense(hidden, width))


# --- products over the last axis; S are the leading axes of x, a tangent has K before them ---


def times(x, W):
    """x W^T: (S, in) and (out, in), or (K, out, in), to (S, out), or (K, S, out): one matrix product."""
    if x.shape[-1] != W.shape[-1]:
        raise InputError(f"the layer reads (..., {W.shape[-1]}), not {x.shape}")
    flat = x.reshape(-1, x.shape[-1]) @ np.swapaxes(W, -1, -2)
    return flat.reshape(W.shape[:-2] + x.shape[:-1] + W.shape[-2:-1])


def times_tangent(x, W, tx, tW):
    """Of x W^T; tx (K, S, in) is None where x does not move."""
    return times(x, tW) if tx is None else times(x, tW) + times(tx, W)


def back_tangent(dy, W, tdy, tW):
    """Of dx = dy W: (K, S, in)."""
    return tdy @ W + times(dy, np.swapaxes(tW, -1, -2))


def outer(dy, x, axes=None):
    """dy^T x, summed over S: (out, in), or (K, out, in); `axes` is the number of axes S (all but the last of x)."""
    axes = x.ndim - 1 if axes is None else axes
    dy, x = (a.reshape(a.shape[:a.ndim - 1 - axes] + (-1, a.shape[-1])) for a in (dy, x))
    return np.swapaxes(dy, -1, -2) @ x


def outer_tangent(dy, x, tdy, tx):
    axes = x.ndim - 1
    return outer(tdy, x, axes) if tx is None else outer(tdy, x, axes) + outer(dy, tx, axes)


def over(dy, x):
    """dy summed over the axes S that x has: (width,), or (K, width)."""
    return dy.sum(axis=tuple(range(-x.ndim, -1)))


def spread(tb, x):
    """A vector's tangent (width,), or (K, width), beside x (S, width)."""
    return tb.reshape(tb.shape[:-1] + (1,) * (x.ndim - 1) + tb.shape[-1:])


def mean(x):
    return x.mean(axis=-1, keepdims=True)


def centred(x):
    return x - mean(x)
