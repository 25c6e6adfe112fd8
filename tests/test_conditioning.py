"""Robust condition numbers: every meaning against its definition, on matrices whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lintransformer as lt
from lintransformer.diagnostics.conditioning import MEANINGS, condition_numbers, robust_condition_number
from lintransformer.diagnostics.hessian import hessian

ALL = np.ones(5, dtype=bool)
REACHES = np.array([True, True, False, True, False])


def number(values, meaning, reaches=ALL):
    return robust_condition_number(values, values, reaches, meaning)


def test_known_values():
    values = np.array([-6.0, -1.0, 0.0, 2.0, 4.0])
    assert number(values, "diagonal") == number(values, "magnitudes") == 6 / 2
    assert number(values, "eigenvalues") == np.inf                           # 4 / 0
    assert number(values - 0.5, "eigenvalues") == 3.5 / -0.5
    assert number(values, "diagonal-reaching", REACHES) == 6 / 2             # of 6, 1, 2


def test_eigenvalues_lose_as_many_zeros_as_there_are_idle_parameters():
    eigenvalues = np.array([1e-17, 3.0, -2.0, -1e-18, 8.0])                  # in whatever order
    assert number(eigenvalues, "eigenvalues-reaching", REACHES) == 8 / 3
    assert number(eigenvalues, "magnitudes-reaching", REACHES) == 8 / 3
    assert number(eigenvalues, "eigenvalues") == 8 / 1e-17


@given(st.integers(1, 9), st.integers(0, 8), st.integers(0, 10**6))
def test_numbers_over_reaching_parameters_are_those_of_the_submatrix(size, idle, seed):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((size, size))
    reaches = rng.permutation(np.arange(size + idle) < size)
    H = np.zeros((size + idle, size + idle))
    H[np.ix_(reaches, reaches)] = A + A.T
    small, whole = A + A.T, np.linalg.eigvalsh(H)
    for meaning in MEANINGS:
        if meaning.endswith("reaching"):
            expected = number(np.linalg.eigvalsh(small), meaning, np.ones(size, bool))
            if meaning == "diagonal-reaching":
                expected = number(np.diag(small), meaning, np.ones(size, bool))
            of_whole = robust_condition_number(np.diag(H), whole, reaches, meaning)
            assert np.isclose(of_whole, expected, rtol=1e-6)


@given(st.floats(1e-3, 1e3), st.integers(0, 10**6))
def test_scale_does_not_matter_and_leading_axes_go_through(scale, seed):
    values = np.random.default_rng(seed).standard_normal((2, 3, 5))
    for meaning in MEANINGS:
        numbers = number(values, meaning, REACHES)
        assert numbers.shape == (2, 3)
        assert numbers[1, 2] == number(values[1, 2], meaning, REACHES)
        assert np.allclose(number(scale * values, meaning, REACHES), numbers)


def test_a_point_without_a_hessian_is_nan():
    values = np.array([[1.0, 2.0, 3.0, 4.0, 5.0], [np.nan] * 5])
    for meaning in MEANINGS:
        assert np.isnan(number(values, meaning, REACHES)).tolist() == [False, True]


def test_all_meanings_at_one_point():
    model, distribution = lt.build_model(), lt.PromptDistribution()
    theta, batch = model.init(lt.stream(0, "initialisation")), lt.evaluation_batch(distribution, 99, 50)
    numbers = condition_numbers(model, theta, batch)
    dense, reaches = hessian(model, theta, batch, "exact").to_dense(), model.reaches_prediction()
    active = dense[np.ix_(reaches, reaches)]
    diagonal, spectrum = np.abs(np.diag(dense)), np.linalg.eigvalsh(active)
    padded = np.append(spectrum, np.zeros(25))
    assert list(numbers) == list(MEANINGS)
    expected = {
        "diagonal": diagonal.max() / np.median(diagonal),
        "diagonal-reaching": diagonal.max() / np.median(diagonal[reaches]),
        "eigenvalues-reaching": spectrum.max() / np.median(spectrum),
        "magnitudes": np.abs(padded).max() / np.median(np.abs(padded)),
        "magnitudes-reaching": np.abs(spectrum).max() / np.median(np.abs(spectrum))}
    for meaning, value in expected.items():
        assert np.isclose(numbers[meaning], value, rtol=1e-5), meaning
    assert numbers["diagonal"] > numbers["diagonal-reaching"]                # the zeros lower the median


def test_what_is_refused():
    with pytest.raises(lt.InputError, match="meaning 'kappa' is not known; allowed: diagonal, "):
        number(np.ones(5), "kappa")
    with pytest.raises(lt.InputError, match=r"diagonal must have shape \(..., 5\) like reaches, not \(4,\)"):
        number(np.ones(4), "diagonal")
    batch = lt.evaluation_batch(lt.PromptDistribution(), 99, 5)
    with pytest.raises(lt.InputError, match="theta must be finite, but 150 of 150 entries are not"):
        condition_numbers(lt.build_model(), np.full(150, np.nan), batch)
