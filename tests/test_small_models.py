"""Layers that are not the paper's, one by one and composed: a two-block GPT, a convolution net, an LSTM."""

import numpy as np
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from small_attention import CausalAttention
from small_images import LSTM, AveragePool, Convolution, Flatten, MeanOverTime
from small_layers import GELU, Dense, FeedForward, LayerNorm, ReLU, RMSNorm, Sinusoids, Tanh, TokenEmbedding
from small_models import MODELS, convolution_net, gpt, recurrent

import lintransformer as lt
from lintransformer.checks import InputError
from lintransformer.layers.compose import has_tangents
from lintransformer.verification import (assert_close, check_gradient, check_hessian, check_vjp, relative_error,
                                         strategies, taylor_test)

# a layer, and the shape of what it reads; axes of a layer all differ
LAYERS = {
    "dense": (Dense(3, 5), (2, 4, 3)),
    "dense, a vector": (Dense(3, 5), (4, 3)),
    "embedding": (TokenEmbedding(7, 3), None),
    "embedding, learned positions": (TokenEmbedding(7, 3, positions=5), None),
    "sinusoids": (Sinusoids(), (2, 4, 5)),
    "layer norm": (LayerNorm(5), (2, 3, 5)),
    "RMS norm": (RMSNorm(5), (2, 3, 5)),
    "attention, 1 head": (CausalAttention(3), (2, 4, 3)),
    "attention, 2 heads": (CausalAttention(6, heads=2), (3, 4, 6)),
    "feed forward, GELU": (FeedForward(3, 4), (2, 5, 3)),
    "feed forward, ReLU": (FeedForward(3, 4, ReLU()), (2, 5, 3)),
    "GELU": (GELU(), (2, 3)),
    "tanh": (Tanh(), (2, 3)),
    "ReLU": (ReLU(), (2, 3)),
    "convolution": (Convolution(2, 3, 2), (4, 2, 5, 6)),
    "convolution, stride and padding": (Convolution(2, 3, 3, stride=2, padding=1), (4, 2, 5, 6)),
    "average pool": (AveragePool(2), (3, 5, 2, 4)),
    "flatten": (Flatten(), (2, 3, 4)),
    "LSTM, last state": (LSTM(3, 2), (4, 5, 3)),
    "LSTM, all states": (LSTM(3, 2, last=False), (4, 5, 3)),
    "mean over time": (MeanOverTime(), (2, 4, 3)),
    "sum of two embeddings": (lt.Sum(TokenEmbedding(7, 3), TokenEmbedding(7, 3)), None),
    "residual of nested chains": (lt.Residual(lt.Chain(RMSNorm(3), lt.Chain([Dense(3, 4), Tanh()])), Dense(4, 3)),
                                  (2, 5, 3)),
    "sum beside a residual": (lt.Sum(lt.Residual(Dense(3, 3)), lt.Chain(), Tanh()), (2, 4, 3)),
}
ANALYTIC = sorted(set(LAYERS) - {"ReLU", "feed forward, ReLU"})
WITH_TANGENTS = sorted(name for name in LAYERS if has_tangents(LAYERS[name][0]))


@st.composite
def arrays_of(draw, layer, shape):
    """{"w0": ..., "x": ...}: generic weights, and generic numbers or tokens to read."""
    arrays = {f"w{i}": draw(strategies.generic(shape)) for i, shape in enumerate(layer.shapes)}
    if shape is None:
        arrays["x"] = np.array(draw(st.permutations(range(7))) + [2]).reshape(2, 4)      # one token comes twice
    else:
        smooth = getattr(layer, "smooth", True)
        arrays["x"] = draw(strategies.generic(shape) if smooth else strategies.away_from(shape))
    return arrays


def weights_of(layer, arrays):
    return [arrays[f"w{i}"] for i in range(len(layer.shapes))]


def forward_of(layer):
    return lambda **arrays: layer.forward(weights_of(layer, arrays), arrays["x"])[0]


def backward_of(layer):
    def backward(dy, **arrays):
        dx, dw = layer.backward(layer.forward(weights_of(layer, arrays), arrays["x"])[1], dy)
        moved = {f"w{i}": gradient for i, gradient in enumerate(dw)}
        return moved if dx is None else {"x": dx} | moved
    return backward


@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=3, phases=[Phase.generate])
@given(data=st.data())
def test_backward_is_the_derivative_of_forward(name, data):
    layer, shape = LAYERS[name]
    check = check_vjp(forward_of(layer), backward_of(layer), data.draw(arrays_of(layer, shape)))
    assume(name in ANALYTIC or check.verdict != "inconclusive")              # a kink within reach: another point
    assert check.passed, check
    assert name not in ANALYTIC or check.name.endswith("complex"), check


@pytest.mark.parametrize("name", WITH_TANGENTS)
@settings(max_examples=3, phases=[Phase.generate])
@given(data=st.data())
def test_tangents_are_complex_steps(name, data):
    """Of forward and of backward, for two directions at once; with an input that moves, and with one that does not."""
    layer, shape = LAYERS[name]
    arrays = data.draw(arrays_of(layer, shape))
    w, x = weights_of(layer, arrays), arrays["x"]
    y, cache = layer.forward(w, x)
    rng, h = np.random.default_rng(0), 1e-20
    tw, tdy = [rng.standard_normal((2, *part.shape)) for part in w], rng.standard_normal((2, *y.shape))
    dy = rng.standard_normal(y.shape)
    for tx in [None] if shape is None else [rng.standard_normal((2, *x.shape))] + [None] * (len(w) > 0):
        ty, tcache = layer.tangent(cache, tw, tx)
        dx, tdx, tdw = layer.backward_tangent(cache, tcache, dy, tdy)
        for k in range(2):
            moved, stepped = layer.forward([part + 1j * h * step[k] for part, step in zip(w, tw)],
                                           x if tx is None else x + 1j * h * tx[k])
            back, gradients = layer.backward(stepped, dy + 1j * h * tdy[k])
            if ty is not None:
                assert_close(ty[k], np.imag(moved) / h, 1e-12)
            for found, expected in zip(tdw, gradients):
                assert_close(found[k], np.imag(expected) / h, 1e-12)
            if back is not None:
                assert_close(tdx[k], np.imag(back) / h, 1e-12)
                assert_close(dx, np.real(back), 1e-14)


@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=3, phases=[Phase.generate])
@given(data=st.data())
def test_float32_stays_float32(name, data):
    layer, shape = LAYERS[name]
    arrays = data.draw(arrays_of(layer, shape))
    single = {key: array.astype(np.float32) if array.dtype.kind == "f" else array for key, array in arrays.items()}
    double = {key: array.astype(np.float64) if array.dtype.kind == "f" else array for key, array in single.items()}
    y, expected = forward_of(layer)(**single), forward_of(layer)(**double)
    dy = np.random.default_rng(0).standard_normal(expected.shape).astype(np.float32)
    results = backward_of(layer)(dy, **single) | {"y": y}
    for key, array in (backward_of(layer)(dy.astype(np.float64), **double) | {"y": expected}).items():
        assert results[key].dtype == np.float32
        assert relative_error(results[key], array) < 2e-5, key


@pytest.mark.parametrize("name", MODELS)
def test_gradient_taylor_and_product(name):
    objective, source = MODELS[name]()
    rng = np.random.default_rng(1)
    theta = 1.1 * objective.init(rng) + 0.1 * rng.standard_normal(objective.size)
    batch = source.draw(rng, 3, np.float64)
    f, gradient = (lambda th: objective.value(th, batch)), (lambda th: objective.value_and_gradient(th, batch)[1])
    check = check_gradient(f, gradient, theta, method="complex")
    assert check.passed and check.error < 1e-13, check
    product = objective.product if objective.has_product else \
        lambda th, b, v: gradient(th + 1e-20j * v).imag / 1e-20
    check = taylor_test(f, gradient, theta, lambda th, v: product(th, batch, v), directions=3, every_entry=False)
    assert check.passed, check
    check = check_hessian(lambda th, v: product(th, batch, v), gradient, theta)
    assert check.passed and check.error < 1e-12, check
    assert objective.value(theta, batch) == objective.losses(theta, batch).mean()
    assert objective.losses(theta, batch).shape == np.shape(batch.target)
    for found, expected in zip(objective.weights(objective.join(objective.weights(theta))), objective.weights(theta)):
        assert (found == expected).all()


def test_only_models_whose_layers_all_have_tangents_have_a_product():
    assert gpt()[0].has_product and not convolution_net()[0].has_product and not recurrent()[0].has_product
    assert not convolution_net()[0].has_kinks
    assert lt.Objective(lt.Chain(Dense(2, 3), ReLU()), lt.SquaredError()).has_kinks
    assert lt.Objective(lt.Residual(FeedForward(2, 3, ReLU())), lt.SquaredError()).has_kinks


def test_causal_attention_does_not_look_ahead():
    rng, layer = np.random.default_rng(0), CausalAttention(6, heads=2)
    w, x = [rng.standard_normal(shape) for shape in layer.shapes], rng.standard_normal((2, 5, 6))
    y = layer.forward(w, x)[0]
    x[:, 3:] += 1
    assert (layer.forward(w, x)[0][:, :3] == y[:, :3]).all()
    assert np.isfinite(layer.forward([1e3 * part for part in w], x)[0]).all()


def test_theta_holds_the_weights_in_the_order_of_the_layers():
    layers = [Dense(2, 3), lt.Residual(lt.Chain(RMSNorm(3), Dense(3, 3))), lt.Sum(Dense(3, 4), Dense(3, 4))]
    objective = lt.Objective(lt.Chain(*layers), lt.SquaredError())
    assert objective.shapes == [shape for layer in layers for shape in layer.shapes]
    theta = np.arange(objective.size, dtype=np.float64)
    parts = objective.weights(theta)
    assert (np.concatenate([part.ravel() for part in parts]) == theta).all()
    assert (objective.join(objective.weights(np.stack([theta, 2 * theta]))) == np.stack([theta, 2 * theta])).all()
    assert np.shares_memory(parts[0], theta)


def test_residual_and_sum_are_what_they_say():
    rng = np.random.default_rng(0)
    a, b = Dense(3, 3), FeedForward(3, 4)
    w, x = [rng.standard_normal(shape) for shape in a.shapes + b.shapes], rng.standard_normal((2, 3))
    through_a, through_b = a.forward(w[:2], x)[0], b.forward(w[2:], x)[0]
    assert_close(lt.Sum(a, b).forward(w, x)[0], through_a + through_b, 1e-15)
    assert_close(lt.Residual(a, b).forward(w, x)[0], x + b.forward(w[2:], through_a)[0], 1e-15)
    assert_close(lt.Chain(lt.Residual(a), b).forward(w, x)[0], b.forward(w[2:], x + through_a)[0], 1e-15)


class NoBackward:
    shapes = []

    def forward(self, w, x):
        return x, None


TEXT = lt.Batch(np.zeros((2, 4), int), np.ones((2, 4), int))
REFUSED = {
    "theta must have shape": lambda: gpt()[0].value(np.zeros(3), TEXT),
    "tokens must lie between 0 and 6": lambda: _at(gpt, lt.Batch(TEXT.inputs + 7, TEXT.target)),
    "tokens must be integers": lambda: _at(gpt, lt.Batch(TEXT.inputs + 0.5, TEXT.target)),
    "tokens have length 9, but there are 5": lambda: _at(gpt, lt.Batch(np.zeros((2, 9), int), np.ones((2, 9), int))),
    "target must lie between 0 and 6": lambda: _at(gpt, lt.Batch(TEXT.inputs, TEXT.target + 6)),
    "target must hold integers of shape": lambda: _at(gpt, lt.Batch(TEXT.inputs, TEXT.target[:, :2])),
    "the convolution reads": lambda: _at(convolution_net, TEXT),
    "the layer reads (..., 3)": lambda: _at(recurrent, lt.Batch(np.zeros((2, 4, 5)), np.zeros((2, 2)))),
    "target must have the output's shape (2, 2)": lambda: _at(recurrent, lt.Batch(np.zeros((2, 4, 3)), np.zeros(2))),
    "batch must be": lambda: _at(gpt, TEXT.inputs),
    "a layer must have": lambda: lt.Chain(Dense(2, 3), NoBackward()),
    "model must have": lambda: lt.Objective(NoBackward(), lt.SquaredError()),
    "loss must have": lambda: lt.Objective(Dense(2, 3), abs),
    "average pooling of 2 x 2 reads multiples of 2": lambda: AveragePool(2).forward([], np.zeros((1, 1, 2, 3))),
    "width must be a multiple": lambda: CausalAttention(5, heads=2),
}


def _at(model, batch):
    objective = model()[0]
    return objective.value_and_gradient(objective.init(np.random.default_rng(0)), batch)


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(words):
    with pytest.raises(InputError) as refused:
        REFUSED[words]()
    assert words in str(refused.value) and "\n" not in str(refused.value)
