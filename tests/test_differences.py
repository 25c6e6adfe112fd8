"""`lt.hessian` at its defaults is the exact Hessian, for every model of the zoo, wherever theta is.

The step of differences is measured at each point: at minimisers, where the gradient vanishes and a step in units
of it is wrong, far out, and for one prompt or many.
"""

import numpy as np
import pytest
from cases import MODELS, case
from hypothesis import given
from hypothesis import strategies as st

import lintransformer as lt
from lintransformer.diagnostics import products
from lintransformer.diagnostics.differences import difference_step
from lintransformer.objective import exact_hessian_vector_product

ROWS = MODELS
DISTRIBUTION = lt.PromptDistribution(3, 4)
BAR = 1e-6


def error_of_the_default(model, theta, batch):
    """Of `lt.hessian(model, theta, batch)`, in units of the exact Hessian's largest entry."""
    exact = lt.hessian(model, theta, batch, "exact").to_dense()
    return abs(lt.hessian(model, theta, batch).to_dense() - exact).max() / max(abs(exact).max(), 1e-300)


SMOOTH = {name: row for name, row in ROWS.items() if row["attention"] != "relu" and not row["embedding"]}
KINKED = {name: row for name, row in ROWS.items() if name not in SMOOTH}


@pytest.mark.parametrize("row", SMOOTH.values(), ids=SMOOTH)
def test_the_default_is_exact_at_many_points(row):
    model, rng = lt.build_model(2, 3, **{**row, "init_scale": 0.05}), np.random.default_rng(3)
    generic, batch = 0.5 * rng.standard_normal(model.size), DISTRIBUTION.draw(rng, 7)
    trained = lt.train(model, DISTRIBUTION, lt.Adam(0.02), steps=300, batch_size=7).arrays["theta"][-1]
    points = {"initialisation": model.init(rng), "generic": generic, "float32": generic.astype(np.float32),
              "small": 0.01 * generic, "large": 10 * generic, "trained": trained, "trained, large": 10 * trained}
    for place, theta in points.items():
        assert error_of_the_default(model, theta, batch) < BAR, place
    assert error_of_the_default(model, generic, batch.take([4])) < BAR


@pytest.mark.parametrize("row", KINKED.values(), ids=KINKED)
def test_the_default_of_models_with_kinks_is_the_exact_route(row):
    model, rng = lt.build_model(2, 3, **row), np.random.default_rng(3)
    generic, batch = 0.5 * rng.standard_normal(model.size), DISTRIBUTION.draw(rng, 3)
    for theta in (0.1 * generic, 10 * generic):
        H = lt.hessian(model, theta, batch)
        assert H.method == "exact"
        assert np.array_equal(H @ generic, lt.hessian_vector_product(model, theta, batch, generic, "exact"))


# One form each: the others are the same function of theta.
AT_MINIMISERS = {name: row for name, row in SMOOTH.items()
                 if "verified" not in name and (row["attention"] == "softmax" or row["form"] == "gram")}


def minimiser(model, batch, seed=0):
    """theta with a gradient of 1e-10 on a batch: Adam, then damped Newton steps by the exact Hessian."""
    theta = lt.train(model, DISTRIBUTION, lt.Adam(0.02), steps=400, batch=batch, dtype="float64",
                     seed=seed).arrays["theta"][-1]
    for _ in range(40):
        value, gradient = lt.value_and_gradient(model, theta, batch)
        if abs(gradient).max() < 1e-10:
            break
        H = exact_hessian_vector_product(model, theta, batch, np.eye(model.size))
        values, vectors = np.linalg.eigh((H + H.T) / 2)
        damping = 1e-12 * abs(values).max() + 1e-3 * np.linalg.norm(gradient)
        step = vectors @ ((vectors.T @ gradient) / (abs(values) + damping))
        length = 1.0
        while lt.value(model, theta - length * step, batch) > value and length > 1e-6:
            length /= 2
        theta = theta - length * step
    return theta


@pytest.mark.parametrize("size", [1, 6])
@pytest.mark.parametrize("row", AT_MINIMISERS.values(), ids=AT_MINIMISERS)
def test_the_default_is_exact_at_minimisers(row, size):
    model, batch = lt.build_model(2, 3, **row), DISTRIBUTION.draw(np.random.default_rng(11), size)
    theta = minimiser(model, batch)
    assert error_of_the_default(model, theta, batch) < BAR


def test_at_a_minimiser_the_gradient_is_small_and_the_old_unit_would_be_wrong():
    """A step of eps^(1/3) |gradient|, in whatever proportion, goes to zero with the gradient."""
    model = lt.build_model(2, 3)
    batch = DISTRIBUTION.draw(np.random.default_rng(11), 6)
    theta = minimiser(model, batch)
    assert abs(lt.gradient(model, theta, batch)).max() < 1e-9
    assert 1e-8 < lt.hessian(model, theta, batch)._product.step.h < 1e-3
    assert error_of_the_default(model, theta, batch) < 1e-8


@pytest.mark.parametrize("size", [1, 30, 1000])
def test_the_default_is_exact_for_any_number_of_prompts_at_true_size(size):
    model, distribution = lt.build_model(), lt.PromptDistribution()
    batch = lt.evaluation_batch(distribution, 99, size)
    trained = lt.train(model, distribution, lt.Adam(0.02), steps=300, batch_size=100).arrays["theta"][-1]
    for theta in (model.init(lt.stream(0, "initialisation")), trained):
        assert error_of_the_default(model, theta, batch) < 1e-7


def test_the_measured_error_is_the_error():
    """To a factor of 40, as stated: nothing is known of a direction but along the one that was tried."""
    for place in ("linear-block-gram", "linear-full-heads2-gram",
                  "softmax-full-token"):
        for seed in range(4):
            model, theta, batch = case(MODELS[place], seed=seed)
            H = lt.hessian(model, theta, batch, "difference")
            exact = lt.hessian(model, theta, batch, "exact").to_dense()
            error = abs(H.to_dense() - exact).max() / abs(exact).max()
            assert error < 40 * H._product.step.error < 1e-6


@given(st.floats(-6, 6), st.floats(-12, 12))
def test_the_step_follows_the_length_scale_of_f_and_not_its_size(length, size):
    """f = s sum cos(x / l), whose Hessian is known: a ladder that started too high, or too low, would not find it."""
    length, size = 10**length, 10**size
    theta = length * np.array([0.3, -0.4, 1.1])

    def value_and_gradient(x):
        return size * np.cos(x / length).sum(), -size / length * np.sin(x / length)

    step = difference_step(value_and_gradient, theta)
    h, e = step.h, np.eye(3)
    columns = [(value_and_gradient(theta + h * u)[1] - value_and_gradient(theta - h * u)[1]) / (2 * h) for u in e]
    exact = -size / length**2 * np.diag(np.cos(theta / length))
    if step.error < 1e-8:
        assert abs(np.array(columns) - exact).max() < 20 * max(step.error, 1e-10) * abs(exact).max()
    if 1e-4 <= length <= 1e2:
        assert step.error < 1e-8


def test_a_step_a_hundred_times_as_long_is_noticed(monkeypatch):
    model, theta, batch = case(MODELS["linear-full-gram"])

    def too_long(*arguments):
        step = difference_step(*arguments)
        return step._replace(h=100 * step.h)

    assert error_of_the_default(model, theta, batch) < 1e-9
    monkeypatch.setattr(products, "difference_step", too_long)
    assert error_of_the_default(model, theta, batch) > 1e-9


def test_what_differences_cannot_do_the_default_does_otherwise():
    """Saturated softmax: differences are measured to be poor, and the exact route is taken without being asked."""
    for seed in range(40):
        model, theta, batch = case(MODELS["softmax-separate-token"], seed=seed)
        H = lt.hessian(model, 15 * theta, batch)
        assert error_of_the_default(model, 15 * theta, batch) < BAR
        if H.method == "exact":
            return
    raise AssertionError("no case took the exact route")


@pytest.mark.parametrize("method", ["difference", "complex", "exact", None])
def test_a_point_whose_hessian_rounding_decides_is_refused(method):
    """Softmax at 1e30: scores of 1e60, whose last digit is worth 1e44. The three routes gave 5e18, 1e63 and 1e102."""
    for options in (dict(), dict(parametrization="full", heads=2), dict(mask="before")):
        model = lt.build_model(2, 3, attention="softmax", **options)
        theta = 1e30 * np.random.default_rng(0).standard_normal(model.size)
        batch = DISTRIBUTION.draw(np.random.default_rng(1), 5)
        with pytest.raises(lt.InputError, match="does not exist in floating point|not finite"):
            lt.hessian(model, theta, batch, method).to_dense()


def test_a_gradient_without_exact_products_is_enough_for_the_default():
    """Optional abilities are asked for by name: a model without tangents has its Hessian by differences."""
    model, theta, batch = case(MODELS["linear-full-gram"])

    class Plain:
        def __getattr__(self, ability):
            if ability in ("forward_tangent", "backward_tangent", "has_kinks", "reaches_prediction", "resolved"):
                raise AttributeError(ability)
            return getattr(model, ability)

    H = lt.hessian(Plain(), theta, batch)
    assert H.method == "difference"
    exact = lt.hessian(model, theta, batch, "exact").to_dense()
    assert abs(H.to_dense() - exact).max() < BAR * abs(exact).max()


@pytest.mark.parametrize("method", ["difference", "complex", "exact", None])
@pytest.mark.parametrize("factor", [1e-320, 1e-300, 1e-200, -1e-30, 1e30, 1e200, 1e300])
def test_products_are_right_at_any_scale_of_v(method, factor):
    model, theta, batch = case(MODELS["linear-block-gram"])
    v = np.random.default_rng(0).standard_normal(model.size)
    scaled = factor * v
    exponent = int(np.frexp(abs(scaled).max())[1])                           # 1e-320 has lost digits of v already
    unit = lt.hessian_vector_product(model, theta, batch, np.ldexp(scaled, -exponent), "exact")
    expected, room = np.ldexp(unit, exponent), np.ldexp(1e-7 * abs(unit).max(), exponent) + 2e-323
    assert abs(lt.hessian(model, theta, batch, method) @ scaled - expected).max() < room
    stack = lt.hessian_vector_product(model, theta, batch, [scaled, 0 * v, v], method)
    assert abs(stack[0] - expected).max() < room and not stack[1].any() and abs(stack[2]).max() > 1e-3


def test_a_product_that_overflows_says_so():
    model, theta, batch = case(MODELS["linear-block-gram"])
    v = np.full(model.size, 1.5e308)
    assert abs(lt.hessian(model, theta, batch) @ np.ones(model.size)).max() > 2
    with pytest.raises(lt.InputError, match=r"H v overflows float64 for a v as long as this; .* 1.5e\+308"):
        lt.hessian_vector_product(model, theta, batch, v)
