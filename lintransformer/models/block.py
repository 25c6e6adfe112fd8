"""The fast path: linear attention in block parametrisation, on Gram statistics, at its own size d.

With P = diag(P', 1) and Q = diag(Q', 0) the (d+1)-row recurrence of `gram.py` falls apart into

    S (d, d)  X X^T           c  = sum_h Q_h'^T s / n          y'  = y + c . x
    s (d,)    X y             B  = I + sum_h P_h' S Q_h' / n   x'  = B x
    x (d,)    the query       w  = S c + s                     s'  = B w
    y ()      its response                                     S'  = B S B^T

and prediction = -y_L. The last layer moves y only; the one before it needs no S', so that it works with
matrix-vector products alone (`_vector_*`); the others form B and S' (`_matrix_*`). Derivation:
derivations/06-block-fast-path.md, eq. 6.2-6.4 forward and eq. 6.5-6.10 backward. Equal to `gram.py` in
tests/test_workspace.py, at every size.

Conventions
-----------
Batch last, c prompts at a time; every array of that length is allocated once and reused. s and x, then w and x,
stand side by side in V (d, 2, c). Q carries the 1/n. Adjoints are written d; E = 2 dS is symmetric.
"""

import numpy as np


class BlockGramKernel:
    """Forward and backward of one chunk of at most `chunk` prompts, in buffers of its own.

    Parameters
    ----------
    layers, heads, dimension, chunk : int
    dtype : float32 or float64
    """

    def __init__(self, layers, heads, dimension, chunk, dtype):
        self.layers, self.heads, self.chunk = layers, heads, chunk
        d, c = dimension, chunk

        def matrices(count):
            return [np.empty((d, d, c), dtype) for _ in range(count)]

        self._S = matrices(max(1, layers - 1))                               # S_l, where it is needed
        self._B, self._BS = matrices(layers - 2), matrices(layers - 2)
        self._PS = [matrices(heads) for _ in range(layers - 2)]
        self._V = [np.empty((d, 2, c), dtype) for _ in range(layers)]        # (s, x) entering layer l
        self._W = [np.empty((d, 2, c), dtype) for _ in range(layers - 1)]    # (w, x)
        self._c = [np.empty((d, c), dtype) for _ in range(layers)]
        self._U, self._T = ([np.empty((d, 2, c), dtype) for _ in range(heads)] for _ in range(2))
        self._dV, self._dW, self._vectors = (np.empty((d, 2, c), dtype) for _ in range(3))
        self._dc, self._vector = np.empty((d, c), dtype), np.empty((d, c), dtype)
        self._left, self._right = (np.empty((d, 2 * heads + 1, c), dtype) for _ in range(2))
        self._H, self._E, self._K, self._matrix = matrices(4)
        self._y, self._dy, self._scalar = (np.empty(c, dtype) for _ in range(3))
        self._dQ_rows = np.empty((d, d, d), dtype)

    def forward(self, P, Q, G, z):
        """The predictions (c,) of a full chunk; valid until the next call.

        Parameters
        ----------
        P, Q : arrays (L, H, d, d); Q divided by n
        G, z : arrays (d + 1, d + 1, c), (d + 1, c)
        """
        d = len(z) - 1
        np.copyto(self._S[0], G[:d, :d])
        np.copyto(self._V[0][:, 0], G[:d, d])
        np.copyto(self._V[0][:, 1], z[:d])
        np.copyto(self._y, z[d])
        for layer in range(self.layers):
            V = self._V[layer]
            np.matmul(Q[layer].sum(axis=0).T, V[:, 0], out=self._c[layer])   # c = sum_h Q_h^T s
            np.einsum("ib,ib->b", self._c[layer], V[:, 1], out=self._scalar)
            self._y += self._scalar
            if layer < self.layers - 1:
                W = self._W[layer]
                np.einsum("ijb,jb->ib", self._S[layer], self._c[layer], out=W[:, 0])
                W[:, 0] += V[:, 0]                                           # w = S c + s
                W[:, 1] = V[:, 1]
                step = self._matrix_forward if layer < self.layers - 2 else self._vector_forward
                step(layer, P[layer], Q[layer])
        return np.negative(self._y, out=self._scalar)

    def backward(self, P, Q, dprediction, dP, dQ):
        """Add the gradients of <dprediction, prediction> to dP and dQ (L, H, d, d); dQ that of Q with its 1/n."""
        np.negative(dprediction, out=self._dy)
        last = self.layers - 1
        self._dV[...] = 0
        self._response_backward(last, Q[last], dQ[last], None)
        for layer in range(last - 1, -1, -1):
            if layer == last - 1:
                self._vector_backward(layer, P[layer], Q[layer], dP[layer], dQ[layer])
            else:
                self._matrix_backward(layer, P[layer], Q[layer], dP[layer], dQ[layer])
            self._response_backward(layer, Q[layer], dQ[layer], self._S[layer])

    def _response_backward(self, layer, Q, dQ, S):
        """Back through y' = y + c.x, w = S c + s and c = sum_h Q_h^T s; dV holds (dw, dx) and becomes (ds, dx)."""
        V, dV, dc = self._V[layer], self._dV, self._dc
        np.multiply(self._dy, V[:, 1], out=dc)                               # dc = dy x + S dw
        if S is not None:
            dc += np.einsum("ijb,jb->ib", S, dV[:, 0], out=self._vector)
        dQ += V[:, 0] @ dc.T                                                 # the same for every head
        dV[:, 1] += np.multiply(self._dy, self._c[layer], out=self._vector)
        dV[:, 0] += np.matmul(Q.sum(axis=0), dc, out=self._vector)

    # --- the layer before the last: (s', x') = (w, x) + sum_h P_h S Q_h (w, x) ---

    def _vector_forward(self, layer, P, Q):
        W, V_next = self._W[layer], self._V[layer + 1]
        np.copyto(V_next, W)
        for h in range(self.heads):
            np.matmul(Q[h], _flat(W), out=_flat(self._U[h]))
            np.einsum("ijb,jkb->ikb", self._S[layer], self._U[h], out=self._T[h])
            V_next += _shaped(np.matmul(P[h], _flat(self._T[h]), out=_flat(self._vectors)), V_next)

    def _vector_backward(self, layer, P, Q, dP, dQ):
        """derivations/06-block-fast-path.md, eq. 6.5-6.10; dV holds (ds', dx') and becomes (dw, dx)."""
        W, dV, dW = self._W[layer], self._dV, self._dW
        np.copyto(dW, dV)
        for h in range(self.heads):
            dP[h] += _flat(dV) @ _flat(self._T[h]).T
            dT, dU = self._left[:, 2 * h:2 * h + 2], self._vectors
            dT[...] = _shaped(np.matmul(P[h].T, _flat(dV), out=_flat(dU)), dV)
            self._right[:, 2 * h:2 * h + 2] = self._U[h]
            np.einsum("ijb,jkb->ikb", self._S[layer], dT, out=dU)
            dQ[h] += _flat(dU) @ _flat(W).T
            dW += _shaped(np.matmul(Q[h].T, _flat(dU), out=_flat(self._T[h])), dW)
        self._dV, self._dW = dW, dV
        if layer > 0:                                                        # dS = sum_h dT U^T + dw c^T
            self._left[:, -1], self._right[:, -1] = self._dV[:, 0], self._c[layer]
            np.einsum("ikb,jkb->ijb", self._left, self._right, out=self._matrix)
            self._symmetrise()

    # --- the layers before: B and S' = B S B^T are formed ---

    def _matrix_forward(self, layer, P, Q):
        S, B, BS = self._S[layer], self._B[layer], self._BS[layer]
        for h in range(self.heads):
            PS = self._PS[layer][h]
            np.matmul(P[h], _flat(S), out=_flat(PS))
            np.matmul(Q[h].T, PS, out=B if h == 0 else self._matrix)         # P S Q, row by row
            if h > 0:
                B += self._matrix
        np.einsum("iib->ib", B)[...] += 1
        np.einsum("ijb,jkb->ikb", B, self._W[layer], out=self._V[layer + 1])
        np.einsum("ijb,jkb->ikb", B, S, out=BS)
        np.einsum("ijb,kjb->ikb", BS, B, out=self._S[layer + 1])

    def _matrix_backward(self, layer, P, Q, dP, dQ):
        """derivations/06-block-fast-path.md, eq. 6.5-6.10; dV and E go from after the layer to before it."""
        S, B, BS, H, K, E = self._S[layer], self._B[layer], self._BS[layer], self._H, self._K, self._E
        np.einsum("ijb,jkb->ikb", E, BS, out=H)                              # H = dV W^T + 2 dS' B S
        H += np.einsum("ikb,jkb->ijb", self._dV, self._W[layer], out=self._matrix)
        np.einsum("jib,jkb->ikb", B, self._dV, out=self._dW)
        self._dV, self._dW = self._dW, self._dV
        if layer > 0:                                                        # E = B^T E' B + X + X^T
            np.einsum("ijb,jkb->ikb", E, B, out=self._K)
            np.einsum("jib,jkb->ikb", B, K, out=E)
            np.einsum("ib,jb->ijb", self._dV[:, 0], self._c[layer], out=self._matrix)
        for h in range(self.heads):
            np.matmul(Q[h], H, out=K)                                        # H Q^T, row by row
            dP[h] += _flat(K) @ _flat(S).T
            dQ[h] += np.matmul(self._PS[layer][h], np.swapaxes(H, -1, -2), out=self._dQ_rows).sum(axis=0)
            if layer > 0:
                PS = self._PS[layer][h]                                      # no longer needed: reused
                self._matrix += _shaped(np.matmul(P[h].T, _flat(K), out=_flat(PS)), PS)
        if layer > 0:
            previous = BS
            np.copyto(previous, E)
            self._symmetrise()
            E += previous

    def _symmetrise(self):
        """E = X + X^T for X in the scratch matrix."""
        np.add(self._matrix, np.swapaxes(self._matrix, 0, 1), out=self._E)


def _flat(array):
    """(d, k, c) as the (d, k c) matrix of one GEMM."""
    return array.reshape(len(array), -1)


def _shaped(flat, like):
    return flat.reshape(like.shape)
