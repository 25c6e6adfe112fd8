"""Distributions of prompts: the covariates of Table 1, a task vector, and how the responses follow.

A prompt is drawn as x^(1..n+1) ~ D_X, w* ~ N(0, Sigma_w), y^(i) = <w*, x^(i)>. For linear attention only its
Gram statistics matter (derivations/05-gram.md); for Gaussian covariates these are drawn directly: X X^T is a
Wishart matrix, and Bartlett's decomposition needs d(d+1)/2 numbers in place of n d (derivations/02-task.md).

Inside, arrays are laid out batch last, (d, n, B): every operation then runs along contiguous memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lintransformer.checks import (InputError, check_choice, check_dtype, check_finite_positive, check_generator,
                                   check_positive_integer, check_type, finite, keep, real_array, shown)
from lintransformer.prompts import GramPrompts, Prompts
from lintransformer.random import NormalBuffer
from lintransformer.responses import ResponseNetwork

COVARIATES = {
    "gaussian": "x ~ N(0, I_d)",
    "spherical": "x ~ Unif(S^{d-1})",
    "gamma": "x = sqrt(Gamma(shape, scale)) Unif(S^{d-1})",
    "orthogonal": "x = sqrt(d) e_k, k uniform: one of d orthogonal vectors (after Huang et al. 2023)",
}


@dataclass(frozen=True)
class PromptDistribution:
    """How prompts are drawn.

    Parameters
    ----------
    dimension : int, d
    context_length : int, n
    covariates : str, one of `COVARIATES`; or a callable (rng, d, n + 1, B) -> X (d, n + 1, B), covariates of your own
    gamma_shape, gamma_scale : float, k and theta of ||x||^2 ~ Gamma(k, theta), for `covariates="gamma"`
    covariate_covariance : None or (d, d) nested sequence; x is multiplied by its Cholesky factor
    task_covariance : None or (d, d) nested sequence; w* ~ N(0, task_covariance)
    response : None (linear responses) or `ResponseNetwork`

    Raises
    ------
    InputError : a value out of range, a covariance that is not symmetric positive definite.

    Notes
    -----
    To draw otherwise, override `draw` (and `draw_gram`, if Gram statistics can be had for less): training, the
    gradient noise and evaluation batches then draw through it, in the form that the model reads.
    """

    dimension: int = 5
    context_length: int = 20
    covariates: str | Callable = "gaussian"
    gamma_shape: float = 0.1
    gamma_scale: float = 10.0
    covariate_covariance: tuple | None = None
    task_covariance: tuple | None = None
    response: ResponseNetwork | None = None

    @classmethod
    def from_config(cls, config):
        """A distribution from plain JSON values: `response` as a dict, covariances as nested lists."""
        unknown = sorted(set(config) - set(cls.__dataclass_fields__))
        if unknown:
            raise InputError(f"a distribution has no option {unknown[0]!r}; "
                             f"allowed: {', '.join(cls.__dataclass_fields__)}")
        response = config.get("response")
        return cls(**{**config, "response": response and ResponseNetwork(**response)})

    def __post_init__(self):
        keep(self, dimension=check_positive_integer("dimension", self.dimension),
             context_length=check_positive_integer("context_length", self.context_length),
             covariates=self.covariates if callable(self.covariates) else check_choice("covariates", self.covariates,
                                                                                     COVARIATES),
             gamma_shape=check_finite_positive("gamma_shape", self.gamma_shape),
             gamma_scale=check_finite_positive("gamma_scale", self.gamma_scale),
             response=check_type("response", self.response, ResponseNetwork, type(None)))
        for name in ("covariate_covariance", "task_covariance"):
            keep(self, **{name: _covariance(name, getattr(self, name), self.dimension)})

    @cached_property
    def _factors(self):
        """Cholesky factors of the two covariances, None for the identity."""
        return tuple(None if covariance is None else np.linalg.cholesky(covariance)
                     for covariance in (self.covariate_covariance, self.task_covariance))

    def draw(self, rng, size, dtype=np.float64):
        """`size` prompts as token matrices, from a `numpy.random.Generator`."""
        if self._overrides("draw_gram") and not self._overrides("draw"):
            raise InputError(f"{type(self).__name__} overrides draw_gram alone: it has no tokens; override draw")
        return TokenSampler(self, size, dtype).draw(rng)._with(lambda array: array)

    def draw_gram(self, rng, size, dtype=np.float64):
        """`size` prompts as Gram statistics, the same distribution as `draw(...).gram()`."""
        if self._overrides("draw"):
            return self.draw(rng, size, dtype).gram()
        return GramSampler(self, size, dtype).draw(rng)._with(lambda array: array)

    def sampler_for(self, model, size, dtype=np.float64):
        """The sampler of a model's training loop: tokens or Gram statistics, as it reads; fresh draws for others'."""
        if getattr(model, "dimension", self.dimension) != self.dimension:
            raise InputError(f"distribution has dimension {self.dimension}, but the model has dimension "
                             f"{model.dimension}")
        if not hasattr(model, "needs_tokens"):
            return DrawSampler(self, size, dtype, "tokens")
        return self.sampler(size, dtype, "tokens" if model.needs_tokens else "gram")

    def sampler(self, size, dtype=np.float64, form="gram"):
        """A sampler for training loops: each of its draws OVERWRITES the one before, and returns the same object.

        Where a subclass overrides `draw` or `draw_gram`, each draw is a call of these.
        """
        kind = SAMPLERS[check_choice("form of the prompts", form, SAMPLERS)]
        if self._overrides("draw") or self._overrides("draw_gram"):
            kind = DrawSampler
        return kind(self, size, dtype, form)

    def _overrides(self, name):
        return getattr(type(self), name) is not getattr(PromptDistribution, name)


class DrawSampler:
    """Draws by the methods of a subclass, which then own nothing in common with the draw before."""

    def __init__(self, distribution, size, dtype, form):
        self.size, self.dtype = check_positive_integer("batch size", size), check_dtype(dtype)
        self._draw = distribution.draw if form == "tokens" else distribution.draw_gram

    def draw(self, rng):
        return self._draw(check_generator(rng), self.size, self.dtype)


class TokenSampler:
    """Draws token matrices into one set of buffers; a draw is valid until the next one."""

    def __init__(self, distribution, size, dtype, form="tokens"):
        self.distribution, self.dtype = distribution, (dtype := check_dtype(dtype))
        size = check_positive_integer("batch size", size)
        d, n = distribution.dimension, distribution.context_length
        self._own, self._axes = callable(distribution.covariates), distribution.covariates == "orthogonal"
        tokens = [] if self._own or self._axes else [(d, n + 1, size)]
        self._normals = NormalBuffer([*tokens, (d, size)], self.dtype)
        self._radius = np.empty((n + 1, size), dtype)
        self._Z, self._target = np.zeros((d + 1, n + 1, size), dtype), np.empty(size, dtype)
        self._prompts = Prompts._trusted(np.moveaxis(self._Z, -1, 0), self._target, borrowed=True)

    def draw(self, rng):
        check_generator(rng)
        d, (covariate_factor, task_factor) = self.distribution.dimension, self.distribution._factors
        *normals, w = self._normals.fill(rng)
        X = (self._own_covariates(rng) if self._own else self._draw_axes(rng) if self._axes
             else self._scale_covariates(rng, normals[0]))
        X = _transform(covariate_factor, X)
        w = _transform(task_factor, w)
        response = X if self.distribution.response is None else self.distribution.response(X)
        self._Z[:d] = X
        np.einsum("db,dib->ib", w, response[:, :-1], out=self._Z[d, :-1])
        np.einsum("db,db->b", w, response[:, -1], out=self._target)
        return self._fresh()

    def _own_covariates(self, rng):
        """What a reader's function draws, checked."""
        shape = self.distribution.dimension, self.distribution.context_length + 1, self._target.size
        X = real_array("covariates(rng, d, n + 1, B)", self.distribution.covariates(rng, *shape))
        if X.shape != shape:
            raise InputError(f"covariates(rng, d, n + 1, B) must return an array of shape {shape}, not {X.shape}")
        return finite("covariates(rng, d, n + 1, B)", X).astype(self.dtype)

    def _draw_axes(self, rng):
        """sqrt(d) e_k with k uniform, into the tokens themselves: E x x^T = I; derivations/02-task.md, eq. 2.14."""
        X = self._Z[:-1]
        k = rng.integers(len(X), size=X.shape[1:], dtype=np.min_scalar_type(len(X) - 1))
        for axis, row in enumerate(X):
            np.multiply(k == axis, np.sqrt(len(X)), out=row, casting="same_kind")
        return X

    def _fresh(self):
        self._prompts.__dict__.pop("_gram", None)                            # the cached Gram matrix is stale
        return self._prompts

    def _scale_covariates(self, rng, X):
        """Normals (d, n+1, B) to covariates, in place: their directions are kept, their lengths replaced."""
        if self.distribution.covariates == "gaussian":
            return X
        scale = np.einsum("dib,dib->ib", X, X, out=self._radius)
        np.divide(1, scale, out=scale)
        if self.distribution.covariates == "gamma":
            gamma = rng.standard_gamma(self.distribution.gamma_shape, scale.shape, dtype=self.dtype)
            scale *= np.multiply(gamma, self.distribution.gamma_scale, out=gamma)
        X *= np.sqrt(scale, out=scale)
        return X


class GramSampler:
    """Draws Gram statistics into one set of buffers; a draw is valid until the next one.

    Gaussian covariates with linear responses: Bartlett's decomposition, at a cost that does not depend on n.
    Everything else: through token matrices.
    """

    def __init__(self, distribution, size, dtype, form="gram"):
        self.distribution, self.dtype = distribution, (dtype := check_dtype(dtype))
        size = check_positive_integer("batch size", size)
        d, n = distribution.dimension, distribution.context_length
        self._direct = distribution.covariates == "gaussian" and distribution.response is None
        if self._direct:
            self._factor = np.zeros((d, min(d, n), size), dtype)             # lower trapezoidal, X X^T = A A^T
            below = [(min(i, n), size) for i in range(1, d)]                 # row i of A, left of its diagonal
            self._normals = NormalBuffer([*below, (d, size), (d, size)], self.dtype)
        else:
            self._tokens = TokenSampler(distribution, size, dtype)
        self._G, self._z = np.zeros((d + 1, d + 1, size), dtype), np.zeros((d + 1, size), dtype)
        self._target = np.empty(size, dtype)
        self._prompts = GramPrompts._trusted(np.moveaxis(self._G, -1, 0), np.moveaxis(self._z, -1, 0),
                                             self._target, n, borrowed=True)

    def draw(self, rng):
        check_generator(rng)
        if self._direct:
            self._draw_wishart(rng)
        else:
            self._draw_through_tokens(rng)
        return self._prompts

    def _draw_wishart(self, rng):
        d, G = self.distribution.dimension, self._G
        covariate_factor, task_factor = self.distribution._factors
        *below, w, x = self._normals.fill(rng)
        A = _transform(covariate_factor, self._draw_bartlett(rng, below))
        w, x = _transform(task_factor, w), _transform(covariate_factor, x)
        np.einsum("ikb,jkb->ijb", A, A, out=G[:d, :d])                       # S = X X^T
        np.einsum("ijb,jb->ib", G[:d, :d], w, out=G[:d, d])                  # s = X y, since y = X^T w
        G[d, :d] = G[:d, d]
        np.einsum("ib,ib->b", G[d, :d], w, out=G[d, d])                      # y^T y
        self._z[:d] = x
        np.einsum("ib,ib->b", w, x, out=self._target)

    def _draw_bartlett(self, rng, below):
        """A (d, min(d, n), B) with A A^T ~ Wishart_d(I, n); derivations/02-task.md, eq. 2.9."""
        A, n = self._factor, self.distribution.context_length
        for i, row in enumerate(below, start=1):
            A[i, :len(row)] = row
        for i in range(A.shape[1]):
            rng.standard_gamma((n - i) / 2, out=A[i, i], dtype=self.dtype)
        diagonal = np.einsum("iib->ib", A[:A.shape[1]])                      # a view; chi = sqrt(2 Gamma)
        np.multiply(diagonal, 2, out=diagonal)
        np.sqrt(diagonal, out=diagonal)
        return A

    def _draw_through_tokens(self, rng):
        gram = self._tokens.draw(rng).gram()
        self._G[...], self._z[...], self._target[...] = gram.G.transpose(1, 2, 0), gram.z.T, gram.target


SAMPLERS = {"gram": GramSampler, "tokens": TokenSampler}


def _transform(factor, values):
    """Multiply the first axis by a Cholesky factor; None is the identity and costs nothing."""
    if factor is None:
        return values
    return np.einsum("ij,j...->i...", factor.astype(values.dtype), values)


def _covariance(name, covariance, dimension):
    """A covariance as a tuple of tuples of floats, so that distributions compare, hash and serialise."""
    if covariance is None:
        return None
    matrix = finite(name, real_array(name, covariance))
    if matrix.shape != (dimension, dimension):
        raise InputError(f"{name} must have shape {(dimension, dimension)}, not {matrix.shape}")
    asymmetry = abs(matrix - matrix.T).max()
    if asymmetry > 1e-8 * abs(matrix).max() or np.linalg.eigvalsh(matrix)[0] <= 0:
        raise InputError(f"{name} must be symmetric positive definite, not {shown(matrix.tolist())}")
    return tuple(map(tuple, matrix.tolist()))
