"""Every model, every derivative: complex step, numerical differentiation, Taylor orders, symmetry, precision."""

import numpy as np
import pytest
from cases import MODELS, case, complex_step, eighths, relative_error, sizes
from hypothesis import given
from hypothesis import strategies as st

import lintransformer as lt
from lintransformer.objective import exact_hessian_vector_product
from lintransformer.verification import taylor_test
from lintransformer.verification.reference import kink_distance

every_model = pytest.mark.parametrize("row", MODELS.values(), ids=MODELS.keys())


def directions(model, count=3):
    return np.random.default_rng(7).standard_normal((count, model.size))


@every_model
def test_gradient_is_the_complex_step_derivative(row):
    model, theta, batch = case(row)
    gradient = lt.gradient(model, theta, batch)
    coordinates = np.eye(model.size)
    derivative = [complex_step(lambda t: lt.value(model, t, batch), theta, e) for e in coordinates]
    assert relative_error(gradient, derivative) < 1e-12


@every_model
def test_hessian_vector_product_is_the_complex_step_derivative_of_the_gradient(row):
    model, theta, batch = case(row)
    V = directions(model)
    products = exact_hessian_vector_product(model, theta, batch, V)
    for v, product in zip(V, products):
        assert relative_error(product, complex_step(lambda t: lt.gradient(model, t, batch), theta, v)) < 1e-12


@every_model
def test_hessian_vector_products_of_a_stack_are_those_of_its_rows(row):
    model, theta, batch = case(row)
    V = directions(model)
    one_by_one = [exact_hessian_vector_product(model, theta, batch, v) for v in V]
    assert relative_error(exact_hessian_vector_product(model, theta, batch, V), one_by_one) < 1e-13


@every_model
def test_hessian_is_symmetric(row):
    model, theta, batch = case(row)
    u, v, _ = directions(model)
    Hu, Hv = exact_hessian_vector_product(model, theta, batch, np.stack([u, v]))
    assert abs(u @ Hv - v @ Hu) <= 1e-12 * np.sqrt((u @ u) * (Hv @ Hv))


@every_model
def test_taylor_remainders_have_the_orders_of_their_derivatives(row):
    candidates = [case(row, batch=2, seed=seed) for seed in range(20)]       # no ReLU may switch on the way
    model, theta, batch = max(candidates, key=lambda candidate: kink_distance(*candidate))
    first = min(0.05, kink_distance(model, theta, batch))
    result = taylor_test(lambda t: lt.value(model, t, batch), lambda t: lt.gradient(model, t, batch), theta,
                         hessian_vector_product=lambda t, v: exact_hessian_vector_product(model, t, batch, v),
                         first=first)
    assert result.passed, str(result)


@every_model
def test_float32_follows_float64(row):
    model, theta, batch = case(row)
    theta = theta.astype(np.float32).astype(np.float64)
    batch = batch.astype(np.float32).astype(np.float64)
    value, gradient = lt.value_and_gradient(model, theta, batch)
    value32, gradient32 = lt.value_and_gradient(model, theta.astype(np.float32), batch.astype(np.float32))
    assert gradient32.dtype == np.float32
    assert abs(value32 - value) <= 2e-5 * value and relative_error(gradient32, gradient) < 2e-5


@every_model
def test_entries_that_cannot_reach_the_prediction_have_gradient_and_hessian_zero(row):
    for layers in (1, 2):
        model, theta, batch = case(row, layers=layers)
        silent = ~model.reaches_prediction()
        assert not lt.gradient(model, theta, batch)[silent].any()
        assert not exact_hessian_vector_product(model, theta, batch, directions(model))[:, silent].any()
        if row["attention"] != "relu" and not row["embedding"]:                # a ReLU may be off for every prompt
            assert lt.gradient(model, theta, batch)[~silent].all()


@given(row=st.sampled_from(list(MODELS.values())), size=sizes())
def test_gradient_against_numerical_differentiation(row, size):
    """The card's core idea: hand-derived gradients against numerical differentiation, at every size.

    The four-point formula errs by h^4 f^(5) / 30 and by rounding over h; the best of several h is compared. Models
    with kinks get generic entries, which lie exactly on a kink with probability 0; the others exact eighths.
    """
    layers, dimension, context, count, seed = size
    rng = np.random.default_rng(seed)
    kinks = row["attention"] == "relu" or row["embedding"]
    draw = (lambda *shape: rng.uniform(-1, 1, shape)) if kinks else (lambda *shape: eighths(rng, *shape))
    model = lt.build_model(layers, dimension, **row)
    theta, v, Z = draw(model.size), draw(model.size), draw(count, dimension + 1, context + 1)
    Z[:, -1, -1] = 0
    batch = lt.Prompts(Z, draw(count))

    value, gradient = lt.value_and_gradient(model, theta, batch)
    slopes = [four_point_slope(lambda t: lt.value(model, t, batch), theta, v, h) for h in 10.0 ** np.arange(-7, -1)]
    error = min(abs(slope - gradient @ v) for slope in slopes)
    assert error <= 1e-8 * max(value, np.sqrt(gradient @ gradient), 1e-3)


def four_point_slope(f, theta, v, h):
    values = [f(theta + k * h * v) for k in (-2, -1, 1, 2)]
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
