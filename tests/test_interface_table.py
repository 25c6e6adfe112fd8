"""Every public function against values that are not of the asked kind: a table of several hundred calls.

Each parameter of each row is given each wrong value while the others stay right. What may come out is one line of
`InputError` (or the interpreter's own ValueError or TypeError), or, where the value can be meant, the right
answer: `ALSO_RIGHT` says what that is. No warning may stand in for a refusal, and no imaginary part may be lost.
"""

import warnings
from fractions import Fraction

import numpy as np
import pytest

import lintransformer as lt
from lintransformer.diagnostics.conditioning import condition_numbers, robust_condition_number
from lintransformer.diagnostics.noise import (effective_dimensions, gaussian_norms, hill, noise_statistics,
                                              quantile_plot)
from lintransformer.diagnostics.smoothness import (correlation_interval, directional_smoothness, fit_smoothness,
                                                   over_paths, path_smoothness, t_interval)
from lintransformer.training import prompt_statistics

MODEL = lt.build_model(2, 3)
RNG = np.random.default_rng(0)
THETA, DISTRIBUTION = MODEL.init(RNG), lt.PromptDistribution(3, 4)
BATCH = DISTRIBUTION.draw(RNG, 5)
NORMS = RNG.gamma(2, size=30)
SYMMETRIC = np.diag(np.arange(1.0, 8.0))
FITS = [fit_smoothness(NORMS, NORMS + shift) for shift in (1, 2, 3)]


class Kind:
    """Values that are wrong for one kind of parameter."""

    def __init__(self, *values):
        self.values = values

    def __add__(self, other):
        return Kind(*self.values, *other.values)


def masked(array):
    return np.ma.MaskedArray(array, np.arange(array.size).reshape(array.shape) == 0)


def no_numbers(right):
    """What is wrong wherever an array of numbers is asked for, complex ones and NaN included."""
    right = np.asarray(right, float)
    return Kind(None, "a", object(), masked(right), right.astype(str), right > 0, right.astype(np.float16),
                [[1.0], [1.0, 2.0]], np.full(right.shape, None), np.zeros((0,) * right.ndim),
                np.zeros((2,) * (right.ndim + 2)))


def not_real(right):
    return no_numbers(right) + Kind(np.asarray(right, float) + 1j)


def arrays(right, *more):
    """What is wrong wherever finite real numbers are asked for."""
    right = np.asarray(right, float)
    return not_real(right) + Kind(np.full(right.shape, np.nan), np.full(right.shape, np.inf), *more)


INTEGER = Kind(None, "a", True, 1.5, np.nan, np.inf, -1, 1j, [1], np.ones(2), object())
POSITIVE = Kind(None, "a", True, np.nan, np.inf, -np.inf, -1, 0, 1j, [1.0], np.ones(2), 10**400)
LEVEL = Kind(None, "a", True, np.nan, np.inf, -1, 0, 1, 2, 1j, [0.9])
MODEL_LIKE = Kind(None, "a", 3, object(), lt.build_model, THETA)
BATCH_LIKE = Kind(None, "a", 3, object(), THETA, BATCH.Z, lt.PromptDistribution(2, 4).draw(RNG, 5), MODEL)
NAME = Kind("a", "", 3, True, 1.5, ["difference"], np.ones(2), object())
DTYPE = Kind(None, "xyz", "float16", int, bool, complex, "int32", 3, object(), "U3")
CALLABLE = Kind("a", 3, True, object())
GENERATOR = Kind(None, "a", 3, np.random.RandomState(0), np.random, object())
OPTIMIZER = Kind(None, "adam", 3, lt.Adam, object())
SOURCE = Kind(None, "a", 3, object(), lt.PromptDistribution, BATCH)
THETAS = arrays(THETA, THETA[1:], np.zeros((36, 1)), np.full(36, object()))
VECTORS = arrays(THETA, THETA[1:], np.full(36, Fraction(1, 2)))
G, Z = BATCH.gram().G, BATCH.Z

# name -> (function, {parameter: right value}, {parameter: kind of wrong values})
TABLE = {
    "build_model": (lt.build_model, dict(layers=2, dimension=3), dict(
        layers=INTEGER, dimension=INTEGER, heads=INTEGER, init_scale=Kind(*POSITIVE.values[:7]),
        attention=NAME, parametrization=NAME, form=NAME, mask=NAME, embedding=Kind(*INTEGER.values[1:]))),
    "model.init": (MODEL.init, dict(rng=RNG), dict(rng=GENERATOR, dtype=DTYPE)),
    "model.unpack": (MODEL.unpack, dict(theta=THETA), dict(theta=no_numbers(THETA))),
    "Prompts": (lt.Prompts, dict(Z=Z, target=BATCH.target), dict(
        Z=no_numbers(Z) + Kind(Z[:, :1], Z[:, :, :1], Z[0]), target=no_numbers(BATCH.target))),
    "GramPrompts": (lt.GramPrompts, dict(G=G, z=Z[:, :, -1], target=BATCH.target, context_length=4), dict(
        G=no_numbers(G) + Kind(G[:, :2], -G, G + np.triu(np.ones((4, 4))), np.nan * G, np.inf * G),
        z=no_numbers(Z[:, :, -1]), target=no_numbers(BATCH.target), context_length=INTEGER)),
    "batch.astype": (BATCH.astype, dict(dtype=float), dict(dtype=Kind("xyz", "float16", int, bool, 3, object(), "U3"))),
    "batch.take": (BATCH.take, dict(index=[0]), dict(
        index=Kind(None, "a", 1.5, 99, -99, [], [7], [0.5], 0, object(), 1j))),
    "PromptDistribution": (lt.PromptDistribution, dict(dimension=3), dict(
        dimension=INTEGER, context_length=INTEGER, covariates=NAME, gamma_shape=POSITIVE, gamma_scale=POSITIVE,
        covariate_covariance=Kind(*arrays(np.eye(3)).values[1:], -np.eye(3), np.triu(np.ones((3, 3)))),
        task_covariance=Kind(*arrays(np.eye(3)).values[1:]), response=Kind("a", 3, {"hidden": 3}, lt.ResponseNetwork))),
    "ResponseNetwork": (lt.ResponseNetwork, dict(hidden=3), dict(hidden=INTEGER, seed=INTEGER)),
    "draw": (DISTRIBUTION.draw, dict(rng=RNG, size=3), dict(rng=GENERATOR, size=INTEGER, dtype=DTYPE)),
    "draw_gram": (DISTRIBUTION.draw_gram, dict(rng=RNG, size=3), dict(rng=GENERATOR, size=INTEGER, dtype=DTYPE)),
    "sampler": (DISTRIBUTION.sampler, dict(size=3), dict(size=INTEGER, dtype=DTYPE, form=NAME)),
    "sampler.draw": (DISTRIBUTION.sampler(3).draw, dict(rng=RNG), dict(rng=GENERATOR)),
    "stream": (lt.stream, dict(seed=0, purpose="probe"), dict(seed=INTEGER, purpose=NAME)),
    "evaluation_batch": (lt.evaluation_batch, dict(distribution=DISTRIBUTION, seed=0, prompts=3), dict(
        distribution=SOURCE, seed=INTEGER, prompts=INTEGER, dtype=DTYPE)),
    "predict": (lt.predict, dict(model=MODEL, theta=THETA, batch=BATCH), dict(
        model=MODEL_LIKE, theta=no_numbers(THETA), batch=BATCH_LIKE)),
    "value_and_gradient": (lt.value_and_gradient, dict(model=MODEL, theta=THETA, batch=BATCH), dict(
        model=MODEL_LIKE, theta=no_numbers(THETA), batch=BATCH_LIKE)),
    "Workspace": (lt.Workspace, dict(model=MODEL, batch_size=5), dict(
        model=MODEL_LIKE, batch_size=INTEGER, dtype=DTYPE, chunk=Kind(*INTEGER.values[1:]))),
    "Workspace.value_and_gradient": (lt.Workspace(MODEL, 5).value_and_gradient, dict(theta=THETA, batch=BATCH), dict(
        theta=not_real(THETA), batch=BATCH_LIKE)),
    "Workspace.prompt_losses": (lt.Workspace(MODEL, 5).prompt_losses, dict(theta=THETA, batch=BATCH), dict(
        theta=not_real(THETA), batch=BATCH_LIKE)),
    "SGD": (lt.SGD, dict(learning_rate=0.1), dict(learning_rate=POSITIVE, momentum=Kind(*LEVEL.values[:6], 1, 2, 1j))),
    "Adam": (lt.Adam, dict(learning_rate=0.1), dict(
        learning_rate=POSITIVE, beta1=Kind(*LEVEL.values[:6], 1, 1j),
        beta2=Kind(*LEVEL.values[:6], 1), epsilon=POSITIVE)),
    "SignDescent": (lt.SignDescent, dict(learning_rate=0.1), dict(learning_rate=POSITIVE)),
    "Adam.init": (lt.Adam(0.1).init, dict(theta=THETA), dict(theta=not_real(THETA))),
    "clip": (lt.clip, dict(gradient=THETA, threshold=1.0), dict(
        gradient=not_real(THETA), threshold=Kind(*POSITIVE.values[1:]))),
    "prompt_statistics": (prompt_statistics, dict(losses=NORMS), dict(losses=not_real(NORMS))),
    "train": (lt.train, dict(
        model=MODEL, distribution=DISTRIBUTION, optimizer=lt.SGD(0.01), steps=2, batch_size=3), dict(
        model=MODEL_LIKE, distribution=SOURCE, optimizer=OPTIMIZER, steps=INTEGER, batch_size=INTEGER, seed=INTEGER,
        dtype=DTYPE, clip_threshold=Kind(*POSITIVE.values[1:]), record_every=INTEGER, theta=Kind(*THETAS.values[1:]),
        evaluation=Kind(None, "a", 3, BATCH, [None], [3], ["a"], [BATCH, BATCH]), batch=Kind(*BATCH_LIKE.values[1:]),
        theta_at=Kind(None, 7, "1", [1.5], [-1], [3], [True], [None], masked(np.array([1, 2])), [np.nan], object()),
        deadline_seconds=Kind("a", True, np.nan, np.inf, -1, 1j, [1]), progress=CALLABLE)),
    "hessian": (lambda **a: lt.hessian(**a).to_dense(), dict(model=MODEL, theta=THETA, batch=BATCH), dict(
        model=MODEL_LIKE, theta=THETAS, batch=BATCH_LIKE, method=NAME)),
    "hessian_vector_product": (lt.hessian_vector_product, dict(model=MODEL, theta=THETA, batch=BATCH, v=THETA), dict(
        model=MODEL_LIKE, theta=THETAS, batch=BATCH_LIKE, v=VECTORS, method=NAME)),
    "condition_numbers": (condition_numbers, dict(model=MODEL, theta=THETA, batch=BATCH), dict(
        model=MODEL_LIKE, theta=THETAS, batch=BATCH_LIKE, method=NAME)),
    "robust_condition_number": (robust_condition_number, dict(
        diagonal=NORMS, eigenvalues=NORMS, reaches=NORMS > 0), dict(
        diagonal=not_real(NORMS), reaches=Kind(None, "a", NORMS, NORMS < 0, NORMS[1:] > 0), meaning=NAME)),
    "lanczos": (lt.lanczos, dict(H=SYMMETRIC, k=2), dict(
        H=arrays(SYMMETRIC, SYMMETRIC[:3], np.triu(np.ones((7, 7))), NORMS), k=Kind(*INTEGER.values, 7), which=NAME,
        seed=INTEGER, tolerance=Kind(*POSITIVE.values[:7]), max_iterations=Kind(*INTEGER.values[1:], 0))),
    "dense_spectrum": (lt.dense_spectrum, dict(H=SYMMETRIC), dict(
        H=arrays(SYMMETRIC, SYMMETRIC[:3], np.triu(np.ones((7, 7))), NORMS))),
    "spectral_density": (lt.spectral_density, dict(H=SYMMETRIC), dict(
        H=arrays(SYMMETRIC, np.triu(np.ones((7, 7)))), probes=INTEGER, steps=INTEGER, points=INTEGER, width=POSITIVE,
        seed=INTEGER)),
    "gradient_noise": (lt.gradient_noise, dict(
        model=MODEL, theta=THETA, distribution=DISTRIBUTION, draws=2, batch_size=3, reference=2), dict(
        model=MODEL_LIKE, theta=THETAS, distribution=SOURCE, draws=INTEGER, batch_size=INTEGER, reference=INTEGER,
        seed=INTEGER, dtype=DTYPE, progress=CALLABLE)),
    "gaussian_norms": (gaussian_norms, dict(spectrum=NORMS, draws=3), dict(
        spectrum=arrays(NORMS, -NORMS), draws=INTEGER, seed=INTEGER)),
    "effective_dimensions": (effective_dimensions, dict(spectrum=NORMS), dict(
        spectrum=arrays(NORMS, -NORMS, 0 * NORMS))),
    "noise_statistics": (noise_statistics, dict(norms=NORMS), dict(
        norms=arrays(NORMS, NORMS[:3]), resamples=INTEGER, level=LEVEL, seed=INTEGER)),
    "quantile_plot": (quantile_plot, dict(norms=NORMS), dict(norms=arrays(NORMS, NORMS[:1]))),
    "hill": (hill, dict(norms=NORMS), dict(
        norms=arrays(NORMS, -NORMS, 0 * NORMS, NORMS[:5]),
        k=Kind("a", 1.5, np.nan, 0, -1, 30, 1j, [], True, [[1]], object()))),
    "directional_smoothness": (directional_smoothness, dict(
        model=MODEL, theta=THETA, theta_next=THETA + 1, batch=BATCH), dict(
        model=MODEL_LIKE, theta=THETAS, theta_next=Kind(*THETAS.values, THETA), batch=BATCH_LIKE, method=NAME)),
    "path_smoothness": (path_smoothness, dict(model=MODEL, path=[THETA, THETA + 1], batch=BATCH), dict(
        model=MODEL_LIKE, path=not_real([THETA, THETA]) + Kind(THETA, [THETA]), batch=BATCH_LIKE, method=NAME,
        stride=INTEGER, progress=CALLABLE)),
    "fit_smoothness": (fit_smoothness, dict(gradient_norm=NORMS, smoothness=NORMS + 1), dict(
        gradient_norm=arrays(NORMS, 0 * NORMS, -NORMS, NORMS[1:]), smoothness=arrays(NORMS, NORMS[1:]))),
    "over_paths": (over_paths, dict(fits=FITS), dict(fits=Kind(None, 3, [None], "a", [3]), level=LEVEL)),
    "t_interval": (t_interval, dict(values=NORMS), dict(
        values=Kind(*no_numbers(NORMS).values[:9], NORMS + 1j), level=LEVEL)),
    "correlation_interval": (correlation_interval, dict(values=[0.1, 0.5]), dict(
        values=Kind(*no_numbers(NORMS).values[:9], NORMS + 1j, [1.5], [-2.0, 0.5]), level=LEVEL)),
}

CALLS = [pytest.param(function, right, parameter, wrong, id=f"{name}-{parameter}-{i}")
         for name, (function, right, kinds) in TABLE.items()
         for parameter, kind in kinds.items() for i, wrong in enumerate(kind.values)]


def test_the_table_has_hundreds_of_calls():
    assert len(CALLS) > 900


@pytest.mark.parametrize("name", TABLE)
def test_the_right_values_are_right(name):
    function, right, _ = TABLE[name]
    function(**right)


@pytest.mark.parametrize("function, right, parameter, wrong", CALLS)
def test_what_is_not_of_the_asked_kind_is_refused(function, right, parameter, wrong):
    with warnings.catch_warnings():
        warnings.simplefilter("error")                                       # a ComplexWarning is no refusal
        with pytest.raises(lt.InputError) as refusal:
            function(**{**right, parameter: wrong})
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400


ONES, EIGHTHS = np.ones(36, int), np.arange(-18, 18) / 8
# what is unusual, and what it must equal
ALSO_RIGHT = {
    "integers are clipped as numbers": (lambda: lt.clip(np.array([3, 4]), 1.0),
                                        lambda: lt.clip(np.array([3.0, 4.0]), 1.0)),
    "lists are clipped": (lambda: lt.clip([3, 4], 1), lambda: lt.clip(np.array([3.0, 4.0]), 1.0)),
    "a threshold in float32": (lambda: lt.clip([3.0, 4.0], np.float32(1)), lambda: lt.clip([3.0, 4.0], 1.0)),
    "NumPy's integers": (lambda: lt.build_model(np.int64(2), np.int8(3)), lambda: MODEL),
    "integers for v": (lambda: lt.hessian_vector_product(MODEL, THETA, BATCH, ONES),
                       lambda: lt.hessian_vector_product(MODEL, THETA, BATCH, ONES.astype(float))),
    "a list for theta": (lambda: lt.value(MODEL, list(THETA), BATCH), lambda: lt.value(MODEL, THETA, BATCH)),
    "integers for prompts": (lambda: lt.value(MODEL, THETA, lt.Prompts((8 * Z).astype(int), np.ones(5, int))),
                             lambda: lt.value(MODEL, THETA, lt.Prompts((8 * Z).astype(int).astype(float), np.ones(5)))),
    "float32 for theta": (lambda: lt.hessian(MODEL, THETA.astype(np.float32), BATCH) @ ONES,
                          lambda: lt.hessian(MODEL, THETA.astype(np.float32).astype(float), BATCH) @ ONES),
    "complex theta is a complex step": (lambda: lt.value(MODEL, THETA + 1e-20j * EIGHTHS, BATCH).imag / 1e-20,
                                        lambda: lt.gradient(MODEL, THETA, BATCH) @ EIGHTHS),
    "Fractions": (lambda: float(lt.value(lt.build_model(1, 3), [Fraction(k, 8) for k in range(18)], lt.Prompts(
        [[[Fraction(1), Fraction(2)]] * 3 + [[Fraction(1), Fraction(0)]]], [Fraction(3)]))),
                  lambda: lt.value(lt.build_model(1, 3), np.arange(18) / 8,
                                   lt.Prompts([[[1, 2]] * 3 + [[1, 0]]], [3]))),
    "integers for a spectrum": (lambda: lt.dense_spectrum([[2, 1], [1, 2]]),
                                lambda: lt.dense_spectrum([[2.0, 1], [1, 2]])),
    "a list for norms": (lambda: noise_statistics(list(NORMS)), lambda: noise_statistics(NORMS)),
    "k as a NumPy integer": (lambda: hill(NORMS, np.int64(7)), lambda: hill(NORMS, [7])),
    "integers on a path": (lambda: path_smoothness(MODEL, [ONES, 2 * ONES], BATCH),
                           lambda: path_smoothness(MODEL, [ONES * 1.0, 2.0 * ONES], BATCH)),
    "a generator of theta_at": (lambda: lt.train(MODEL, DISTRIBUTION, lt.SGD(0.1), steps=3, batch_size=2,
                                                 theta_at=(k for k in (1, 3))).arrays["theta"],
                                lambda: lt.train(MODEL, DISTRIBUTION, lt.SGD(0.1), steps=3, batch_size=2,
                                                 theta_at=[1, 3]).arrays["theta"]),
}


@pytest.mark.parametrize("unusual, usual", ALSO_RIGHT.values(), ids=ALSO_RIGHT)
def test_what_is_unusual_but_can_be_meant_is_right(unusual, usual):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given, expected = unusual(), usual()
    if isinstance(given, dict):
        given, expected = list(given.values()), list(expected.values())
    if isinstance(given, tuple):
        assert len(given) == len(expected)
        assert all(np.allclose(a, b, rtol=1e-13, equal_nan=True) for a, b in zip(given, expected))
    elif hasattr(given, "describe"):
        assert given.describe() == expected.describe()
    else:
        np.testing.assert_allclose(given, expected, rtol=1e-12)
