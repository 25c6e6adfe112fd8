"""The public checks can fail, say why, and pass on every model; and `lintransformer verify` reports them."""

import json
import os
import re
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from mutants import MUTANTS, planted

import lintransformer as lt
from lintransformer.checks import InputError
from lintransformer.cli import main
from lintransformer.models.build import ATTENTIONS
from lintransformer.models.parameters import PARTS
from lintransformer.verification import (MODELS, Check, assert_close, assert_mean, check_duality,
                                         check_exact_gradient, check_gradient, check_hessian, relative_error,
                                         run_battery, select_models, taylor_test)
from lintransformer.verification.exact import divided_differences, rational
from lintransformer.verification.models import KINK_DISTANCE
from lintransformer.verification.population import isotropic_minimiser
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
    problem = select_models("linear-full")[0].problem()
    assert check_duality(problem.model, problem.theta, problem.batch)
    mutant, = (mutant for mutant in MUTANTS if mutant.name == "missing transpose of P")
    with planted(mutant):
        assert not check_duality(problem.model, problem.theta, problem.batch)


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
    names = [row.name for row in MODELS]
    assert len(set(names)) == len(names) == 48
    found = {(row.options["attention"], row.options["parametrization"], row.options["heads"],
              row.options["embedding"] is not None) for row in MODELS}
    assert found == set(product(ATTENTIONS, PARTS, (1, 2), (False, True)))
    softmax = [row.options["mask"] for row in MODELS if row.options["attention"] == "softmax"]
    assert softmax.count("before") == softmax.count("after") == 12


def test_every_check_passes_on_every_model():
    rows = run_battery()
    failed = [f"{row.model}: {row.check}" for row in rows if not row.check.passed]
    assert not failed
    assert {row.model for row in rows} == {row.name for row in MODELS} | {"optimizers", "one layer"}
    complex_steps = [row.check.error for row in rows if "complex" in row.check.name]
    assert len(complex_steps) == 3 * len(MODELS) and max(complex_steps) < 1e-12


@pytest.mark.parametrize("name", ["linear-block-heads2", "linear-separate-mlp", "relu-full-heads2",
                                  "softmax-separate-before"])
def test_the_full_battery_is_exact_where_it_can_be(name):
    row, = (row for row in MODELS if row.name == name)
    checks = {row.check.name: row.check for row in run_battery(name, full=True)}
    assert all(checks.values()), [str(check) for check in checks.values() if not check]
    exact = [check.error for check_name, check in checks.items() if check_name.startswith("exact")]
    assert exact == ([0, 0] if row.is_polynomial else [])


def test_models_with_kinks_are_checked_away_from_them():
    for row in MODELS:
        if row.has_kinks:
            problem = row.problem()
            assert kink_distance(problem.model, problem.theta, problem.batch) > KINK_DISTANCE
            assert len(relu_arguments(problem.model, problem.theta, problem.batch)) > 20
    smooth = select_models("linear-block")[0].problem()
    assert kink_distance(smooth.model, smooth.theta, smooth.batch) == np.inf


def test_models_are_selected_by_words():
    assert [row.name for row in select_models("before-heads2-full")] == ["softmax-full-heads2-before",
                                                                         "softmax-full-heads2-mlp-before"]
    assert [row.name for row in select_models("linear-full")] == ["linear-full"]  # a name in full is itself
    assert select_models() == MODELS
    for name in ("quadratic", "linear-before"):
        with pytest.raises(InputError, match="softmax"):
            select_models(name)


def test_the_exact_minimiser_of_one_layer():
    q, loss = isotropic_minimiser(lt.PromptDistribution(dimension=5, context_length=20))
    assert abs(q + 20 / 26) < 1e-15 and abs(loss - 30 / 26) < 1e-15


# --- the command ---


def test_the_command_prints_one_table_and_writes_json(capsys, tmp_path):
    path = tmp_path / "table.json"
    assert main(["verify", "--model", "linear-separate-heads2-mlp", "--json", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "check", "largest", "error", "tolerance", "verdict"]
    assert all(line.endswith("pass") for line in lines[2:-2]) and "all passed" in lines[-1]
    content = json.loads(path.read_text())
    assert content["passed"] and len(content["rows"]) == len(lines) - 4
    assert set(content["rows"][0]) == {"model", "check", "error", "tolerance", "passed", "detail"}
    assert [file.name for file in tmp_path.iterdir()] == ["table.json"]


def test_x_stops_at_the_first_failing_model_and_names_the_entry(capsys):
    mutant, = (mutant for mutant in MUTANTS if mutant.name == "softmax Jacobian without its rank-one part")
    with planted(mutant):
        assert main(["verify", "-x", "--model", "softmax"]) == 1
    out = capsys.readouterr().out
    models = {line.split()[0] for line in out.splitlines() if line.endswith(("pass", "FAIL"))}
    assert models == {"softmax-block"}
    assert re.search(r"theta\[\d+\]: yours \S+, numerical \S+ \(ratio ", out) and "Not covered: " in out


def test_the_command_fails_with_a_planted_mistake(capsys, tmp_path):
    mutant, = (mutant for mutant in MUTANTS if mutant.name == "softmax Jacobian without its rank-one part")
    with planted(mutant):
        assert main(["verify", "--model", "softmax-full-mlp-before", "--json", str(tmp_path / "a.json")]) == 1
    out = capsys.readouterr().out
    assert "FAIL" in out and "FAILED: gradient" in out
    assert not json.loads((tmp_path / "a.json").read_text())["passed"]


@pytest.mark.parametrize("arguments, words", [
    (["--model", "quadratic"], "quadratic"), (["--json", "no-such-folder/table.json"], "no-such-folder"),
    (["--json", "."], "'.'"), (["--fast"], "--fast")])
def test_the_command_refuses_bad_usage(capsys, arguments, words):
    assert main(["verify", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error


def test_a_full_disk_leaves_nothing_half_written(capsys, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["verify", "--model", "linear-block-heads2-mlp", "--json", str(tmp_path / "a.json")]) == 2
    assert "No space left on device" in capsys.readouterr().err and not list(tmp_path.iterdir())
