"""Directional smoothness on functions whose curvature is known, on real paths, and through a divergence."""

import numpy as np
import pytest
from cases import MODELS, case
from hypothesis import given
from hypothesis import strategies as st

import lintransformer as lt
from lintransformer.diagnostics.smoothness import (correlation_interval, directional_smoothness, fit_smoothness,
                                                   over_paths, path_smoothness, t_interval)

ROW = MODELS["linear-block-gram"]


@pytest.fixture(scope="module")
def walked():
    """A path of 8 steps of SGD with momentum at Setting 1, every point kept."""
    model, distribution = lt.build_model(), lt.PromptDistribution()
    run = lt.train(model, distribution, lt.SGD(0.02, 0.9), steps=8, batch_size=50, theta_at=range(9))
    return model, run.arrays["theta"], lt.evaluation_batch(distribution, 99, 50)


@pytest.mark.parametrize("method", ["difference", "complex", "exact"])
def test_it_is_the_second_derivative_of_f_along_the_step(method):
    model, theta, batch = case(ROW)
    step = np.random.default_rng(0).standard_normal(model.size) / 10
    unit, h = step / np.linalg.norm(step), 1e-3

    def f(t):
        return lt.value(model, theta + t * unit, batch)

    second = (-f(2 * h) + 16 * f(h) - 30 * f(0) + 16 * f(-h) - f(-2 * h)) / (12 * h**2)
    assert np.isclose(directional_smoothness(model, theta, theta + step, batch, method), second, rtol=1e-6)


def test_only_the_direction_of_the_step_matters():
    model, theta, batch = case(ROW)
    step = np.random.default_rng(0).standard_normal(model.size)
    steps = [scale * step for scale in (1e-6, 1, -3, 1e3)]
    values = [directional_smoothness(model, theta, theta + step, batch) for step in steps]
    assert np.allclose(values, values[1], rtol=1e-6)


def test_it_lies_between_the_extreme_eigenvalues(walked):
    model, path, batch = walked
    measured = path_smoothness(model, path, batch)
    for theta, value in zip(path, measured.smoothness):
        spectrum = np.linalg.eigvalsh(lt.hessian(model, theta, batch).to_dense())
        assert spectrum[0] <= value <= spectrum[-1]


def test_a_path_gives_what_its_points_give(walked):
    model, path, batch = walked
    measured = path_smoothness(model, path, batch)
    path = path.astype(np.float64)
    for t in range(8):
        value, gradient = lt.value_and_gradient(model, path[t], batch)
        exact = directional_smoothness(model, path[t], path[t + 1], batch, "exact")
        assert np.isclose(measured.smoothness[t], exact)
        assert np.isclose(measured.loss[t], value)
        assert np.isclose(measured.gradient_norm[t], np.linalg.norm(gradient))
        assert np.isclose(measured.step_norm[t], np.linalg.norm(path[t + 1] - path[t]))


def test_progress_runs_from_0_to_1(walked):
    told = []
    path_smoothness(*walked, progress=told.append)
    assert told == sorted(told) and told[0] == 0 and 0.8 < told[-1] < 1


def test_negative_curvature_is_kept():
    model, theta, batch = case(ROW)
    values, vectors = np.linalg.eigh(lt.hessian(model, theta, batch).to_dense())
    assert values[0] < -1e-3
    down = theta + vectors[:, 0]
    assert np.isclose(directional_smoothness(model, theta, down, batch), values[0], rtol=1e-6)
    path = np.array([theta, down, down])
    measured = path_smoothness(model, path, batch)
    assert np.isclose(measured.smoothness[0], values[0], rtol=1e-6)
    assert np.isnan(measured.smoothness[1]) and measured.step_norm[1] == 0   # no step, no direction
    assert np.isfinite(measured.loss[1])


def test_a_path_that_diverges_is_measured_as_far_as_it_goes(walked):
    model, path, batch = walked
    path = np.vstack([path[:3], path[3:4] * 1e30, np.full((2, 150), np.nan)])
    measured = path_smoothness(model, path, batch)
    assert np.isfinite(measured.smoothness).tolist() == [True, True, True, False, False]
    assert np.isnan(measured.gradient_norm[4])


@given(st.floats(-5, 5), st.floats(-5, 5), st.integers(3, 40), st.integers(0, 10**6))
def test_the_fit_finds_a_line(L0, L1, count, seed):
    x = np.random.default_rng(seed).uniform(0.1, 2, count)
    fit = fit_smoothness(np.append(x, np.nan), np.append(L0 + L1 * x, 1.0))
    assert np.allclose([fit.L0, fit.L1], [L0, L1], atol=1e-9)
    assert fit.positive + fit.negative + np.sum(L0 + L1 * x == 0) == count
    if abs(L1) > 1e-3:
        assert np.isclose(fit.rank_correlation, np.sign(L1))


def test_the_fit_finds_a_power_law_and_counts_what_a_logarithm_would_lose():
    x = np.geomspace(0.01, 10, 50)
    fit = fit_smoothness(x, 3 * x**0.7)
    assert np.isclose(fit.log_slope, 0.7) and (fit.positive, fit.negative) == (50, 0)
    fit = fit_smoothness(np.append(x, [0.005, 0.006]), np.append(3 * x**0.7, [-1.0, -2.0]))
    assert np.isclose(fit.log_slope, 0.7) and (fit.positive, fit.negative) == (50, 2)
    assert 0 < fit.covered < 1 and 0.9 < fit.rank_correlation < 1


def test_intervals_are_over_paths():
    fits = [fit_smoothness([0, 1, 2], [b, a + b, 2 * a + b]) for a, b in ((1, 0), (2, 0.5), (3, 1))]
    mean, low, high = over_paths(fits)["L1"]
    assert np.isclose(mean, 2) and np.isclose(high - 2, 4.302653 / np.sqrt(3)) and np.isclose(low + high, 4)
    assert np.isnan(over_paths(fits[:1])["L0"][1:]).all()
    shares = over_paths([fits[0]._replace(covered=share) for share in (0.5, 1.0)])["covered"]
    assert shares == (0.75, 0.0, 1.0)                                        # a share has no wider interval


def test_t_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = sum(low < 1 < high for _, low, high in (t_interval(rng.normal(1, 2, 5)) for _ in range(2000)))
    assert abs(hits / 2000 - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize("call, message", [
    (lambda m, t, b: directional_smoothness(m, t, t, b), "theta_next must differ from theta"),
    (lambda m, t, b: directional_smoothness(m, t, t * np.nan, b), "theta must be finite"),
    (lambda m, t, b: path_smoothness(m, t[None], b), r"path must have shape \(T \+ 1, 36\) with T at least 1"),
    (lambda m, t, b: directional_smoothness(m, t, t + 1j, b), "theta must hold real numbers, not dtype complex128"),
    (lambda m, t, b: path_smoothness(m, [t, t + 1], b, "forward"), "method 'forward' is not known; allowed: diff"),
    (lambda m, t, b: path_smoothness(m, [t, t + 1j], b), "path must hold real numbers, not dtype complex128"),
    (lambda m, t, b: path_smoothness(m, np.ma.masked_less([t, t + 1], 0), b), "path: masked arrays"),
    (lambda m, t, b: path_smoothness(m, [t[1:], t[1:]], b), r"path must have shape \(T \+ 1, 36\)"),
    (lambda m, t, b: path_smoothness(m, [t, t + 1], lt.Prompts(b.Z * np.nan, b.target)), "batch.Z must be finite"),
    (lambda m, t, b: path_smoothness(m, [t, t + 1], None), "batch must be Prompts or GramPrompts, not NoneType"),
    (lambda m, t, b: path_smoothness(None, [t, t + 1], b), "model must have size and value_and_gradient"),
    (lambda m, t, b: path_smoothness(m, [t, t + 1], b, stride=0), "stride must be an integer of at least 1, not 0"),
    (lambda m, t, b: path_smoothness(m, [t, t + 1], b, progress=1), "progress must be None or callable, not 1"),
    (lambda m, t, b: fit_smoothness([0, 0, 0], [1, 2, 3]), "needs 3 points with different gradient norms"),
    (lambda m, t, b: fit_smoothness([0, 0, 0, 1], [1, 2, 3, 4]), "gradient_norm must be at least 0 and its median pos"),
    (lambda m, t, b: fit_smoothness([-1, 2, 3], [1, 2, 3]), "gradient_norm must be at least 0 .* the smallest is -1"),
    (lambda m, t, b: fit_smoothness([1, 2, 3j], [1, 2, 3]), "gradient_norm must hold real numbers, not dtype c"),
    (lambda m, t, b: t_interval([1, 2], 2), "level must lie strictly between 0 and 1, not 2"),
    (lambda m, t, b: t_interval([1, 2j]), "values must hold real numbers, not dtype complex128"),
    (lambda m, t, b: t_interval([[1, 2]]), r"values must have shape \(N,\), not \(1, 2\)"),
    (lambda m, t, b: correlation_interval([0.5, 1.5]), r"correlations must lie in \[-1, 1\], not 1.5"),
    (lambda m, t, b: over_paths([None]), "each fit must have L0, L1, .* as fit_smoothness"),
    (lambda m, t, b: fit_smoothness([1, 2], [1, 2]), "needs 3 points with different gradient norms, not 2"),
    (lambda m, t, b: fit_smoothness([1, 1, 1], [1, 2, 3]), "needs 3 points with different gradient norms"),
    (lambda m, t, b: fit_smoothness([1, 2, 3], [1, 2]), r"one shape \(T,\), not \(3,\) and \(2,\)"),
])
def test_what_is_refused(call, message):
    with pytest.raises(lt.InputError, match=message):
        call(*case(ROW))


def test_intervals_of_correlations_stay_between_minus_one_and_one():
    for values in ([0.9, 0.1], [1.0, 1.0, -0.5], [0.7, 0.71, 0.69]):
        mean, low, high = correlation_interval(values)
        assert -1 <= low <= mean <= high <= 1
    expected = np.tanh(t_interval(np.arctanh([0.2, 0.5, 0.6])))
    assert np.allclose(correlation_interval([0.2, 0.5, 0.6]), expected)
    assert np.isnan(correlation_interval([0.5])[1:]).all()


@pytest.mark.parametrize("length", [1e-200, 1e-160, 1e150])
def test_a_step_of_any_length_has_a_direction(length):
    """Squares of 1e-200 vanish, those of 1e200 overflow: neither may enter the norm."""
    model, theta, batch = case(ROW)
    step = np.random.default_rng(0).standard_normal(model.size)
    expected = directional_smoothness(model, theta, theta + step, batch, "exact")
    if length < 1:                                                           # from 0, where such a step changes theta
        origin = np.zeros(model.size)
        expected = directional_smoothness(model, origin, step, batch, "exact")
        assert np.isclose(directional_smoothness(model, origin, length * step, batch), expected, atol=1e-8)
    else:
        assert np.isclose(directional_smoothness(model, theta, length * step, batch), expected, rtol=1e-1)


def test_a_long_path_is_right_although_its_steps_of_differences_are_shared():
    """130 steps over which theta grows a hundredfold and the gradient by much more."""
    model, theta, batch = case(ROW)
    path = theta * np.geomspace(0.05, 5, 131)[:, None]
    measured = path_smoothness(model, path, batch)
    exact = path_smoothness(model, path, batch, "exact")
    assert exact.gradient_norm.max() > 1e4 * exact.gradient_norm.min()
    assert np.allclose(measured.smoothness, exact.smoothness, rtol=1e-6)
