"""Linear attention on Gram matrices: the context enters only through G = Z M Z^T.

Conventions
-----------
Arrays are batch last: G (D, D, B) symmetric, z (D, B) the query column; P and Q are (H, D, D). Per layer
    A = I + (1/n) sum_h P_h G Q_h        z' = A z        G' = A G A^T
and the prediction is -z_L[d]: the cost does not depend on n. Adjoints are written d, tangents t, as in
`lintransformer/models/attention.py`. Derivation: derivations/05-gram.md; tangents:
derivations/11-hessian-vector-products.md.
"""

from typing import NamedTuple

import numpy as np

from lintransformer.models.products import (on, outer, plus_transposed, times, times_transposed, transposed_on,
                                            transposed_times, zeros)


class _MixingCache(NamedTuple):
    """What `Mixing` keeps of the forward pass; of a tangent, with every entry its tangent."""

    G: np.ndarray
    P: np.ndarray
    Q: np.ndarray
    PG: np.ndarray       # P_h G, (H, D, D, B)
    GQ: np.ndarray       # G Q_h, (H, D, D, B)
    n: int


class Mixing:
    """A = I + (1/n) sum_h P_h G Q_h (D, D, B), as a function of G, P and Q; derivations/05-gram.md, eq. 5.1."""

    def matrix(self, G, P, Q, n):
        PG, GQ = _left(P, G), _right(G, Q)
        A = np.eye(len(G), dtype=G.dtype)[..., None] + _sum_right(PG, Q) / n
        return A, _MixingCache(G, P, Q, PG, GQ, n)

    def backward(self, cache, dA):
        """dA to (dG, dP, dQ), dG not symmetrised; derivations/05-gram.md, eq. 5.5-5.6."""
        dN = dA / cache.n                                                    # Hbar in the derivation
        PdN = np.einsum("hji,jkb->hikb", cache.P, dN)                        # P_h^T Hbar
        dG = np.einsum("hikb,hjk->ijb", PdN, cache.Q)
        return (dG, _pull_P(dN, cache.GQ), _pull_Q(cache.PG, dN)), (dN, PdN)

    def tangent(self, cache, tG, tP, tQ):
        tPG = _left(tP, cache.G) + _left(cache.P, tG)
        tGQ = _right(cache.G, tQ) + _right(tG, cache.Q)
        tA = (_sum_right(tPG, cache.Q) + _sum_right(cache.PG, tQ)) / cache.n
        return tA, _MixingCache(tG, tP, tQ, tPG, tGQ, cache.n)

    def backward_tangent(self, cache, t, bcache, tdA):
        dN, PdN = bcache
        tdN = tdA / cache.n
        tdP = _pull_P(tdN, cache.GQ) + _pull_P(dN, t.GQ)
        tdQ = _pull_Q(t.PG, dN) + _pull_Q(cache.PG, tdN)
        tPdN = np.einsum("...hji,...jkb->...hikb", t.P, dN) + np.einsum("hji,...jkb->...hikb", cache.P, tdN)
        tdG = np.einsum("...hikb,hjk->...ijb", tPdN, cache.Q) + np.einsum("hikb,...hjk->...ijb", PdN, t.Q)
        return tdG, tdP, tdQ


def _left(P, G):
    """P_h G for every head (H, D, D, B)."""
    return np.einsum("...hij,...jkb->...hikb", P, G)


def _right(G, Q):
    """G Q_h for every head (H, D, D, B)."""
    return np.einsum("...ijb,...hjk->...hikb", G, Q)


def _sum_right(PG, Q):
    """sum_h P_h G Q_h (D, D, B)."""
    return np.einsum("...hijb,...hjk->...ikb", PG, Q)


def _pull_P(dN, GQ):
    """sum_b Hbar (G Q_h)^T (H, D, D)."""
    return np.einsum("...ikb,...hjkb->...hij", dN, GQ)


def _pull_Q(PG, dN):
    """sum_b (P_h G)^T Hbar (H, D, D)."""
    return np.einsum("...hjib,...jkb->...hik", PG, dN)


class GramAttention:
    """The stack's state is (G, z); `layer` and its three companions as in `attention.py`."""

    needs_tokens = False

    def __init__(self, mixing):
        self.mixing = mixing

    def zeros_like(self, state):
        return tuple(zeros(array.shape, array.dtype) for array in state)

    # --- from tokens, for models that compute their tokens (an embedding) ---

    def start(self, Z):
        context = Z[:, :-1]
        return np.einsum("inb,jnb->ijb", context, context), Z[:, -1]

    def start_backward(self, Z, dstate):
        """dG symmetric: dZ = 2 dG Z M, plus dz on the query column; derivations/05-gram.md, eq. 5.7."""
        return self._tokens(dstate, 2 * np.einsum("ijb,jnb->inb", dstate[0], Z[:, :-1]))

    def start_tangent(self, Z, tZ):
        half = np.einsum("...inb,jnb->...ijb", tZ[..., :-1, :], Z[:, :-1])
        return plus_transposed(half), tZ[..., -1, :]

    def start_backward_tangent(self, Z, tZ, dstate, tdstate):
        context = np.einsum("...ijb,jnb->...inb", tdstate[0], Z[:, :-1])
        context = context + np.einsum("ijb,...jnb->...inb", dstate[0], tZ[..., :-1, :])
        return self._tokens(tdstate, 2 * context)

    def _tokens(self, dstate, context):
        return np.concatenate([context, dstate[1][..., :, None, :]], axis=-2)

    # --- the prediction ---

    def read(self, state):
        return -state[1][..., -1, :]

    def read_backward(self, state, dprediction):
        G, z = state
        lead, dtype = dprediction.shape[:-1], np.result_type(z, dprediction)
        dG, dz = zeros(lead + G.shape[-3:], dtype), zeros(lead + z.shape[-2:], dtype)
        dz[..., -1, :] = -dprediction
        return dG, dz

    # --- one layer ---

    def layer(self, state, P, Q, n):
        G, z = state
        A, mcache = self.mixing.matrix(G, P, Q, n)
        AG = times(A, G)
        return (times_transposed(AG, A), on(A, z)), (z, A, AG, mcache)

    def layer_backward(self, cache, dstate_next):
        """derivations/05-gram.md, eq. 5.4-5.6."""
        (z, A, AG, mcache), (dG_next, dz_next) = cache, dstate_next
        dA = outer(dz_next, z) + 2 * times(dG_next, AG)
        (dG, dP, dQ), mbcache = self.mixing.backward(mcache, dA)
        dGA = times(dG_next, A)
        dG = plus_transposed(dG) / 2 + transposed_times(A, dGA)
        return ((dG, transposed_on(A, dz_next)), dP, dQ), (dG_next, dz_next, dGA, mbcache)

    def layer_tangent(self, cache, tstate, tP, tQ):
        (z, A, AG, mcache), (tG, tz) = cache, tstate
        tA, mtcache = self.mixing.tangent(mcache, tG, tP, tQ)
        half = times_transposed(AG, tA)                                      # A G tA^T, and its transpose
        AtG = times(A, tG)
        tG_next = plus_transposed(half) + times_transposed(AtG, A)
        tAG = times(tA, mcache.G) + AtG
        return (tG_next, on(tA, z) + on(A, tz)), (tz, tA, tAG, mtcache)

    def layer_backward_tangent(self, cache, tcache, bcache, tdstate_next):
        (z, A, AG, mcache), (tz, tA, tAG, mtcache) = cache, tcache
        (dG_next, dz_next, dGA, mbcache), (tdG_next, tdz_next) = bcache, tdstate_next
        tdA = outer(tdz_next, z) + outer(dz_next, tz)
        tdA = tdA + 2 * (times(tdG_next, AG) + times(dG_next, tAG))
        tdG, tdP, tdQ = self.mixing.backward_tangent(mcache, mtcache, mbcache, tdA)
        half = transposed_times(tA, dGA)                                    # tA^T dG' A, and its transpose
        tdG = plus_transposed(tdG) / 2 + plus_transposed(half) + transposed_times(A, times(tdG_next, A))
        tdz = transposed_on(tA, dz_next) + transposed_on(A, tdz_next)
        return (tdG, tdz), tdP, tdQ
