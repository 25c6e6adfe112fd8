"""Eigenvalues of a symmetric operator: dense, by Lanczos, and as a smooth density.

Everything starts from fixed vectors (`lintransformer.random.stream`, purpose "probe"), so that equal input
gives equal numbers: ARPACK's own start is random.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from lintransformer.checks import InputError, check_choice, check_finite_positive, check_positive_integer
from lintransformer.diagnostics.products import finite
from lintransformer.random import stream

WHICH = {"LA": "largest", "SA": "smallest (most negative)", "LM": "largest in magnitude",
         "BE": "half from each end"}


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
    InputError : k >= p (use `dense_spectrum`), an unknown `which`, an operator that is not square or finite.
    """
    size = _square(H)
    if check_positive_integer("k", k) >= size:
        raise InputError(f"k must be less than p = {size} for Lanczos, not {k}; for all: dense_spectrum")
    check_choice("which", which, WHICH)
    check_finite_positive("tolerance", tolerance, zero_allowed=True)
    counted = _Counted(H)
    start = stream(seed, "probe").standard_normal(size)
    try:
        values, vectors = eigsh(counted, k, which=which, v0=start, tol=tolerance, maxiter=max_iterations)
        converged = True
    except ArpackNoConvergence as error:
        values, vectors, converged = error.eigenvalues, error.eigenvectors.reshape(size, -1), False
    order = np.argsort(values)
    values, vectors, products = values[order], vectors[:, order], counted.products
    columns = [counted.matvec(vector) for vector in vectors.T]
    residuals = np.array([np.linalg.norm(column - value * vector)
                          for column, value, vector in zip(columns, values, vectors.T)])
    return Eigenvalues(values, vectors, residuals, products, converged)


def dense_spectrum(H):
    """All p eigenvalues, ascending, by LAPACK's symmetric solver; H has `to_dense`, or is an array."""
    _square(H)
    dense = H.to_dense() if hasattr(H, "to_dense") else np.asarray(H, dtype=np.float64)
    return scipy.linalg.eigh(finite("H", dense), eigvals_only=True)


class Density(NamedTuple):
    """A spectral density on a grid (its integral is 1), and the nodes and weights (probes, m) behind it."""

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
    points : int, grid points
    width : float, standard deviation of the Gaussian put on each node, as a share of the nodes' range
    seed : int
    """
    size, rng = _square(H), stream(seed, "probe")
    check_positive_integer("probes", probes)
    check_positive_integer("points", points, minimum=2)
    check_finite_positive("width", width)
    steps = min(check_positive_integer("steps", steps), size)
    quadratures = [_quadrature(H, rng.standard_normal(size), steps) for _ in range(probes)]
    nodes, weights = (np.stack([np.pad(part, (0, steps - len(part)), mode="edge" if axis == 0 else "constant")
                                for part in parts]) for axis, parts in enumerate(zip(*quadratures)))
    spread = nodes.max() - nodes.min()
    sigma = width * spread or width * max(1.0, abs(nodes.max()))
    grid = np.linspace(nodes.min() - 5 * sigma, nodes.max() + 5 * sigma, points)
    bumps = np.exp(-0.5 * ((grid - nodes[..., None]) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    return Density(grid, np.einsum("km,kmg->g", weights, bumps) / probes, nodes, weights)


def _quadrature(H, start, steps):
    """Gauss nodes and weights of the measure of v = start / ||start||, eq. 12.7."""
    alpha, beta = tridiagonal(H, start, steps)
    nodes, vectors = scipy.linalg.eigh_tridiagonal(alpha, beta)
    return nodes, vectors[0] ** 2


def tridiagonal(H, start, steps):
    """Lanczos with full reorthogonalisation: the diagonal (m,) and off-diagonal (m-1,) of T = V^T H V.

    m is `steps`, or less if the Krylov space of `start` (p,) is exhausted before.
    """
    V, alpha, beta = [start / np.linalg.norm(start)], [], []
    for _ in range(steps):
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


class _Counted(LinearOperator):
    """An operator that counts its products, and refuses to hand ARPACK a NaN."""

    def __init__(self, H):
        self._H, self.products = H, 0
        super().__init__(np.float64, H.shape)

    def _matvec(self, v):
        self.products += 1
        return finite("H v", np.reshape(self._H @ np.reshape(v, -1), -1))


def _square(H):
    if len(H.shape) != 2 or H.shape[0] != H.shape[1]:
        raise InputError(f"H must be square, not of shape {tuple(H.shape)}")
    return H.shape[0]
