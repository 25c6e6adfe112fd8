"""Objectives and sources as a reader may write them, without layers and with; and mistakes planted into them.

`MISTAKES`: name -> (objective, source, the row of `verify` that must fail).
"""

import numpy as np
from small_layers import Dense, FeedForward, Tanh

import lintransformer as lt


class TenLines:
    """c^T tanh(W x) under the squared error, with no layer."""

    size = 15

    def value_and_gradient(self, theta, batch):
        (X, y), W, c = batch, theta[:12].reshape(3, 4), theta[12:]           # (B, 4), (B,), (3, 4), (3,)
        H = np.tanh(X @ W.T)                                                 # (B, 3)
        r = H @ c - y                                                        # (B,)
        dA = 2 * r[:, None] * c * (1 - H * H) / len(y)                       # (B, 3)
        return np.mean(r * r), np.append(dA.T @ X, 2 * r @ H / len(y))


class ThreeLines:
    def draw(self, rng, size, dtype):
        return rng.standard_normal((size, 4)).astype(dtype), rng.standard_normal(size).astype(dtype)


class Pairs(ThreeLines):
    def draw(self, rng, size, dtype):
        return lt.Batch(*super().draw(rng, size, dtype))


class Full(lt.Objective):
    """The same by layers, with all that an objective may offer; mistakes are planted into it."""

    def __init__(self, *layers):
        super().__init__(lt.Chain(*(layers or (Dense(4, 3), Tanh(), Dense(3, 2), Tanh())), Read()), lt.SquaredError())


class Read:
    """The last entry: (B, 2) to (B,)."""

    shapes = []

    def forward(self, w, x):
        return x[:, -1], x.shape

    def backward(self, shape, dy):
        dx = np.zeros(dy.shape[:-1] + shape, dy.dtype)
        dx[..., -1] = dy
        return dx, []

    def tangent(self, shape, tw, tx):
        return tx[..., -1], None

    def backward_tangent(self, shape, tcache, dy, tdy):
        return self.backward(shape, dy)[0], self.backward(shape, tdy)[0], []


class Large(Full):
    """More entries than are checked one by one."""

    def __init__(self):
        super().__init__(FeedForward(4, 50), Dense(4, 2))


THETA = np.random.default_rng(5).uniform(0.3, 1.5, 15) * np.tile([1, -1, 1], 5)


# --- planted mistakes ---


def wrong(method, change, base=Full):
    """An objective whose `method` gives `change(self, right result, *arguments)`."""
    def planted(self, *arguments):
        return change(self, getattr(base, method)(self, *arguments), *arguments)
    return type("Planted", (base,), {method: planted})()


def one_entry(self, found, theta, batch):
    f, g = found
    g[7] *= 1 + 1e-9
    return f, g


def one_of_many(self, found, theta, batch):
    f, g = found
    g[123] *= 1 + 1e-6
    return f, g


def writes_into_theta(self, found, theta, batch):
    theta *= 1 + 1e-12
    return found


def writes_into_batch(self, found, theta, batch):
    batch[1][:] = np.clip(batch[1], -0.1, 0.1)
    return found


def keeps_its_gradient(self, found, theta, batch):
    self.buffer = getattr(self, "buffer", np.empty_like(found[1])).astype(found[1].dtype, copy=False)
    self.buffer[...] = found[1]
    return found[0], self.buffer


def counts_calls(self, found, theta, batch):
    self.calls = getattr(self, "calls", 0) + 1
    return found[0], found[1] * (1 + 1e-6 * self.calls)


def computes_in_float64(self, found, theta, batch):
    return found[0], found[1].astype(np.result_type(found[1], np.float64))


def divides_by_three(self, found, theta, batch):
    return found[0], found[1] * (len(batch) / 3)


def rough_in_float32(self, found, theta, batch):
    return found[0], found[1] + np.float32(1e-4) if theta.dtype == np.float32 else found[1]


class Normalised(TenLines):
    """Examples that see one another: not a mistake."""

    def value_and_gradient(self, theta, batch):
        X, y = batch.inputs, batch.target
        return super().value_and_gradient(theta, (X - X.mean(axis=0), y))


class Hidden(TenLines):
    """A ReLU whose kinks are not declared."""

    def value_and_gradient(self, theta, batch):
        (X, y), W, c = batch, theta[:12].reshape(3, 4), theta[12:]
        A = X @ W.T
        active = A.real > 0
        r = (A * active) @ c - y
        return np.mean(r * r), np.append((2 * r[:, None] * c * active / len(y)).T @ X, 2 * r @ (A * active) / len(y))


class Step(TenLines):
    """A jump of f, a thousandth of its size, where one weight changes its sign; its derivative is 0 elsewhere."""

    def value_and_gradient(self, theta, batch):
        f, g = super().value_and_gradient(theta, batch)
        return f * (1.001 if theta[3].real > 0 else 1), g * (1.001 if theta[3].real > 0 else 1)


class GlobalState(Pairs):
    def draw(self, rng, size, dtype):
        return super().draw(np.random, size, dtype)


class Double(Pairs):
    def draw(self, rng, size, dtype):
        return super().draw(rng, size, np.float64)


class Overwrites(ThreeLines):
    def draw(self, rng, size, dtype):
        batch = super().draw(rng, size, dtype)
        self.kept = getattr(self, "kept", {})
        kept = self.kept.setdefault(np.dtype(dtype), batch)
        for array, drawn in zip(kept, batch):
            array[...] = drawn
        return kept


MISTAKES = {
    "one entry of the gradient, by 1e-9": (wrong("value_and_gradient", one_entry), Pairs(), "gradient, complex"),
    "one entry of many, by 1e-6": (wrong("value_and_gradient", one_of_many, Large), Pairs(), "gradient, complex"),
    "a product's row of many": (wrong("product", lambda s, Hv, *a: Hv * (1 + 1e-6 * (np.arange(s.size) == 123)), Large),
                                Pairs(), "Hessian-vector product, complex"),
    "the gradient's sign": (wrong("value_and_gradient", lambda s, found, *a: (found[0], -found[1])), Pairs(),
                            "Taylor remainder R1"),
    "theta is written into": (wrong("value_and_gradient", writes_into_theta), Pairs(), "purity"),
    "the batch is written into": (wrong("value_and_gradient", writes_into_batch), ThreeLines(), "purity"),
    "one buffer for all gradients": (wrong("value_and_gradient", keeps_its_gradient), Pairs(), "purity"),
    "state between calls": (wrong("value_and_gradient", counts_calls), Pairs(), "purity"),
    "float32 becomes float64": (wrong("value_and_gradient", computes_in_float64), Pairs(), "float32 against float64"),
    "float32 is rough": (wrong("value_and_gradient", rough_in_float32), Pairs(), "float32 against float64"),
    "a product with a lost factor": (wrong("product", lambda s, Hv, *a: 2 * Hv), Pairs(),
                                     "Hessian-vector product, complex"),
    "a product that is not symmetric": (wrong("product", lambda s, Hv, th, b, v: Hv + 1e-9 * np.cumsum(v, axis=-1)),
                                        Pairs(), "symmetry <u, H v> = <v, H u>"),
    "directions that are mixed up": (wrong("product", lambda s, Hv, *a: Hv[::-1] if Hv.ndim == 2 else Hv), Pairs(),
                                     "H v of several directions"),
    "a tangent that lacks a term": (wrong("forward_tangent", lambda s, found, *a: (found[0] * 0.9, found[1])), Pairs(),
                                    "duality of tangent and adjoint"),
    "a sum for a mean": (wrong("losses", lambda s, losses, *a: losses * losses.size), Pairs(),
                         "value is the mean of losses"),
    "a batch size that is written into the code": (wrong("value_and_gradient", divides_by_three), Pairs(),
                                                   "gradient is the mean over examples"),
    "idle entries that are not": (wrong("reaches_prediction", lambda s, reaches: np.arange(s.size) != 3), Pairs(),
                                  "idle entries have derivative 0"),
    "an initial theta of another length": (wrong("init", lambda s, theta, *a: theta[1:]), Pairs(), "init"),
    "an initial theta that keeps float64": (wrong("init", lambda s, theta, *a: theta.astype(float)), Pairs(), "init"),
    "an init from global state": (wrong("init", lambda s, theta, *a: theta + np.random.rand()), Pairs(), "init"),  # noqa: NPY002
    "a hidden ReLU": (Hidden(), ThreeLines(), "kinks"),
    "a hidden jump": (Step(), ThreeLines(), "kinks"),
    "a source of global state": (Full(), GlobalState(), "source"),
    "a source of one precision": (Full(), Double(), "source"),
    "a source that overwrites": (Full(), Overwrites(), "source"),
    "a gradient of another length": (wrong("value_and_gradient", lambda s, found, *a: (found[0], found[1][1:])),
                                     Pairs(), "interface"),
    "losses for a value": (wrong("value_and_gradient", lambda s, found, th, b: (s.losses(th, b), found[1])), Pairs(),
                           "interface"),
    "an exception": (wrong("losses", lambda s, losses, *a: losses[7]), Pairs(), "mean of losses"),
}
