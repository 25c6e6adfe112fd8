"""The fast path of softmax attention is the reference, at every size; in few bytes, under threads, for any scores."""

import threading
import tracemalloc

import numpy as np
import pytest
from cases import relative_error
from hypothesis import example, given
from hypothesis import strategies as st

import lintransformer as lt
from lintransformer.kernels.softmax import SHIFT_FROM
from lintransformer.verification.reference import predict_by_loops

TOLERANCE = {"float64": 1e-11, "float32": 2e-5}

masks = st.sampled_from(["after", "before"])
parametrizations = st.sampled_from(["block", "full", "separate"])


def softmax_model(layers, dimension, scale=0.4, **options):
    return lt.build_model(layers, dimension, attention="softmax", init_scale=scale / np.sqrt(dimension), **options)


def assert_equal(model, workspace, theta, batch, tolerance):
    """Value, losses and gradient, in units of what they are differences of."""
    wide = theta.astype(float), batch.astype(float)
    expected_value, expected = lt.value_and_gradient(model, *wide)
    predictions = lt.predict(model, *wide)
    size = (predictions**2 + batch.target**2).max()
    value, gradient = workspace.value_and_gradient(theta, batch)
    losses = workspace.prompt_losses(theta, batch)
    assert gradient.dtype == losses.dtype == workspace.dtype
    assert abs(value - expected_value) < tolerance * size
    assert abs(losses - (predictions - batch.target) ** 2).max() < tolerance * size
    assert abs(gradient - expected).max() < tolerance * max(abs(expected).max(), 0.1 * size)     # it may be 0, as a sum


@given(layers=st.integers(1, 4), heads=st.integers(1, 3), dimension=st.integers(1, 11), context=st.integers(1, 8),
       count=st.integers(1, 9), chunk=st.sampled_from([None, 1, 2, 4]), mask=masks, parametrization=parametrizations,
       dtype=st.sampled_from(["float64", "float32"]), seed=st.integers(0, 2**32 - 1))
@example(layers=3, heads=2, dimension=5, context=7, count=9, chunk=4, mask="after", parametrization="full",
         dtype="float64", seed=0)                                            # two chunks and a rest
@example(layers=4, heads=1, dimension=11, context=1, count=3, chunk=2, mask="before", parametrization="separate",
         dtype="float32", seed=1)                                            # one key: its weight is 1
def test_fast_path_equals_the_reference(layers, heads, dimension, context, count, chunk, mask, parametrization, dtype,
                                        seed):
    model = softmax_model(layers, dimension, heads=heads, mask=mask, parametrization=parametrization)
    workspace, rng = lt.Workspace(model, count, dtype, chunk), np.random.default_rng(seed)
    assert workspace.is_fast
    for _ in range(2):                                                       # the second call meets used buffers
        theta, batch = model.init(rng, dtype), lt.PromptDistribution(dimension, context).draw(rng, count, dtype)
        assert_equal(model, workspace, theta, batch, TOLERANCE[dtype])


@given(mask=masks, parametrization=parametrizations, heads=st.integers(1, 2), size=st.sampled_from([1, 39, 41, 1000]),
       dtype=st.sampled_from(["float64", "float32"]), seed=st.integers(0, 2**32 - 1))
def test_scores_of_any_size(mask, parametrization, heads, size, dtype, seed):
    """Scaled so that the largest score is `size`: on both sides of SHIFT_FROM, and far beyond exp."""
    model = softmax_model(1, 3, heads=heads, mask=mask, parametrization=parametrization)
    rng = np.random.default_rng(seed)
    theta, batch = model.init(rng), lt.PromptDistribution(3, 5).draw(rng, 6)
    part = model.parametrization
    Q = part.dense(*part.matrices(model.stacked(theta)))[1][0]
    largest = abs(np.einsum("bdi,hde,bej->bhij", batch.Z, Q, batch.Z)).max()
    named = model.unpack(theta)
    for name in named:
        if name.startswith(("Q", "W_q")):
            named[name][...] *= size / largest
    theta, batch = theta.astype(dtype), batch.astype(dtype)
    workspace = lt.Workspace(model, 6, dtype, chunk=4)
    value, gradient = workspace.value_and_gradient(theta, batch)
    expected = predict_by_loops(model, theta.astype(float), batch.astype(float), shift=True)
    error = TOLERANCE[dtype] * max(1, size)                                  # a score's own rounding, relative to it
    assert np.isfinite(value) and np.isfinite(gradient).all()
    losses = workspace.prompt_losses(theta, batch)
    assert abs(losses - (expected - batch.target) ** 2).max() < error * (expected**2 + batch.target**2).max()
    assert_equal(model, workspace, theta, batch, error)


def test_scores_are_shifted_from_where_they_are_large():
    """The constant's reason: what is made of exp(40) stays far inside float32."""
    largest, smallest = np.finfo(np.float32).max, np.finfo(np.float32).tiny
    assert 10_000 * np.exp(SHIFT_FROM) < largest / 1e12 and np.exp(-SHIFT_FROM) / 10_000 > smallest * 1e12


@pytest.mark.parametrize("mask", ["after", "before"])
def test_a_large_score_of_the_query_with_itself(mask):
    """With mask "before" it must not be what is subtracted: every key of the context would vanish."""
    model = softmax_model(2, 2, mask=mask, parametrization="full")
    theta, Z = np.zeros(model.size), np.random.default_rng(0).standard_normal((3, 3, 5))
    model.unpack(theta)["Q[0,0]"][...] = np.diag([30.0, 30.0, 0.0])
    model.unpack(theta)["P[0,0]"][...] = np.eye(3)
    model.unpack(theta)["P[1,0]"][...] = np.eye(3)
    Z[:, :2, -1], Z[:, 2, -1] = 10, 0                                        # z . Q z = 6000
    batch = lt.Prompts(Z, np.ones(3))
    for dtype in ("float64", "float32"):
        losses = lt.Workspace(model, 3, dtype).prompt_losses(theta, batch)
        assert relative_error(losses, lt.prompt_losses(model, theta, batch)) < 1e3 * TOLERANCE[dtype]


def test_prompts_that_are_not_finite_give_what_the_reference_gives():
    model, rng = softmax_model(2, 3), np.random.default_rng(0)
    theta, batch = model.init(rng), lt.PromptDistribution(3, 4).draw(rng, 5)
    Z = batch.Z.copy()
    Z[2, 0, 1] = np.nan
    batch = lt.Prompts(Z, batch.target)
    with np.errstate(all="ignore"):
        found = lt.Workspace(model, 5, chunk=2).prompt_losses(theta, batch)
        expected = lt.prompt_losses(model, theta, batch)
    assert np.array_equal(np.isnan(found), np.isnan(expected)) and np.isnan(found).sum() == 1


@pytest.mark.parametrize("mask", ["after", "before"])
def test_a_step_allocates_little(mask):
    """S1, after warm-up: less than 100 kB, drawing included."""
    model = lt.build_model(attention="softmax", mask=mask)
    sampler, rng = lt.PromptDistribution().sampler(1000, np.float32, "tokens"), lt.stream(0, "training")
    workspace, theta = lt.Workspace(model, 1000, "float32"), model.init(rng, np.float32)
    allocated = []
    tracemalloc.start()
    for _ in range(3):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        workspace.value_and_gradient(theta, sampler.draw(rng))
        allocated.append(tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    assert max(allocated[1:]) < 100_000


def test_another_context_length_takes_the_place_of_the_first():
    model, rng = softmax_model(2, 3), np.random.default_rng(0)
    workspace, theta = lt.Workspace(model, 5, chunk=2), model.init(rng)
    for context in (4, 6, 4, 1):
        batch = lt.PromptDistribution(3, context).draw(rng, 5)
        assert_equal(model, workspace, theta, batch, 1e-11)
        assert len(workspace._fast._local.by_size) == 2                      # two prompts, and one


def test_threads_share_a_workspace():
    model, rng = softmax_model(3, 4, heads=2), np.random.default_rng(0)
    workspace = lt.Workspace(model, 40, chunk=16)
    points = [(model.init(rng), lt.PromptDistribution(4, 5 + i).draw(rng, 40)) for i in range(4)]
    expected = [lt.Workspace(model, 40, chunk=16).value_and_gradient(*point)[1] for point in points]
    wrong = []

    def work(i):
        for _ in range(20):
            if not np.array_equal(workspace.value_and_gradient(*points[i])[1], expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_gradient_is_not_overwritten_by_the_next_call():
    model, rng = softmax_model(2, 3), np.random.default_rng(0)
    workspace, distribution, theta = lt.Workspace(model, 8), lt.PromptDistribution(3, 4), model.init(rng)
    first, losses = (workspace.value_and_gradient(theta, batch := distribution.draw(rng, 8))[1],
                     workspace.prompt_losses(theta, batch))
    kept = first.copy(), losses.copy()
    workspace.value_and_gradient(theta, distribution.draw(rng, 8))
    assert np.array_equal(first, kept[0]) and np.array_equal(losses, kept[1])
