"""What the small layers compute, by loops from the definition: a wrong forward pass has a right gradient of its own."""

import math

import numpy as np
from small_attention import CausalAttention
from small_images import LSTM, AveragePool, Convolution, MeanOverTime
from small_layers import GELU, Dense, LayerNorm, RMSNorm, Sinusoids, TokenEmbedding

from lintransformer.verification import assert_close


def drawn(layer, *shape, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(part) for part in layer.shapes], rng.standard_normal(shape)


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def test_convolution():
    layer = Convolution(2, 3, 3, stride=2, padding=1)
    (F, b), x = drawn(layer, 4, 2, 5, 6)
    y = layer.forward([F, b], x)[0]
    assert y.shape == (4, 3, 3, 3)
    for n, o, i, j in np.ndindex(y.shape):
        total = b[o]
        for c, k, m in np.ndindex(2, 3, 3):
            row, column = 2 * i + k - 1, 2 * j + m - 1
            total += F[o, c, k, m] * x[n, c, row, column] if 0 <= row < 5 and 0 <= column < 6 else 0
        assert_close(y[n, o, i, j], total, 1e-12)


def test_average_pool_and_mean_over_time():
    x = np.arange(48.0).reshape(2, 1, 4, 6)
    y = AveragePool(2).forward([], x)[0]
    assert y.shape == (2, 1, 2, 3) and y[1, 0, 1, 2] == np.mean([x[1, 0, i, j] for i in (2, 3) for j in (4, 5)])
    assert (MeanOverTime().forward([], x[:, 0])[0] == x[:, 0].sum(axis=1) / 4).all()


def test_attention():
    layer = CausalAttention(6, heads=2)
    (W_q, W_k, W_v, W_o), x = drawn(layer, 2, 4, 6)
    y = layer.forward([W_q, W_k, W_v, W_o], x)[0]
    for b, t in np.ndindex(2, 4):
        heads = []
        for rows in (slice(0, 3), slice(3, 6)):
            scores = [W_q[rows] @ x[b, t] @ (W_k[rows] @ x[b, s]) / math.sqrt(3) for s in range(t + 1)]
            weights = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
            heads.append(sum(weight * (W_v[rows] @ x[b, s]) for s, weight in enumerate(weights)))
        assert_close(y[b, t], W_o @ np.concatenate(heads), 1e-12)


def test_lstm():
    layer, last = LSTM(3, 2, last=False), LSTM(3, 2)
    (W, V, bias), x = drawn(layer, 4, 5, 3)
    y = layer.forward([W, V, bias], x)[0]
    for b in range(4):
        h = c = np.zeros(2)
        for t in range(5):
            a = W @ x[b, t] + V @ h + bias
            i, f, o = ([sigmoid(a[k * 2 + r]) for r in range(2)] for k in range(3))
            c = np.array([f[r] * c[r] + i[r] * math.tanh(a[6 + r]) for r in range(2)])
            h = np.array([o[r] * math.tanh(c[r]) for r in range(2)])
            assert_close(y[b, t], h, 1e-12)
    assert (last.forward([W, V, bias], x)[0] == y[:, -1]).all()


def test_norms():
    layer, root = LayerNorm(5, epsilon=1e-3), RMSNorm(5, epsilon=1e-3)
    (g, b), x = drawn(layer, 2, 3, 5)
    expected = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-3) * g + b
    assert_close(layer.forward([g, b], x)[0], expected, 1e-13)
    assert_close(root.forward([g], x)[0][1, 2], g * x[1, 2] / math.sqrt(np.mean(x[1, 2] ** 2) + 1e-3), 1e-13)


def test_embedding_and_positions():
    layer = TokenEmbedding(7, 4, positions=5)
    (E, positions), _ = drawn(layer)
    assert (layer.forward([E, positions], np.array([[3, 6, 3]]))[0][0] == E[[3, 6, 3]] + positions[:3]).all()
    y = Sinusoids().forward([], np.zeros((1, 6, 5)))[0][0]
    for t, j in np.ndindex(6, 5):
        angle = t / 10_000 ** ((j - j % 2) / 5)
        assert_close(y[t, j], math.cos(angle) if j % 2 else math.sin(angle), 1e-13)


def test_dense_and_gelu():
    (W, b), x = drawn(Dense(3, 4), 2, 5, 3)
    assert_close(Dense(3, 4).forward([W, b], x)[0][1, 2], W @ x[1, 2] + b, 1e-13)
    exact = [t * (1 + math.erf(t / math.sqrt(2))) / 2 for t in np.linspace(-4, 4, 33)]
    assert np.abs(GELU().forward([], np.linspace(-4, 4, 33))[0] - exact).max() < 5e-4         # the tanh form
