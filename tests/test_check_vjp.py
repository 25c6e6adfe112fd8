"""check_vjp and check_hessian: what they see of a backward pass, what they refuse, and special data."""

import warnings

import numpy as np
import pytest
from hypothesis import given

from lintransformer.checks import InputError
from lintransformer.verification import check_hessian, check_vjp
from lintransformer.verification import strategies as some


def forward(x, W, b):
    return np.tanh(x @ W + b)


def backward(dy, x, W, b):
    d = dy * (1 - forward(x, W, b) ** 2)
    return {"x": d @ W.T, "W": x.T @ d, "b": d.sum(axis=0)}


# --- as in the README ---


@given(some.inputs(x="B d", W="d h", b="h"))
def test_my_layer(arrays):
    assert check_vjp(forward, backward, arrays)


@given(some.inputs(dtype=np.float32, x="B d", W="d h", b="h"))
def test_my_layer_in_float32(arrays):
    assert check_vjp(forward, backward, arrays)


# --- mistakes ---

RNG = np.random.default_rng(3)
INPUTS = {"x": RNG.standard_normal((5, 3)), "W": RNG.standard_normal((3, 4)), "b": RNG.standard_normal(4)}


def spoiled(name, change):
    def wrong(dy, **arrays):
        found = backward(dy, **arrays)
        return {**found, name: change(found[name])}

    return wrong


@pytest.mark.parametrize("name, change, words", [
    ("b", lambda g: g / 5, "db: a factor 1/5, the length of axis 0 of x"), ("W", lambda g: 2 * g, "dW: a factor 2"),
    ("x", lambda g: -g, "dx: a factor -1"), ("b", lambda g: g * [1, 1, 1 + 1e-6, 1], "db[2]: yours"),
    ("x", lambda g: g * 0, "term is missing"), ("W", lambda g: g[::-1], "the right numbers in other places")])
def test_a_mistake_is_named(name, change, words):
    check = check_vjp(forward, spoiled(name, change), INPUTS)
    assert check.verdict == "failed" and words in str(check), check


@pytest.mark.parametrize("change", [lambda g: 1.01 * g, lambda g: g + 0.01 * np.abs(g).max()])
def test_a_mistake_in_float32(change):
    arrays = {key: value.astype("f4") for key, value in INPUTS.items()}
    assert check_vjp(forward, backward, arrays).passed
    assert check_vjp(forward, spoiled("W", change), arrays).verdict == "failed"


def test_code_that_is_float32_inside():
    def rough(**arrays):
        return forward(**{key: np.asarray(value, np.float32) for key, value in arrays.items()})

    assert check_vjp(rough, backward, INPUTS).passed
    assert check_vjp(rough, spoiled("b", lambda g: 1.02 * g), INPUTS).verdict == "failed"


def test_a_backward_pass_that_ignores_dy():
    assert check_vjp(forward, lambda dy, **arrays: backward(np.ones_like(dy), **arrays), INPUTS).verdict == "failed"


@pytest.mark.parametrize("victim", ["dy", "x", "W"])
def test_a_backward_pass_that_overwrites_what_it_is_given(victim):
    def careless(dy, **arrays):
        found = backward(dy, **arrays)
        {"dy": dy, **arrays}[victim][...] = 0
        return found

    before = {key: value.copy() for key, value in INPUTS.items()}
    check = check_vjp(forward, careless, INPUTS)
    assert check.verdict == "failed" and "backward changes its argument" in str(check)
    assert all(np.array_equal(before[key], INPUTS[key]) for key in before)


def test_a_forward_pass_that_overwrites_what_it_is_given():
    def careless(x, i):
        y = x[i]
        i[...] = 0
        return y

    check = check_vjp(careless, lambda dy, x, i: {"x": x}, {"x": INPUTS["x"], "i": np.array([1, 2])})
    assert check.verdict == "failed" and "forward changes its argument" in str(check)


# --- integers, kinks, special data ---


def test_integers_are_handed_on_and_have_no_derivative():
    def scatter(dy, x, rows):
        g = np.zeros_like(x)
        np.add.at(g, rows, dy)
        return {"x": g}

    def overwrite(dy, x, rows):
        g = np.zeros_like(x)
        g[rows] = dy                                                         # loses the row that is taken twice
        return {"x": g}

    arrays = {"x": INPUTS["x"], "rows": np.array([0, 2, 2])}
    assert check_vjp(lambda x, rows: x[rows], scatter, arrays).passed
    assert check_vjp(lambda x, rows: x[rows], lambda dy, **a: {**scatter(dy, **a), "rows": None}, arrays).passed
    check = check_vjp(lambda x, rows: x[rows], overwrite, arrays)
    assert check.verdict == "failed" and "dx[2, " in str(check) and "3 of 15 entries of dx wrong" in str(check)


def test_kinks_of_a_forward_pass():
    def relu_backward(dy, x):
        return {"x": dy * (x > 0)}

    def relu(x):
        return np.maximum(x, 0)

    at_kink = check_vjp(relu, relu_backward, {"x": np.array([1.0, 0.0, -2.0])})
    assert at_kink.verdict == "inconclusive" and "kink near entry dx[1]" in str(at_kink)
    assert check_vjp(relu, relu_backward, {"x": np.array([1.0, 1e-3, -2.0])}).passed


@pytest.mark.parametrize("array, words", [
    (np.eye(3) + 0.1, "symmetric"), (np.ones((3, 3)), "all entries equal"),
    (np.array([[1.0, 2, 3], [1, 2, 3]]), "equal slices")])
def test_special_data_are_warned_of(array, words):
    with pytest.warns(UserWarning, match=words):
        assert check_vjp(lambda x: x * 2, lambda dy, x: {"x": 2 * dy}, {"x": array})


def test_a_missing_transpose_that_symmetric_data_hide():
    """T X for the gradient of <T, X X^T> / 2 + ...: right where T is symmetric, and the warning says so."""
    def value(X, T):
        return np.sum(T * (X @ X.T))

    def pass_back(dy, X, T):
        return {"X": dy * 2 * T @ X, "T": dy * X @ X.T}                      # (T + T^T) X

    T, X = RNG.standard_normal((3, 3)), RNG.standard_normal((3, 4))
    with pytest.warns(UserWarning, match="T is symmetric"):
        assert check_vjp(value, pass_back, {"X": X, "T": T + T.T})
    assert check_vjp(value, pass_back, {"X": X, "T": T}).verdict == "failed"


# --- refusals ---


@pytest.mark.parametrize("arguments, words", [
    ((forward, lambda dy, **a: {"x": a["x"], "W": a["W"]}, INPUTS), "lacks 'b'"),
    ((forward, lambda dy, **a: {**backward(dy, **a), "c": 1.0}, INPUTS), "has 'c'"),
    ((forward, lambda dy, **a: {**backward(dy, **a), "W": a["W"].T}, INPUTS), r"backward\['W'\] must have .* \(3, 4\)"),
    ((forward, lambda dy, **a: None, INPUTS), "must return a dict"),
    ((forward, lambda dy, **a: {**backward(dy, **a), "b": None}, INPUTS), "NoneType"),
    ((lambda **a: None, backward, INPUTS), "y = forward.*NoneType"),
    ((lambda **a: "y", backward, INPUTS), "real numbers"),
    ((forward, backward, {}), "dict of arrays"), ((forward, backward, [1.0]), "dict of arrays"),
    ((forward, backward, {"i": np.array([1])}), "integers"), ((forward, backward, {"dy": INPUTS["x"]}), "'dy'"),
    ((forward, 3, INPUTS), "callable"), ((forward, backward, {**INPUTS, "x": INPUTS["x"] + 1j}), "float32 or float64"),
    ((forward, backward, {**INPUTS, "b": np.ma.array([1.0] * 4, mask=[0, 1, 0, 0])}), "masked"),
    ((forward, backward, {**INPUTS, "b": np.full(4, np.nan)}), "finite")])
def test_refusals_are_one_clear_line(arguments, words):
    with warnings.catch_warnings(), pytest.raises(InputError, match=words) as caught:
        warnings.simplefilter("ignore")
        check_vjp(*arguments)
    assert "\n" not in str(caught.value)


# --- Hessian-vector products ---


def cubic_gradient(t):
    return {"a": t["a"] ** 3 * t["b"].sum(), "b": np.full_like(t["b"], (t["a"] ** 4).sum() / 4)}


def cubic_product(t, v):
    return {"a": 3 * t["a"] ** 2 * v["a"] * t["b"].sum() + t["a"] ** 3 * v["b"].sum(),
            "b": np.full_like(t["b"], (t["a"] ** 3 * v["a"]).sum())}


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_products_with_a_dict_of_arrays(dtype):
    theta = {"a": RNG.standard_normal(3).astype(dtype), "b": RNG.standard_normal((2, 2)).astype(dtype)}
    assert check_hessian(cubic_product, cubic_gradient, theta).passed
    check = check_hessian(lambda t, v: {**cubic_product(t, v), "a": 2 * cubic_product(t, v)["a"]},
                          cubic_gradient, theta)
    assert check.verdict == "failed" and "a[" in str(check) and "3 of 3 entries of a wrong" in str(check)


def test_products_that_are_not_symmetric():
    A = RNG.standard_normal((4, 4))
    check = check_hessian(lambda t, v: A @ v, lambda t: (A + A.T) / 2 @ t, RNG.standard_normal(4))
    assert [part.verdict for part in check.parts] == ["failed", "failed"]
    assert check_hessian(lambda t, v: (A + A.T) / 2 @ v, lambda t: (A + A.T) / 2 @ t, RNG.standard_normal(4)).passed


def test_a_product_that_is_wrong_in_one_entry_of_the_matrix():
    H = RNG.standard_normal((6, 6))
    H = H + H.T
    spoilt = H.copy()
    spoilt[1, 4] *= 1.001
    spoilt[4, 1] = spoilt[1, 4]
    assert check_hessian(lambda t, v: spoilt @ v, lambda t: H @ t, np.zeros(6)).verdict == "failed"
