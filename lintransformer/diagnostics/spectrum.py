"""Eigenvalues of a symmetric operator: dense, by Lanczos, and as a smooth density.

Everything starts from fixed vectors (`lintransformer.random.stream`, purpose "probe"), so that equal input
gives equal numbers: ARPACK's own start is random. Operators are taken in units of a power of two near ||H v||, so
that their scale changes nothing; that they are symmetric is tried on two random vectors, of arrays on every entry.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

from lintransformer.checks import (InputError, check_choice, check_finite_positive, check_positive_integer, finite,
                                   real_array, shown)
from lintransformer.random import stream

WHICH = {"LA": "largest", "SA": "smallest (most negative)", "LM": "largest in magnitude",
         "BE": "half from each end"}

ASYMMETRY = 1e-6            # of what its size allows, that <u, H v> and <v, H u> may differ: products by differences do
NARROWEST = 1e-300          # width of a bump whose height 1 / width is still a number


class Eigenvalues(NamedTuple):
    """What `lanczos` found.

    values (m,) ascending; vectors (p, m); residuals (m,) = ||H v - lambda v||, computed afresh; products, the
    Hessian-vector products used; converged, whether all that were asked for came out (else m < k).
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    products: int
    converged: bool


def lanczos(H, k=6, which="LA", seed=0, tolerance=0.0, max_iterations=None):
    """k eigenvalues at an end of the spectrum by the implicitly restarted Lanczos method (ARPACK).

    Parameters
    ----------
    H : `LinearOperator` or array (p, p), symmetric
    k : int, 1 <= k < p
    which : one of `WHICH`
    seed : int, of the start vector
    tolerance : float, relative accuracy; 0 is machine precision
    max_iterations : None or int, restarts allowed (ARPACK's default: 10 p)

    Raises
    ------
    InputError : k >= p (use `dense_spectrum`), an unknown `which`, an operator that is not square, real, finite and
        symmetric.
    """
    H = _Symmetric(H)
    size = H.shape[0]
    if check_positive_integer("k", k) >= size:
        raise InputError(f"k must be less than p = {size} for Lanczos, not {k}; for all: dense_spectrum")
    check_choice("which", which, WHICH)
    check_finite_positive("tolerance", tolerance, zero_allowed=True)
    if max_iterations is not None:
        check_positive_integer("max_iterations", max_iterations)
    start, before = stream(seed, "probe").standard_normal(size), H.products
    if H.is_zero:                                                            # ARPACK has no answer to it
        return Eigenvalues(np.zeros(k), np.eye(size, k), np.zeros(k), 0, True)
    try:
        values, vectors = eigsh(H, k, which=which, v0=start, tol=tolerance, maxiter=max_iterations)
        converged = True
    except ArpackNoConvergence as error:
        values, vectors, converged = error.eigenvalues, error.eigenvectors.reshape(size, -1), False
    except ArpackError as error:
        raise InputError(f"Lanczos cannot work on this H: {error}".replace("\n", " ")) from None
    order = np.argsort(values)
    values, vectors, products = values[order], vectors[:, order], H.products - before
    residuals = np.array([np.linalg.norm(H.matvec(vector) - value * vector)
                          for value, vector in zip(values, vectors.T)])
    return Eigenvalues(np.ldexp(values, H.exponent), vectors, np.ldexp(residuals, H.exponent), products, converged)


def dense_spectrum(H):
    """All p eigenvalues, ascending, by LAPACK's symmetric solver; H has `to_dense`, is an operator or an array.

    Raises
    ------
    InputError : H is not square, real, finite and symmetric; the entry that is not is named.
    """
    if hasattr(H, "to_dense"):
        H = H.to_dense()
    elif isinstance(H, LinearOperator):
        _square(H)
        H = H @ np.eye(H.shape[0])
    return scipy.linalg.eigh(_symmetric_array(H), eigvals_only=True)


class Density(NamedTuple):
    """A spectral density on a grid (its integral is 1), and the nodes and weights (probes, m) behind it.

    A bump is never narrower than `NARROWEST`: a density of 10^320 is no number.
    """

    grid: np.ndarray
    density: np.ndarray
    nodes: np.ndarray
    weights: np.ndarray


def spectral_density(H, probes=10, steps=60, points=400, width=0.01, seed=0):
    """The density of eigenvalues by stochastic Lanczos quadrature, without ever forming H.

    For a random unit vector v, `steps` steps of Lanczos give nodes and weights with sum_i w_i q(node_i) = v^T
    q(H) v for every polynomial q up to degree 2 steps - 1, whose mean over v is trace q(H) / p.

    Parameters
    ----------
    H : `LinearOperator` or array (p, p), symmetric
    probes, steps : int, random vectors and Lanczos steps for each (at most p)
    points : int, grid points; enough that a bump is no narrower than the grid
    width : float, standard deviation of the Gaussian put on each node, as a share of the nodes' range; of their size
        where they all agree, and of 1 where they are 0
    seed : int

    Raises
    ------
    InputError : a value out of range; an operator that is not square, real, finite and symmetric.
    """
    H, rng = _Symmetric(H), stream(seed, "probe")
    size = H.shape[0]
    check_positive_integer("probes", probes)
    check_finite_positive("width", width)
    least = int(np.ceil(1 + (1 / width + 10) / 1.5))
    if check_positive_integer("points", points, minimum=2) < least:
        raise InputError(f"points must be at least {least} for bumps of width {width:g}, not {points}")
    steps = min(check_positive_integer("steps", steps), size)
    quadratures = [_quadrature(H, rng.standard_normal(size), steps) for _ in range(probes)]
    nodes, weights = (np.stack([np.pad(part, (0, steps - len(part)), mode="edge" if axis == 0 else "constant")
                                for part in parts]) for axis, parts in enumerate(zip(*quadratures)))
    spread, largest = nodes.max() - nodes.min(), np.abs(nodes).max()
    if spread <= 1e-10 * largest:                                            # one eigenvalue, to rounding
        spread = largest or 1.0
    sigma = max(width * spread, np.ldexp(NARROWEST, -H.exponent))
    grid = np.linspace(nodes.min() - 5 * sigma, nodes.max() + 5 * sigma, points)
    bumps = np.exp(-0.5 * ((grid - nodes[..., None]) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    density = np.einsum("km,kmg->g", weights, bumps) / probes
    return Density(np.ldexp(grid, H.exponent), np.ldexp(density, -H.exponent), np.ldexp(nodes, H.exponent), weights)


def _quadrature(H, start, steps):
    """Gauss nodes and weights of the measure of v = start / ||start||, eq. 12.7."""
    alpha, beta = tridiagonal(H, start, steps)
    nodes, vectors = scipy.linalg.eigh_tridiagonal(alpha, beta)
    return nodes, vectors[0] ** 2


def tridiagonal(H, start, steps):
    """Lanczos with full reorthogonalisation: the diagonal (m,) and off-diagonal (m-1,) of T = V^T H V.

    m is `steps`, or less if the Krylov space of `start` (p,) is exhausted before.
    """
    start = finite("start", real_array("start", start))
    if start.ndim != 1 or not start.any():
        raise InputError(f"start must be a vector (p,) that is not 0, not {shown(start)}")
    V, alpha, beta = [start / np.linalg.norm(start)], [], []
    for _ in range(check_positive_integer("steps", steps)):
        w = np.array(H @ V[-1])
        alpha.append(V[-1] @ w)
        basis = np.array(V)
        for _ in range(2):                                                   # twice is enough (Parlett)
            w -= basis.T @ (basis @ w)
        norm = np.linalg.norm(w)
        if norm <= 1e-12 * max(np.abs(alpha).max(), max(beta, default=0.0)) or len(alpha) == steps:
            break
        beta.append(norm)
        V.append(w / norm)
    return np.array(alpha), np.array(beta)


class _Symmetric(LinearOperator):
    """H 2^-exponent, of largest entries about 1; it counts its products, and refuses a NaN and what is not symmetric.

    An array is checked entry by entry; of an operator <u, H v> = <v, H u> is tried for two random vectors.
    """

    def __init__(self, H):
        self.products, self.exponent = 0, 0
        if not isinstance(H, LinearOperator):
            H = _symmetric_array(H)
            self.exponent = int(np.frexp(np.abs(H).max())[1])
            H = np.ldexp(H, -self.exponent)
        self._H, self._unit = H, 0
        super().__init__(np.float64, _square(H))
        u, v = stream(0, "probe").standard_normal((2, self.shape[0]))
        Hu, Hv = self.matvec(u), self.matvec(v)
        size = max(np.abs(Hu).max(), np.abs(Hv).max())
        self.is_zero, self._unit = bool(size == 0), int(np.frexp(size)[1])
        self.exponent += self._unit
        Hu, Hv = np.ldexp(Hu, -self._unit), np.ldexp(Hv, -self._unit)
        room = np.linalg.norm(u) * np.linalg.norm(Hv) + np.linalg.norm(v) * np.linalg.norm(Hu)
        last_digit = np.ldexp(np.finfo(float).smallest_subnormal, -self._unit) * np.abs((u, v)).sum()
        if abs(u @ Hv - v @ Hu) > ASYMMETRY * room + 10 * last_digit:        # which is coarse for an H of 1e-320
            raise InputError(f"H must be symmetric, but <u, H v> = {np.ldexp(u @ Hv, self.exponent):.9g} and "
                             f"<v, H u> = {np.ldexp(v @ Hu, self.exponent):.9g} for two random vectors")

    def _matvec(self, v):
        self.products += 1
        return np.ldexp(finite("H v", real_array("H v", self._H @ np.reshape(v, -1)).reshape(-1)), -self._unit)


def _symmetric_array(H):
    """H as a finite real array (p, p), exactly or to rounding symmetric; an `InputError` names the entry."""
    H = finite("H", real_array("H", H.toarray() if scipy.sparse.issparse(H) else H))
    _square(H)
    gap = np.abs(H / 2 - H.T / 2)                                            # halves: a difference cannot overflow
    if gap.max() > ASYMMETRY / 1e4 * np.abs(H).max():
        i, j = map(int, np.unravel_index(np.argmax(gap), H.shape))
        raise InputError(f"H must be symmetric, but H[{i}, {j}] = {H[i, j]:g} and H[{j}, {i}] = {H[j, i]:g}")
    return H


def _square(H):
    if len(H.shape) != 2 or H.shape[0] != H.shape[1] or H.shape[0] < 1:
        raise InputError(f"H must be square, not of shape {tuple(H.shape)}")
    return H.shape
