"""Attention on tokens: eq. 7-8 as they stand, with any activation around the scores.

Conventions
-----------
Arrays are batch last: Z (D, N, B) with D = d + 1 rows, N = n + 1 tokens, B prompts. P and Q are (H, D, D), one
matrix a head. Bars of the derivations are written d (dZ is the adjoint of Z), dots are written t (tZ is its
tangent). A tangent, and what is computed from it, may carry a leading axis K, one entry for each direction.

    layer(Z, P, Q, n)                                    -> Z', cache
    layer_backward(cache, dZ')                           -> (dZ, dP, dQ), bcache
    layer_tangent(cache, tZ, tP, tQ)                     -> tZ', tcache
    layer_backward_tangent(cache, tcache, bcache, tdZ')  -> tdZ, tdP, tdQ

Derivations: derivations/03-linear-attention.md, derivations/04-backward-token.md, derivations/07-softmax-relu.md
and derivations/11-hessian-vector-products.md.
"""

from typing import NamedTuple

import numpy as np

from lintransformer.models.products import left, masked, mix, mix_transposed, outer_sum, scores, zeros


class TokenState:
    """A stack whose state is the token array Z itself: start from it, read -Z_L[d, n] off it."""

    needs_tokens = True

    def zeros_like(self, Z):
        return zeros(Z.shape, Z.dtype)

    def start(self, Z):
        return Z

    def start_backward(self, Z, dstate):
        return dstate

    def start_tangent(self, Z, tZ):
        return tZ

    def start_backward_tangent(self, Z, tZ, dstate, tdstate):
        return tdstate

    def read(self, Z):
        """TF_L = -[Z_L]_{d+1, n+1} (Section 3.1); linear, so it is its own tangent."""
        return -Z[..., -1, -1, :]

    def read_backward(self, Z, dprediction):
        dZ = zeros(dprediction.shape[:-1] + Z.shape[-3:], np.result_type(Z, dprediction))
        dZ[..., -1, -1, :] = -dprediction
        return dZ


class _Head(NamedTuple):
    """What one head keeps of the forward pass, or of its tangent."""

    P: np.ndarray
    Q: np.ndarray
    U: np.ndarray        # P Z M             (D, N, B)
    QZ: np.ndarray       # Q Z               (D, N, B)
    R: np.ndarray        # act(Z^T Q Z)      (N, N, B)


class _HeadAdjoint(NamedTuple):
    """What one head keeps of the backward pass."""

    dU: np.ndarray       # (D, N, B)
    dR: np.ndarray       # (N, N, B)
    dS: np.ndarray       # (N, N, B)
    ZdS: np.ndarray      # Z dS              (D, N, B)


class TokenAttention(TokenState):
    """The literal form, Z' = Z + (1/n) sum_h P_h Z M act(Z^T Q_h Z): O(n^2 d) a prompt, any activation."""

    def __init__(self, activation):
        self.activation = activation

    def layer(self, Z, P, Q, n):
        update, heads = 0, []
        for P_h, Q_h in zip(P, Q):
            U, QZ = masked(left(P_h, Z)), left(Q_h, Z)
            R = self.activation.value(scores(Z, QZ))
            update = update + mix(U, R)
            heads.append(_Head(P_h, Q_h, U, QZ, R))
        return Z + update / n, (Z, heads, n)

    def resolved(self, cache):
        """Whether the scores of a layer are known well enough for its weights; only a softmax can say no."""
        Z, heads, _ = cache
        resolved = getattr(self.activation, "resolved", None)
        return resolved is None or all(resolved(scores(Z, head.QZ)) for head in heads)

    def layer_backward(self, cache, dZ_next):
        Z, heads, n = cache
        dH = dZ_next / n                                                     # adjoint of every head's output
        dZ, dP, dQ, adjoints = dZ_next, [], [], []
        for head in heads:
            dU, dR = masked(mix_transposed(dH, head.R)), scores(head.U, dH)
            dS = self.activation.pull(head.R, dR)
            ZdS = mix(Z, dS)
            dZ = dZ + left(head.P.T, dU) + left(head.Q.T, ZdS) + mix_transposed(head.QZ, dS)
            dP.append(outer_sum(dU, Z))
            dQ.append(outer_sum(ZdS, Z))
            adjoints.append(_HeadAdjoint(dU, dR, dS, ZdS))
        return (dZ, _heads(dP), _heads(dQ)), (dH, adjoints)

    def layer_tangent(self, cache, tZ, tP, tQ):
        Z, heads, n = cache
        update, tangents = 0, []
        for h, head in enumerate(heads):
            tP_h, tQ_h = tP[..., h, :, :], tQ[..., h, :, :]
            tU = masked(left(tP_h, Z) + left(head.P, tZ))
            tQZ = left(tQ_h, Z) + left(head.Q, tZ)
            tR = self.activation.pull(head.R, scores(tZ, head.QZ) + scores(Z, tQZ))
            update = update + mix(tU, head.R) + mix(head.U, tR)
            tangents.append(_Head(tP_h, tQ_h, tU, tQZ, tR))
        return tZ + update / n, (tZ, tangents)

    def layer_backward_tangent(self, cache, tcache, bcache, tdZ_next):
        (Z, heads, n), (tZ, tangents), (dH, adjoints) = cache, tcache, bcache
        tdH = tdZ_next / n
        tdZ, tdP, tdQ = tdZ_next, [], []
        for head, t, adjoint in zip(heads, tangents, adjoints):
            dU, dR, dS, ZdS = adjoint
            tdU = masked(mix_transposed(tdH, head.R) + mix_transposed(dH, t.R))
            tdR = scores(t.U, dH) + scores(head.U, tdH)
            tdS = self.activation.pull_tangent(head.R, t.R, dR, tdR)
            tZdS = mix(tZ, dS) + mix(Z, tdS)
            tdZ = (tdZ + left(np.swapaxes(t.P, -1, -2), dU) + left(head.P.T, tdU)
                   + left(np.swapaxes(t.Q, -1, -2), ZdS) + left(head.Q.T, tZdS)
                   + mix_transposed(t.QZ, dS) + mix_transposed(head.QZ, tdS))
            tdP.append(outer_sum(tdU, Z) + outer_sum(dU, tZ))
            tdQ.append(outer_sum(tZdS, Z) + outer_sum(ZdS, tZ))
        return tdZ, _heads(tdP), _heads(tdQ)


def _heads(matrices):
    """Stack the heads' matrices: a list of (..., D, D) to (..., H, D, D)."""
    return np.stack(matrices, axis=-3)
