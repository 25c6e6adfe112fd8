"""Two ways to lay out many small matrices in memory, and the products of the fast path in each.

Conventions
-----------
Seen from outside an array is always (rows, columns, c): c prompts, batch last. Seen from memory,
    `BatchLast`   keeps the batch contiguous: einsum runs along it. Best for small d, where a matrix is a few numbers;
    `BatchFirst`  keeps each matrix contiguous: one BLAS call a prompt. Best from about d = 10 on (measured).
Elementwise operations do not care. W is a (d, d) matrix shared by all prompts. Every function writes into `out`.
"""

import numpy as np

BLAS_FROM_DIMENSION = 10
BLOCK = 32                           # prompts; larger ones are no faster (d = 20)


class BatchLast:
    """Memory (rows, columns, c)."""

    @staticmethod
    def empty(*shape, dtype):
        """An array of shape (..., rows, columns, c)."""
        return np.empty(shape, dtype)

    @staticmethod
    def product(A, B, out):
        """A B, prompt by prompt."""
        return np.einsum("ijb,jkb->ikb", A, B, out=out)

    @staticmethod
    def product_swapped(A, B, out):
        """A B into an `empty_swapped` array: a quarter faster, for einsum then sums up one row at a time."""
        np.einsum("ijb,jkb->kib", A, B, out=np.swapaxes(out, 0, 1))
        return out

    @staticmethod
    def empty_swapped(*shape, dtype):
        """(rows, columns, c) in memory (columns, rows, c)."""
        return np.swapaxes(BatchLast.empty(*shape, dtype=dtype), 0, 1)

    @staticmethod
    def product_transposed(A, B, out):
        """A B^T."""
        return np.einsum("ijb,kjb->ikb", A, B, out=out)

    product_symmetric = product_transposed                                   # A B for symmetric B: the faster way

    @staticmethod
    def transposed_product(A, B, out):
        """A^T B."""
        return np.einsum("jib,jkb->ikb", A, B, out=out)

    @staticmethod
    def left(W, A, out):
        """W A: one matrix product over (d, k c)."""
        np.matmul(W, _flat(A), out=_flat(out))
        return out

    @staticmethod
    def right(A, W, out):
        """A W, row by row."""
        return np.matmul(W.T, A, out=out)

    @staticmethod
    def left_transposed(W, A, out):
        """W A^T, row by row of A."""
        np.matmul(W, A, out=np.swapaxes(out, 0, 1))
        return out

    @staticmethod
    def sum_product_transposed(A, B):
        """sum_b A B^T (..., d, d)."""
        return _flat(A) @ np.swapaxes(_flat(B), -1, -2)

    @staticmethod
    def sum_transposed_product(A, B):
        """sum_b A^T B (d, d)."""
        return np.matmul(A, np.swapaxes(B, -1, -2)).sum(axis=0)


class BatchFirst:
    """Memory (c, rows, columns)."""

    @staticmethod
    def empty(*shape, dtype):
        *lead, rows, columns, c = shape
        return np.moveaxis(np.empty((*lead, c, rows, columns), dtype), -3, -1)

    empty_swapped = empty

    @staticmethod
    def product(A, B, out):
        np.matmul(_first(A), _first(B), out=_first(out))
        return out

    product_symmetric = product_swapped = product

    @staticmethod
    def product_transposed(A, B, out):
        np.matmul(_first(A), _first(np.swapaxes(B, 0, 1)), out=_first(out))
        return out

    @staticmethod
    def transposed_product(A, B, out):
        np.matmul(_first(np.swapaxes(A, 0, 1)), _first(B), out=_first(out))
        return out

    @staticmethod
    def left(W, A, out):
        np.matmul(W, _first(A), out=_first(out))
        return out

    @staticmethod
    def right(A, W, out):
        """A W: one matrix product over (c d, d)."""
        rows = _first(A)
        np.matmul(rows.reshape(-1, rows.shape[-1]), W, out=_first(out).reshape(-1, W.shape[-1]))
        return out

    @staticmethod
    def left_transposed(W, A, out):
        np.matmul(W, _first(np.swapaxes(A, 0, 1)), out=_first(out))
        return out

    @staticmethod
    def sum_product_transposed(A, B):
        """Of thin A and B, a few prompts at a time: each is copied to lie as `BatchLast` would have it."""
        blocks = [slice(first, first + BLOCK) for first in range(0, A.shape[-1], BLOCK)]
        return sum(BatchLast.sum_product_transposed(A[..., block], B[..., block]) for block in blocks)

    @staticmethod
    def sum_transposed_product(A, B):
        """One matrix product over (d, c d)."""
        A, B = _first(A), _first(B)
        return A.reshape(-1, A.shape[-1]).T @ B.reshape(-1, B.shape[-1])


def layout_for(dimension):
    """The faster layout for d x d matrices."""
    return BatchFirst if dimension >= BLAS_FROM_DIMENSION else BatchLast


def _flat(A):
    """(..., d, k, c) as the (..., d, k c) matrix of one product."""
    return A.reshape(A.shape[:-2] + (-1,))


def _first(A):
    """The same memory with the batch first."""
    return np.moveaxis(A, -1, 0)
