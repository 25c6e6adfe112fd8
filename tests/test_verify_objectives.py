"""`verify` passes on right objectives, whoever wrote them, and each planted mistake fails in the row that names it."""

import subprocess
import sys

import numpy as np
import pytest
from readers_objectives import MISTAKES, THETA, Full, Large, Normalised, Pairs, TenLines, ThreeLines
from small_layers import Dense, FeedForward, ReLU
from small_models import MODELS

import lintransformer as lt
from lintransformer.checks import InputError
from lintransformer.verification import Row, verify
from lintransformer.verification.slices import Slice


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
    "more entries than are checked one by one": lambda: verify(Large(), Pairs(), seed=3),
    "one example": lambda: verify(Full(), Pairs(), batch_size=1),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_objectives_pass(name):
    rows = RIGHT[name]()
    assert all(isinstance(row, Row) and "\n" not in row.check.detail for row in rows)
    assert not failures(rows), "\n".join(map(str, rows))
    assert verdicts(rows)["purity"] == verdicts(rows)["kinks"] == "passed"


def test_a_slice_goes_into_theta_and_back():
    """<spread v, g> = <v, gather g>, (1.6); the entries and directions of one slice reach every entry."""
    rng = np.random.default_rng(0)
    part = Slice(rng.standard_normal(300), [(20, 10), (97,), (3,)], rng)
    v, g = {name: np.array(rng.standard_normal()) for name in part.start}, rng.standard_normal(300)
    assert np.isclose(part.spread(v) @ g, sum(v[name] * part.gather(g)[name] for name in v), rtol=1e-13)
    assert (part.theta(part.start) == part.base).all() and (part.spread(v) != 0).all()
    assert any(200 <= i < 297 for i in part.entries) and any(i >= 297 for i in part.entries)


def test_code_that_refuses_float32_does_not_offer_it():
    class Double(TenLines):
        def value_and_gradient(self, theta, batch):
            if theta.dtype == np.float32:
                raise TypeError("double precision only")
            return super().value_and_gradient(theta, batch)

    checks = {row.check.name: row.check for row in verify(Double(), ThreeLines(), THETA)}
    row = checks["float32 against float64"]
    assert row.verdict == "not offered" and "double precision only" in row.detail


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
