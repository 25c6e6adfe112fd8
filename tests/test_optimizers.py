"""Optimizers and clipping: stored PyTorch trajectories, and the properties the update rules promise.

The data are made by `python -m benchmarks.optimizer_trajectories`; PyTorch is not needed here.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import lintransformer as lt
from lintransformer.checks import InputError
from lintransformer.optimizers import make_optimizer

DATA = dict(np.load(Path(__file__).parent / "data" / "optimizer_trajectories.npz", allow_pickle=False))

# The settings of benchmarks/optimizer_trajectories.py.
STORED = {
    "sgd": lt.SGD(0.05),
    "sgdm": lt.SGD(0.02, momentum=0.9),
    "adam": lt.Adam(0.05),
    "sign": lt.SignDescent(0.01),
}
ALL = [*STORED.values(), lt.Adam(0.1, beta1=0.5, beta2=0.99, epsilon=1e-3)]
TRAJECTORIES = [(name, clipped) for name in STORED for clipped in ("no", "yes")]

entries = st.floats(-100, 100, allow_subnormal=False)
sizes = st.integers(1, 6)
thresholds = st.sampled_from([1e-3, 0.1, 1.0, 30.0])


def vectors(size):
    return arrays(np.float64, size, elements=entries)


gradients = sizes.flatmap(vectors)
pairs = sizes.flatmap(lambda size: st.tuples(vectors(size), vectors(size)))


def steps(optimizer, theta, gradient_of, count, threshold=None):
    """All points of a run (count+1, p), gradients (count, p) before clipping and their norms (count,)."""
    state, points, seen, norms = optimizer.init(theta), [theta], [], []
    for step in range(count):
        gradient = gradient_of(step, theta)
        clipped, norm = lt.clip(gradient, threshold)
        theta, state = optimizer.update(state, theta, clipped)
        points.append(theta)
        seen.append(gradient)
        norms.append(norm)
    return np.array(points), np.array(seen), np.array(norms)


@pytest.mark.parametrize("name, clipped", TRAJECTORIES)
def test_twenty_steps_on_stored_gradients_equal_pytorch(name, clipped):
    run = {key: DATA[f"{name}/clip={clipped}/{key}"] for key in ("theta", "gradient", "norm")}
    threshold = float(DATA["threshold"]) if clipped == "yes" else None
    stored = lambda step, theta: run["gradient"][step]
    points, _, norms = steps(STORED[name], DATA["theta0"], stored, 20, threshold)
    assert len(run["theta"]) == 21
    np.testing.assert_allclose(points, run["theta"], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(norms, run["norm"], rtol=1e-12)


@pytest.mark.parametrize("name, clipped", TRAJECTORIES)
def test_twenty_steps_on_our_own_gradients_equal_pytorch(name, clipped):
    model = lt.build_model(layers=2, dimension=3)
    batch = lt.Prompts(DATA["Z"], DATA["target"])
    threshold = float(DATA["threshold"]) if clipped == "yes" else None
    ours = lambda step, theta: lt.gradient(model, theta, batch)
    points, _, _ = steps(STORED[name], DATA["theta0"], ours, 20, threshold)
    np.testing.assert_allclose(points, DATA[f"{name}/clip={clipped}/theta"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", STORED)
def test_stored_norms_lie_on_both_sides_of_the_threshold(name):
    norms = DATA[f"{name}/clip=yes/norm"]
    assert norms.min() < DATA["threshold"] < norms.max()


@given(gradients, thresholds)
def test_clipping_never_raises_the_norm_and_respects_the_threshold(gradient, threshold):
    clipped, norm = lt.clip(gradient, threshold)
    assert norm == pytest.approx(np.linalg.norm(gradient), rel=1e-12)
    assert np.linalg.norm(clipped) <= np.linalg.norm(gradient)
    assert np.linalg.norm(clipped) <= threshold


@given(gradients, thresholds)
def test_clipping_scales_the_whole_gradient_by_pytorchs_factor(gradient, threshold):
    factor = min(1.0, threshold / (np.linalg.norm(gradient) + 1e-6))
    np.testing.assert_allclose(lt.clip(gradient, threshold)[0], factor * gradient, rtol=1e-12, atol=0)


def test_clipping_is_joint_not_by_matrix():
    gradient = np.array([3.0, 0.0, 0.0, 0.1])            # the second half alone would be left as it is
    clipped, norm = lt.clip(gradient, 1.0)
    assert clipped[3] == pytest.approx(0.1 / norm, rel=1e-6)


@given(gradients)
def test_no_threshold_means_no_clipping(gradient):
    np.testing.assert_array_equal(lt.clip(gradient, None)[0], gradient)


@given(pairs, st.sampled_from(ALL))
def test_update_and_clip_leave_their_inputs_unchanged(pair, optimizer):
    theta, gradient = pair
    state = optimizer.init(theta)
    _, state = optimizer.update(state, theta, gradient)
    before = [np.array(part, copy=True) for part in (theta, gradient, *state)]
    first = optimizer.update(state, theta, gradient)[0]
    lt.clip(gradient, 1e-3)
    for was, part in zip(before, (theta, gradient, *state), strict=True):
        np.testing.assert_array_equal(was, part)
    np.testing.assert_array_equal(first, optimizer.update(state, theta, gradient)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", ALL, ids=repr)
def test_shape_and_dtype_are_kept(optimizer, dtype):
    theta = np.linspace(-1, 1, 7, dtype=dtype)
    state = optimizer.init(theta)
    for _ in range(3):
        clipped, _ = lt.clip(theta, 0.5)
        assert clipped.dtype == theta.dtype
        following, state = optimizer.update(state, theta, clipped)
        assert following.shape == theta.shape and following.dtype == theta.dtype
        assert all(part.dtype == theta.dtype for part in state if isinstance(part, np.ndarray))


@given(pairs, st.sampled_from([1e-3, 0.5, 7.0]))
def test_sign_descent_does_not_see_the_gradients_scale(pair, scale):
    theta, gradient = pair
    optimizer = lt.SignDescent(0.1)
    np.testing.assert_array_equal(optimizer.update(optimizer.init(theta), theta, gradient)[0],
                                  optimizer.update(optimizer.init(theta), theta, scale * gradient)[0])


@given(pairs)
def test_adam_without_memory_is_sign_descent(pair):
    theta, gradient = pair
    gradient = np.where(np.abs(gradient) < 1e-100, 1.0, gradient)            # far above epsilon
    adam, sign = lt.Adam(0.1, beta1=0.0, beta2=0.0, epsilon=1e-300), lt.SignDescent(0.1)
    state = adam.update(adam.init(theta), theta, 3 * gradient)[1]            # what went before is forgotten
    np.testing.assert_allclose(adam.update(state, theta, gradient)[0],
                               sign.update(sign.init(theta), theta, gradient)[0], rtol=1e-12, atol=1e-12)


@given(pairs)
def test_adams_first_step_has_the_size_of_the_learning_rate(pair):
    theta, gradient = pair
    assume((np.abs(gradient) > 1e-3).all())
    theta_next, _ = lt.Adam(0.01).update(lt.Adam(0.01).init(theta), theta, gradient)
    np.testing.assert_allclose(theta - theta_next, 0.01 * np.sign(gradient), rtol=1e-4)


@given(pairs)
def test_momentum_has_no_dampening(pair):
    theta, gradient = pair
    points, _, _ = steps(lt.SGD(0.1, momentum=0.9), theta, lambda step, at: gradient, 3)
    weights = np.array([1.0, 1.9, 2.71])                  # 1, 1 + 0.9, 1 + 0.9 + 0.81
    expected = 0.1 * weights[:, None] * gradient
    np.testing.assert_allclose(-np.diff(points, axis=0), expected, rtol=1e-9, atol=1e-12)


@given(pairs)
def test_momentum_zero_is_plain_gradient_descent(pair):
    theta, gradient = pair
    points, _, _ = steps(lt.SGD(0.5), theta, lambda step, at: gradient + at, 2)
    np.testing.assert_allclose(points[1], theta - 0.5 * (gradient + theta), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(points[2], points[1] - 0.5 * (gradient + points[1]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [lt.SGD, lt.Adam, lt.SignDescent])
@pytest.mark.parametrize("value", [-0.1, 0.0, np.nan, np.inf, -np.inf, "fast", None, True])
def test_bad_learning_rates_are_refused_by_name(kind, value):
    with pytest.raises(InputError, match="learning_rate"):
        kind(value)


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, np.nan, np.inf, "much", None, True])
@pytest.mark.parametrize("name, make", [
    ("momentum", lambda value: lt.SGD(0.1, momentum=value)),
    ("beta1", lambda value: lt.Adam(0.1, beta1=value)),
    ("beta2", lambda value: lt.Adam(0.1, beta2=value)),
])
def test_bad_momentum_and_betas_are_refused_by_name(name, make, value):
    with pytest.raises(InputError, match=name):
        make(value)


@pytest.mark.parametrize("value", [-1e-8, np.nan, np.inf])
def test_bad_epsilon_is_refused_by_name(value):
    with pytest.raises(InputError, match="epsilon"):
        lt.Adam(0.1, epsilon=value)


def test_unknown_optimizers_and_options_are_refused_by_name():
    with pytest.raises(InputError, match="(?=.*'adma')(?=.*adam)(?=.*sgd)(?=.*sign)"):
        make_optimizer("adma", learning_rate=0.1)
    with pytest.raises(InputError, match="(?=.*'momentum')(?=.*beta1)"):
        make_optimizer("adam", learning_rate=0.1, momentum=0.9)
    assert make_optimizer("sgd", learning_rate=0.1, momentum=0.9) == lt.SGD(0.1, 0.9)


def test_adam_is_weighted_means_for_as_long_as_it_runs():
    """Eq. 10.4-10.5 from the definition, at each of 60 steps: a bias correction that stops counting would show."""
    gradients, beta = np.random.default_rng(0).standard_normal((60, 3)) + 0.5, 0.9
    points, _, _ = steps(lt.Adam(0.01, beta, beta), np.zeros(3), lambda step, theta: gradients[step], 60)
    for step in range(60):
        weights = beta ** np.arange(step, -1, -1.0)
        mean, square = (np.average(part, axis=0, weights=weights) for part in (gradients[:step + 1],
                                                                                gradients[:step + 1] ** 2))
        np.testing.assert_allclose(points[step] - points[step + 1], 0.01 * mean / (np.sqrt(square) + 1e-8), rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e160, 1e200, 1e300])
def test_clipping_is_right_where_squares_overflow_or_vanish(scale):
    gradient = scale * np.array([3.0, 0.0, -4.0])
    clipped, norm = lt.clip(gradient, 0.5)
    assert norm == pytest.approx(5 * scale, rel=1e-12)
    np.testing.assert_allclose(clipped, gradient * min(1.0, 0.5 / (norm + 1e-6)), rtol=1e-12)


@pytest.mark.parametrize("entry, norm", [(np.inf, np.inf), (-np.inf, np.inf), (np.nan, np.nan)])
def test_a_gradient_that_is_not_finite_is_left_as_it_is_and_its_norm_says_so(entry, norm):
    gradient = np.array([1.0, entry])
    clipped, found = lt.clip(gradient, 1.0)
    np.testing.assert_array_equal(clipped, gradient)
    np.testing.assert_equal(found, norm)


def test_integers_are_clipped_as_numbers():
    clipped, norm = lt.clip(np.array([3, 4]), 1.0)
    assert norm == 5.0 and clipped.dtype == np.float64
    np.testing.assert_allclose(clipped, [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(lt.clip([3, 4], 1.0)[0], clipped)


@pytest.mark.parametrize("gradient, message", [
    (np.array([1 + 2j, 0]), "gradient must hold real numbers, not dtype complex128"),
    (np.ma.masked_equal([1.0, 2.0], 2), "gradient: masked arrays are not supported: fill or drop the masked entries"),
    (np.ones((2, 2)), r"gradient must have shape \(p,\) with p at least 1, not \(2, 2\)"),
    (np.ones(0), r"gradient must have shape \(p,\) with p at least 1, not \(0,\)"),
    (np.ones(2, np.float16), "gradient must not be of dtype float16, which ends at 65504;.*"),
    (None, "gradient must hold numbers, but one entry is None"),
    ("abc", "gradient must hold real or complex numbers, not dtype <U3"),
    (np.array([True, False]), "gradient must hold real or complex numbers, not dtype bool"),
])
def test_what_cannot_be_clipped_is_refused(gradient, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        lt.clip(gradient, 1.0)
