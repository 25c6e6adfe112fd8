"""Attention as eq. 7-8 of the paper write it, forward and backward: every head, any activation. One screen.

    Z' = Z + (1/n) sum_h P_h Z M phi(Z^T Q_h Z),   M = diag(I_n, 0)

Letters are those of chapters 3, 4 and 7 of derivations/, a bar is written d (dZ is the adjoint of Z), and the numbers
at the line ends are their equations. Everything faster is tested against this file.

Conventions
-----------
    Z     (D, N, B)     tokens, batch last: D = d + 1 rows, N = n + 1 tokens (the last is the query), B prompts
    P, Q  (H, D, D)     one matrix a head: value projection; Q scores key i for query j by z_i^T Q z_j
    R, W  (H, N, N, B)  scores and weights, row i the key, column j the query
    V, U  (H, D, N, B)  values P Z M and Q Z
einsum letters: h head, d e rows of tokens, i key, j query, b prompt. float32, float64, complex128 and object arrays of
Fractions (where phi is rational) all run through it.
"""

import numpy as np


class Linear:
    """phi(R) = R: the paper's linear attention."""

    smooth, competes = True, False           # has no kinks; keys do not compete for one unit of weight

    def value(self, R):
        return R

    def pull(self, W, dW):
        """dR, from the weights W = phi(R) and their adjoint; phi's Jacobian is symmetric, so it is its tangent too."""
        return dW

    def pull_tangent(self, W, tW, dW, tdW):
        """The derivative of `pull` along tW, tdW: the second derivative of phi."""
        return tdW


class ReLU(Linear):
    """phi(R) = max(R, 0); on its kink the derivative is 0, as in PyTorch."""

    smooth = False

    def value(self, R):
        return np.where(R.real > 0, R, 0)                                                        # (7.5)

    def pull(self, W, dW):
        return dW * (W.real > 0)                                                                 # (7.5)

    def pull_tangent(self, W, tW, dW, tdW):
        return tdW * (W.real > 0)


class Softmax(Linear):
    """phi over the keys of each query: all n + 1 of them (authors' code), or the context's n with `context_only`."""

    competes = True

    def __init__(self, context_only=False):
        self.context_only = context_only

    def value(self, R):
        keys = slice(None, -1) if self.context_only else slice(None)
        R, W = R[..., keys, :, :], np.zeros_like(R)
        heaviest = np.take_along_axis(R, np.argmax(R.real, axis=-3, keepdims=True), axis=-3)     # cancels in W
        W[..., keys, :, :] = np.exp(R - heaviest)
        return W / W.sum(axis=-3, keepdims=True)                                                 # (7.2)

    def pull(self, W, dW):
        return W * (dW - _over_keys(W, dW))                                                      # (7.4)

    def pull_tangent(self, W, tW, dW, tdW):
        moved = _over_keys(tW, dW) + _over_keys(W, tdW)
        return tW * (dW - _over_keys(W, dW)) + W * (tdW - moved)                                 # (7.8)


def _over_keys(W, dW):
    """<w, dw> for each query's column, kept as a row."""
    return np.einsum("...ijb,...ijb->...jb", W, dW)[..., None, :, :]


class Attention:
    """One layer, eq. 7-8. A layer's weights are a list: here w = [P, Q]."""

    def __init__(self, dimension, heads=1, activation=None):
        self.activation = Linear() if activation is None else activation
        self.smooth = self.activation.smooth
        self.shapes = [(heads, dimension + 1, dimension + 1)] * 2

    def forward(self, w, Z):
        """Z' (D, N, B), and what the backward pass needs."""
        P, Q = w
        n = Z.shape[1] - 1
        U = np.einsum("hde,ejb->hdjb", Q, Z)
        R = np.einsum("dib,hdjb->hijb", Z, U)                                                    # (3.2)
        W = self.activation.value(R)                                                             # (7.1)
        V = _masked(np.einsum("hde,eib->hdib", P, Z))                                            # (4.2)
        return Z + np.einsum("hdib,hijb->djb", V, W) / n, (P, Q, Z, U, W, V, n)                  # (3.1)

    def backward(self, cache, dZ_next):
        """dZ (D, N, B) and [dP, dQ] from the adjoint of Z'."""
        P, Q, Z, U, W, V, n = cache
        E = dZ_next / n
        dV = _masked(np.einsum("djb,hijb->hdib", E, W))                                          # (7.6)
        dW = np.einsum("hdib,djb->hijb", V, E)                                                   # (7.6)
        dR = self.activation.pull(W, dW)                                                         # (7.4), (7.5)
        ZdR = np.einsum("dib,hijb->hdjb", Z, dR)
        dP = np.einsum("hdib,eib->hde", dV, Z)                                                   # (4.4)
        dQ = np.einsum("hdjb,ejb->hde", ZdR, Z)                                                  # (4.5)
        dZ = (dZ_next + np.einsum("hde,hdib->eib", P, dV)                                        # (4.6)
              + np.einsum("hdjb,hijb->dib", U, dR) + np.einsum("hde,hdjb->ejb", Q, ZdR))
        return dZ, [dP, dQ]


def _masked(V):
    """V M: the query token is asked, but never answers (eq. 7)."""
    V[..., -1, :] = 0
    return V
