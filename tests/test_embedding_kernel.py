"""The fast path of the embedding is the reference, before every kernel that pulls back."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_softmax_kernel import TOLERANCE, assert_equal, masks, parametrizations

import lintransformer as lt
from lintransformer.kernels.embedding import GramOfTokens, MLPKernel
from lintransformer.kernels.evaluator import EmbeddedEvaluator, SoftmaxEvaluator
from lintransformer.layers.embedding import MLPEmbedding


def distance_to_a_kink(model, theta, batch):
    """The smallest |W1 x + b1|, in units of its terms: in float32 a unit this near may count as on the other side."""
    part = model.unpack(theta)
    H = np.einsum("hd,bdi->bhi", part["W1"], batch.Z[:, :-1]) + part["b1"][:, None]
    return abs(H).min() / (abs(part["W1"]).max() * abs(batch.Z).max())


@given(attention=st.sampled_from(["linear", "softmax"]), layers=st.integers(1, 4), heads=st.integers(1, 3),
       dimension=st.integers(1, 11), hidden=st.integers(1, 7), context=st.integers(1, 8), count=st.integers(1, 9),
       chunk=st.sampled_from([None, 1, 2, 4]), mask=masks, parametrization=parametrizations,
       dtype=st.sampled_from(["float64", "float32"]), seed=st.integers(0, 2**32 - 1))
@example(attention="linear", layers=3, heads=1, dimension=5, hidden=6, context=7, count=9, chunk=4, mask="after",
         parametrization="full", dtype="float64", seed=0)                    # two chunks and a rest
@example(attention="softmax", layers=2, heads=2, dimension=3, hidden=4, context=5, count=5, chunk=2, mask="before",
         parametrization="separate", dtype="float32", seed=1)
def test_fast_path_equals_the_reference(attention, layers, heads, dimension, hidden, context, count, chunk, mask,
                                        parametrization, dtype, seed):
    """init_scale is small: linear attention with full P and Q overflows float32 in four layers otherwise."""
    model = lt.build_model(layers, dimension, attention=attention, heads=heads, embedding=hidden, mask=mask,
                           parametrization=parametrization, init_scale=0.2 / np.sqrt(dimension * heads))
    workspace, rng = lt.Workspace(model, count, dtype, chunk), np.random.default_rng(seed)
    assert workspace.is_fast
    for _ in range(2):                                                       # the second call meets used buffers
        theta, batch = model.init(rng, dtype), lt.PromptDistribution(dimension, context).draw(rng, count, dtype)
        if distance_to_a_kink(model, theta, batch) > 1e-6:
            assert_equal(model, workspace, theta, batch, TOLERANCE[dtype])


@given(hidden=st.integers(1, 7), dimension=st.integers(1, 6), tokens=st.integers(1, 5), prompts=st.integers(1, 5),
       seed=st.integers(0, 2**32 - 1))
def test_the_embedding_alone_equals_its_layer(hidden, dimension, tokens, prompts, seed):
    """embed and pull, in either order of the axes behind the features, of generic adjoints."""
    rng, layer = np.random.default_rng(seed), MLPEmbedding(hidden, dimension)
    weights = layer.init(rng)
    Z, dZ = rng.standard_normal((2, dimension + 1, tokens, prompts))
    expected, cache = layer.forward(weights, Z)
    gradients = layer.backward(cache, dZ)[1]
    first, second = np.column_stack(weights[:2]), np.column_stack(weights[2:])
    for axes in ((0, 1, 2), (0, 2, 1)):
        kernel, dfirst, dsecond = MLPKernel(hidden, dimension, tokens * prompts, float), 0 * first, 0 * second
        np.testing.assert_allclose(kernel.embed(first, second, Z.transpose(axes)), expected.transpose(axes), atol=1e-12)
        kernel.pull(second, dZ.transpose(axes), dfirst, dsecond)
        for column, W, b in ((dfirst, *gradients[:2]), (dsecond, *gradients[2:])):
            np.testing.assert_allclose(column, np.column_stack([W, b]), atol=1e-12)


def test_a_unit_on_its_kink_has_derivative_0():
    model = lt.build_model(1, 2, parametrization="full", embedding=3)
    rng = np.random.default_rng(0)
    theta, batch = model.init(rng), lt.PromptDistribution(2, 4).draw(rng, 3)
    for name in ("W1", "b1"):
        model.unpack(theta)[name][1] = 0
    gradient = lt.Workspace(model, 3).value_and_gradient(theta, batch)[1]
    named = model.unpack(gradient)
    assert not named["W1"][1].any() and named["b1"][1] == 0 and not named["W2"][:, 1].any() and named["W2"].any()
    np.testing.assert_allclose(gradient, lt.gradient(model, theta, batch), atol=1e-13)


class FixedGramKernel:
    """A reader's kernel that pulls back: prediction = sum of G * C + c . z, whose adjoints are C and c."""

    def __init__(self, C, c):
        self.C, self.c = C, c

    def forward(self, w, G, z):
        return w * (np.einsum("ij,ijb->b", self.C, G) + self.c @ z)

    def backward(self, w, dprediction, dw):
        return self.C[..., None] * (w * dprediction), self.c[:, None] * (w * dprediction)


def test_gram_statistics_lead_to_any_kernel_and_back():
    rng, d, n, c = np.random.default_rng(0), 3, 4, 5
    C, w = rng.standard_normal((d + 1, d + 1)), 1.7
    kernel = GramOfTokens(FixedGramKernel(C + C.T, rng.standard_normal(d + 1)), d, n, c, complex)
    Z, direction = rng.standard_normal((2, d + 1, n + 1, c))
    direction[-1], dprediction = 0, rng.standard_normal(c)                   # responses are data
    slope = (kernel.forward(w, Z + 1e-20j * direction) @ dprediction).imag / 1e-20
    kernel.forward(w, Z.astype(complex))
    assert abs(np.sum(kernel.backward(w, dprediction, None) * direction[:-1]) - slope) < 1e-12 * abs(slope)


def test_the_evaluator_behind_can_be_exchanged():
    """A softmax evaluator handed over by hand is the one that the model makes."""
    model = lt.build_model(2, 3, attention="softmax", embedding=4)
    rng, dtype = np.random.default_rng(0), np.dtype("float64")
    theta, batch = model.init(rng), lt.PromptDistribution(3, 4).draw(rng, 6)
    behind = SoftmaxEvaluator(False, 2, model.parametrization, 6, dtype)
    value, gradient = EmbeddedEvaluator(behind, model.embedding, chunk=4).value_and_gradient(theta, batch)
    expected = lt.Workspace(model, 6, chunk=4).value_and_gradient(theta, batch)
    assert value == expected[0] and np.array_equal(gradient, expected[1])


@pytest.mark.parametrize("attention", ["linear", "softmax"])
def test_a_gradient_keeps_no_more_than_a_chunk(attention):
    """The embedding's own arrays are reused: 8 chunks allocate as much as 1."""
    model = lt.build_model(3, 5, attention=attention, parametrization="full", embedding=30)
    rng, peaks = np.random.default_rng(0), []
    theta = model.init(rng, "float32")
    for count in (50, 400):
        workspace = lt.Workspace(model, count, "float32", chunk=50)
        batch = lt.PromptDistribution().draw(rng, count, "float32")
        workspace.value_and_gradient(theta, batch)
        tracemalloc.start()
        workspace.value_and_gradient(theta, batch)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 10_000
