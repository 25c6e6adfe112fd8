"""The public checks can fail, say why, and pass on every model; and `lintransformer verify` reports them."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from mutants import MUTANTS, planted

import lintransformer as lt
from lintransformer.checks import InputError
from lintransformer.layers.parametrization import PARTS
from lintransformer.models.build import ATTENTIONS
from lintransformer.models.zoo import ZOO
from lintransformer.verification import (Check, assert_close, assert_mean, check_duality,
                                         check_exact_gradient, check_gradient, check_hessian, relative_error,
                                         run_battery, select_models, taylor_test)
from lintransformer.verification.exact import divided_differences, rational
from lintransformer.verification.population import isotropic_minimiser
from lintransformer.verification.problems import KINK_DISTANCE, problem
from lintransformer.verification.reference import kink_distance, relu_arguments

THETA = np.linspace(-1.2, 0.9, 6)


def f(x):
    return np.sum(np.exp(x) * x[::-1] ** 3)


def gradient(x):
    return np.exp(x) * x[::-1] ** 3 + 3 * np.exp(x[::-1]) * x**2


def product_of(x, v):
    return (np.exp(x) * x[::-1] ** 3 * v + 3 * np.exp(x) * x[::-1] ** 2 * v[::-1]
            + 3 * np.exp(x[::-1]) * x**2 * v[::-1] + 6 * np.exp(x[::-1]) * x * v)


# --- check_gradient ---


@pytest.mark.parametrize("method, tolerance", [("complex", 1e-12), ("difference", 1e-8), (None, 1e-12)])
def test_a_right_gradient_passes_as_function_and_as_array(method, tolerance):
    for claimed in (gradient, gradient(THETA)):
        result = check_gradient(f, claimed, THETA, method=method)
        assert result and result.passed and result.error <= result.tolerance == tolerance
        assert str(result).startswith("passed: gradient")


@pytest.mark.parametrize("method", ["complex", "difference"])
@pytest.mark.parametrize("relative", [1.0, 1e-3, 1e-6])
def test_one_wrong_entry_fails_by_its_size(method, relative):
    wrong = gradient(THETA)
    wrong[np.argmax(np.abs(wrong))] *= 1 + relative
    result = check_gradient(f, wrong, THETA, method=method)
    assert not result and 0.5 * relative < result.error < 1.5 * relative
    assert str(result).startswith("FAILED: gradient")


@pytest.mark.parametrize("function, claimed, why", [
    (lambda x: np.sum(np.abs(x) ** 3), lambda x: 3 * x * np.abs(x), "returns real numbers"),
    (lambda x: np.linalg.norm(x) ** 4, lambda x: 4 * (x @ x) * x, "returns real numbers"),
    (lambda x: np.sum(x**2 * np.conj(x) ** 2), lambda x: 4 * x**3, "is not its difference quotient"),
    (lambda x: np.sum(np.arctan2(x, 1)), lambda x: 1 / (1 + x**2), "fails for complex arguments")])
def test_a_function_that_is_not_analytic_is_noticed_and_checked_by_differences(function, claimed, why):
    result = check_gradient(function, claimed, THETA)
    assert result.passed and result.tolerance == 1e-8 and why in result.detail, result
    assert not check_gradient(function, lambda x: 1.001 * claimed(x), THETA)
    with pytest.raises(InputError, match="analytic"):
        check_gradient(function, claimed, THETA, method="complex")


def test_not_a_number_never_passes():
    assert not Check("nan", np.nan, 1.0)
    assert not check_gradient(f, np.full(6, np.nan), THETA)
    assert not check_gradient(lambda x: f(x) * np.nan, gradient, THETA)
    assert not check_hessian(lambda x, v: v * np.nan, gradient, THETA)
    assert not taylor_test(f, np.full(6, np.nan), THETA)


@pytest.mark.parametrize("arguments, words", [
    ((f, np.ones(5), THETA), "shape"), ((f, np.ones((3, 2)), np.ones((2, 3))), "shape"),
    ((f, gradient, np.array([1.0, np.nan])), "finite"), ((f, gradient, []), "at least one number"),
    ((f, gradient, THETA, "symbolic"), "complex, difference")])
def test_bad_input_is_refused_by_name(arguments, words):
    with pytest.raises(InputError, match=words):
        check_gradient(*arguments)


# --- Taylor remainders ---


def test_taylor_orders_of_right_derivatives():
    result = taylor_test(f, gradient, THETA, product_of)
    assert result and [part.name for part in result.parts] == ["Taylor remainder R1", "Taylor remainder R2"]


def test_a_wrong_gradient_stays_at_order_one_and_a_wrong_hessian_at_order_two():
    assert 0.9 < taylor_test(f, lambda x: 1.01 * gradient(x), THETA).error < 1.1
    second = taylor_test(f, gradient, THETA, lambda x, v: 1.5 * product_of(x, v))
    assert not second and [part.passed for part in second.parts] == [True, False]


def test_a_quadratic_has_no_third_order_remainder():
    H = np.diag(np.arange(1.0, 7))
    result = taylor_test(lambda x: x @ H @ x / 2, lambda x: H @ x, THETA, lambda x, v: H @ v)
    assert result and "zero up to rounding" in str(result)
    assert not taylor_test(lambda x: x @ H @ x / 2, lambda x: H @ x, THETA, lambda x, v: 0.999 * (H @ v))


# --- Hessian-vector products ---


def test_right_products_pass_and_each_mistake_is_named():
    assert check_hessian(product_of, gradient, THETA)
    scaled = check_hessian(lambda x, v: 2 * product_of(x, v), gradient, THETA)
    lopsided = check_hessian(lambda x, v: product_of(x, v) + 1e-6 * np.roll(v, 1), gradient, THETA)
    assert [part.passed for part in scaled.parts] == [True, False]
    assert [part.passed for part in lopsided.parts] == [False, False]


def test_a_gradient_that_is_not_analytic_is_differenced():
    result = check_hessian(lambda x, v: 6 * np.abs(x) * v, lambda x: 3 * x * np.abs(x), THETA)
    assert result and result.parts[1].tolerance == 1e-7


def test_duality_fails_where_forward_and_backward_disagree():
    at = problem(select_models("linear-full")[0])
    assert check_duality(at.model, at.theta, at.batch)
    mutant, = (mutant for mutant in MUTANTS if mutant.name == "missing transpose of P")
    with planted(mutant):
        assert not check_duality(at.model, at.theta, at.batch)


# --- exact arithmetic ---


def cubic(x):
    return x[0] ** 3 + x[0] * x[1]


def test_exact_means_equal():
    point, v = rational([0.5, -0.25]), rational([1.0, 2.0])
    slope = np.array([3 * point[0] ** 2 + point[1], point[0]])
    assert check_exact_gradient(cubic, lambda x: slope, point, v, degree=3).error == 0
    off = slope + np.array([Fraction(1, 10**400), Fraction(0)])              # far below the smallest float
    result = check_exact_gradient(cubic, lambda x: off, point, v, degree=3)
    assert not result and result.error > 0


def test_a_degree_that_is_too_low_fails_and_one_that_is_too_high_does_not():
    point, v = rational([0.5, -0.25]), rational([1.0, 2.0])
    slope = np.array([3 * point[0] ** 2 + point[1], point[0]])
    assert not check_exact_gradient(cubic, lambda x: slope, point, v, degree=2)
    assert check_exact_gradient(cubic, lambda x: slope, point, v, degree=7)


def test_floats_are_not_exact():
    point, v = rational([0.5, -0.25]), rational([1.0, 2.0])
    result = check_exact_gradient(lambda x: float(cubic(x)), lambda x: point, point, v, degree=3)
    assert not result and "float" in result.detail
    with pytest.raises(InputError, match="Fraction"):
        check_exact_gradient(cubic, lambda x: point, np.array([0.5, 0.5]), v, degree=3)


def test_divided_differences_are_newtons_coefficients():
    nodes = [Fraction(k) for k in (0, 1, -1, 2)]
    # t^3 = t (t - 1) (t + 1) + t
    assert divided_differences(nodes, [t**3 for t in nodes]) == [0, 1, 0, 1]


# --- errors and assertions ---


def test_relative_error():
    assert relative_error([1.0, 2.0], [1.0, 4.0]) == 0.5
    assert relative_error([1e-3, 0], [0, 0]) == 1e-3
    assert relative_error(np.ones(3), np.ones((3, 1))) == np.inf
    assert np.isnan(relative_error([np.nan], [1.0]))


def test_assertions_name_both_values():
    assert_close([1.0, 2.0], [1.0, 2.0 + 1e-13], 1e-12)
    both = r"(?s)relative error 0.2.*left side:  \[1. 2.\].*right side: \[1.  2.5\]"
    with pytest.raises(AssertionError, match=both):
        assert_close([1.0, 2.0], [1.0, 2.5], 1e-12)
    with pytest.raises(AssertionError):
        assert_close([np.nan], [1.0], 1e-12)
    samples = np.random.default_rng(0).normal(size=1000)
    assert_mean(samples, 0)
    with pytest.raises(AssertionError, match="not within 5 standard errors .* of the expected 0.3"):
        assert_mean(samples, 0.3)


# --- the battery ---


def test_the_table_of_models_has_every_combination():
    names = [row.name for row in ZOO]
    assert len(set(names)) == len(names) == 48
    found = {(row.options["attention"], row.options["parametrization"], row.options["heads"],
              row.options["embedding"] is not None) for row in ZOO}
    assert found == set(product(ATTENTIONS, PARTS, (1, 2), (False, True)))
    softmax = [row.options["mask"] for row in ZOO if row.options["attention"] == "softmax"]
    assert softmax.count("before") == softmax.count("after") == 12


def test_every_check_passes_on_every_model():
    rows = run_battery()
    failed = [f"{row.model}: {row.check}" for row in rows if not row.check.passed]
    assert not failed
    assert {row.model for row in rows} == {row.name for row in ZOO} | {"optimizers", "one layer", "spectra"}
    complex_steps = [row.check.error for row in rows if "complex" in row.check.name]
    assert len(complex_steps) == 3 * len(ZOO) and max(complex_steps) < 1e-12


@pytest.mark.parametrize("name", ["linear-block-heads2", "linear-separate-mlp", "relu-full-heads2",
                                  "softmax-separate-before"])
def test_the_full_battery_is_exact_where_it_can_be(name):
    row, = (row for row in ZOO if row.name == name)
    checks = {row.check.name: row.check for row in run_battery(name, full=True)}
    assert all(checks.values()), [str(check) for check in checks.values() if not check]
    exact = [check.error for check_name, check in checks.items() if check_name.startswith("exact")]
    assert exact == ([0, 0] if row.is_polynomial else [])


def test_models_with_kinks_are_checked_away_from_them():
    for row in ZOO:
        if row.has_kinks:
            point = problem(row)
            assert kink_distance(point.model, point.theta, point.batch) > KINK_DISTANCE
            assert len(relu_arguments(point.model, point.theta, point.batch)) > 20
    smooth = problem(select_models("linear-block")[0])
    assert kink_distance(smooth.model, smooth.theta, smooth.batch) == np.inf


def test_models_are_selected_by_words():
    assert [row.name for row in select_models("before-heads2-full")] == ["softmax-full-heads2-before",
                                                                         "softmax-full-heads2-mlp-before"]
    assert [row.name for row in select_models("linear-full")] == ["linear-full"]  # a name in full is itself
    assert select_models() == ZOO
    for name in ("quadratic", "linear-before"):
        with pytest.raises(InputError, match="softmax"):
            select_models(name)


def test_the_exact_minimiser_of_one_layer():
    q, loss = isotropic_minimiser(lt.PromptDistribution(dimension=5, context_length=20))
    assert abs(q + 20 / 26) < 1e-15 and abs(loss - 30 / 26) < 1e-15
