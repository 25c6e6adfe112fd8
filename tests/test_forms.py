"""Token and Gram form of linear attention are one function: values, gradients, Hessian products."""

import numpy as np
import pytest
from cases import complex_step, relative_error, sizes
from hypothesis import given
from hypothesis import strategies as st

import lintransformer as lt
from lintransformer.layers.attention import Softmax
from lintransformer.layers.parametrization import PARTS
from lintransformer.models.build import FORMS
from lintransformer.objective import exact_hessian_vector_product


@given(size=sizes(), parametrization=st.sampled_from(list(PARTS)), heads=st.integers(1, 2),
       embedding=st.sampled_from([None, 3]))
def test_both_forms_agree(size, parametrization, heads, embedding):
    layers, dimension, context, count, seed = size
    rng = np.random.default_rng(seed)
    models = [lt.build_model(layers, dimension, parametrization=parametrization, heads=heads, embedding=embedding,
                             form=form, init_scale=0.5) for form in FORMS]
    theta, v = models[0].init(rng), rng.standard_normal(models[0].size)
    batch = lt.PromptDistribution(dimension, context).draw(rng, count)
    results = [(lt.predict(model, theta, batch), lt.gradient(model, theta, batch),
                exact_hessian_vector_product(model, theta, batch, v)) for model in models]
    for result in results[1:]:
        for actual, expected in zip(result, results[0]):
            assert relative_error(actual, expected) < 1e-11


def test_a_batch_of_tokens_and_its_gram_statistics_give_the_same_prediction():
    model, rng = lt.build_model(3, 4, init_scale=0.5), np.random.default_rng(0)
    batch = lt.PromptDistribution(4, 6).draw(rng, 5)
    theta = model.init(rng)
    assert np.array_equal(lt.predict(model, theta, batch), lt.predict(model, theta, batch.gram()))


@pytest.mark.parametrize("parametrization", PARTS)
def test_predictions_do_not_depend_on_the_order_of_the_context(parametrization):
    rng = np.random.default_rng(3)
    model = lt.build_model(2, 3, parametrization=parametrization, form="token", init_scale=0.5)
    theta, batch = model.init(rng), lt.PromptDistribution(3, 5).draw(rng, 4)
    shuffled = lt.Prompts(batch.Z[:, :, [3, 1, 4, 0, 2, 5]], batch.target)
    assert relative_error(lt.predict(model, theta, shuffled), lt.predict(model, theta, batch)) < 1e-13


def test_one_hand_computed_prediction():
    """d = n = 1, one layer, P = Q = I: z' = z + (1/n) P G Q z, written out."""
    x, y, query = 2.0, 3.0, 5.0
    batch = lt.Prompts([[[x, query], [y, 0.0]]], [7.5])
    model = lt.build_model(1, 1, parametrization="full")
    theta = np.array([1.0, 0, 0, 1, 1, 0, 0, 1])
    assert lt.predict(model, theta, batch)[0] == -(x * y * query)
    assert lt.value(model, theta, batch) == (x * y * query + 7.5) ** 2


def test_two_linear_heads_with_the_same_query_add_their_projections():
    rng = np.random.default_rng(4)
    one, two = (lt.build_model(2, 3, parametrization="full", heads=heads) for heads in (1, 2))
    P, Q = rng.standard_normal((2, 2, 1, 4, 4))
    share = rng.standard_normal((2, 1, 4, 4))
    theta_one = np.stack([P, Q], axis=2).reshape(-1)
    P_two, Q_two = np.concatenate([share, P - share], axis=1), np.concatenate([Q, Q], axis=1)
    theta_two = np.stack([P_two, Q_two], axis=2).reshape(-1)
    batch = lt.PromptDistribution(3, 5).draw(rng, 4)
    assert relative_error(lt.predict(two, theta_two, batch), lt.predict(one, theta_one, batch)) < 1e-11


@pytest.mark.parametrize("mask", ["after", "before"])
def test_a_softmax_survives_scores_of_a_thousand(mask):
    """exp(1000) overflows: value, gradient and Hessian product must not, and are what complex steps say."""
    model = lt.build_model(2, 3, attention="softmax", mask=mask, init_scale=0.3)
    rng = np.random.default_rng(0)
    batch = lt.PromptDistribution(3, 4).draw(rng, 5)
    theta = model.init(rng)
    views = model.unpack(theta)
    first = batch.Z[0]
    views["Q[0,0]"][...] *= 1000 / abs(first[:3].T @ views["Q[0,0]"] @ first[:3]).max()
    assert abs(first[:3].T @ views["Q[0,0]"] @ first[:3]).max() > 999
    value, gradient = lt.value_and_gradient(model, theta, batch)
    assert np.isfinite(value) and np.isfinite(gradient).all() and gradient.any()
    v = rng.standard_normal(model.size)
    assert np.isclose(gradient @ v, complex_step(lambda t: lt.value(model, t, batch), theta, v), rtol=1e-9)
    product = exact_hessian_vector_product(model, theta, batch, v)
    expected = complex_step(lambda t: lt.gradient(model, t, batch), theta, v)
    assert np.isfinite(product).all() and relative_error(product, expected) < 1e-9


def test_weights_of_a_softmax_far_above_the_others_are_one():
    S = np.array([1000.0, 0.0, -1000.0])[:, None, None]
    for dtype in (np.float32, np.float64, complex):
        assert np.array_equal(Softmax().value(S.astype(dtype)).ravel(), [1, 0, 0])
