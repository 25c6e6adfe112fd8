"""check_gradient on random functions: right gradients never fail and are rarely inconclusive, wrong ones never pass.

Some hundred cases by default, thousands under HYPOTHESIS_PROFILE=nightly; the cases are in gradient_families.py.
"""

import os
import warnings
from collections import Counter

import numpy as np
import pytest
from gradient_cases import cast_inside, draw, flattened, rescaled, shifted, times, wide_inside, wrong
from gradient_families import FAMILIES

from lintransformer.verification import check_gradient

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
CASES = 3000 if NIGHTLY else 100
FIRST = 100_000 if NIGHTLY else 0          # other cases than by day
KINDS = list(dict.fromkeys(FAMILIES))


def quietly(function, *arguments):
    """Overflow far away is the business of the functions under test."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return function(*arguments)


def verdict(case):
    return quietly(check_gradient, case.f, case.gradient, case.theta)


def differences(f, theta):
    """The gradient (p,) by central differences of order 4, in extended precision where there is any."""
    h, found = np.longdouble(1e-5), []
    for i in range(theta.size):
        step = np.zeros(theta.size, np.longdouble)
        step[i] = h
        found.append((8 * (f(theta + step) - f(theta - step)) - (f(theta + 2 * step) - f(theta - 2 * step))) / (12 * h))
    return np.array(found, np.float64)


@pytest.mark.parametrize("family", KINDS, ids=lambda family: family.__name__)
def test_the_gradients_of_the_families_are_right_by_another_route(family):
    for seed in range(20):
        rng = np.random.default_rng([1, seed])
        case = flattened(family(rng, np.float64))
        theta = case.theta.astype(np.longdouble) * (1 + 0.05 * rng.uniform(-1, 1, case.theta.size))
        right, claimed = differences(case.f, theta), case.gradient(theta).astype(np.float64)
        assert np.max(np.abs(claimed - right)) <= 1e-7 * np.max(np.abs(right)) + 1e-10, case.name


def test_what_dresses_a_case_up_keeps_its_gradient():
    rng = np.random.default_rng(2)
    for family in KINDS:
        case = family(rng, np.float64)
        if case.name == "integers":
            continue
        lengths = {key: float(10 ** rng.uniform(-0.5, 0.5)) for key in case.theta}
        for dressed in (rescaled(case, lengths), shifted(case, 3.0), times(case, 2.5, 7.0), wide_inside(case)):
            dressed = flattened(dressed)
            # `wide_inside` casts, so that its differences are those of float64
            precise = np.float64 if "inside" in dressed.name else np.longdouble
            theta = dressed.theta.astype(precise) + 0.01 * rng.uniform(-1, 1, dressed.theta.size)
            right = differences(dressed.f, theta)
            assert np.max(np.abs(dressed.gradient(theta) - right)) <= 1e-6 * np.max(np.abs(right)) + 1e-9, dressed.name
    case = cast_inside(case, np.float32)
    assert case.f(case.theta) == case.f({key: x * (1 + 1e-12) for key, x in case.theta.items()})


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_right_gradients_do_not_fail_and_are_rarely_inconclusive(dtype):
    verdicts = Counter()
    for seed in range(FIRST, FIRST + CASES):
        case = quietly(draw, np.random.default_rng([seed, dtype == "float32"]), dtype)
        check = verdict(case)
        assert check.verdict != "failed", f"{seed}, {case.name}: {check}"
        verdicts[check.verdict] += 1
    assert verdicts["inconclusive"] <= 0.02 * CASES, verdicts


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_one_wrong_entry_never_passes(dtype):
    verdicts = Counter()
    for seed in range(FIRST, FIRST + CASES):
        rng = np.random.default_rng([seed, dtype == "float32"])
        case = quietly(wrong, quietly(draw, rng, dtype), rng, dtype)
        if case is None:
            continue
        check = verdict(case)
        assert not check and check.verdict != "passed", f"{seed}, {case.name}: {check}"
        verdicts[check.verdict] += 1
    assert verdicts["failed"] > 0.9 * CASES, verdicts


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_gradients_given_as_arrays_are_judged_alike(dtype):
    for seed in range(FIRST, FIRST + CASES // 5):
        rng = np.random.default_rng([seed, dtype == "float32"])
        case = quietly(draw, rng, dtype)
        mistaken = quietly(wrong, case, rng, dtype)
        assert quietly(check_gradient, case.f, quietly(case.gradient, case.theta), case.theta).verdict != "failed"
        if mistaken is not None:
            claimed = quietly(mistaken.gradient, case.theta)
            assert not quietly(check_gradient, case.f, claimed, case.theta), mistaken.name
