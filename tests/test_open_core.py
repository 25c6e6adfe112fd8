"""A reader's own model: `size` and `value_and_gradient` are enough for training, Hessians, noise, smoothness."""

import numpy as np
import pytest
from cases import relative_error

import lintransformer as lt
from lintransformer.diagnostics.conditioning import MEANINGS, condition_numbers
from lintransformer.diagnostics.smoothness import directional_smoothness, path_smoothness
from lintransformer.objective import value
from lintransformer.verification import taylor_test


class Logistic:
    """Logistic regression in ten lines; a batch is a pair, as the source below gives it."""

    size = 4

    def value_and_gradient(self, theta, batch):
        X, y = batch
        margin = y * (X @ theta)
        weight = -y / (1 + np.exp(margin))
        return np.log1p(np.exp(-margin)).mean(), X.T @ weight / len(y)


class Labels:
    def draw(self, rng, size, dtype):
        X = rng.standard_normal((size, 4)).astype(dtype)
        return X, np.sign(X @ [1, -1, 2, 0.5] + 0.3 * rng.standard_normal(size)).astype(dtype)


class Absolute(Logistic):
    """The same with an L1 term: its gradient is not analytic, and has kinks that it does not tell of."""

    def value_and_gradient(self, theta, batch):
        loss, gradient = super().value_and_gradient(theta, batch)
        return loss + 0.01 * np.abs(theta).sum(), gradient + 0.01 * np.sign(theta)


MODEL, SOURCE = Logistic(), Labels()
BATCH = SOURCE.draw(np.random.default_rng(0), 200, "float64")
THETA = np.array([0.3, -0.2, 0.5, 0.1])


def hessian_of_logistic(theta, X):
    p = 1 / (1 + np.exp(-X @ theta))
    return X.T * (p * (1 - p)) @ X / len(X)


def test_it_is_trained():
    run = lt.train(MODEL, SOURCE, lt.Adam(0.05), steps=300, batch_size=50, theta=np.zeros(4), record_every=100,
                   evaluation=[BATCH], dtype="float64")
    mean, median = run.arrays["evaluation_mean"][0], run.arrays["evaluation_median"][0]
    assert run.status == "done" and mean[-1] < 0.3 < mean[0] and np.isnan(median).all()
    theta = run.arrays["theta"][-1]
    assert theta @ [1, -1, 2, 0.5] / np.linalg.norm(theta) / 2.5 > 0.9
    full = lt.train(MODEL, SOURCE, lt.SGD(0.5), steps=20, theta=np.zeros(4), batch=BATCH)
    assert full.arrays["training_loss"][-1] < full.arrays["training_loss"][0]


@pytest.mark.parametrize("method", [None, "complex", "difference"])
def test_its_hessian_by_what_it_offers(method):
    H = lt.hessian(MODEL, THETA, BATCH, method)
    assert H.method == (method or "complex")                                 # its gradient is analytic
    expected = hessian_of_logistic(THETA, BATCH[0])
    assert relative_error(H.to_dense(), expected) < 1e-9
    v = np.arange(4.0)
    assert relative_error(lt.hessian_vector_product(MODEL, THETA, BATCH, v), expected @ v) < 1e-12
    assert abs(lt.lanczos(H, 1).values[0] - np.linalg.eigvalsh(expected)[-1]) < 1e-9


def test_a_gradient_that_is_not_analytic_is_differenced():
    H = lt.hessian(Absolute(), THETA, BATCH)
    assert H.method == "difference" and relative_error(H.to_dense(), hessian_of_logistic(THETA, BATCH[0])) < 1e-7


def test_its_noise_smoothness_and_condition_numbers():
    noise = lt.gradient_noise(MODEL, THETA, SOURCE, draws=40, batch_size=30, reference=10, dtype="float64")
    assert noise.norms.shape == (40,) and noise.norms.min() > 0
    assert relative_error(noise.gradient, MODEL.value_and_gradient(THETA, BATCH)[1]) < 0.5
    run = lt.train(MODEL, SOURCE, lt.SGD(0.5), steps=10, theta=THETA, theta_at=range(10), dtype="float64")
    path = run.arrays["theta"]
    measured = path_smoothness(MODEL, path, BATCH)
    step = (path[1] - path[0]) / np.linalg.norm(path[1] - path[0])
    assert abs(measured.smoothness[0] - step @ hessian_of_logistic(path[0], BATCH[0]) @ step) < 1e-9
    assert abs(directional_smoothness(MODEL, path[0], path[1], BATCH) - measured.smoothness[0]) < 1e-9
    assert set(condition_numbers(MODEL, THETA, BATCH)) == set(MEANINGS)
    assert taylor_test(lambda t: value(MODEL, t, BATCH), lambda t: lt.gradient(MODEL, t, BATCH), THETA)


@pytest.mark.parametrize("wrong, message", [
    (lambda: lt.train(MODEL, SOURCE, lt.Adam(0.1), steps=1), "the model has no init.rng, dtype.: give theta"),
    (lambda: lt.train(object(), SOURCE, lt.Adam(0.1), steps=1), "model must have size and value_and_gradient"),
    (lambda: lt.train(MODEL, object(), lt.Adam(0.1), steps=1, theta=THETA), "distribution must have draw"),
    (lambda: lt.hessian(MODEL, THETA, BATCH, "exact"), "'exact' needs a model with product.*difference, complex"),
    (lambda: lt.hessian(MODEL, THETA[1:], BATCH), r"theta must have shape \(4,\)"),
    (lambda: lt.prompt_losses(MODEL, THETA, BATCH), "model must have size and losses"),
])
def test_what_it_does_not_offer_is_asked_for_in_one_line(wrong, message):
    with pytest.raises(lt.InputError, match=message):
        wrong()


def test_a_batch_owns_its_arrays_and_is_taken_apart_by_example():
    inputs, target = np.ones((3, 2)), np.array([0, 1, 2])
    batch = lt.Batch(inputs, target)
    inputs[0] = 7
    assert batch.inputs[0, 0] == 1 and len(batch) == batch.size == 3
    narrow = lt.Batch({"a": inputs, "b": target}, target).astype(np.float32).take([2, 0])
    assert narrow.inputs["a"].dtype == np.float32 and narrow.inputs["b"].tolist() == [2, 0] == narrow.target.tolist()
    with pytest.raises(ValueError, match="read-only"):
        batch.inputs[0] = 1
    with pytest.raises(lt.InputError, match="one entry an example"):
        lt.Batch(inputs, np.zeros(4))


# --- covariates and attention of one's own ---


def laplace(rng, d, tokens, B):
    return rng.laplace(size=(d, tokens, B))


def test_covariates_of_ones_own_are_what_is_drawn():
    distribution = lt.PromptDistribution(3, 4, covariates=laplace)
    batch = distribution.draw(np.random.default_rng(0), 5000)
    x = batch.Z[:, :3].ravel()
    assert abs(np.mean(x**4) / np.mean(x**2) ** 2 - 6) < 0.5                 # a normal's kurtosis is 3
    context = np.einsum("bdn,bd->bn", batch.Z[:, :3, :-1], np.linalg.solve(
        np.einsum("bin,bjn->bij", batch.Z[:, :3, :-1], batch.Z[:, :3, :-1]),
        np.einsum("bin,bn->bi", batch.Z[:, :3, :-1], batch.Z[:, 3, :-1])[..., None])[..., 0])
    assert np.allclose(context, batch.Z[:, 3, :-1])                          # responses are linear in them
    run = lt.train(lt.build_model(1, 3), distribution, lt.Adam(0.02), steps=20, batch_size=50)
    assert run.status == "done"
    with pytest.raises(lt.InputError, match=r"must return an array of shape \(3, 5, 2\), not \(2,\)"):
        lt.PromptDistribution(3, 4, covariates=lambda rng, d, tokens, B: np.zeros(2)).draw(np.random.default_rng(0), 2)
    with pytest.raises(lt.InputError, match="covariates 7 is not known"):
        lt.PromptDistribution(3, 4, covariates=7)


class Squared:
    """phi(R) = R^2 / 2, an activation of a reader's own."""

    smooth = True

    def value(self, R):
        return R * R / 2

    def pull(self, W, dW):
        return np.sqrt(2 * W) * dW                                           # for scores that are positive

    def pull_tangent(self, W, tW, dW, tdW):
        return np.sqrt(2 * W) * tdW + tW / np.sqrt(2 * W) * dW


def test_attention_of_ones_own():
    model = lt.build_model(1, 2, attention=Squared(), parametrization="full")
    assert model.form_name == "token" and model.attention == "Squared()"
    rng = np.random.default_rng(0)
    theta = np.abs(model.init(rng)) * 5
    batch = lt.Prompts(np.abs(lt.PromptDistribution(2, 3).draw(rng, 4).Z), np.ones(4))
    check = lt.verification.check_gradient(lambda t: lt.value(model, t, batch), lambda t: lt.gradient(model, t, batch),
                                           theta)
    assert check.passed, check
    v = rng.standard_normal(model.size)
    by_hand, by_step = (lt.hessian_vector_product(model, theta, batch, v, method) for method in ("exact", "complex"))
    assert relative_error(by_hand, by_step) < 1e-12
    with pytest.raises(lt.InputError, match="has no value"):
        lt.build_model(attention=object())
