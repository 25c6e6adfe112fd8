"""The fast path of softmax attention: weights that are never normalised, small matrix products, a query at the end.

For one head and one query j of one prompt, with u = Q z_j and the sums over keys i,

    E_i = exp(z_i . u - m_j)     s = sum_K E_i     a = sum_{i <= n} E_i z_i / s     z_j' = z_j + sum_h P_h a_h

K are all n + 1 keys (mask "after") or the n of the context ("before"); m_j cancels. A row of ones below the tokens
makes s, and on the way back the rank-one part of the softmax's Jacobian, part of products that are there anyway. The
weights E / s are never formed. The last layer asks its one query only. Derivation:
derivations/18-softmax-fast-path.md, eq. 18.1-18.4 forward and eq. 18.5-18.10 backward. Equal to
`layers/attention.py` in tests/test_softmax_kernel.py, at every size.

Conventions
-----------
    Z  (D + 1, c, N)     tokens of c prompts, features first, a row of ones last; N = n + 1, the query last
    E  (H, c, N, M)      keys i, then queries j; M = N, or 1 in the last layer
    U, a, A (H, rows, c, M)
    P, Q (H, D, D)       one matrix a head; P carries the 1/n. Inside, (D, H D) and (H D, D): heads side by side

In this layout what P and Q do to all tokens is one matrix product over (D, c N), what keys and queries do one small
product a prompt (`_prompts_first`), and everything else runs along contiguous memory. Adjoints are written d. All
arrays are allocated once and reused.
"""

import numpy as np

# Where all scores of a chunk are below this, m_j = 0: E, s and 1 / s then lie between exp(-40) = 4e-18 and n exp(40),
# far from where float32 ends (1e-38, 3e38). Finding every query's largest score costs as much as three products.
SHIFT_FROM = 40


class SoftmaxKernel:
    """Forward and backward of c prompts, in buffers of its own.

    Parameters
    ----------
    layers, heads, dimension, context_length, prompts : int
    dtype : float32 or float64
    context_only : bool, mask "before": the query is no key
    pulls_back : bool, whether `backward` returns the adjoint of the tokens, for an embedding that has made them
    """

    def __init__(self, layers, heads, dimension, context_length, prompts, dtype, context_only, pulls_back=False):
        D, c, N = dimension + 1, prompts, context_length + 1
        self._pulls_back = pulls_back
        self._Z = np.ones((layers, D + 1, c, N), dtype)                      # the rows of ones are never written again
        self._last, self._seed = np.empty((2, D, c, 1), dtype)               # z_L of the query, and its adjoint
        shared = _Scratch(heads, D, c, N, dtype)
        self._dZ = shared.dZ
        self._layers = [_Layer(heads, D, c, N, N if layer < layers - 1 else 1, dtype, context_only, shared)
                        for layer in range(layers)]

    def forward(self, P, Q, Z):
        """The predictions (c,); valid until the next call.

        Parameters
        ----------
        P, Q : arrays (L, H, D, D); P divided by n
        Z : array (D, c, N), in any memory layout
        """
        self._Z[0, :-1] = Z
        for layer, P_l, Q_l, Z, Z_next in zip(self._layers, P, Q, self._Z, [*self._Z[1:, :-1], self._last]):
            layer.forward(P_l, Q_l, Z, Z_next)
        return np.negative(self._last[-1, :, 0], out=self._last[-1, :, 0])

    def backward(self, P, Q, dprediction, dP, dQ):
        """Add the gradients of <dprediction, prediction> to dP and dQ (L, H, D, D); dP that of P with its 1/n.

        Returns None, or dZ (D, c, N) if the kernel pulls back; valid until the next call.
        """
        dZ, dZ_next, first = self._dZ, self._seed, 0 if self._pulls_back else 1
        dZ[...], dZ_next[...] = 0, 0
        dZ[-1, :, -1] = dZ_next[-1, :, 0] = -dprediction                                         # (18.10)
        for i in reversed(range(len(self._layers))):
            self._layers[i].backward(P[i], Q[i], self._Z[i], dZ_next, dP[i], dQ[i], dZ if i >= first else None)
            dZ_next = dZ
        return dZ if self._pulls_back else None


class _Scratch:
    """What no layer keeps."""

    def __init__(self, heads, D, c, N, dtype):
        self.dE, self.dU = np.empty(heads * c * N * N, dtype), np.empty(heads * D * c * N, dtype)
        self.X, self.dZ = np.empty((2, D, c, N), dtype)


class _Layer:
    """One layer for the last M queries, and what its backward pass needs."""

    def __init__(self, heads, D, c, N, queries, dtype, context_only, shared):
        self._M, self._context_only, self._X = queries, context_only, shared.X
        self._E, self._U = np.empty((heads, c, N, queries), dtype), np.empty((heads, D, c, queries), dtype)
        self._a, self._A = np.empty_like(self._U), np.empty((heads, D + 1, c, queries), dtype)
        self._dE = shared.dE[:self._E.size].reshape(self._E.shape)
        self._dU = shared.dU[:self._U.size].reshape(self._U.shape)
        self._Y, self._query = np.empty((D, c, queries), dtype), np.empty((D, c, 1), dtype)

    def forward(self, P, Q, Z, Z_next):
        """Write Z_next (D, c, M)."""
        queries, E, A, a = self._queries(Z), self._E, self._A, self._a
        _left(_stacked(Q), queries, out=self._U)
        np.matmul(_keys(Z[:-1]), _prompts_first(self._U), out=E)                                 # (18.1)
        self._exponentiate(E)
        np.matmul(_prompts_first(Z[..., :-1]), E[..., :-1, :], out=_prompts_first(A))            # (18.3)
        if not self._context_only:
            A[:, -1] += E[..., -1, :]
        np.divide(A[:, :-1], A[:, -1:], out=a)
        np.add(queries, _left(_transposed(P).T, a, out=self._Y), out=Z_next)                     # (18.4)

    def backward(self, P, Q, Z, dZ_next, dP, dQ, dZ):
        """Add to dP and dQ, and to dZ (D, c, N) unless it is None; dZ holds dZ_next already, in its query columns."""
        E, A, a, dE, dU = self._E, self._A, self._a, self._dE, self._dU
        dP += (_flat(a) @ _flat(dZ_next).T).reshape(P.shape).swapaxes(-1, -2)                    # (18.5)
        da = _left(_transposed(P), dZ_next, out=dU)
        g, sigma = A[:, :-1], A[:, -1]                                       # take the places of r and s
        np.divide(da, A[:, -1:], out=g)                                                          # (18.6)
        np.multiply(g, a, out=a).sum(axis=1, out=sigma)
        sigma *= -1                              # np.negative of NumPy 2.4 is wrong on some strides (every 4th float32)
        np.matmul(_keys(Z[..., :-1]), _prompts_first(A), out=dE[..., :-1, :])                    # (18.7)
        dE[..., -1, :] = 0 if self._context_only else sigma
        dS = np.multiply(dE, E, out=dE)
        np.matmul(_prompts_first(Z[:-1]), dS, out=_prompts_first(dU))                            # (18.8)
        dQ += (_flat(dU) @ _flat(self._queries(Z)).T).reshape(Q.shape)
        if dZ is None:
            return
        dZ[..., -self._M:] += _left(_stacked(Q).T, dU, out=self._Y)                              # (18.9)
        E[..., -1, :] = 0                                                    # the query is masked: no value, no adjoint
        for U_h, dS_h, g_h, E_h in zip(self._U, dS, g, E):
            for left, right in ((U_h, dS_h), (g_h, E_h)):
                np.matmul(_prompts_first(left), np.swapaxes(right, -1, -2), out=_prompts_first(self._X))
                dZ += self._X

    def _exponentiate(self, S):
        """exp of the scores in place, up to a factor a query, which cancels; a key that is none gets exp(-inf)."""
        small = S.max() < SHIFT_FROM and S.min() > -SHIFT_FROM               # False for NaN too
        if self._context_only:
            S[..., -1, :] = -np.inf
        if not small:
            S -= S.max(axis=-2, keepdims=True)
        np.exp(S, out=S)                                                                         # (18.2)

    def _queries(self, Z):
        """The tokens (D, c, M) that ask, contiguous."""
        if self._M == Z.shape[-1]:
            return Z[:-1]
        self._query[...] = Z[:-1, :, -1:]
        return self._query


def _flat(A):
    """(..., c, M) as the matrix (rows, c M) of one product; a view."""
    return A.reshape(-1, A.shape[-2] * A.shape[-1])


def _left(W, A, out):
    """W A for all prompts and tokens at once."""
    np.matmul(W, _flat(A), out=_flat(out))
    return out


def _stacked(Q):
    """(H, D, D) as (H D, D)."""
    return Q.reshape(-1, Q.shape[-1])


def _transposed(P):
    """P_h^T, stacked."""
    return _stacked(P.swapaxes(-1, -2))


def _prompts_first(A):
    """(..., D, c, M) as c matrices (D, M): the same memory."""
    return np.swapaxes(A, -3, -2)


def _keys(Z):
    """(D, c, N) as c matrices (N, D)."""
    return Z.transpose(1, 2, 0)
