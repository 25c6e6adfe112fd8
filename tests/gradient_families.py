"""Functions with gradients by hand, right by construction: what the public checks are tried on by the thousand.

A family draws a `Case`: f and gradient of a dict of arrays, in the dtype that it is asked for; gradient_cases.py
dresses it up. That the gradients are right is proved apart from the checks, by differences in extended precision, in
tests/test_checks_random.py. Code under test is written as people write it: np.var, np.maximum, loops.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

ACTIVATIONS = {
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2),
    "softplus": (lambda z: np.log1p(np.exp(z)), lambda z: 1 / (1 + np.exp(-z))),
    "logaddexp": (lambda z: np.logaddexp(z, 0), lambda z: 1 / (1 + np.exp(-z))),
    "gelu": (lambda z: z / 2 * (1 + np.tanh(0.8 * z + 0.035 * z**3)),
             lambda z: (1 + np.tanh(0.8 * z + 0.035 * z**3)) / 2
             + z / 2 * (0.8 + 0.105 * z**2) * (1 - np.tanh(0.8 * z + 0.035 * z**3) ** 2)),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(z.dtype)),
}


@dataclass
class Case:
    """f: dict -> number, gradient: dict -> dict, at theta: dict of arrays."""

    name: str
    f: object
    gradient: object
    theta: dict


def case(name, f, gradient, **theta):
    return Case(name, lambda t: f(**t), lambda t: gradient(**t), theta)


def normal(rng, dtype, *shape, scale=1.0):
    return (rng.standard_normal(shape) * scale).astype(dtype)


def softmax(z):
    e = np.exp(z - np.max(z.real, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


# --- networks ---


def dense(rng, dtype):
    """Mean squared error over a batch, one to four layers."""
    kind = rng.choice(list(ACTIVATIONS))
    act, slope = ACTIVATIONS[kind]
    widths, B = rng.integers(1, 5, rng.integers(2, 6)), int(rng.integers(1, 51))
    x, y = normal(rng, dtype, B, widths[0]), normal(rng, dtype, B, widths[-1])
    theta = {}
    for k, (n, m) in enumerate(pairwise(widths)):
        theta[f"W{k}"] = normal(rng, dtype, n, m, scale=1 / np.sqrt(n))
        theta[f"b{k}"] = normal(rng, dtype, m, scale=0.3)
    last = len(widths) - 2

    def forward(t):
        hs, zs = [x], []
        for k in range(last + 1):
            zs.append(hs[-1] @ t[f"W{k}"] + t[f"b{k}"])
            hs.append(zs[-1] if k == last else act(zs[-1]))
        return hs, zs

    def gradient(t):
        hs, zs = forward(t)
        d, out = (hs[-1] - y) / B, {}
        for k in range(last, -1, -1):
            d = d if k == last else d * slope(zs[k])
            out[f"W{k}"], out[f"b{k}"] = hs[k].T @ d, d.sum(axis=0)
            d = d @ t[f"W{k}"].T
        return {key: out[key] for key in t}

    return Case(f"dense {kind}", lambda t: np.sum((forward(t)[0][-1] - y) ** 2) / (2 * B), gradient, theta)


def normalised(rng, dtype):
    """LayerNorm, BatchNorm and RMSNorm with gain and bias; the variance by np.var, np.std or by hand."""
    kind, how = rng.choice(["layer", "batch", "rms"]), rng.choice(["np.var", "np.std", "own"])
    B, n, axis = int(rng.integers(2, 8)), int(rng.integers(3, 7)), 0 if kind == "batch" else -1
    c, eps = normal(rng, dtype, B, n), 1e-5

    def deviation(x):
        if kind == "rms":
            return np.sqrt(np.mean(x**2, axis=axis, keepdims=True) + eps)
        if how == "np.std":
            return np.sqrt(np.std(x, axis=axis, keepdims=True) ** 2 + eps)
        centred = x - x.mean(axis=axis, keepdims=True)
        square = np.var(x, axis=axis, keepdims=True) if how == "np.var" else \
            np.mean(centred**2, axis=axis, keepdims=True)
        return np.sqrt(square + eps)

    def hat(x):
        return (x if kind == "rms" else x - x.mean(axis=axis, keepdims=True)) / deviation(x)

    def f(x, gain, bias):
        return np.sum(c * (hat(x) * gain + bias) ** 2) / B

    def gradient(x, gain, bias):
        h = hat(x)
        d = 2 * c * (h * gain + bias) / B
        dh = d * gain
        mean = 0 if kind == "rms" else dh.mean(axis=axis, keepdims=True)
        dx = (dh - mean - h * np.mean(dh * h, axis=axis, keepdims=True)) / deviation(x)
        return {"x": dx, "gain": np.sum(d * h, axis=0), "bias": d.sum(axis=0)}

    x, gain, bias = normal(rng, dtype, B, n), 1 + normal(rng, dtype, n, scale=0.2), normal(rng, dtype, n)
    return case(f"{kind} norm, {'own' if kind == 'rms' else how}", f, gradient, x=x, gain=gain, bias=bias)


def cross_entropy(rng, dtype):
    """Softmax regression, with logits up to saturation."""
    B, n, m = int(rng.integers(1, 51)), int(rng.integers(1, 5)), int(rng.integers(2, 6))
    x, label, rows = normal(rng, dtype, B, n), rng.integers(0, m, B), np.arange(B)
    hot = np.eye(m, dtype=dtype)[label]

    def f(W, b):
        z = x @ W + b
        top = np.max(z.real, axis=1)
        return np.mean(top + np.log(np.sum(np.exp(z - top[:, None]), axis=1)) - z[rows, label])

    def gradient(W, b):
        d = (softmax(x @ W + b) - hot) / B
        return {"W": x.T @ d, "b": d.sum(axis=0)}

    size = rng.choice([0.1, 1.0, 4.0])
    return case(f"cross-entropy, logits of {size:g}", f, gradient, W=normal(rng, dtype, n, m, scale=size),
                b=normal(rng, dtype, m, scale=size))


def attention(rng, dtype):
    n, d, mask = int(rng.integers(2, 5)), int(rng.integers(1, 4)), rng.random() < 0.5
    X, C = normal(rng, dtype, n, d), normal(rng, dtype, n, d)
    block = np.triu(np.full((n, n), -1e4), 1).astype(dtype) if mask else np.zeros((n, n), dtype)

    def parts(Q, K, V):
        return softmax(X @ Q @ (X @ K).T / dtype(np.sqrt(d)) + block), X @ V

    def f(Q, K, V):
        A, values = parts(Q, K, V)
        return np.sum(C * np.tanh(A @ values))

    def gradient(Q, K, V):
        A, values = parts(Q, K, V)
        dO = C * (1 - np.tanh(A @ values) ** 2)
        dA = dO @ values.T
        dS = A * (dA - np.sum(dA * A, axis=1, keepdims=True)) / dtype(np.sqrt(d))
        return {"Q": X.T @ (dS @ (X @ K)), "K": X.T @ (dS.T @ (X @ Q)), "V": X.T @ (A.T @ dO)}

    return case("attention", f, gradient, Q=normal(rng, dtype, d, d), K=normal(rng, dtype, d, d),
                V=normal(rng, dtype, d, d))


def convolution(rng, dtype):
    n, k = int(rng.integers(5, 12)), int(rng.integers(2, 5))
    signal, y = normal(rng, dtype, n), normal(rng, dtype, n - k + 1)

    def out(w):                                                              # by loops, as a first attempt is written
        return [sum(signal[i + j] * w[j] for j in range(k)) for i in range(n - k + 1)]

    def f(w):
        total = 0
        for a, b in zip(out(w), y):
            total = total + (np.tanh(a) - b) ** 2
        return total

    def gradient(w):
        d = np.zeros(k, w.dtype)
        for i, (a, b) in enumerate(zip(out(w), y)):
            for j in range(k):
                d[j] += 2 * (np.tanh(a) - b) * (1 - np.tanh(a) ** 2) * signal[i + j]
        return {"w": d}

    return case("convolution", f, gradient, w=normal(rng, dtype, k))


# --- losses, at their minimum and away from it ---


def least_squares(rng, dtype):
    m, n = int(rng.integers(6, 30)), int(rng.integers(1, 6))
    A, y = normal(rng, dtype, m, n), normal(rng, dtype, m)
    where = rng.choice(["at its minimum", "near it", "away"])
    best = np.linalg.lstsq(A.astype(float), y.astype(float), rcond=None)[0]
    x = best + {"at its minimum": 0, "near it": 1e-4, "away": 1}[where] * rng.standard_normal(n)
    return case(f"least squares {where}", lambda x: np.sum((A @ x - y) ** 2) / m,
                lambda x: {"x": 2 / m * (A.T @ (A @ x - y))}, x=x.astype(dtype))


def logistic(rng, dtype):
    """With a ridge, at its optimum (Newton's method in float64) or away."""
    m, n, where = int(rng.integers(8, 40)), int(rng.integers(1, 5)), rng.choice(["at its optimum", "away"])
    A, s = normal(rng, dtype, m, n), rng.choice([-1, 1], m).astype(dtype)
    w = np.zeros(n)
    for _ in range(30):
        p = 1 / (1 + np.exp(s * (A @ w)))
        H = (A.T * (p * (1 - p))) @ A / m + 0.1 * np.eye(n)
        w = w - np.linalg.solve(H, 0.1 * w - A.T @ (s * p) / m)
    w = (w if where == "at its optimum" else w + rng.standard_normal(n)).astype(dtype)
    return case(f"logistic {where}",
                lambda w: np.mean(np.log1p(np.exp(-s * (A @ w)))) + 0.05 * np.sum(w**2),
                lambda w: {"w": 0.1 * w - A.T @ (s / (1 + np.exp(s * (A @ w)))) / m}, w=w)


def quadratic(rng, dtype):
    """Conditioned by up to 1e8."""
    n = int(rng.integers(2, 9))
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    H = ((Q * np.logspace(0, -rng.choice([0, 4, 8]), n)) @ Q.T).astype(dtype)
    H = (H + H.T) / 2
    return case("quadratic", lambda x: x @ H @ x / 2, lambda x: {"x": H @ x}, x=normal(rng, dtype, n))


def penalised(rng, dtype):
    """Least squares with the penalty that is forgotten, and functions with kinks away from theta."""
    n, c = int(rng.integers(2, 10)), float(10 ** rng.uniform(-5, 0))
    kind = rng.choice(["L1", "L2", "huber", "max", "norm", "hinge"])
    b = normal(rng, dtype, n)
    penalty, slope = {
        "L1": (lambda x: np.sum(np.abs(x)), lambda x: np.sign(x)),
        "L2": (lambda x: np.sum(x**2), lambda x: 2 * x),
        "huber": (lambda x: np.sum(np.where(np.abs(x) < 0.5, x**2, np.abs(x) - 0.25)),
                  lambda x: np.where(np.abs(x) < 0.5, 2 * x, np.sign(x))),
        "max": (lambda x: np.max(np.abs(x)), lambda x: np.sign(x) * (np.abs(x) == np.max(np.abs(x)))),
        "norm": (lambda x: np.linalg.norm(x), lambda x: x / np.linalg.norm(x)),
        "hinge": (lambda x: np.sum(np.maximum(0, 1 - x)), lambda x: -(x < 1).astype(x.dtype)),
    }[kind]
    x = rng.uniform(0.1, 0.4, n) + rng.choice([0, 0.5, 1.1], n)              # 0.08 and more from each kink
    x = (x + 0.02 * np.arange(n) * (kind == "max")) * rng.choice([-1, 1], n)
    return case(f"penalty {kind}", lambda x: np.sum((x - b) ** 2) + c * penalty(x),
                lambda x: {"x": 2 * (x - b) + c * slope(x)}, x=x.astype(dtype))


def elementary(rng, dtype):
    """Sums over entries of one function."""
    n = int(rng.integers(1, 61))
    kind, h, d, low, high = [
        ("rational", lambda x: 1 / (1 + x**2), lambda x: -2 * x / (1 + x**2) ** 2, -3, 3),
        ("sqrt", lambda x: np.sqrt(x), lambda x: 0.5 / np.sqrt(x), 0.05, 4),
        ("log", lambda x: np.log(x), lambda x: 1 / x, 0.05, 4),
        ("exponents", lambda x: np.exp(8 * x), lambda x: 8 * np.exp(8 * x), -2, 2),
        ("waves", lambda x: np.sin(3 * x), lambda x: 3 * np.cos(3 * x), -3, 3),
        ("x log x", lambda x: x * np.log(x), lambda x: np.log(x) + 1, 0.05, 3),
        ("bumps", lambda x: np.exp(-x**2), lambda x: -2 * x * np.exp(-x**2), -3, 3),
    ][rng.integers(7)]
    c = normal(rng, dtype, n)
    return case(kind, lambda x: np.sum(c * h(x)), lambda x: {"x": c * d(x)}, x=rng.uniform(low, high, n).astype(dtype))


def log_sum_exp(rng, dtype):
    n, sharp = int(rng.integers(2, 30)), float(rng.choice([1, 10]))
    return case("log-sum-exp", lambda x: np.log(np.sum(np.exp(sharp * x))),
                lambda x: {"x": sharp * softmax(sharp * x)}, x=normal(rng, dtype, n))


def products(rng, dtype):
    """sum_k c_k prod_j x_j^a_kj, degree by degree."""
    n, m = int(rng.integers(2, 8)), int(rng.integers(1, 6))
    a, c = rng.integers(0, 3, (m, n)), normal(rng, dtype, m)

    def gradient(x):
        g = np.zeros(n, x.dtype)
        for k in range(m):
            for i in np.flatnonzero(a[k]):
                rest = a[k] - (np.arange(n) == i)
                g[i] += c[k] * a[k, i] * np.prod(x**rest)
        return {"x": g}

    return case("products", lambda x: np.sum(c * np.prod(x**a, axis=1)), gradient, x=normal(rng, dtype, n))


def bilinear(rng, dtype):
    n, m = int(rng.integers(1, 6)), int(rng.integers(1, 6))
    A, B = normal(rng, dtype, n, m), normal(rng, dtype, n, m)
    return case("bilinear", lambda X, Y: np.sum(A * X * Y) + np.sum((X - Y @ B.T @ B) ** 2) / 4,
                lambda X, Y: {"X": A * Y + (X - Y @ B.T @ B) / 2, "Y": A * X - (X - Y @ B.T @ B) @ (B.T @ B) / 2},
                X=normal(rng, dtype, n, m), Y=normal(rng, dtype, n, m))


def integers(rng, dtype):
    n = int(rng.integers(1, 9))
    x = rng.integers(1, 5, n) * rng.choice([-1, 1], n)
    c = normal(rng, dtype, n)
    return case("integers", lambda x: np.sum(c * x**3) + np.prod(x / 2), lambda x: {"x": 3 * c * x**2 + np.array(
        [np.prod(np.delete(x / 2, i)) / 2 for i in range(n)])}, x=x if dtype == np.float64 else x.astype(dtype))


def scalar(rng, dtype):
    a = float(rng.uniform(0.5, 2))
    return case("scalar", lambda x: np.exp(-a * x) * x, lambda x: {"x": np.exp(-a * x) * (1 - a * x)},
                x=np.array(rng.uniform(-2, 2), dtype))


FAMILIES = 2 * [dense, normalised, cross_entropy, elementary, products] + [
    attention, convolution, least_squares, logistic, quadratic, penalised, log_sum_exp, bilinear, integers, scalar]
