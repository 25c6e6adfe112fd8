"""The tangents of attention on tokens, forward and backward: exact Hessian-vector products go through them.

Conventions as in `lintransformer/layers/attention.py`; tangents are written t and may carry a leading axis K before the
heads. derivations/11-hessian-vector-products.md, eq. 11.7-11.8.
"""

import numpy as np

from lintransformer.layers.attention import Attention, _masked


class TangentAttention(Attention):
    """`Attention` with `tangent` and `backward_tangent`."""

    def weights(self, cache):
        """W (H, N, N, B) of a forward pass: phi of the scores."""
        return cache[4]

    def resolved(self, cache):
        """Whether the (real) scores are known well enough for weights: to 1e-3, or so that one key takes all.

        Beyond 10^13 a score's rounding is worth more, and what two keys of nearly equal score share is chance: no
        derivative means anything there. Only where keys compete.
        """
        Z, U = cache[2:4]
        keys = Z[:, :-1] if getattr(self.activation, "context_only", False) else Z
        if not getattr(self.activation, "competes", False) or keys.shape[1] == 1:
            return True
        R = np.einsum("dib,hdjb->hijb", keys, U)
        rounding = 100 * np.finfo(R.dtype).eps * np.abs(R).max(axis=-3)      # 100: the tokens are rounded as well
        second, first = np.moveaxis(np.partition(R, -2, axis=-3)[..., -2:, :, :], -3, 0)
        return bool(np.all((rounding < 1e-3) | (first - second > rounding)))

    def tangent(self, cache, tw, tZ):
        (P, Q, Z, U, W, V, n), (tP, tQ) = cache, tw
        tU = np.einsum("...hde,ejb->...hdjb", tQ, Z)
        tV = np.einsum("...hde,eib->...hdib", tP, Z)
        if tZ is not None:
            tU = tU + np.einsum("hde,...ejb->...hdjb", Q, tZ)
            tV = tV + np.einsum("hde,...eib->...hdib", P, tZ)
        tV, tR = _masked(tV), np.einsum("dib,...hdjb->...hijb", Z, tU)                           # (11.7)
        if tZ is not None:
            tR = tR + np.einsum("...dib,hdjb->...hijb", tZ, U)
        tW = self.activation.pull(W, tR)
        tZ_next = (np.einsum("...hdib,hijb->...djb", tV, W) + np.einsum("hdib,...hijb->...djb", V, tW)) / n
        return (tZ_next if tZ is None else tZ + tZ_next), (tP, tQ, tZ, tU, tW, tV)

    def backward_tangent(self, cache, tcache, dZ_next, tdZ_next):
        (P, Q, Z, U, W, V, n), (tP, tQ, tZ, tU, tW, tV) = cache, tcache
        E, tE = dZ_next / n, tdZ_next / n
        dV, dW = _masked(np.einsum("djb,hijb->hdib", E, W)), np.einsum("hdib,djb->hijb", V, E)
        dR = self.activation.pull(W, dW)
        ZdR = np.einsum("dib,hijb->hdjb", Z, dR)
        dZ = (dZ_next + np.einsum("hde,hdib->eib", P, dV)
              + np.einsum("hdjb,hijb->dib", U, dR) + np.einsum("hde,hdjb->ejb", Q, ZdR))
        tdV = _masked(np.einsum("...djb,hijb->...hdib", tE, W) + np.einsum("djb,...hijb->...hdib", E, tW))   # (11.8)
        tdW = np.einsum("...hdib,djb->...hijb", tV, E) + np.einsum("hdib,...djb->...hijb", V, tE)
        tdR = self.activation.pull_tangent(W, tW, dW, tdW)
        tZdR = np.einsum("dib,...hijb->...hdjb", Z, tdR)
        tdP, tdQ = np.einsum("...hdib,eib->...hde", tdV, Z), 0
        if tZ is not None:
            tZdR = tZdR + np.einsum("...dib,hijb->...hdjb", tZ, dR)
            tdP = tdP + np.einsum("hdib,...eib->...hde", dV, tZ)
            tdQ = np.einsum("hdjb,...ejb->...hde", ZdR, tZ)
        tdQ = tdQ + np.einsum("...hdjb,ejb->...hde", tZdR, Z)
        tdZ = (tdZ_next + np.einsum("...hde,hdib->...eib", tP, dV) + np.einsum("hde,...hdib->...eib", P, tdV)
               + np.einsum("...hdjb,hijb->...dib", tU, dR) + np.einsum("hdjb,...hijb->...dib", U, tdR)
               + np.einsum("...hde,hdjb->...ejb", tQ, ZdR) + np.einsum("hde,...hdjb->...ejb", Q, tZdR))
        return dZ, tdZ, [tdP, tdQ]
