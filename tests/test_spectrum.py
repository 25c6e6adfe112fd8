"""Spectra of what is no symmetric matrix, of zero, at any scale; and residuals that say how far off a pair is."""

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import lintransformer as lt
from lintransformer.diagnostics.conditioning import MEANINGS, condition_numbers, robust_condition_number
from lintransformer.diagnostics.spectrum import dense_spectrum, lanczos, spectral_density

ROUTES = {"dense": dense_spectrum, "lanczos": lambda H: lanczos(H, 1), "density": spectral_density}
LAST = np.arange(1.0, 9.0)


def as_dense(H):
    return H


def as_operator(H):
    return aslinearoperator(H)


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize("wrap", [as_dense, as_operator, scipy.sparse.csr_array])
def test_what_is_not_symmetric_is_refused(wrap, route):
    H = np.diag(LAST)
    H[2, 5] = 99
    with pytest.raises(lt.InputError, match="^H must be symmetric, but "):
        route(wrap(H))
    route(wrap(H + np.triu(H, 1).T))


def test_the_entry_that_is_not_symmetric_is_named():
    with pytest.raises(lt.InputError, match=r"^H must be symmetric, but H\[0, 1\] = 99 and H\[1, 0\] = 0$"):
        dense_spectrum([[1, 99], [0, 1]])


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_hermitian_is_not_symmetric(route):
    for H in (np.array([[1, 1j], [-1j, 1]]), aslinearoperator(np.array([[1, 1j], [-1j, 1]]))):
        with pytest.raises(lt.InputError, match="must hold real numbers, not dtype complex128"):
            route(H)
    with pytest.raises(lt.InputError, match="masked arrays are not supported"):
        route(np.ma.masked_less(np.eye(3), 1))


def test_the_spectrum_of_a_zero_hessian_is_zero():
    """No covariates and one token: ARPACK's own answer is error -9."""
    model = lt.build_model(2, 3)
    theta, nothing = model.init(np.random.default_rng(0)), lt.Prompts(np.zeros((1, 4, 2)), np.ones(1))
    H = lt.hessian(model, theta, nothing)
    found = lanczos(H, 3)
    assert found.converged and not found.values.any() and not found.residuals.any()
    assert np.array_equal(found.vectors.T @ found.vectors, np.eye(3))
    assert not dense_spectrum(H).any()
    density = spectral_density(H)
    assert np.isclose(np.trapezoid(density.density, density.grid), 1, atol=1e-5) and not density.nodes.any()
    assert set(condition_numbers(model, theta, nothing).values()) == {np.inf}
    assert robust_condition_number(np.zeros(3), np.zeros(3), np.ones(3, bool)) == np.inf


@pytest.mark.parametrize("wrap", [as_dense, as_operator])
@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1.0, 1e200, 1e307])
def test_scale_changes_nothing(scale, wrap):
    """Subnormal numbers have few digits; everything else must be right to rounding."""
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0]
    H = rotation * LAST @ rotation.T
    H = (H + H.T) / 2 * scale
    close = 1e-2 if scale < 1e-300 else 1e-12
    assert np.allclose(dense_spectrum(wrap(H)) / scale, LAST, rtol=close)
    for which, expected in (("LA", LAST[-2:]), ("SA", LAST[:2])):
        assert np.allclose(lanczos(wrap(H), 2, which).values / scale, expected, rtol=close)
    density = spectral_density(wrap(H))
    assert np.isclose(np.trapezoid(density.density, density.grid), 1, atol=1e-5)
    means = (density.nodes / scale * density.weights).sum(axis=1)
    assert abs(means.mean() - LAST.mean()) < 5 * means.std(ddof=1) / np.sqrt(len(means))


@pytest.mark.parametrize("scale", [1e-320, 1e-9, 1.0, 1e200])
def test_the_density_of_the_identity_integrates_to_one(scale):
    density = spectral_density(scale * np.eye(7))
    assert np.isclose(np.trapezoid(density.density, density.grid), 1, atol=1e-5)
    assert np.allclose(density.nodes / scale, 1, rtol=1e-3) and density.grid[0] < scale < density.grid[-1]


def test_a_grid_coarser_than_its_bumps_is_refused():
    with pytest.raises(lt.InputError, match="points must be at least 75 for bumps of width 0.01, not 74"):
        spectral_density(np.diag(LAST), points=74)
    density = spectral_density(np.diag(LAST), points=75)
    assert np.isclose(np.trapezoid(density.density, density.grid), 1, atol=1e-3)


def with_a_residual(found, H):
    return np.linalg.norm(H @ found.vectors - found.vectors * found.values, axis=0)


def test_residuals_are_real_where_lanczos_stops_early():
    """A loose tolerance leaves residuals of a hundredth of the spectrum: zeros would be seen."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((200, 200))
    A = A + A.T
    found = lanczos(A, 3, tolerance=0.3)
    expected = with_a_residual(found, A)
    assert expected.max() > 1e-3 * np.linalg.norm(A, 2)
    assert np.allclose(found.residuals, expected, rtol=1e-8)
    eigenvalues = dense_spectrum(A)
    for value, residual in zip(found.values, found.residuals):               # eq. 12.5: one lies that near
        assert np.abs(eigenvalues - value).min() <= residual
    scaled = lanczos(1e200 * A, 3, tolerance=0.3)
    assert np.allclose(scaled.residuals / 1e200, found.residuals, rtol=1e-6)


def test_residuals_see_an_operator_that_is_slightly_noisy():
    """H v with an error that changes from call to call: what ARPACK takes for converged is no eigenvector of H."""
    rng = np.random.default_rng(1)
    H, noise = np.diag(np.linspace(1, 3, 40)), rng.standard_normal((40, 40))
    noise = 1e-7 * (noise + noise.T)
    calls = []

    def product(v):
        calls.append(None)
        return (H + (len(calls) % 2) * noise) @ v

    found = lanczos(LinearOperator((40, 40), product, dtype=float), 2, tolerance=1e-5)
    assert found.residuals.max() > 1e-8
    assert np.allclose(found.residuals, with_a_residual(found, H), atol=3e-6)


@pytest.mark.parametrize("meaning", MEANINGS)
def test_condition_numbers_refuse_what_is_not_real_or_does_not_reach(meaning):
    ones, reaches = np.ones(3), np.ones(3, bool)
    for wrong in (ones + 1j, np.ma.masked_equal(ones, 1), [None] * 3, "abc", ones > 0):
        with pytest.raises(lt.InputError, match="must hold real numbers|masked arrays"):
            robust_condition_number(wrong, wrong, reaches, meaning)
    with pytest.raises(lt.InputError, match="reaches must be a vector .* of bool, one of them true"):
        robust_condition_number(ones, ones, ~reaches, meaning)
