"""The products every attention is made of, by name: one einsum over batch-last arrays each, or one matrix
product where all prompts share a matrix.

Conventions
-----------
    Z, X, Y   (D, N, B)   tokens of B prompts           S  (N, N, B)  scores, row = key, column = query
    A, G      (D, D, B)   one matrix a prompt           z  (D, B)     one vector a prompt
    W         (D, D)      a matrix all prompts share
A leading axis K (the directions of a tangent) may stand before any of them and broadcasts.
"""

from fractions import Fraction

import numpy as np


def zeros(shape, dtype):
    """Zeros of a dtype; an object array gets exact ones, since 0 / n would be a float."""
    return np.full(shape, Fraction(0) if dtype == object else 0, dtype)


# --- tokens ---


def left(W, Z):
    """W Z: a shared matrix times every token."""
    return _columns(W @ _flat(Z), Z)


def transposed_shared(W, Z):
    """W^T Z."""
    return _columns(np.swapaxes(W, -1, -2) @ _flat(Z), Z)


def scores(keys, queries):
    """keys^T queries (N, N, B)."""
    return np.einsum("...dib,...djb->...ijb", keys, queries)


def mix(Z, S):
    """Z S (D, N, B)."""
    return np.einsum("...dib,...ijb->...djb", Z, S)


def mix_transposed(Z, S):
    """Z S^T (D, N, B)."""
    return np.einsum("...djb,...ijb->...dib", Z, S)


def outer_sum(X, Y):
    """X Y^T summed over the batch (D, D)."""
    return _flat(X) @ np.swapaxes(_flat(Y), -1, -2)


def token_gram(X, Y):
    """X Y^T, prompt by prompt (D, D, B)."""
    return np.einsum("...dib,...cib->...dcb", X, Y)


def masked(Z):
    """Z M: the query token, as a key, is dropped (eq. 7)."""
    return np.concatenate([Z[..., :-1, :], zeros(Z[..., -1:, :].shape, Z.dtype)], axis=-2)


def _flat(Z):
    """(D, N, B) as the (D, N B) matrix of one product: what all prompts share is left to BLAS."""
    return Z.reshape(Z.shape[:-2] + (-1,))


def _columns(flat, Z):
    """(D, N B) back to (D, N, B)."""
    return flat.reshape(flat.shape[:-1] + Z.shape[-2:])


# --- matrices, one a prompt ---


def times(A, G):
    """A G; also A Z for tokens."""
    return np.einsum("...ijb,...jkb->...ikb", A, G)


def times_transposed(A, G):
    """A G^T."""
    return np.einsum("...ijb,...kjb->...ikb", A, G)


def transposed_times(A, G):
    """A^T G; also A^T Z for tokens."""
    return np.einsum("...jib,...jkb->...ikb", A, G)


def on(A, z):
    """A z."""
    return np.einsum("...ijb,...jb->...ib", A, z)


def transposed_on(A, z):
    """A^T z."""
    return np.einsum("...jib,...jb->...ib", A, z)


def outer(x, y):
    """x y^T (D, D, B)."""
    return np.einsum("...ib,...jb->...ijb", x, y)


def plus_transposed(A):
    """A + A^T."""
    return A + np.swapaxes(A, -2, -3)
