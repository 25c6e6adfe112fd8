"""Linear attention on Gram matrices: the context enters only through G = Z M Z^T.

Conventions
-----------
Arrays are batch last: G (D, D, B) symmetric, z (D, B) the query column; P and Q are (H, D, D). Per layer
    A = I + (1/n) sum_h P_h G Q_h        z' = A z        G' = A G A^T
and the prediction is -z_L[d]: the cost does not depend on n. A state is (G, z, n), its adjoint (dG, dz), its tangent
(tG, tz), or None for 0. derivations/05-gram.md; tangents: derivations/11-hessian-vector-products.md, eq. 11.3-11.6.
einsum letters: h head, i j k rows and columns, b prompt; a leading ... are the directions of a tangent.
"""

from typing import NamedTuple

import numpy as np


class Gram(NamedTuple):
    """The state of a stack in Gram form."""

    G: np.ndarray
    z: np.ndarray
    n: int


class _Cache(NamedTuple):
    """What a layer keeps of the forward pass; of a tangent, with every entry its tangent."""

    G: np.ndarray
    z: np.ndarray
    P: np.ndarray
    Q: np.ndarray
    PG: np.ndarray       # P_h G, (H, D, D, B)
    GQ: np.ndarray       # G Q_h, (H, D, D, B)
    A: np.ndarray
    AG: np.ndarray
    n: int


class GramAttention:
    """One layer of linear attention, eq. 5.1-5.2 forward and 5.4-5.6 backward; w = [P, Q]."""

    smooth = True

    def __init__(self, dimension, heads=1):
        self.shapes = [(heads, dimension + 1, dimension + 1)] * 2

    def forward(self, w, state):
        (P, Q), (G, z, n) = w, state
        PG = np.einsum("hij,jkb->hikb", P, G)
        GQ = np.einsum("ijb,hjk->hikb", G, Q)
        A = np.eye(len(G), dtype=G.dtype)[..., None] + np.einsum("hijb,hjk->ikb", PG, Q) / n     # (5.1)
        AG = _times(A, G)
        state = Gram(_times_transposed(AG, A), np.einsum("ijb,jb->ib", A, z), n)                 # (5.2)
        return state, _Cache(G, z, P, Q, PG, GQ, A, AG, n)

    def backward(self, cache, dstate):
        (dG, dz, dP, dQ), _ = self._backward(cache, dstate)
        return (dG, dz), [dP, dQ]

    def _backward(self, c, dstate):
        dG_next, dz_next = dstate
        dA = np.einsum("ib,jb->ijb", dz_next, c.z) + 2 * _times(dG_next, c.AG)                   # (5.4)
        dH = dA / c.n                                                                            # (5.5)
        PdH = np.einsum("hji,jkb->hikb", c.P, dH)
        dP = np.einsum("ikb,hjkb->hij", dH, c.GQ)
        dQ = np.einsum("hjib,jkb->hik", c.PG, dH)
        dGA = _times(dG_next, c.A)
        dG = _plus_transposed(np.einsum("hikb,hjk->ijb", PdH, c.Q)) / 2 + _transposed_times(c.A, dGA)   # (5.6)
        return (dG, np.einsum("jib,jb->ib", c.A, dz_next), dP, dQ), (dH, PdH, dGA)

    def tangent(self, c, tw, tstate):
        tP, tQ = tw
        tPG = np.einsum("...hij,jkb->...hikb", tP, c.G)
        tGQ = np.einsum("ijb,...hjk->...hikb", c.G, tQ)
        if tstate is not None:
            tG, tz = tstate
            tPG, tGQ = tPG + np.einsum("hij,...jkb->...hikb", c.P, tG), tGQ + np.einsum("...ijb,hjk->...hikb", tG, c.Q)
        tA = (np.einsum("...hijb,hjk->...ikb", tPG, c.Q) + np.einsum("hijb,...hjk->...ikb", c.PG, tQ)) / c.n
        half = _times_transposed(c.AG, tA)                                   # A G tA^T, and its transpose
        tG_next, tz_next = _plus_transposed(half), np.einsum("...ijb,jb->...ib", tA, c.z)        # (11.3)
        tAG = _times(tA, c.G)
        if tstate is None:
            tG, tz = 0 * tG_next, 0 * tz_next
        else:
            AtG = _times(c.A, tG)
            tG_next = tG_next + _times_transposed(AtG, c.A)
            tz_next, tAG = tz_next + np.einsum("ijb,...jb->...ib", c.A, tz), tAG + AtG
        return (tG_next, tz_next), _Cache(tG, tz, tP, tQ, tPG, tGQ, tA, tAG, c.n)

    def backward_tangent(self, c, t, dstate, tdstate):
        (dG, dz, _, _), (dH, PdH, dGA) = self._backward(c, dstate)
        (dG_next, dz_next), (tdG_next, tdz_next) = dstate, tdstate
        tdA = np.einsum("...ib,jb->...ijb", tdz_next, c.z) + np.einsum("ib,...jb->...ijb", dz_next, t.z)
        tdA = tdA + 2 * (_times(tdG_next, c.AG) + _times(dG_next, t.AG))                         # (11.4)
        tdH = tdA / c.n
        tdP = np.einsum("...ikb,hjkb->...hij", tdH, c.GQ) + np.einsum("ikb,...hjkb->...hij", dH, t.GQ)   # (11.5)
        tdQ = np.einsum("...hjib,jkb->...hik", t.PG, dH) + np.einsum("hjib,...jkb->...hik", c.PG, tdH)
        tPdH = np.einsum("...hji,jkb->...hikb", t.P, dH) + np.einsum("hji,...jkb->...hikb", c.P, tdH)
        tdG = np.einsum("...hikb,hjk->...ijb", tPdH, c.Q) + np.einsum("hikb,...hjk->...ijb", PdH, t.Q)
        half = _transposed_times(t.A, dGA)                                   # tA^T dG' A, and its transpose
        tdG = (_plus_transposed(tdG) / 2 + _plus_transposed(half)
               + _transposed_times(c.A, _times(tdG_next, c.A)))                                  # (11.6)
        tdz = np.einsum("...jib,jb->...ib", t.A, dz_next) + np.einsum("jib,...jb->...ib", c.A, tdz_next)
        return (dG, dz), (tdG, tdz), [tdP, tdQ]


class ToGram:
    """Tokens (D, N, B) to (G, z, n), for models that compute their tokens (an embedding); no weights."""

    shapes = ()

    def forward(self, w, Z):
        context = Z[:, :-1]
        return Gram(np.einsum("inb,jnb->ijb", context, context), Z[:, -1], Z.shape[1] - 1), Z

    def backward(self, Z, dstate):
        """dG symmetric: dZ = 2 dG Z M, plus dz on the query column; eq. 5.7."""
        return self._tokens(dstate, 2 * np.einsum("ijb,jnb->inb", dstate[0], Z[:, :-1])), []

    def tangent(self, Z, tw, tZ):
        if tZ is None:
            return None, None
        return (_plus_transposed(np.einsum("...inb,jnb->...ijb", tZ[..., :-1, :], Z[:, :-1])), tZ[..., -1, :]), tZ

    def backward_tangent(self, Z, tZ, dstate, tdstate):
        context = np.einsum("...ijb,jnb->...inb", tdstate[0], Z[:, :-1])
        if tZ is not None:
            context = context + np.einsum("ijb,...jnb->...inb", dstate[0], tZ[..., :-1, :])
        return self.backward(Z, dstate)[0], self._tokens(tdstate, 2 * context), []

    def _tokens(self, dstate, context):
        return np.concatenate([context, dstate[1][..., :, None, :]], axis=-2)


def _times(A, G):
    """A G, prompt by prompt; the transposes below likewise."""
    return np.einsum("...ijb,...jkb->...ikb", A, G)


def _times_transposed(A, G):
    return np.einsum("...ijb,...kjb->...ikb", A, G)


def _transposed_times(A, G):
    return np.einsum("...jib,...jkb->...ikb", A, G)


def _plus_transposed(A):
    return A + np.swapaxes(A, -2, -3)
