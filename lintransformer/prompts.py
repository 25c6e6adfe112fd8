"""A batch of prompts: the token matrices of eq. 4, or the Gram statistics linear attention reads.

Conventions
-----------
B prompts, covariates in R^d, n context tokens and one query, D = d + 1.
    Z       (B, D, n+1)  column i is (x^(i), y^(i)); the last column is (x^(n+1), 0)          eq. 4
    target  (B,)         <w*, x^(n+1)>, what the model should predict
    G       (B, D, D)    Z M Z^T with M = diag(I_n, 0): all that linear attention sees of the context
    z       (B, D)       the query column of Z
A batch owns its arrays, read-only: what is done later to an array it was made from changes nothing. How prompts
are drawn: `lintransformer.distributions`. Derivations: derivations/02-task.md and derivations/05-gram.md.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lintransformer.checks import InputError, check_positive_integer, finite, keep, numeric_array, refuse_masked

ROUNDING = 1e3          # units in the last place that a G computed elsewhere may lack of symmetry, or lie below 0


class _Batch:
    """What both kinds of prompts have in common: fields are arrays along the batch, and perhaps n."""

    _borrowed = False

    @classmethod
    def _trusted(cls, *values, borrowed=False):
        """A batch of arrays that are known to fit and that nobody else keeps: no checks, no copies.

        `borrowed` says that a sampler goes on writing into them; `astype` then copies in any case.
        """
        batch = object.__new__(cls)
        keep(batch, _borrowed=borrowed, **{name: _read_only(value) if isinstance(value, np.ndarray) else value
                                           for name, value in zip(cls.__dataclass_fields__, values)})
        return batch

    def _with(self, change):
        """The batch with every array changed."""
        return self._trusted(*(change(value) if isinstance(value, np.ndarray) else value
                               for value in (getattr(self, name) for name in self.__dataclass_fields__)))

    @property
    def size(self):
        return len(self.target)

    def astype(self, dtype):
        """The batch in another dtype: float32, float64, complex64, complex128 or object; itself if it has it.

        Raises
        ------
        InputError : any other dtype; complex prompts asked for as real ones.
        """
        try:
            dtype = np.dtype(dtype)
        except (TypeError, ValueError):
            raise InputError(f"dtype {dtype!r} is not known; allowed: float32, float64, complex128, object") from None
        if dtype.kind not in "fcO" or dtype == np.float16:
            raise InputError(f"dtype {dtype} is not known; allowed: float32, float64, complex128, object")
        if dtype.kind == "f" and self.dtype.kind == "c":
            raise InputError(f"prompts of dtype {self.dtype} have imaginary parts, which dtype {dtype} would drop")
        arrays = [value for value in vars(self).values() if isinstance(value, np.ndarray)]
        if not self._borrowed and all(array.dtype == dtype for array in arrays):
            return self
        return self._with(lambda array: array.astype(dtype))

    def take(self, index):
        """The prompts selected by a slice, a mask or an index array along the batch; at least one.

        Raises
        ------
        InputError : an index that selects none, or that is none.
        """
        try:
            taken = self._with(lambda array: array[index])
        except (IndexError, TypeError, ValueError) as error:
            raise InputError(f"index does not select prompts along the batch of {self.size}: {error}") from None
        if taken.target.ndim != 1 or taken.size < 1:
            raise InputError(f"index must select at least one of {self.size} prompts along the batch, but target "
                             f"became of shape {taken.target.shape}")
        keep(taken, _borrowed=self._borrowed)                                # a slice shows the same memory
        return taken

    def __getstate__(self):
        return {name: getattr(self, name) for name in (*self.__dataclass_fields__, "_borrowed")}

    def __setstate__(self, state):                                           # an array is unpickled writeable
        keep(self, **{name: _read_only(value) if isinstance(value, np.ndarray) else value
                      for name, value in state.items()})


@dataclass(frozen=True, eq=False)
class Prompts(_Batch):
    """A batch of prompts as token matrices.

    Parameters
    ----------
    Z : array (B, d+1, n+1), as in eq. 4; copied, and read-only: its Gram matrix is computed once
    target : array (B,), <w*, x^(n+1)>; copied

    Raises
    ------
    InputError : wrong shapes, masked arrays, float16, entries that are not numbers.
    """

    Z: np.ndarray
    target: np.ndarray

    def __post_init__(self):
        keep(self, Z=_owned("Z", self.Z), target=_owned("target", self.target))
        if self.Z.ndim != 3 or min(self.Z.shape) < 1 or min(self.Z.shape[1:]) < 2:
            raise InputError(f"Z must have shape (B, d+1, n+1) with B, d, n at least 1, not {self.Z.shape}")
        _check_shape("target", self.target, (len(self.Z),))
        if (self.Z[:, -1, -1] != 0).any():
            warnings.warn("Z[:, -1, -1], the query's own response, is not 0 as in eq. 4: it enters the prediction",
                          stacklevel=3)

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
        """Two threads that both find it missing compute the same numbers: no lock is needed."""
        Z = np.ascontiguousarray(np.moveaxis(self.Z, 0, -1))                 # (D, n+1, B)
        context = Z[:, :-1]
        G = np.einsum("inb,jnb->ijb", context, context)
        return GramPrompts._trusted(np.moveaxis(G, -1, 0), np.moveaxis(Z[:, -1], -1, 0), self.target,
                                    self.context_length, borrowed=self._borrowed)


@dataclass(frozen=True, eq=False)
class GramPrompts(_Batch):
    """A batch of prompts as Gram statistics; enough for linear attention, and only for it.

    Parameters
    ----------
    G : array (B, d+1, d+1), symmetric positive semidefinite, Z M Z^T; copied, and read-only
    z : array (B, d+1), the query column (x^(n+1), 0); copied
    target : array (B,); copied
    context_length : int, the n that divides each layer's update (eq. 8)

    Raises
    ------
    InputError : wrong shapes, masked arrays, float16, entries that are not numbers; a G that is not finite, not
        symmetric, or (of real numbers) has a negative eigenvalue: no prompt has such statistics.
    """

    G: np.ndarray
    z: np.ndarray
    target: np.ndarray
    context_length: int

    def __post_init__(self):
        keep(self, G=_owned("G", self.G), z=_owned("z", self.z), target=_owned("target", self.target),
             context_length=check_positive_integer("context_length", self.context_length))
        if self.G.ndim != 3 or self.G.shape[1] != self.G.shape[2] or self.G.shape[1] < 2 or len(self.G) < 1:
            raise InputError(f"G must have shape (B, d+1, d+1) with B, d at least 1, not {self.G.shape}")
        _check_shape("z", self.z, self.G.shape[:2])
        _check_shape("target", self.target, self.G.shape[:1])
        _check_gram(self.G)

    @property
    def dimension(self):
        return self.G.shape[1] - 1

    @property
    def dtype(self):
        return np.result_type(self.G, self.z, self.target)

    def gram(self):
        return self


def _check_gram(G):
    """Symmetric and positive semidefinite, to rounding; complex numbers (a complex step) and Fractions have no
    order or need no tolerance: they are checked for symmetry only."""
    if G.dtype == object:
        asymmetric = G != np.swapaxes(G, 1, 2)
    else:
        finite("G", G)
        # in units of each prompt's largest entry; a complex number's size by its parts, which cannot overflow
        size = np.maximum(np.abs(G.real), np.abs(G.imag)).max(axis=(1, 2), keepdims=True)
        unit = G / np.where(size == 0, 1, size)
        asymmetric = abs(unit - np.swapaxes(unit, 1, 2)) > ROUNDING * np.finfo(G.dtype).eps
    if asymmetric.any():
        prompt, i, j = map(int, np.argwhere(asymmetric)[0])
        raise InputError(f"G must be symmetric, as Z M Z^T is; that of prompt {prompt} is not: "
                         f"{G[prompt, i, j]} at {i, j}, {G[prompt, j, i]} at {j, i}")
    if G.dtype.kind == "f":
        lowest = np.linalg.eigvalsh(unit.astype(np.float64, copy=False))[:, 0]
        if lowest.min() < -ROUNDING * np.finfo(G.dtype).eps:
            prompt = int(np.argmin(lowest))
            raise InputError(f"G must be positive semidefinite, as Z M Z^T is; that of prompt {prompt} has the "
                             f"eigenvalue {lowest[prompt] * float(size[prompt, 0, 0]):.6g}")


def _owned(name, values):
    """A read-only copy, in the same memory layout."""
    return _read_only(np.array(numeric_array(name, values), copy=True, order="K", subok=False))


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
    inputs : array (B, ...), or a dict or tuple of such; copied, and read-only
    target : array (B, ...), or a dict or tuple of such; likewise
    """

    inputs: Any
    target: Any

    def __post_init__(self):
        keep(self, **{name: _mapped(getattr(self, name), lambda value, name=name: _read_only(_array(name, value)))
                      for name in ("inputs", "target")})
        if len({len(array) if array.ndim else 0 for _, array in arrays_of(self)}) != 1:
            raise InputError("every array of a batch must have one entry an example along its first axis; the shapes "
                             "are " + ", ".join(str(array.shape) for _, array in arrays_of(self)))

    def __len__(self):
        return len(next(arrays_of(self))[1])

    @property
    def size(self):
        return len(self)

    def astype(self, dtype):
        """Floating-point arrays in another precision; integers (tokens, classes) stay."""
        return Batch(*(_mapped(part, lambda array: array.astype(dtype) if array.dtype.kind == "f" else array)
                       for part in (self.inputs, self.target)))

    def take(self, index):
        """The examples selected by a slice or an index array along the first axis."""
        return Batch(*(_mapped(part, lambda array: array[index]) for part in (self.inputs, self.target)))


def arrays_of(part, name="batch"):
    """(name, array) of every array in a batch: a dataclass of arrays, a dict, a tuple, or an array itself."""
    if isinstance(part, np.ndarray):
        yield name, part
    elif isinstance(part, dict):
        for key, value in part.items():
            yield from arrays_of(value, f"{name}[{key!r}]")
    elif isinstance(part, (tuple, list)):
        for i, value in enumerate(part):
            yield from arrays_of(value, f"{name}[{i}]")
    elif hasattr(part, "__dataclass_fields__"):
        for key in part.__dataclass_fields__:
            yield from arrays_of(getattr(part, key), f"{name}.{key}")


def _array(name, values):
    """A copy; integers stay integers (tokens, classes)."""
    refuse_masked(name, values)
    array = np.asarray(values)
    return np.array(array if array.dtype.kind in "iu" else numeric_array(name, values), copy=True)


def _mapped(part, function):
    if isinstance(part, dict):
        return {name: _mapped(value, function) for name, value in part.items()}
    if isinstance(part, (tuple, list)):
        return tuple(_mapped(value, function) for value in part)
    return function(part)
