"""The kernels of linear attention are the layers, at every size, whatever the rule picks; so is what is pulled back."""

import threading
import tracemalloc

import numpy as np
import pytest
from cases import relative_error
from hypothesis import example, given
from hypothesis import strategies as st

import lintransformer as lt
from lintransformer.kernels.block import BlockGramKernel
from lintransformer.kernels.evaluator import GramEvaluator, kernel_for
from lintransformer.kernels.vectors import BlockVectorsKernel, FullVectorsKernel, products
from lintransformer.layers.compose import Chain
from lintransformer.layers.gram import Gram

KERNELS = {"full": [FullVectorsKernel], "block": [BlockVectorsKernel, BlockGramKernel],
           "separate": [BlockVectorsKernel, BlockGramKernel]}
every_kernel = pytest.mark.parametrize("parametrization, kernel", [(name, kernel) for name, kernels in KERNELS.items()
                                                                  for kernel in kernels])


def point(parametrization, layers, heads, dimension, context, count, seed=0):
    """Entries small enough for every layer to matter, whatever the depth."""
    scale = 0.8 / max(2, layers) / max(1, dimension / 4) / heads
    model = lt.build_model(layers, dimension, heads=heads, parametrization=parametrization, init_scale=scale)
    rng = np.random.default_rng(seed)
    return model, model.init(rng), lt.PromptDistribution(dimension, context).draw(rng, count)


@given(layers=st.integers(1, 4), heads=st.integers(1, 3), dimension=st.sampled_from([1, 2, 3, 5, 10]),
       context=st.integers(1, 7), count=st.integers(1, 9), chunk=st.sampled_from([None, 1, 4]),
       seed=st.integers(0, 2**32 - 1), parametrization=st.sampled_from(list(KERNELS)),
       dtype=st.sampled_from(["float64", "float32"]))
@example(layers=3, heads=2, dimension=2, context=5, count=9, chunk=4, seed=0, parametrization="full",
         dtype="float64")
@example(layers=3, heads=2, dimension=2, context=5, count=9, chunk=4, seed=0, parametrization="separate",
         dtype="float32")
def test_every_kernel_equals_the_layers(layers, heads, dimension, context, count, chunk, seed, parametrization, dtype):
    """At every depth, not only where the rule picks it."""
    if products(layers, heads) > 400:
        return
    tolerance = 1e-11 if dtype == "float64" else 2e-5
    for kernel in KERNELS[parametrization]:
        model, theta, batch = point(parametrization, layers, heads, dimension, context, count, seed)
        evaluator = GramEvaluator(kernel, layers, model.parametrization, count, np.dtype(dtype), chunk)
        for _ in range(2):                                                   # the second call meets used buffers
            theta = 0.9 * theta
            value, gradient = evaluator.value_and_gradient(theta.astype(dtype), batch)
            expected_value, expected_gradient = lt.value_and_gradient(model, theta, batch)
            size = (lt.predict(model, theta, batch) ** 2 + batch.target**2).max()        # losses are their difference
            assert gradient.dtype == dtype and abs(value - expected_value) < tolerance * size
            largest = abs(expected_gradient).max()
            assert abs(gradient - expected_gradient).max() < tolerance * max(largest, size)
            losses = evaluator.losses(theta.astype(dtype), batch)
            assert abs(losses - lt.prompt_losses(model, theta, batch)).max() < tolerance * size


@given(layers=st.integers(1, 4), heads=st.integers(1, 2), dimension=st.sampled_from([1, 2, 4, 10]),
       count=st.integers(1, 6), seed=st.integers(0, 2**32 - 1), parametrization=st.sampled_from(list(KERNELS)))
@example(layers=3, heads=2, dimension=4, count=3, seed=1, parametrization="block")
@example(layers=4, heads=1, dimension=2, count=3, seed=1, parametrization="full")
def test_what_is_pulled_back_are_the_adjoints_of_the_layers(layers, heads, dimension, count, seed, parametrization):
    """dG and dz of any weights of the predictions, as the chain of layers hands them to an embedding."""
    if products(layers, heads) > 400:
        return
    model, theta, batch = point(parametrization, layers, heads, dimension, 5, count, seed)
    weights = np.random.default_rng(seed).standard_normal(count)
    gram = batch.gram()
    G, z = np.moveaxis(gram.G, 0, -1), np.moveaxis(gram.z, 0, -1)
    chain = Chain(*model.model.layers)
    prediction, cache = chain.forward(model.weights(theta), Gram(G, z, gram.context_length))
    (expected_dG, expected_dz), _ = chain.backward(cache, weights)
    P, Q = model.parametrization.matrices(model.stacked(theta))
    for kernel in KERNELS[parametrization]:
        made = kernel(layers, heads, dimension, count, np.dtype("float64"), pulls_back=True)
        for _ in range(2):
            dP, dQ = np.zeros_like(P), np.zeros_like(Q)
            assert relative_error(made.forward(P, Q / gram.context_length, G, z), prediction) < 1e-11
            dG, dz = made.backward(P, Q / gram.context_length, weights, dP, dQ)
            size = max(abs(expected_dG).max(), abs(expected_dz).max())
            assert abs(dG - dG.swapaxes(0, 1)).max() < 1e-13 * size              # an embedding doubles it, eq. 5.7
            assert abs(dG - expected_dG).max() < 1e-11 * size and abs(dz - expected_dz).max() < 1e-11 * size
            gradient = model.parametrization.pullback(model.stacked(theta), dP, dQ / gram.context_length).ravel()
            assert relative_error(gradient, model.backward(cache, weights)) < 1e-10


@every_kernel
def test_prompts_may_lie_first_or_last_in_memory(parametrization, kernel):
    """A sampler's lie last, and are read where they are; any others are copied, and converted."""
    model, theta, batch = point(parametrization, 3, 1, 4, 6, 7)
    gram = batch.gram()
    last = lt.GramPrompts(np.moveaxis(np.ascontiguousarray(np.moveaxis(gram.G, 0, -1)), -1, 0), gram.z, gram.target, 6)
    first = lt.GramPrompts(np.ascontiguousarray(gram.G), np.ascontiguousarray(gram.z), gram.target, 6)
    evaluator = GramEvaluator(kernel, 3, model.parametrization, 7, np.dtype("float64"))
    found = [evaluator.value_and_gradient(theta, prompts)[1] for prompts in (last, first, last.astype("float32"))]
    assert np.array_equal(found[0], found[1]) and 0 < relative_error(found[2], found[0]) < 1e-5


@pytest.mark.parametrize("name, layers, heads, dimension, kernel", [
    ("full", 1, 1, 5, FullVectorsKernel), ("full", 3, 1, 5, FullVectorsKernel), ("full", 4, 1, 5, FullVectorsKernel),
    ("full", 5, 1, 5, None), ("full", 5, 1, 20, FullVectorsKernel), ("full", 3, 2, 5, FullVectorsKernel),
    ("full", 4, 2, 5, None), ("full", 4, 1, 2, None),
    ("block", 2, 1, 5, BlockVectorsKernel), ("block", 3, 1, 5, BlockGramKernel), ("block", 3, 1, 6, BlockVectorsKernel),
    ("block", 3, 2, 9, BlockGramKernel), ("separate", 3, 2, 20, BlockVectorsKernel),
    ("block", 4, 1, 20, BlockVectorsKernel), ("block", 8, 1, 20, BlockGramKernel),
    ("separate", 4, 1, 9, BlockGramKernel),
])
def test_the_rule_picks_what_was_measured_to_be_faster(name, layers, heads, dimension, kernel):
    model = lt.build_model(layers, dimension, heads=heads, parametrization=name)
    assert kernel_for(model.parametrization, layers) is kernel
    assert lt.Workspace(model, 4).is_fast == (kernel is not None)


@pytest.mark.parametrize("options", [dict(parametrization="full"), dict(layers=2), dict(dimension=6)])
def test_a_step_allocates_little(options):
    model = lt.build_model(**{"layers": 3, "dimension": 5, **options})
    sampler = lt.PromptDistribution(model.dimension).sampler(1000, np.float32)
    workspace, rng = lt.Workspace(model, 1000, "float32"), np.random.default_rng(0)
    theta = model.init(rng, np.float32)
    workspace.value_and_gradient(theta, sampler.draw(rng))
    tracemalloc.start()
    for _ in range(3):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        workspace.value_and_gradient(theta, sampler.draw(rng))
        allocated = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    buffers = 0 if np.lib.NumpyVersion(np.__version__) >= "2.4.0" else 10_000  # einsum's were larger
    assert allocated < 100_000 + buffers


@every_kernel
def test_threads_share_an_evaluator(parametrization, kernel):
    model, theta, batch = point(parametrization, 3, 2, 3, 6, 40)
    evaluator = GramEvaluator(kernel, 3, model.parametrization, 40, np.dtype("float64"), chunk=7)
    points = [theta * scale for scale in (0.5, 1.0, 0.8, -1.0)]
    expected, found = [evaluator.value_and_gradient(theta, batch)[1] for theta in points], [None] * 4

    def work(i):
        for _ in range(20):
            found[i] = evaluator.value_and_gradient(points[i], batch)[1]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(found, expected))
