"""What check_gradient says of a mistake, what it refuses, and the forms in which theta may come."""

import re

import numpy as np
import pytest

from lintransformer.checks import InputError
from lintransformer.verification import assert_close, check_gradient, check_hessian, taylor_test

RNG = np.random.default_rng(5)
THETA = RNG.standard_normal(5)
MATRIX = RNG.standard_normal((3, 3))
X = RNG.standard_normal((3, 3))


def square(x):
    return np.sum(x**2)


def double(x):
    return 2 * x


# --- messages ---


def test_a_message_names_entry_values_ratio_and_count_in_pytest_too():
    W, B = RNG.standard_normal((4, 3)), 2

    def f(t):
        return np.sum(np.tanh(t["W1"] @ np.ones(3) + t["b1"]) ** 2) / B

    def gradient(t):
        h = np.tanh(t["W1"] @ np.ones(3) + t["b1"])
        d = 2 * h * (1 - h**2) / B
        return {"W1": np.outer(d, np.ones(3)), "b1": B * d}

    check = check_gradient(f, gradient, {"W1": W, "b1": RNG.standard_normal(4)})
    assert repr(check) == str(check) and not check and not check.passed and check.verdict == "failed"
    assert re.search(r"b1\[\d\]: yours \S+, numerical \S+ \(ratio 2; 4 of 4 entries of b1 wrong\)", str(check)), check
    with pytest.raises(AssertionError, match=r"b1\[\d\]: yours"):
        assert check
    with pytest.raises(AssertionError, match="ratio 2"):
        assert check.passed, check


FACTORS = [(2, "a factor 2"), (0.5, "a factor 1/2"), (-1, "a factor -1"),
           (5, "a factor 5, the length of axis 0 of theta"),
           (1 / 5, "a factor 1/5, the length of axis 0 of theta"), (17, "a factor 17: n, B"), (1 / 17, "a factor 1/17"),
           (1.7, "a factor 1.7 throughout"), (1 + 1e-7, "a factor 1 + 1e-07 throughout"), (0, "term is missing")]


@pytest.mark.parametrize("factor, words", FACTORS)
def test_a_factor_is_recognised(factor, words):
    text = str(check_gradient(square, lambda x: factor * 2 * x, THETA))
    assert words in text or abs(factor - 1) < 1e-3 and "ratio 1 + 1e-07" in text, text


@pytest.mark.parametrize("claimed, words", [
    (MATRIX.T, "pattern: transposed"), ((MATRIX + MATRIX.T) / 2, "pattern: symmetrised"),
    (MATRIX + MATRIX.T, "symmetrised, without the 1/2"), (MATRIX[::-1], "the right numbers in other places"),
    (MATRIX - 0.3 * X, "of an L2 term"), (MATRIX - 0.3 * np.sign(X), "of an L1 term"), (MATRIX - 1, "constant over"),
    (MATRIX * np.nan, "not a number"), (MATRIX * np.inf, "inf")])
def test_a_rearrangement_or_a_missing_term_is_recognised(claimed, words):
    check = check_gradient(lambda x: np.sum(MATRIX * x), claimed, X)
    assert check.verdict == "failed" and words in str(check), check


def test_exchanged_gradients_are_recognised():
    a, b = RNG.standard_normal(4), RNG.standard_normal(4)
    check = check_gradient(lambda t: a @ t["p"] + b @ t["q"], {"p": b, "q": a}, {"p": THETA[:4], "q": THETA[1:]})
    assert "p: it is the gradient of q" in str(check)


def test_a_little_off_is_no_pattern_of_places():
    claimed = MATRIX.copy()
    claimed[0, 1] *= 1 + 1e-5
    text = str(check_gradient(lambda x: np.sum(MATRIX * x), claimed, X))
    assert "theta[0, 1]" in text and "1 of 9 entries wrong" in text and "places" not in text


def test_special_data_are_named_where_something_is_wrong():
    symmetric = X + X.T
    check = check_gradient(lambda x: np.sum(MATRIX * x), MATRIX.T, symmetric)
    assert "special data: theta is symmetric" in str(check)


# --- forms of theta and of results ---


@pytest.mark.parametrize("theta", [3.0, 3, np.float64(3), np.array(3.0), [1.0, 2.0], [[1, 2], [3, 4]], (1.0, 2.0),
                                   np.arange(1, 5), np.ones((2, 3)) * [1, 2, 3], np.asfortranarray(X), X[::2, ::-1],
                                   X.T,
                                   np.float32(2.0), X.astype("f4")])
def test_forms_of_theta(theta):
    assert check_gradient(square, double, theta).passed
    assert check_gradient(square, lambda x: 2.1 * x, theta).verdict == "failed"
    assert check_gradient(lambda t: square(t["a"]), lambda t: {"a": 2 * t["a"]}, {"a": theta}).passed


def test_theta_keeps_its_bytes_and_may_be_read_only():
    theta = THETA.copy()
    theta.flags.writeable = False
    assert check_gradient(square, double, theta).passed and taylor_test(square, double, theta).passed
    assert check_hessian(lambda x, v: 2 * v, double, theta).passed and theta.tobytes() == THETA.tobytes()


@pytest.mark.parametrize("f", [lambda x: np.array([square(x)]), lambda x: np.array([[square(x)]]),
                               lambda x: float(np.sum(np.real(x) ** 2)), lambda x: [square(x)]])
def test_forms_of_a_number(f):
    assert check_gradient(f, double, THETA).passed


def test_a_right_gradient_of_f_beside_1e30_is_not_failed_and_a_wrong_one_not_passed():
    def f(x):
        return 1e30 + np.sum(np.abs(x) ** 2)

    assert check_gradient(f, double, THETA).verdict == "inconclusive"
    assert check_gradient(f, lambda x: 3 * x, THETA).verdict == "inconclusive"
    assert not check_gradient(lambda x: 1e30 + square(x), lambda x: 3 * x, THETA)
    assert taylor_test(f, double, THETA).verdict == "inconclusive"


def test_functions_may_raise_or_overflow_away_from_theta_and_keep_books():
    book = []

    def f(x):
        book.append(1)
        assert np.iscomplexobj(x) or np.all(x < THETA + 0.3), "out of bounds"
        if np.iscomplexobj(x):
            raise KeyError("no complex numbers here")
        return np.sum(np.exp(500 * np.maximum(x - THETA, 0)) ** 0) + square(x)

    with np.errstate(all="raise"):
        assert check_gradient(f, double, THETA).passed and book
        assert check_gradient(f, lambda x: 2.001 * x, THETA).verdict == "failed"
        assert np.geterr()["over"] == "raise"


# --- refusals ---

REFUSED = [
    ((3, double, THETA), "f must be callable"), ((lambda x: x**2, double, THETA), "one number.*check_vjp"),
    ((lambda x: None, double, THETA), "real numbers, not NoneType"), ((lambda x: "a", double, THETA), "real numbers"),
    ((lambda x: square(x) + 1j, double, THETA), "real numbers for real theta"),
    ((square, lambda x: None, THETA), "gradient.*NoneType"), ((square, lambda x: x[:-1], THETA), "shape"),
    ((square, lambda x: {"a": x}, THETA), "one array"), ((square, double, None), "NoneType"),
    ((square, double, "abc"), "real numbers"), ((square, double, THETA + 0j), "float32 or float64"),
    ((square, double, np.ma.array(THETA, mask=THETA > 0)), "masked"), ((square, double, THETA > 0), "real numbers"),
    ((square, double, THETA.astype("f2")), "float32 or float64"), ((square, double, [np.inf, 1.0]), "finite"),
    ((square, double, np.array([1, None])), "real numbers"), ((square, double, {}), "at least one"),
    ((square, double, [[1.0], [1.0, 2.0]]), "rectangular"), ((square, double, np.zeros((0, 3))), "at least one")]


@pytest.mark.parametrize("arguments, words", REFUSED)
def test_refusals_are_one_clear_line(arguments, words):
    for check in (check_gradient, taylor_test):
        with pytest.raises(InputError, match=words) as caught:
            check(*arguments)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tolerance", [np.nan, "a", -1, np.inf, 0, 1, True, [1e-3]])
def test_tolerances_that_mean_nothing_are_refused(tolerance):
    with pytest.raises(InputError, match="tolerance must be a number between 0 and 1"):
        check_gradient(square, double, THETA, tolerance=tolerance)
    with pytest.raises(InputError, match="tolerance"):
        check_hessian(lambda x, v: 2 * v, double, THETA, tolerance=tolerance)


@pytest.mark.parametrize("options, words", [
    ({"first": 0}, "first"), ({"first": np.nan}, "first"), ({"halvings": 1}, "at least 2"),
    ({"halvings": 2.5}, "halvings"), ({"direction": np.zeros(5)}, "not all of them 0"),
    ({"direction": THETA[:3]}, "shape"), ({"directions": 0}, "directions"),
    ({"direction": THETA + 1j}, "real"), ({"direction": THETA * np.nan}, "finite")])
def test_steps_and_directions_that_mean_nothing_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        taylor_test(square, double, THETA, **options)


def test_assertions_refuse_to_compare_nothing():
    for arguments in (([], [], 1e-3), ([1.0], [1.0], np.inf), ([1.0], [1.0], np.nan), ([1.0], [1.0], "a")):
        with pytest.raises(InputError):
            assert_close(*arguments)


def test_f_that_is_a_number_at_theta_alone_tells_nothing():
    check = check_gradient(lambda x: 0.0 if np.array_equal(x, THETA) else np.nan, np.zeros(5), THETA)
    assert check.verdict == "inconclusive"
