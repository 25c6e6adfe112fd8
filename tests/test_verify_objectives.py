"""`verify` passes on right objectives, whoever wrote them, and each planted mistake fails in the row that names it."""

import subprocess
import sys

import numpy as np
import pytest
from small_layers import Dense, FeedForward, ReLU, Tanh
from small_models import MODELS

import lintransformer as lt
from lintransformer.checks import InputError
from lintransformer.verification import Row, verify


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


THETA = np.random.default_rng(5).uniform(0.3, 1.5, 15) * np.tile([1, -1, 1], 5)


def verdicts(rows):
    return {row.check.name: row.check.verdict for row in rows}


def failures(rows):
    return [row.check.name for row in rows if row.check.verdict in ("failed", "inconclusive")]


RIGHT = {
    **{name: lambda make=make: verify(*make()) for name, make in MODELS.items()},
    "linear attention": lambda: verify(lt.build_model(2, 3), lt.PromptDistribution(3, 4)),
    "softmax, full": lambda: verify(lt.build_model(2, 3, "softmax", "full", heads=2), lt.PromptDistribution(3, 4)),
    "ReLU behind an embedding": lambda: verify(lt.build_model(2, 3, "relu", embedding=4), lt.PromptDistribution(3, 4)),
    "ten lines": lambda: verify(TenLines(), ThreeLines(), THETA),
    "all that can be offered": lambda: verify(Full(), Pairs()),
    "kinks, declared": lambda: verify(Full(FeedForward(4, 5, ReLU()), Dense(4, 2)), Pairs()),
    "more entries than are checked one by one": lambda: verify(Full(FeedForward(4, 50), Dense(4, 2)), Pairs(), seed=3),
    "one example": lambda: verify(Full(), Pairs(), batch_size=1),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_objectives_pass(name):
    rows = RIGHT[name]()
    assert all(isinstance(row, Row) and "\n" not in row.check.detail for row in rows)
    assert not failures(rows), "\n".join(map(str, rows))
    assert verdicts(rows)["purity"] == verdicts(rows)["kinks"] == "passed"


def test_what_is_not_offered_is_listed():
    found = verdicts(verify(TenLines(), ThreeLines(), THETA))
    assert {name for name, verdict in found.items() if verdict == "not offered"} == {
        "init", "Hessian-vector product", "duality of tangent and adjoint", "value is the mean of losses",
        "gradient is the mean over examples", "idle entries have derivative 0"}
    assert found["gradient, complex"] == found["float32 against float64"] == found["source"] == "passed"
    everything = verdicts(verify(Full(), Pairs()))
    assert set(everything.values()) == {"passed"} and len(everything) == 16


def test_a_gradient_that_complex_steps_cannot_reach_is_checked_by_differences():
    class Real(TenLines):
        def value_and_gradient(self, theta, batch):
            if np.iscomplexobj(theta):
                raise TypeError("compiled for real numbers")
            return super().value_and_gradient(theta, batch)

    row = {row.check.name: row.check for row in verify(Real(), ThreeLines(), THETA)}["gradient, difference"]
    assert row.passed and "compiled for real numbers" in row.detail


# --- planted mistakes: each in one method, found in one row ---


def wrong(method, change, base=Full):
    """An objective whose `method` gives `change(self, right result, *arguments)`."""
    def planted(self, *arguments):
        return change(self, getattr(base, method)(self, *arguments), *arguments)
    return type("Planted", (base,), {method: planted})()


def one_entry(self, found, theta, batch):
    f, g = found
    g[7] *= 1 + 1e-9
    return f, g


def writes_into_theta(self, found, theta, batch):
    theta *= 1 + 1e-12
    return found


def writes_into_batch(self, found, theta, batch):
    batch.target[:] = np.clip(batch.target, -0.1, 0.1)
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


class Overwrites(Pairs):
    def draw(self, rng, size, dtype):
        batch = super().draw(rng, size, dtype)
        self.kept = getattr(self, "kept", {})
        kept = self.kept.setdefault(np.dtype(dtype), batch)
        kept.inputs[...], kept.target[...] = batch.inputs, batch.target
        return kept


MISTAKES = {
    "one entry of the gradient, by 1e-9": (wrong("value_and_gradient", one_entry), Pairs(), "gradient, complex"),
    "the gradient's sign": (wrong("value_and_gradient", lambda s, found, *a: (found[0], -found[1])), Pairs(),
                            "Taylor remainder R1"),
    "theta is written into": (wrong("value_and_gradient", writes_into_theta), Pairs(), "purity"),
    "the batch is written into": (wrong("value_and_gradient", writes_into_batch), Pairs(), "purity"),
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
    "an init from global state": (wrong("init", lambda s, theta, *a: theta + np.random.rand()), Pairs(), "init"),
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


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_fails_in_its_row(mistake):
    objective, source, name = MISTAKES[mistake]
    rows = verify(objective, source, np.resize(THETA, objective.size))
    assert name in failures(rows), "\n".join(map(str, rows))
    if name in ("kinks", "source", "init", "H v of several directions", "idle entries have derivative 0"):
        assert failures(rows) == [name], "\n".join(map(str, rows))


def test_examples_that_see_one_another_are_information():
    checks = {row.check.name: row.check for row in verify(Normalised(), Pairs(), THETA)}
    row = checks["gradient is the mean over examples"]
    assert row.verdict == "information" and "batch normalisation" in str(row) and "tolerance" not in str(row)


REFUSED = {
    "theta must be given, (15,): TenLines has no init(rng)": lambda: verify(TenLines(), ThreeLines()),
    "theta must have shape (15,)": lambda: verify(TenLines(), ThreeLines(), THETA[1:]),
    "objective must have size and value_and_gradient, but Dense has no size": lambda: verify(Dense(2, 3), ThreeLines()),
    "source must have draw, but Full has no draw": lambda: verify(Full(), Full()),
    "batch_size must be": lambda: verify(Full(), Pairs(), batch_size=0),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_no_objective_is_refused_in_one_line(words):
    with pytest.raises(InputError) as refused:
        REFUSED[words]()
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_verify_needs_numpy_alone():
    code = ("import sys; sys.modules['scipy'] = None\n"
            "import lintransformer.verification.objectives, lintransformer.verification as v; v.verify; v.Row")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr == ""
