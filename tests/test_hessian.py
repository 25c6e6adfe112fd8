"""Routes to H v, the operator, Lanczos and the spectral density: every route agrees with every other."""

import tracemalloc

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg
from cases import MODELS, case, relative_error, sizes
from hypothesis import given
from hypothesis import strategies as st

import lintransformer as lt
from lintransformer.diagnostics.conditioning import condition_numbers
from lintransformer.diagnostics.hessian import hessian
from lintransformer.diagnostics.products import METHODS, hessian_vector_product
from lintransformer.diagnostics.smoothness import directional_smoothness, path_smoothness
from lintransformer.diagnostics.spectrum import WHICH, dense_spectrum, lanczos, spectral_density, tridiagonal
from lintransformer.models.transformer import Transformer
from lintransformer.objective import STACK_ENTRIES
from lintransformer.verification.reference import kink_distance

SMOOTH = {name: row for name, row in MODELS.items() if row["attention"] != "relu" and not row["embedding"]}
POLYNOMIAL = {name: row for name, row in SMOOTH.items() if row["attention"] == "linear"}


@pytest.fixture(scope="module")
def trained():
    """The S1 model after 60 steps of Adam, and a batch: curvature of both signs over many decades."""
    model, distribution = lt.build_model(), lt.PromptDistribution()
    run = lt.train(model, distribution, lt.Adam(0.02), steps=60, batch_size=200, dtype="float64")
    return model, run.arrays["theta"][-1], lt.evaluation_batch(distribution, 99, 200)


@pytest.mark.parametrize("row", SMOOTH.values(), ids=SMOOTH)
def test_the_three_routes_agree(row):
    model, theta, batch = case(row)
    V = np.random.default_rng(1).standard_normal((3, model.size))
    exact = hessian_vector_product(model, theta, batch, V, "exact")
    assert relative_error(hessian_vector_product(model, theta, batch, V, "complex"), exact) < 1e-12
    assert relative_error(hessian_vector_product(model, theta, batch, V), exact) < 1e-7


def beside_a_kink():
    """A model, theta and a batch with one hidden unit 1e-10 from its kink, and the direction that moves it across."""
    model, theta, batch = case(MODELS["linear-block-mlp-gram"])
    parts = model.unpack(theta)
    parts["b1"][2] -= parts["W1"][2] @ batch.Z[0, :-1, 0] + parts["b1"][2] - 1e-10
    where = next(part for name, _, part, _ in model.named() if name == "b1")
    return model, theta, batch, np.eye(model.size)[where.start + 2]


def test_differences_across_a_kink_are_wrong_warn_and_are_not_the_default():
    model, theta, batch, v = beside_a_kink()
    exact, shifted = (hessian_vector_product(model, theta, batch, v, method) for method in ("exact", "complex"))
    with pytest.warns(UserWarning, match="across a model's kinks can be wrong.*method=\"exact\"") as warned:
        difference = hessian_vector_product(model, theta, batch, v, "difference")
    assert len(warned) == 1
    assert relative_error(shifted, exact) < 1e-12 and relative_error(difference, exact) > 10
    assert np.array_equal(hessian_vector_product(model, theta, batch, v), exact)
    assert hessian(model, theta, batch).method == "exact" and lt.hessian(*_point()).method == "difference"


def test_every_caller_takes_the_exact_route_where_there_are_kinks():
    model, theta, batch, v = beside_a_kink()
    exact = hessian(model, theta, batch, "exact").to_dense()
    assert np.array_equal(hessian(model, theta, batch).to_dense(), exact)
    assert condition_numbers(model, theta, batch) == condition_numbers(model, theta, batch, "exact")
    curvature = v @ exact @ v
    assert np.isclose(directional_smoothness(model, theta, theta + v, batch), curvature, rtol=1e-12)
    assert np.isclose(path_smoothness(model, [theta, theta + v], batch).smoothness[0], curvature, rtol=1e-12)
    for measure in (lambda: hessian(model, theta, batch, "difference"),
                    lambda: condition_numbers(model, theta, batch, "difference"),
                    lambda: directional_smoothness(model, theta, theta + v, batch, "difference"),
                    lambda: path_smoothness(model, [theta, theta + v, theta], batch, "difference")):
        with pytest.warns(UserWarning, match="kinks") as warned:
            measure()
        assert len(warned) == 1


@pytest.mark.parametrize("row", [row for name, row in MODELS.items() if name not in SMOOTH][::3])
def test_the_three_routes_agree_away_from_kinks(row):
    cases = (case(row, seed=seed) for seed in range(20))
    model, theta, batch = next(point for point in cases if kink_distance(*point) > 1e-4)
    V = np.random.default_rng(1).standard_normal((2, model.size))
    exact = hessian_vector_product(model, theta, batch, V, "exact")
    assert relative_error(hessian_vector_product(model, theta, batch, V, "complex"), exact) < 1e-12
    with pytest.warns(UserWarning, match="kinks"):
        assert relative_error(hessian_vector_product(model, theta, batch, V, "difference"), exact) < 1e-7


@given(sizes(), st.sampled_from(sorted(POLYNOMIAL)))
def test_the_three_routes_agree_at_any_size(size, name):
    layers, dimension, context, batch_size, seed = size
    model, theta, batch = case(POLYNOMIAL[name], layers, dimension, context, batch_size, seed)
    v = np.random.default_rng(seed).integers(-8, 9, model.size) / 8
    exact = hessian_vector_product(model, theta, batch, v, "exact")
    gradient = lt.gradient(model, theta, batch)
    scale = np.linalg.norm(v) * max(np.linalg.norm(gradient), np.linalg.norm(exact), 1e-300)
    assert np.linalg.norm(hessian_vector_product(model, theta, batch, v, "complex") - exact) <= 1e-11 * scale
    assert np.linalg.norm(hessian_vector_product(model, theta, batch, v) - exact) <= 1e-7 * scale


@pytest.mark.parametrize("method", METHODS)
def test_a_trained_model_at_full_size(trained, method):
    model, theta, batch = trained
    V = np.vstack([np.eye(model.size)[[0, 60, 149]], np.random.default_rng(0).standard_normal(model.size)])
    exact = hessian_vector_product(model, theta, batch, V, "exact")
    product = hessian_vector_product(model, theta, batch, V, method)
    assert relative_error(product, exact) < {"difference": 1e-8, "complex": 1e-13, "exact": 1e-16}[method]


def test_long_stacks_go_through_in_parts():
    model, distribution = lt.build_model(1, 2), lt.PromptDistribution(2, 4)
    batch = distribution.draw_gram(np.random.default_rng(0), 40_000)
    theta = model.init(np.random.default_rng(1)) * 10
    assert STACK_ENTRIES // (batch.size * 9) < model.size
    dense = hessian_vector_product(model, theta, batch, np.eye(model.size), "exact")
    assert relative_error(dense, dense.T) < 1e-12


@pytest.mark.parametrize("options", [{"embedding": 30}, {"attention": "softmax"}], ids=["embedding", "softmax"])
def test_long_stacks_take_bounded_memory(options):
    """A few dozen arrays of STACK_ENTRIES, however many directions, tokens or hidden units there are."""
    model, distribution = lt.build_model(**options), lt.PromptDistribution()
    batch = distribution.draw(np.random.default_rng(0), 500)
    theta = model.init(np.random.default_rng(1))
    tracemalloc.start()
    hessian_vector_product(model, theta, batch, np.eye(model.size)[:24], "exact")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * 8 * STACK_ENTRIES



@pytest.mark.parametrize("method", METHODS)
def test_shapes_dtypes_and_zero_vectors(method):
    model, theta, batch = case(MODELS["linear-block-gram"])
    theta, batch = theta.astype(np.float32), batch.astype(np.float32)
    for v in (np.zeros(model.size), np.zeros((2, model.size)), np.zeros((0, model.size))):
        Hv = hessian_vector_product(model, theta, batch, v.astype(np.float32), method)
        assert Hv.shape == v.shape and Hv.dtype == np.float64 and not Hv.any()
    ones = np.ones(model.size, dtype=int)
    upcast = hessian_vector_product(model, theta.astype(np.float64), batch.astype(np.float64), ones, method)
    assert np.array_equal(hessian_vector_product(model, theta, batch, ones, method), upcast)


def test_products_scale_exactly_with_the_length_of_v():
    model, theta, batch = case(MODELS["linear-block-gram"])
    v = np.random.default_rng(0).standard_normal(model.size)
    for method in METHODS:
        Hv = hessian_vector_product(model, theta, batch, v, method)
        for factor in (1e-150, 1e150):
            scaled = hessian_vector_product(model, theta, batch, factor * v, method)
            assert relative_error(scaled, factor * Hv) < 1e-9


def test_the_operator_is_its_dense_matrix(trained):
    model, theta, batch = trained
    H = hessian(model, theta, batch)
    assert isinstance(H, scipy.sparse.linalg.LinearOperator) and H.dtype == np.float64
    dense, v = H.to_dense(), np.random.default_rng(0).standard_normal((model.size, 2))
    assert H.products == model.reaches_prediction().sum() == 125
    assert np.array_equal(dense, dense.T)
    assert relative_error(dense, hessian(model, theta, batch, "exact").to_dense()) < 1e-8
    assert relative_error(np.array(H.diagonal()), np.diag(dense)) < 1e-9     # by the whole stack, not by suffixes
    for product in (H @ v, H.T @ v, H.H @ v, (v.T @ H).T, np.stack([H @ v[:, 0], H.matvec(v[:, 1])], 1)):
        assert relative_error(product, dense @ v) < 1e-7
    identity = scipy.sparse.linalg.aslinearoperator(np.eye(model.size))
    solution, failed = scipy.sparse.linalg.cg(H @ H + identity, v[:, 0])
    assert not failed and np.allclose(dense @ (dense @ solution) + solution, v[:, 0], atol=1e-4)


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("method", METHODS)
def test_lanczos_finds_the_ends_of_the_dense_spectrum(trained, method, which):
    model, theta, batch = trained
    H = hessian(model, theta, batch.take(slice(0, 20)), method)
    spectrum = dense_spectrum(H)
    found = lanczos(H, 4, which)
    by_size = np.sort(spectrum[np.argsort(-np.abs(spectrum))[:4]])
    expected = {"LA": spectrum[-4:], "SA": spectrum[:4], "LM": by_size, "BE": spectrum[[0, 1, -2, -1]]}[which]
    assert found.converged and found.products > 4
    assert np.abs(found.values - expected).max() < 1e-9 * np.abs(spectrum).max()
    assert found.residuals.max() < 1e-8 * np.abs(spectrum).max()
    assert np.allclose(found.vectors.T @ found.vectors, np.eye(4), atol=1e-10)


def test_lanczos_is_deterministic_and_says_when_it_did_not_converge(trained):
    H = hessian(*trained[:2], trained[2].take(slice(0, 20)))
    first, second = lanczos(H, 3, "SA"), lanczos(H, 3, "SA")
    assert np.array_equal(first.values, second.values) and np.array_equal(first.vectors, second.vectors)
    stopped = lanczos(H, 3, "SA", max_iterations=1)
    assert not stopped.converged and len(stopped.values) < 3
    assert stopped.vectors.shape == (150, len(stopped.values)) == (150, len(stopped.residuals))


def test_dense_spectrum_of_a_known_matrix():
    values = np.array([-2.0, 0.0, 0.5, 7.0])
    rotation = scipy.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    assert np.allclose(dense_spectrum(rotation * values @ rotation.T), values, atol=1e-14)


@given(st.integers(2, 12), st.integers(0, 10**6))
def test_tridiagonal_has_the_moments_of_the_start_vector(size, seed):
    rng = np.random.default_rng(seed)
    A = rng.integers(-8, 9, (size, size)) / 8
    A, start, steps = A + A.T, rng.standard_normal(size), 1 + seed % size
    alpha, beta = tridiagonal(A, start, steps)
    T, v = np.diag(alpha) + np.diag(beta, 1) + np.diag(beta, -1), start / np.linalg.norm(start)
    for power in range(2 * len(alpha)):                                      # exact up to degree 2 m - 1
        moment = v @ np.linalg.matrix_power(A, power) @ v
        assert np.isclose(np.linalg.matrix_power(T, power)[0, 0], moment,
                          rtol=1e-7, atol=1e-7 * np.linalg.norm(A, 2) ** power)


def test_tridiagonal_stops_in_an_invariant_subspace():
    A = np.diag([1.0, 1.0, 3.0, 3.0, 3.0])
    alpha, beta = tridiagonal(A, np.ones(5), 5)
    assert len(alpha) == 2 and len(beta) == 1
    assert np.allclose(scipy.linalg.eigvalsh_tridiagonal(alpha, beta), [1, 3])


def test_spectral_density_integrates_to_one_and_has_the_trace(trained):
    H = hessian(*trained)
    spectrum = dense_spectrum(H)
    density = spectral_density(H, probes=20, steps=40)
    assert np.isclose(np.trapezoid(density.density, density.grid), 1, atol=1e-3)
    means = (density.nodes * density.weights).sum(axis=1)
    assert np.allclose(density.weights.sum(axis=1), 1)
    assert abs(means.mean() - spectrum.mean()) < 5 * means.std(ddof=1) / np.sqrt(len(means))
    assert np.isclose(density.nodes.max(), spectrum[-1])
    assert np.isclose(density.nodes.min(), spectrum[0], rtol=1e-3)


def _point():
    return case(MODELS["linear-block-gram"])


def _with(array, value):
    array = np.array(array, order="C")
    array.reshape(-1)[3] = value
    return array


@pytest.mark.parametrize("call, message", [
    (lambda m, t, b: hessian(m, _with(t, np.nan), b),
     r"theta must be finite, but 1 of 36 .*diverged point.*nan at 3"),
    (lambda m, t, b: hessian_vector_product(m, _with(t, np.inf), b, t), r"theta must be finite"),
    (lambda m, t, b: hessian(m, t, lt.Prompts(_with(b.Z, np.nan), b.target)),
     r"batch.Z must be finite.* at \(0, 0, 3\)"),
    (lambda m, t, b: hessian(m, t, lt.Prompts(b.Z, _with(b.target, -np.inf))), "batch.target must be finite"),
    (lambda m, t, b: hessian(m, t, lt.GramPrompts(_with(b.gram().G, np.nan), b.gram().z, b.target, 4)),
     "G must be finite, but 1 of 80 entries are not; the first is nan at"),
    (lambda m, t, b: hessian(m, t * 1e200, b) @ t, "Hessian at theta is not finite: f overflows.*diverged"),
    (lambda m, t, b: hessian_vector_product(m, t, b, _with(t, np.nan)), r"v must be finite"),
    (lambda m, t, b: hessian_vector_product(m, t, b, t[1:]),
     r"v must have shape \(36,\) or \(K, 36\), not \(35,\)"),
    (lambda m, t, b: hessian_vector_product(m, t, b, t + 0j), "v must hold real numbers, not dtype complex"),
    (lambda m, t, b: hessian_vector_product(m, t + 0j, b, t), "theta must hold real numbers, not dtype c"),
    (lambda m, t, b: hessian_vector_product(m, t, b, t, "forward"),
     "'forward' is not known.*difference, complex, exact"),
    (lambda m, t, b: hessian(m, t, 7), "batch must be Prompts or GramPrompts, not int"),
    (lambda m, t, b: hessian(m, t, lt.PromptDistribution(2, 4).draw(np.random.default_rng(0), 3)),
     "batch has dimension 2, but the model has dimension 3"),
    (lambda m, t, b: lanczos(hessian(m, t, b), 36),
     "k must be less than p = 36 for Lanczos, not 36; .*dense_spectrum"),
    (lambda m, t, b: lanczos(hessian(m, t, b), 0), "k must be an integer of at least 1, not 0"),
    (lambda m, t, b: lanczos(hessian(m, t, b), 2, "SM"), "which 'SM' is not known; allowed: LA, SA, LM, BE"),
    (lambda m, t, b: lanczos(np.ones((3, 4)), 2), r"H must be square, not of shape \(3, 4\)"),
    (lambda m, t, b: dense_spectrum(np.full((2, 2), np.nan)), "H must be finite"),
    (lambda m, t, b: spectral_density(np.eye(3), probes=0), "probes must be an integer of at least 1"),
])
def test_what_is_refused(call, message):
    model, theta, batch = _point()
    with pytest.raises(lt.InputError, match=message):
        call(model, theta, batch)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [name for name in SMOOTH if name.startswith(("linear", "softmax-block"))])
def test_dense_hessians_by_suffixes_are_the_whole_ones(name, method):
    model, theta, batch = case(MODELS[name], layers=3)
    H = hessian(model, theta, batch, method)
    dense, exact = H.to_dense(), hessian_vector_product(model, theta, batch, np.eye(model.size), "exact")
    assert np.array_equal(dense, dense.T) and H.products == model.reaches_prediction().sum()
    assert relative_error(dense, exact) < (1e-7 if method == "difference" else 1e-11)


def test_a_subclass_has_no_suffixes_unless_it_says_so():
    """It may compute anything else, which the model of the remaining layers would not."""
    class Doubled(Transformer):
        evaluator = None

        def value_and_gradient(self, theta, batch):
            return tuple(2 * part for part in super().value_and_gradient(theta, batch))

    model, theta, batch = case(MODELS["linear-block-gram"])
    whole, model.__class__ = hessian(model, theta, batch, "difference").to_dense(), Doubled
    assert relative_error(hessian(model, theta, batch, "difference").to_dense(), 2 * whole) < 1e-7
