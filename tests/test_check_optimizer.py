"""check_optimizer: every mistake that people make in an update rule is seen, and named."""

import numpy as np
import pytest

from lintransformer.checks import InputError
from lintransformer.optimizers import SGD, Adam, SignDescent
from lintransformer.verification import check_optimizer


class MyAdam:
    """As others write it: lr, betas, eps, a state in a dict."""

    def __init__(self, lr=0.01, betas=(0.9, 0.999), eps=1e-8, mistake=""):
        self.lr, self.betas, self.eps, self.mistake = lr, betas, eps, mistake

    def init(self, theta):
        return {"t": 0, "m": np.zeros_like(theta), "v": np.zeros_like(theta)}

    def update(self, state, theta, g):
        (b1, b2), mistake, eps = self.betas, self.mistake, self.eps
        if mistake == "the betas exchanged":
            b1, b2 = b2, b1
        t = state["t"] + 1
        if mistake.startswith("the step counter stops at"):
            t = min(t, int(mistake.split()[-1]))
        m, v = b1 * state["m"] + (1 - b1) * g, b2 * state["v"] + (1 - b2) * g**2
        late = {"bias correction one step late": 1, "bias correction one step early": -1}.get(mistake, 0)
        c1, c2 = 1 - b1 ** (t + late), 1 - b2 ** (t + late)
        if mistake == "the betas exchanged in the bias correction":
            c1, c2 = c2, c1
        if mistake in ("no bias correction", "no bias correction of the first moment"):
            c1 = 1.0
        if mistake in ("no bias correction", "no bias correction of the second moment"):
            c2 = 1.0
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(v / c2) + eps
        if mistake == "epsilon inside the root":
            root = np.sqrt(v / c2 + eps)
        if mistake == "epsilon added before the bias correction":
            root = (np.sqrt(v) + eps) / np.sqrt(c2)
        sign = -1 if mistake == "a step in the wrong direction" else 1
        with np.errstate(divide="ignore", invalid="ignore"):
            return theta - sign * self.lr * (m / c1) / root, {"t": t, "m": m, "v": v}


ADAM_MISTAKES = ["no bias correction", "no bias correction of the first moment",
                 "no bias correction of the second moment",
                 "epsilon inside the root", "epsilon added before the bias correction", "the betas exchanged",
                 "the betas exchanged in the bias correction", "bias correction one step late",
                 "the step counter stops at 6", "the step counter stops at 40", "a step in the wrong direction"]


@pytest.mark.parametrize("eps", [1e-8, 1e-3])
def test_an_adam_of_ones_own_passes(eps):
    assert check_optimizer(MyAdam(eps=eps), "adam").passed
    assert check_optimizer(MyAdam(eps=eps), "adam", steps=200).passed
    assert check_optimizer(MyAdam(eps=eps), MyAdam(eps=eps)).passed


@pytest.mark.parametrize("mistake", ADAM_MISTAKES)
def test_mistakes_of_adam_are_named(mistake):
    check = check_optimizer(MyAdam(eps=1e-3, mistake=mistake), "adam")
    assert check.verdict == "failed" and f"pattern: {mistake}" in str(check), check
    assert "entry" in str(check) and "the reference by" in str(check) and repr(check) == str(check)


def test_a_bias_correction_one_step_early_divides_by_zero_and_fails():
    assert check_optimizer(MyAdam(mistake="bias correction one step early"), "adam").verdict == "failed"


def test_the_smallest_epsilon_in_the_wrong_place_is_seen():
    for mistake in ("epsilon inside the root", "epsilon added before the bias correction"):
        assert check_optimizer(MyAdam(eps=1e-8, mistake=mistake), "adam").verdict == "failed"


class Momentum:
    def __init__(self, mistake=""):
        self.learning_rate, self.momentum, self.mistake = 0.05, 0.9, mistake

    def init(self, theta):
        return np.zeros_like(theta)

    def update(self, v, theta, g):
        m = self.momentum
        if self.mistake == "no momentum":
            m = 0.0
        v = m * v + (1 - m if self.mistake == "momentum with dampening" else 1) * g
        step = g + m * v if self.mistake == "Nesterov's momentum" else v
        sign = -1 if self.mistake == "a step in the wrong direction" else 1
        return theta - sign * self.learning_rate * step, v


@pytest.mark.parametrize("mistake", ["", "no momentum", "momentum with dampening", "Nesterov's momentum",
                                     "a step in the wrong direction"])
def test_mistakes_of_momentum_are_named(mistake):
    check = check_optimizer(Momentum(mistake), "sgd")
    assert check.passed if not mistake else f"pattern: {mistake}" in str(check), check


def test_ours_pass():
    for optimizer, name in ((SGD(0.1), "sgd"), (SGD(0.1, momentum=0.5), "sgd"), (Adam(0.01), "adam"),
                            (SignDescent(0.1), "sign")):
        assert check_optimizer(optimizer, name).passed
    assert not check_optimizer(SGD(0.1), "sgd", learning_rate=0.11)


def test_a_callable_reference():
    def plain(theta, gradients):
        return theta - 0.1 * np.cumsum(gradients, axis=0)

    assert check_optimizer(SGD(0.1), plain).passed and "plain" in str(check_optimizer(SGD(0.1), plain))
    assert check_optimizer(SGD(0.2), plain).verdict == "failed"


# --- rules that are no functions of state, theta and gradient ---


class InPlace(Momentum):
    def __init__(self, victim):
        super().__init__()
        self.victim = victim

    def update(self, v, theta, g):
        if self.victim == "state":
            v *= self.momentum
            v += g
            return theta - self.learning_rate * v, v
        new, v = super().update(v, theta, g)
        {"theta": theta, "gradient": g}[self.victim][...] = new
        return new, v


class Remembers:
    learning_rate, t = 0.1, 0

    def init(self, theta):
        return None

    def update(self, state, theta, g):
        self.t += 1
        return theta - self.learning_rate / np.sqrt(self.t) * g, None


@pytest.mark.parametrize("optimizer, words", [
    (InPlace("theta"), "changes theta in place"), (InPlace("gradient"), "changes the gradient in place"),
    (InPlace("state"), "changes an old state in place"), (Remembers(), "remembers the run before")])
def test_rules_that_are_no_functions(optimizer, words):
    check = check_optimizer(optimizer, "sgd", momentum=0.9)
    assert check.verdict == "failed" and words in str(check)


# --- refusals ---


@pytest.mark.parametrize("arguments, options, words", [
    ((MyAdam(), "adamw"), {}, "sgd, adam, sign"), ((3, "adam"), {}, "init and update"),
    ((None, "adam"), {}, "init and update"),
    ((MyAdam(), "adam"), {"steps": 49}, "at least 50"), ((MyAdam(), "adam"), {"steps": 60.0}, "steps"),
    ((MyAdam(), "adam"), {"momentum": 0.9}, "no option 'momentum'"),
    ((MyAdam(), "adam"), {"tolerance": -1}, "tolerance"),
    ((MyAdam(), 3), {}, "reference must be"), ((MyAdam(), lambda theta, gradients: theta), {}, "after each step"),
    ((Momentum(), "adam"), {"learning_rate": None}, "learning_rate")])
def test_refusals(arguments, options, words):
    with pytest.raises(InputError, match=words):
        check_optimizer(*arguments, **options)


def test_an_update_that_cannot_be_run():
    class Broken(Momentum):
        def update(self, v, theta, g):
            return None

    with pytest.raises(InputError, match="cannot be run"):
        check_optimizer(Broken(), "sgd")
