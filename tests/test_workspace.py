"""The fast path is the reference, at every size; and it neither grows with n nor allocates in the loop."""

import tracemalloc

import numpy as np
import pytest
from cases import relative_error
from hypothesis import example, given
from hypothesis import strategies as st

import lintransformer as lt
from lintransformer.optimizers import clip


@given(layers=st.integers(1, 5), heads=st.integers(1, 3), dimension=st.sampled_from([1, 2, 3, 5, 10, 11]),
       context=st.integers(1, 7), count=st.integers(1, 9), chunk=st.sampled_from([None, 1, 4]),
       seed=st.integers(0, 2**32 - 1), parametrization=st.sampled_from(["block", "separate"]))
@example(layers=3, heads=1, dimension=3, context=4, count=9, chunk=4, seed=0, parametrization="block")
@example(layers=2, heads=2, dimension=10, context=4, count=7, chunk=5, seed=0, parametrization="separate")
def test_fast_path_equals_the_reference(layers, heads, dimension, context, count, chunk, seed, parametrization):
    """Both memory layouts are met: d below and from BLAS_FROM_DIMENSION = 10 on."""
    scale = 0.4 / max(1, dimension / 5)
    model = lt.build_model(layers, dimension, heads=heads, parametrization=parametrization, init_scale=scale)
    rng = np.random.default_rng(seed)
    workspace = lt.Workspace(model, count, chunk=chunk)
    for _ in range(2):                                                       # the second call meets used buffers
        theta, batch = model.init(rng), lt.PromptDistribution(dimension, context).draw(rng, count)
        value, gradient = workspace.value_and_gradient(theta, batch)
        expected_value, expected_gradient = lt.value_and_gradient(model, theta, batch)
        losses = lt.prompt_losses(model, theta, batch)
        size = (lt.predict(model, theta, batch) ** 2 + batch.target**2).max()    # losses are their difference
        assert abs(value - expected_value) < 1e-11 * size
        assert relative_error(gradient, expected_gradient) < 1e-10 or abs(expected_gradient).max() < 1e-12
        assert abs(workspace.prompt_losses(theta, batch) - losses).max() < 1e-11 * size


@pytest.mark.parametrize("options", [dict(attention="relu"), dict(attention="relu", embedding=4), dict(form="token"),
                                     dict(layers=5, parametrization="full")])
def test_models_without_a_fast_path_use_the_reference(options):
    model, rng = lt.build_model(**{"layers": 2, "dimension": 3, **options}), np.random.default_rng(0)
    theta, batch = model.init(rng), lt.PromptDistribution(3, 5).draw(rng, 4)
    assert not lt.Workspace(model, 4).is_fast
    value, gradient = lt.Workspace(model, 4).value_and_gradient(theta, batch)
    expected_value, expected_gradient = lt.value_and_gradient(model, theta, batch)
    assert value == expected_value and np.array_equal(gradient, expected_gradient)


@pytest.mark.parametrize("options", [dict(), dict(attention="softmax"), dict(parametrization="full")])
def test_a_workspace_computes_in_its_own_dtype(options):
    model, rng = lt.build_model(2, 3, **options), np.random.default_rng(0)
    theta, batch = model.init(rng), lt.PromptDistribution(3, 5).draw(rng, 4)
    assert lt.Workspace(model, 4, "float32").value_and_gradient(theta, batch)[1].dtype == np.float32
    narrow = batch.astype(np.float32)
    assert lt.Workspace(model, 4, "float64").value_and_gradient(theta.astype(np.float32), narrow)[1].dtype == float


@pytest.mark.parametrize("count, chunk", [(9, 4), (8, 4), (5, 4), (3, 4), (7, 1), (1300, None)])
def test_every_chunk_counts_and_the_rest_too(count, chunk):
    """Value, gradient and losses over whole chunks and what is left; d = 20 works in chunks of 625 by default."""
    dimension = 20 if chunk is None else 3
    model = lt.build_model(2, dimension, init_scale=0.2 if chunk else 0.02)
    theta, batch = model.init(np.random.default_rng(0)), _batch(dimension, count)
    workspace = lt.Workspace(model, count, chunk=chunk)
    assert chunk or workspace._fast.prompts_at_once(6) == 625
    value, gradient = workspace.value_and_gradient(theta, batch)
    parts = [lt.value_and_gradient(model, theta, batch.take([i])) for i in range(0, count, 1 if chunk else 100)]
    expected_value, expected_gradient = lt.value_and_gradient(model, theta, batch)
    assert np.isclose(value, expected_value, rtol=1e-12) and relative_error(gradient, expected_gradient) < 1e-11
    losses = workspace.prompt_losses(theta, batch)
    assert losses.shape == (count,) and np.isclose(losses.mean(), value, rtol=1e-12)
    assert np.allclose(losses[::1 if chunk else 100], [part[0] for part in parts], rtol=1e-10)


def test_a_float32_workspace_computes_in_float32():
    """Down to the kernel's buffers: one of float64 among them would make each product twice as slow."""
    model, batch = lt.build_model(2, 3), _batch(3, 4)
    workspace = lt.Workspace(model, 4, "float32")
    workspace.value_and_gradient(model.init(np.random.default_rng(0)), batch)
    kernel, = workspace._fast._local.by_size.values()
    arrays = [array for array in vars(kernel).values() if isinstance(array, np.ndarray)]
    assert len(arrays) > 10 and {array.dtype for array in arrays} == {np.dtype("float32")}


def test_a_gradient_is_not_overwritten_by_the_next_call():
    model, rng = lt.build_model(), np.random.default_rng(0)
    workspace, distribution = lt.Workspace(model, 8), lt.PromptDistribution()
    theta = model.init(rng)
    first = workspace.value_and_gradient(theta, distribution.draw_gram(rng, 8))[1]
    kept = first.copy()
    workspace.value_and_gradient(theta, distribution.draw_gram(rng, 8))
    assert np.array_equal(first, kept)


def allocation_of_a_step(context_length):
    """Peak bytes allocated by a training step after the first."""
    model, distribution = lt.build_model(), lt.PromptDistribution(context_length=context_length)
    sampler, rng = distribution.sampler(1000, np.float32), lt.stream(0, "training")
    workspace, optimizer = lt.Workspace(model, 1000, "float32"), lt.Adam(0.01)
    theta = model.init(rng, np.float32)
    state = optimizer.init(theta)
    tracemalloc.start()
    for _ in range(3):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        gradient = workspace.value_and_gradient(theta, sampler.draw(rng))[1]
        theta, state = optimizer.update(state, theta, clip(gradient, 1.0)[0])
        allocated = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return allocated


def test_a_step_allocates_little_and_no_more_for_a_long_context():
    short, long = allocation_of_a_step(20), allocation_of_a_step(10_000)
    assert short < 120_000 and long <= short + 1000         # 73,000; NumPy 2.0 has one more buffer in einsum


def test_cost_does_not_grow_with_the_context():
    """The arrays a gradient reads and writes have the same sizes for n = 20 and n = 10,000."""
    sizes = []
    for context_length in (20, 10_000):
        sampler = lt.PromptDistribution(context_length=context_length).sampler(50, np.float32)
        batch = sampler.draw(lt.stream(0, "training"))
        sizes.append((batch.G.nbytes, batch.z.nbytes, sum(value.nbytes for value in vars(sampler).values()
                                                           if isinstance(value, np.ndarray))))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("wrong, message", [
    (lambda: lt.Workspace(lt.build_model(), 0), "batch size must be an integer of at least 1, not 0"),
    (lambda: lt.Workspace(lt.build_model(), 4, "int32"), "dtype 'int32' is not known; allowed: float32, float64"),
    (lambda: lt.Workspace(lt.build_model(), 4).value_and_gradient(np.zeros(150), _batch(5, 3)),
     "batch holds 3 prompts, but the workspace was made for 4"),
    (lambda: lt.Workspace(lt.build_model(), 2).value_and_gradient(np.zeros(150), _batch(5, 3)),
     "batch holds 3 prompts, but the workspace was made for 2"),
    (lambda: lt.Workspace(lt.build_model(), 4, chunk=-1), "chunk must be an integer of at least 1, not -1"),
    (lambda: lt.Workspace(lt.build_model(), 4).value_and_gradient(np.zeros(150), np.zeros(4)),
     "batch must be Prompts or GramPrompts, not ndarray"),
    (lambda: lt.Workspace(lt.build_model(), 3).value_and_gradient(np.zeros(150, complex), _batch(5, 3)),
     "a workspace computes with real numbers, not dtypes complex128 and float64"),
    (lambda: lt.Workspace(lt.build_model(), 3).value_and_gradient(np.zeros(150), _batch(4, 3)),
     "batch has dimension 4, but the model has dimension 5"),
])
def test_refusals(wrong, message):
    with pytest.raises(lt.InputError, match=f"^{message}$"):
        wrong()


def _batch(dimension, count):
    return lt.PromptDistribution(dimension, 6).draw_gram(np.random.default_rng(0), count)
