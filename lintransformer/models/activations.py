"""What stands around the scores S = Z^T Q Z: nothing (linear attention), a ReLU, or a softmax.

Conventions
-----------
S (..., N, N, B): row i is the key, column j the query, N = n + 1 tokens, the last one the query token x^(n+1).
The paper puts the activation "outside Z^T Q Z"; the authors apply it over all N keys, and only then does the
mask M of eq. 7 drop the query token as a key (mask="after", the default). With mask="before" the query token
is no key to begin with: the softmax normalises over the n context tokens. For linear and ReLU attention, which
act on each score alone, both are the same. Derivation: derivations/07-softmax-relu.md, eq. 7.2-7.5 and eq. 7.8.

An activation is four functions. Its Jacobian is symmetric in all three cases, so that `pull` serves both the
backward pass and the tangent of the forward pass:
    value(S) -> R             pull(R, dR) -> dS
    pull_tangent(R, tR, dR, tdR) -> tdS, the derivative of pull along a tangent (tR of R, tdR of dR)
"""

import numpy as np


class Linear:
    """R = S."""

    polynomial = True

    def value(self, S):
        return S

    def pull(self, R, dR):
        return dR

    def pull_tangent(self, R, tR, dR, tdR):
        return tdR


class ReLU:
    """R = max(S, 0). On a kink, S = 0, the derivative is taken as 0, as PyTorch does."""

    polynomial = False

    def value(self, S):
        return S * (S.real > 0) if S.dtype.kind == "c" else np.maximum(S, 0)

    def pull(self, R, dR):
        return dR * (R.real > 0)

    def pull_tangent(self, R, tR, dR, tdR):
        return self.pull(R, tdR)                                             # the second derivative is zero


class Softmax:
    """R_ij = exp(S_ij) / sum_k exp(S_kj), over the keys: each query's column sums to 1."""

    polynomial = False

    def resolved(self, S):
        """Whether the real scores S are known well enough for weights: to 1e-3, or so that one key takes all.

        Beyond 10^13 a score's rounding is worth more, and what two keys of nearly equal score share is chance.
        """
        rounding = 100 * np.finfo(S.dtype).eps * np.abs(S).max(axis=-3)      # 100: the tokens are rounded as well
        if S.shape[-3] == 1:
            return True
        second, first = np.moveaxis(np.partition(S, -2, axis=-3)[..., -2:, :, :], -3, 0)
        return bool(np.all((rounding < 1e-3) | (first - second > rounding)))

    def value(self, S):
        shift = S.max(axis=-3, keepdims=True) if S.dtype.kind != "c" else _heaviest(S)   # a constant: it cancels in R
        weights = np.exp(S - shift)
        weights /= weights.sum(axis=-3, keepdims=True)
        return weights

    def pull(self, R, dR):
        return R * (dR - _over_keys(R, dR))

    def pull_tangent(self, R, tR, dR, tdR):
        moved = _over_keys(tR, dR) + _over_keys(R, tdR)
        return tR * (dR - _over_keys(R, dR)) + R * (tdR - moved)


class ContextSoftmax(Softmax):
    """The softmax over the n context keys only; the query token, as a key, has weight 0."""

    def resolved(self, S):
        return super().resolved(S[..., :-1, :, :])

    def value(self, S):
        context = super().value(S[..., :-1, :, :])
        return np.concatenate([context, np.zeros_like(S[..., -1:, :, :])], axis=-3)


def _heaviest(S):
    """Each column's score with the largest real part. Were its imaginary part left in, the weight of a key that
    takes all would be a complex number over itself, whose rounding a complex step of 1e-20 would magnify."""
    return np.take_along_axis(S, np.argmax(S.real, axis=-3, keepdims=True), axis=-3)


def _over_keys(R, dR):
    """sum_i R_ij dR_ij, kept as a row."""
    return np.einsum("...ijb,...ijb->...jb", R, dR)[..., None, :, :]


# (attention, mask) -> activation; the keys are what build_model accepts.
ACTIVATIONS = {
    ("linear", "after"): Linear, ("linear", "before"): Linear,
    ("relu", "after"): ReLU, ("relu", "before"): ReLU,
    ("softmax", "after"): Softmax, ("softmax", "before"): ContextSoftmax,
}
