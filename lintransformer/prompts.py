"""A batch of prompts: the token matrices of eq. 4, or the Gram statistics linear attention reads.

Conventions
-----------
B prompts, covariates in R^d, n context tokens and one query, D = d + 1.
    Z       (B, D, n+1)  column i is (x^(i), y^(i)); the last column is (x^(n+1), 0)          eq. 4
    target  (B,)         <w*, x^(n+1)>, what the model should predict
    G       (B, D, D)    Z M Z^T with M = diag(I_n, 0): all that linear attention sees of the context
    z       (B, D)       the query column of Z
How they are drawn: `lintransformer.distributions`. Derivations: derivations/02-task.md and
derivations/05-gram.md.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lintransformer.checks import InputError, check_positive_integer, keep


@dataclass(frozen=True, eq=False)
class Prompts:
    """A batch of prompts as token matrices.

    Parameters
    ----------
    Z : array (B, d+1, n+1), as in eq. 4; kept as a read-only view, since its Gram matrix is computed once
    target : array (B,), <w*, x^(n+1)>

    Raises
    ------
    InputError : wrong shapes, or entries that are not numbers.
    """

    Z: np.ndarray
    target: np.ndarray

    def __post_init__(self):
        keep(self, Z=_read_only(_numeric("Z", self.Z)), target=_read_only(_numeric("target", self.target)))
        if self.Z.ndim != 3 or min(self.Z.shape) < 1 or min(self.Z.shape[1:]) < 2:
            raise InputError(f"Z must have shape (B, d+1, n+1) with B, d, n at least 1, not {self.Z.shape}")
        _check_shape("target", self.target, (len(self.Z),))
        if (self.Z[:, -1, -1] != 0).any():
            warnings.warn("Z[:, -1, -1], the query's own response, is not 0 as in eq. 4: it enters the prediction",
                          stacklevel=3)

    @property
    def size(self):
        return self.Z.shape[0]

    @property
    def dimension(self):
        return self.Z.shape[1] - 1

    @property
    def context_length(self):
        return self.Z.shape[2] - 1

    @property
    def dtype(self):
        return np.result_type(self.Z, self.target)

    def gram(self):
        """The same prompts as Gram statistics (computed once, then kept)."""
        return self._gram

    @cached_property
    def _gram(self):
        Z = np.ascontiguousarray(np.moveaxis(self.Z, 0, -1))                 # (D, n+1, B)
        context = Z[:, :-1]
        G = np.einsum("inb,jnb->ijb", context, context)
        return GramPrompts(np.moveaxis(G, -1, 0), np.moveaxis(Z[:, -1], -1, 0), self.target,
                           self.context_length)

    def astype(self, dtype):
        return Prompts(self.Z.astype(dtype), self.target.astype(dtype))

    def take(self, index):
        """The prompts selected by a slice or an index array along the batch."""
        return Prompts(self.Z[index], self.target[index])


@dataclass(frozen=True, eq=False)
class GramPrompts:
    """A batch of prompts as Gram statistics; enough for linear attention, and only for it.

    Parameters
    ----------
    G : array (B, d+1, d+1), symmetric, Z M Z^T
    z : array (B, d+1), the query column (x^(n+1), 0)
    target : array (B,)
    context_length : int, the n that divides each layer's update (eq. 8)
    """

    G: np.ndarray
    z: np.ndarray
    target: np.ndarray
    context_length: int

    def __post_init__(self):
        keep(self, G=_numeric("G", self.G), z=_numeric("z", self.z), target=_numeric("target", self.target))
        check_positive_integer("context_length", self.context_length)
        if self.G.ndim != 3 or self.G.shape[1] != self.G.shape[2] or self.G.shape[1] < 2 or len(self.G) < 1:
            raise InputError(f"G must have shape (B, d+1, d+1) with B, d at least 1, not {self.G.shape}")
        _check_shape("z", self.z, self.G.shape[:2])
        _check_shape("target", self.target, self.G.shape[:1])
        asymmetry = abs(self.G - np.swapaxes(self.G, 1, 2)) > 1e-5 * abs(self.G).max(axis=(1, 2), keepdims=True)
        if asymmetry.any():
            prompt = int(np.argwhere(asymmetry)[0, 0])
            raise InputError(f"G must be symmetric, as Z M Z^T is; that of prompt {prompt} is not")

    @property
    def size(self):
        return self.G.shape[0]

    @property
    def dimension(self):
        return self.G.shape[1] - 1

    @property
    def dtype(self):
        return np.result_type(self.G, self.z, self.target)

    def gram(self):
        return self

    def astype(self, dtype):
        return GramPrompts(self.G.astype(dtype), self.z.astype(dtype), self.target.astype(dtype),
                           self.context_length)

    def take(self, index):
        """The prompts selected by a slice or an index array along the batch."""
        return GramPrompts(self.G[index], self.z[index], self.target[index], self.context_length)


def _numeric(name, values):
    try:
        array = np.asarray(values)
    except ValueError as error:                                              # ragged nested lists
        raise InputError(f"{name} must be a rectangular array of numbers: {error}") from None
    if array.dtype.kind in "iu":
        array = array.astype(np.float64)
    if array.dtype.kind not in "fcO":
        raise InputError(f"{name} must hold real or complex numbers, not dtype {array.dtype}")
    return array


def _check_shape(name, array, shape):
    if array.shape != shape:
        raise InputError(f"{name} must have shape {shape}, not {array.shape}")


def _read_only(array):
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, eq=False)
class Batch:
    """Any batch: what a model reads, and what it should give.

    Parameters
    ----------
    inputs : array (B, ...), or a dict or tuple of such
    target : array (B, ...)
    """

    inputs: Any
    target: Any

    def __len__(self):
        return len(self.target)

    @property
    def size(self):
        return len(self.target)

    def astype(self, dtype):
        """Floating-point arrays in another precision; integers (tokens, classes) stay."""
        return Batch(*(_mapped(part, lambda array: array.astype(dtype) if np.asarray(array).dtype.kind == "f" else array)
                       for part in (self.inputs, self.target)))

    def take(self, index):
        """The examples selected by a slice or an index array along the first axis."""
        return Batch(*(_mapped(part, lambda array: array[index]) for part in (self.inputs, self.target)))


def _mapped(part, function):
    if isinstance(part, dict):
        return {name: _mapped(value, function) for name, value in part.items()}
    if isinstance(part, (tuple, list)):
        return tuple(_mapped(value, function) for value in part)
    return function(part)
