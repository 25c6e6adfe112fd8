"""check_gradient, taylor_test and check_hessian on known traps: what they must see, and must not call wrong."""

import warnings

import numpy as np
import pytest

from lintransformer.checks import InputError
from lintransformer.verification import check_exact_gradient, check_gradient, check_hessian, taylor_test
from lintransformer.verification.exact import rational

RNG = np.random.default_rng(11)
THETA = RNG.standard_normal(6)


def square(x):
    return np.sum(x**2)


def double(x):
    return 2 * x


# --- wrong gradients that must not pass ---

FORGOTTEN = {"abs": (lambda x: np.sum(np.abs(x)), np.sign), "norm": (np.linalg.norm, lambda x: x / np.linalg.norm(x)),
             "max": (lambda x: np.max(np.abs(x)), lambda x: np.sign(x) * (np.abs(x) == np.max(np.abs(x)))),
             "product": (lambda x: np.abs(x[0]) * np.sum(x**2),
                         lambda x: 2 * np.abs(x[0]) * x + np.sign(x[0]) * np.sum(x**2) * np.eye(6)[0])}


@pytest.mark.parametrize("weight", [1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("term", list(FORGOTTEN))
def test_a_forgotten_term_that_complex_steps_lose(term, weight):
    extra, slope = FORGOTTEN[term]

    def f(x):
        return square(x) + weight * extra(x)

    def right(x):
        return 2 * x + weight * slope(x)

    assert check_gradient(f, double, THETA).verdict == "failed"
    assert check_gradient(f, right, THETA).passed
    assert taylor_test(f, double, THETA).verdict == "failed"
    assert taylor_test(f, right, THETA).verdict != "failed"


def test_a_hessian_without_the_curvature_of_abs():
    def gradient(x):
        return 2 * x + 1e-3 * x * np.abs(x)

    assert check_hessian(lambda x, v: 2 * v, gradient, THETA).verdict == "failed"
    assert check_hessian(lambda x, v: 2 * v + 2e-3 * np.abs(x) * v, gradient, THETA).passed


def test_a_gradient_that_changes_its_argument():
    def centred(x):
        x -= x.mean()
        return 2 * x

    theta = THETA.copy()
    check = check_gradient(lambda x: np.sum((x - x.mean()) ** 2), centred, theta)
    assert check.verdict == "failed" and "gradient changes its argument" in str(check)
    assert theta.tobytes() == THETA.tobytes()

    def f(x):
        x *= 1.0
        x[0] += 1
        return square(x)

    assert "f changes its argument" in str(check_gradient(f, double, THETA))


def test_functions_that_are_not_deterministic():
    calls = []

    def first_only(x):
        calls.append(1)
        return 2 * x if len(calls) == 1 else 3 * x

    def every_other(x):
        calls.append(1)
        return (2 + len(calls) % 2) * x

    rng = np.random.default_rng(0)
    for f, gradient in ((square, first_only), (square, every_other),
                        (lambda x: np.sum(x**2 * (rng.random(6) > 0.5)), double),
                        (square, lambda x: 2 * x * (rng.random(6) > 0.5))):
        check = check_gradient(f, gradient, THETA)
        assert check.verdict == "failed" and "not deterministic" in str(check), check


def test_buffers_that_are_returned_and_overwritten_are_copied_in_time():
    buffer = np.zeros(6)

    def gradient(x):
        buffer[:] = 2 * x
        return buffer

    assert check_gradient(square, gradient, THETA).passed and taylor_test(square, gradient, THETA).passed


@pytest.mark.parametrize("relative", [3e-8, 1e-6])
def test_a_hessian_of_cross_entropy_that_is_a_little_off(relative):
    def softmax(z):
        e = np.exp(z - np.max(z.real))
        return e / e.sum()

    def product(z, v):
        return softmax(z) * (v - softmax(z) @ v)

    z, y = RNG.standard_normal(8), np.eye(8)[2]
    assert check_hessian(product, lambda z: softmax(z) - y, z).passed
    assert check_hessian(lambda z, v: (1 + relative) * product(z, v), lambda z: softmax(z) - y, z).verdict == "failed"


@pytest.mark.parametrize("name", ["np.exp", "np.abs"])                       # by complex steps, by differences
def test_a_block_that_is_small_beside_another(name):
    def f(t):
        return np.sum(t["a"] ** 2) + 1e-9 * np.sum(np.exp(t["b"])) + (np.sum(np.abs(t["a"]) ** 3) if name == "np.abs"
                                                                      else 0)

    def gradient(t, factor=1.0):
        return {"a": 2 * t["a"] + (3 * t["a"] * np.abs(t["a"]) if name == "np.abs" else 0),
                "b": factor * 1e-9 * np.exp(t["b"])}

    theta = {"a": THETA, "b": RNG.standard_normal(3)}
    assert check_gradient(f, gradient, theta).verdict != "failed"
    assert not check_gradient(f, lambda t: gradient(t, -7.0), theta)


@pytest.mark.parametrize("delta", [0.003, 0.01, 0.1, 1.0])
def test_taylor_remainders_of_a_quartic_with_one_wrong_entry(delta):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        theta, factor = rng.standard_normal(6), np.ones(6)
        factor[rng.integers(6)] += delta
        assert not taylor_test(lambda x: np.sum(x**4), lambda x, c=factor: 4 * c * x**3, theta)
        right = taylor_test(lambda x: np.sum(x**4), lambda x: 4 * x**3, theta)
        assert right.verdict == "inconclusive" or right.passed and "would have been seen" in str(right), right


def test_taylor_remainders_of_a_fast_wave():
    def f(x):
        return np.sum(np.sin(1000 * x))

    for seed in range(40):
        rng = np.random.default_rng(seed)
        theta = rng.standard_normal(6)
        assert not taylor_test(f, 1000 * rng.standard_normal(6), theta)
        assert taylor_test(f, lambda x: 1000 * np.cos(1000 * x), theta).verdict != "failed"
        assert taylor_test(f, lambda x: 1000 * np.cos(1000 * x), theta, first=1.0, halvings=5).verdict == "inconclusive"


def test_an_exact_gradient_is_looked_at_in_every_coordinate():
    point, direction = rational([0.5, -0.25, 1.0]), rational([1.0, 0.0, 2.0])
    wrong = 2 * point
    wrong[1] += 10
    check = check_exact_gradient(lambda x: np.sum(x**2), lambda x: wrong, point, direction, degree=2)
    assert check.verdict == "failed" and "theta[1]" in str(check) and "1 of 3 entries" in str(check)
    assert check_exact_gradient(lambda x: np.sum(x**2), lambda x: 2 * x, point, direction, degree=2).passed
    with pytest.raises(InputError, match="shape"):
        check_exact_gradient(lambda x: np.sum(x**2), lambda x: 2 * x[:2], point, direction, degree=2)


# --- right gradients that must not fail ---


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_least_squares_at_its_minimum(dtype):
    A = RNG.standard_normal((20, 4)).astype(dtype)
    y = RNG.standard_normal(20).astype(dtype)
    best = np.linalg.lstsq(A.astype(float), y.astype(float), rcond=None)[0].astype(dtype)

    def gradient(x):
        return A.T @ (A @ x - y)

    assert check_gradient(lambda x: np.sum((A @ x - y) ** 2) / 2, gradient, best).passed
    assert not check_gradient(lambda x: np.sum((A @ x - y) ** 2) / 2, lambda x: 1.05 * gradient(x), best)
    given = check_gradient(lambda x: np.sum((A @ x - y) ** 2) / 2, gradient(best), best)
    assert given.passed or given.verdict == "inconclusive" and "at rounding level" in str(given)


def layer_norm(x):
    return (x - x.mean()) / np.sqrt(np.var(x) + 1e-5)


def test_a_layer_norm_with_np_var_whatever_warnings_do():
    """np.var conjugates, and drops imaginary parts: with warnings as errors, and at many points."""
    def gradient(x):
        h, d = layer_norm(x), np.arange(5.0)
        return (d - d.mean() - h * np.mean(d * h)) / np.sqrt(np.var(x) + 1e-5)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(60):
            x = np.random.default_rng(seed).standard_normal(5)
            check = check_gradient(lambda x: layer_norm(x) @ np.arange(5.0), gradient, x)
            assert check.passed and "np.var" in check.detail, (seed, check)
    wrong = check_gradient(lambda x: layer_norm(x) @ np.arange(5.0), lambda x: 1.0001 * gradient(x), x)
    assert wrong.verdict == "failed"


@pytest.mark.parametrize("length", [1e-6, 1e-4, 1.0, 1e4, 1e6])
@pytest.mark.parametrize("factor", [1e-300, 1.0, 1e30])
def test_scales_of_theta_and_of_f(length, factor):
    def f(x):
        return factor * np.sum(np.abs(np.sin(x / length + 0.3)) ** 3)        # not analytic

    def gradient(x):
        s = np.sin(x / length + 0.3)
        return factor * 3 * s * np.abs(s) * np.cos(x / length + 0.3) / length

    theta = length * np.array([0.4, -0.9, 1.3])
    assert check_gradient(f, gradient, theta).passed
    assert check_gradient(f, lambda x: gradient(x) * [1, 1.001, 1], theta).verdict == "failed"


def test_theta_near_10000():
    theta = 1e4 + THETA
    assert check_gradient(lambda x: np.sum(np.abs(np.cos(x)) ** 3),
                          lambda x: -3 * np.cos(x) * np.abs(np.cos(x)) * np.sin(x), theta).passed


def test_float32_code_and_a_bug_of_one_in_a_thousand():
    W, y = RNG.standard_normal((8, 5)).astype("f4"), RNG.standard_normal(5).astype("f4")

    def f(x):
        return np.sum((np.tanh(x @ W) - y) ** 2)

    def gradient(x, factor=1.0):
        h = np.tanh(x @ W)
        g = W @ (2 * (h - y) * (1 - h**2))
        g[3] *= factor
        return g

    theta = RNG.standard_normal(8).astype("f4")
    assert check_gradient(f, gradient, theta).passed
    check = check_gradient(f, lambda x: gradient(x, 1.001), theta)
    assert check.verdict == "failed" and "theta[3]" in str(check) and "1 of 8 entries" in str(check)


def test_kinks_are_named_or_stepped_around():
    theta = THETA.copy()
    theta[2] = 1e-3
    dead = check_gradient(lambda x: np.sum(np.where(np.abs(x) < 1.5e-3, 0, np.abs(x))),
                          lambda x: np.sign(x) * (np.abs(x) >= 1.5e-3), theta)
    assert dead.passed or "kink near entry theta[2]" in str(dead)
    theta[2] = 0.0
    for f, gradient in ((lambda x: np.sum(np.abs(x)), np.sign),
                        (lambda x: np.sum(np.maximum(x, 0)), lambda x: (x > 0) * 1.0),
                        (lambda x: np.sum(np.maximum(x, 0)), lambda x: (x >= 0) * 1.0)):
        check = check_gradient(f, gradient, theta)
        assert check.verdict == "inconclusive" and "kink near entry theta[2]" in str(check)
    assert "kink" in str(taylor_test(lambda x: np.sum(np.abs(x)), np.sign, theta))
