"""Layers for images and for recurrences: convolution, average pooling, flatten, LSTM, mean over time.

Only the last has tangents: for models of the others H v is a complex step of `backward`.

Images are (B, C, H, W), channels before rows and columns; sequences (B, T, width). Rules (1.4), (1.6), (1.7):
derivations/01-notation.md; where each entry of x is used several times, its adjoint is the sum (1.4).
"""

import numpy as np
from small_layers import outer, over, times

from lintransformer.checks import InputError


class Convolution:
    """y[o, i, j] = b[o] + sum_{c, k, l} F[o, c, k, l] x[c, s i + k, s j + l], with a frame of `padding` zeros.

    Every window is a row of a matrix (im2col); then it is a Dense layer.
    """

    def __init__(self, inputs, outputs, kernel, stride=1, padding=0):
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.shapes = [(outputs, inputs, kernel, kernel), (outputs,)]

    def init(self, rng):
        """N(0, 1 / fan-in): a window has C k^2 entries."""
        F, b = self.shapes
        return [rng.standard_normal(F) * np.prod(F[1:]) ** -0.5, np.zeros(b)]

    def forward(self, w, x):
        F, b = w                                                     # (O, C, k, k), (O,)
        if x.ndim != 4 or x.shape[1] != F.shape[1] or min(x.shape[2:]) + 2 * self.padding < self.kernel:
            raise InputError(f"the convolution reads (B, {F.shape[1]}, H, W) with H, W at least "
                             f"{self.kernel - 2 * self.padding}, not {x.shape}")
        p, s, k = self.padding, self.stride, self.kernel
        framed = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p))) if p else x
        windows = np.lib.stride_tricks.sliding_window_view(framed, (k, k), axis=(2, 3))[:, :, ::s, ::s]
        rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(len(x), *windows.shape[2:4], -1)   # (B, H', W', C k k)
        y = times(rows, F.reshape(len(F), -1)) + b                   # (B, H', W', O)
        return y.transpose(0, 3, 1, 2), (F, rows, framed.shape)

    def backward(self, cache, dy):
        F, rows, framed = cache
        p, s, k = self.padding, self.stride, self.kernel
        dy = dy.transpose(0, 2, 3, 1)                                # (B, H', W', O)
        dF, db = outer(dy, rows).reshape(F.shape), over(dy, dy)      # (O, C, k, k), (O,)                    (1.6)
        dwindows = (dy @ F.reshape(len(F), -1)).reshape(dy.shape[:3] + F.shape[1:])           # (B, H', W', C, k, k)
        dx = np.zeros(framed, dwindows.dtype)                        # (B, C, H + 2 p, W + 2 p)
        high, wide = s * dy.shape[1], s * dy.shape[2]
        for i in range(k):
            for j in range(k):                                       # every entry of x receives the sum         (1.4)
                dx[:, :, i:i + high:s, j:j + wide:s] += dwindows[..., i, j].transpose(0, 3, 1, 2)
        return dx[:, :, p:framed[2] - p, p:framed[3] - p], [dF, db]


class AveragePool:
    """The mean of each square of `size` times `size` pixels: (B, C, H, W) to (B, C, H / size, W / size)."""

    shapes = []

    def __init__(self, size):
        self.size = size

    def forward(self, w, x):
        (B, C, H, W), k = x.shape, self.size
        if H % k or W % k:
            raise InputError(f"average pooling of {k} x {k} reads multiples of {k}, not {H} x {W}")
        return x.reshape(B, C, H // k, k, W // k, k).mean(axis=(3, 5)), None

    def backward(self, cache, dy):
        return dy.repeat(self.size, axis=2).repeat(self.size, axis=3) / self.size**2, []      # (B, C, H, W)


class Flatten:
    """(B, ...) to (B, all the rest)."""

    shapes = []

    def forward(self, w, x):
        return x.reshape(len(x), -1), x.shape

    def backward(self, shape, dy):
        return dy.reshape(shape), []


class LSTM:
    """Hochreiter and Schmidhuber (1997) with forget gates: x (B, T, inputs) to the states h (B, T, h), or to the last.

        a_t = W x_t + V h_{t-1} + b       (i, f, o) = sigmoid of three quarters of a_t, g = tanh of the fourth
        c_t = f c_{t-1} + i g             h_t = o tanh(c_t)                h_0 = c_0 = 0
    """

    def __init__(self, inputs, hidden, last=True):
        self.hidden, self.last = hidden, last
        self.shapes = [(4 * hidden, inputs), (4 * hidden, hidden), (4 * hidden,)]

    def init(self, rng):
        """N(0, 1 / fan-in); the forget gate's bias is 1 (Jozefowicz et al. 2015), the others 0."""
        W, V, b = self.shapes
        bias = np.zeros(b)
        bias[self.hidden:2 * self.hidden] = 1
        return [rng.standard_normal(W) * W[1] ** -0.5, rng.standard_normal(V) * V[1] ** -0.5, bias]

    def forward(self, w, x):
        W, V, b = w                                                  # (4h, in), (4h, h), (4h,)
        (B, T, _), n = x.shape, self.hidden
        gates = times(x, W) + b                                      # (B, T, 4h): a_t, then i, f, o, g in place
        h = np.zeros((B, T + 1, n), gates.dtype)                     # h[:, t] is the state BEFORE step t
        c, squashed = np.zeros_like(h), np.zeros_like(h)             # squashed = tanh(c)
        for t in range(T):
            a = gates[:, t]                                          # (B, 4h), a view
            a += h[:, t] @ V.T
            a[:, :3 * n] = (1 + np.tanh(a[:, :3 * n] / 2)) / 2       # the sigmoid; it cannot overflow
            a[:, 3 * n:] = np.tanh(a[:, 3 * n:])
            i, f, o, g = np.split(a, 4, axis=1)                      # (B, h) each
            c[:, t + 1] = f * c[:, t] + i * g
            squashed[:, t + 1] = np.tanh(c[:, t + 1])
            h[:, t + 1] = o * squashed[:, t + 1]
        return h[:, -1] if self.last else h[:, 1:], (W, V, x, gates, h, c, squashed)

    def backward(self, cache, dy):
        W, V, x, gates, h, c, squashed = cache
        da = np.empty(gates.shape, np.result_type(gates, dy))        # (B, T, 4h)
        dh, dc = np.zeros((2,) + h[:, 0].shape, da.dtype)            # (B, h): what comes from the steps after
        for t in reversed(range(gates.shape[1])):
            i, f, o, g = np.split(gates[:, t], 4, axis=1)
            if not self.last:
                dh = dh + dy[:, t]                                   # h_t is used twice                         (1.4)
            elif t == gates.shape[1] - 1:
                dh = dy
            s = squashed[:, t + 1]
            dc = dc + dh * o * (1 - s * s)                                                                   # (1.7)
            da[:, t] = np.concatenate([dc * g * i * (1 - i), dc * c[:, t] * f * (1 - f),
                                       dh * s * o * (1 - o), dc * i * (1 - g * g)], axis=1)
            dh, dc = da[:, t] @ V, dc * f                            # (B, h), for the step before           (1.6)
        return da @ W, [outer(da, x), outer(da, h[:, :-1]), over(da, da)]


class MeanOverTime:
    """(B, T, width) to (B, width)."""

    shapes = []

    def forward(self, w, x):
        return x.mean(axis=-2), x.shape[-2]

    def backward(self, T, dy):
        return np.repeat(dy[..., None, :], T, axis=-2) / T, []

    def tangent(self, T, tw, tx):
        return None if tx is None else tx.mean(axis=-2), None

    def backward_tangent(self, T, tcache, dy, tdy):
        return self.backward(T, dy)[0], self.backward(T, tdy)[0], []
