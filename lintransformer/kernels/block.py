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
Batch last, c prompts at a time; every array of that length is allocated once and reused, in the memory layout
that is faster for d (`layouts.py`). s and x, then w and x, stand side by side in V (d, 2, c). Q carries the 1/n.
Adjoints are written d; E = 2 dS is symmetric.
"""

import numpy as np

from lintransformer.kernels.layouts import layout_for


class BlockGramKernel:
    """Forward and backward of c prompts, in buffers of its own.

    Parameters
    ----------
    layers, heads, dimension, prompts : int
    dtype : float32 or float64
    pulls_back : whether `backward` returns the adjoints of G and z, for an embedding that has made them
    """

    def __init__(self, layers, heads, dimension, prompts, dtype, pulls_back=False):
        self.layers, self.heads, self._first = layers, heads, 0 if pulls_back else 1     # whose dS is wanted
        self.pulls_back = pulls_back
        self.use = layout_for(dimension)

        def empty(count, columns):
            return self.use.empty(max(0, count), dimension, columns, prompts, dtype=dtype)

        square = dimension
        self._S = empty(max(1, layers - 1), square)                          # S_l, where it is needed
        self._B, self._BS = empty(layers - 2, square), empty(layers - 2, square)
        self._PS = [empty(heads, square) for _ in range(layers - 2)]
        self._V, self._W = empty(layers, 2), empty(layers - 1, 2)            # (s, x) entering layer l; (w, x)
        self._c, self._dc, self._dx = empty(layers, 1), empty(layers, 1), empty(layers, 1)
        self._U, self._T = empty(heads, 2), empty(heads, 2)                  # Q V and S Q V of the vector layer
        self._dV, self._dW, self._pair = empty(3, 2)
        self._single = empty(1, 1)[0]
        self._left, self._right = empty(2, 2 * heads + 1)
        self._E, self._KT, self._X = empty(3, square)
        self._H = self.use.empty_swapped(dimension, dimension, prompts, dtype=dtype)
        self._prediction = np.empty(prompts, dtype)
        if pulls_back:
            self._dG = np.zeros((dimension + 1, dimension + 1, prompts), dtype)
            self._dz = np.empty((dimension + 1, prompts), dtype)

    def forward(self, P, Q, G, z):
        """The predictions (c,); valid until the next call.

        Parameters
        ----------
        P, Q : arrays (L, H, d, d); Q divided by n
        G, z : arrays (d + 1, d + 1, c), (d + 1, c)
        """
        d, V, self._Q_sum = len(z) - 1, self._V[0], Q[:, 0] if self.heads == 1 else Q.sum(axis=1)
        self._S[0][...], V[:, 0], V[:, 1] = G[:d, :d], G[:d, d], z[:d]
        for layer in range(self.layers):
            V, c = self._V[layer], self._c[layer]
            self.use.left(self._Q_sum[layer].T, V[:, :1], out=c)             # c = sum_h Q_h^T s
            if layer < self.layers - 1:
                W = self._W[layer]
                w = self.use.product(self._S[layer], c, out=self._single)    # w = S c + s
                np.add(w[:, 0], V[:, 0], out=W[:, 0])
                W[:, 1] = V[:, 1]
                step = self._matrix_forward if layer < self.layers - 2 else self._vector_forward
                step(layer, P[layer], Q[layer])
        y = np.einsum("lib,lib->b", self._c[:, :, 0], self._V[:, :, 1], out=self._prediction)
        y += z[d]                                                            # y_L = y_0 + sum_l c_l . x_l
        return np.negative(y, out=y)

    def backward(self, P, Q, dprediction, dP, dQ):
        """Add the gradients of <dprediction, prediction> to dP and dQ (L, H, d, d); dQ that of Q with its 1/n.

        Returns None, or (dG, dz) of the shapes of G and z if the kernel pulls back; valid until the next call.
        """
        last, dy = self.layers - 1, -dprediction
        np.multiply(dy, self._V[:, :, 1:], out=self._dc)                     # y_L = y_0 + sum_l c_l . x_l
        np.multiply(dy, self._c, out=self._dx)
        self._dV[...] = 0
        for layer in range(last, -1, -1):
            if layer < last - 1:
                self._matrix_backward(layer, P[layer], Q[layer], dP[layer], dQ[layer])
            elif layer < last:
                self._vector_backward(layer, P[layer], Q[layer], dP[layer], dQ[layer])
            self._response_backward(layer)
        dQ += self.use.sum_product_transposed(self._V[:, :, :1], self._dc)[:, None]      # the same for every head
        return self._adjoints(dy) if self.pulls_back else None

    def _adjoints(self, dy):
        """dS = E / 2; s stands in G twice, and z ends with the response slot."""
        d, dG, dz = len(self._dz) - 1, self._dG, self._dz
        if self.layers > 1:                                                  # else S reaches nothing, eq. 6.4
            np.divide(self._E, 2, out=dG[:d, :d])
        np.divide(self._dV[:, 0], 2, out=dG[:d, d])
        dG[d, :d] = dG[:d, d]
        dz[:d], dz[d] = self._dV[:, 1], dy
        return dG, dz

    def _response_backward(self, layer):
        """Back through y' = y + c.x, w = S c + s and c = sum_h Q_h^T s; dV holds (dw, dx) and becomes (ds, dx)."""
        dV, dc = self._dV, self._dc[layer]
        if layer < self.layers - 1:
            dc += self.use.product(self._S[layer], dV[:, :1], out=self._single)
        if layer >= self._first:
            dV[:, 1:] += self._dx[layer]
            dV[:, :1] += self.use.left(self._Q_sum[layer], dc, out=self._single)

    # --- the layer before the last: (s', x') = (w, x) + sum_h P_h S Q_h (w, x) ---

    def _vector_forward(self, layer, P, Q):
        W, V_next = self._W[layer], self._V[layer + 1]
        V_next[...] = W
        for h in range(self.heads):
            U = self.use.left(Q[h], W, out=self._U[h])
            T = self.use.product(self._S[layer], U, out=self._T[h])
            V_next += self.use.left(P[h], T, out=self._pair)

    def _vector_backward(self, layer, P, Q, dP, dQ):
        """derivations/06-block-fast-path.md, eq. 6.5-6.10; dV holds (ds', dx') and becomes (dw, dx)."""
        dV, dW, dU = self._dV, self._dW, self._pair
        dW[...] = dV
        for h in range(self.heads):
            columns = slice(2 * h, 2 * h + 2)
            dP[h] += self.use.sum_product_transposed(dV, self._T[h])
            dT = self.use.left(P[h].T, dV, out=self._T[h])
            self._left[:, columns], self._right[:, columns] = dT, self._U[h]
            self.use.product(self._S[layer], dT, out=dU)
            dQ[h] += self.use.sum_product_transposed(dU, self._W[layer])
            dW += self.use.left(Q[h].T, dU, out=self._U[h])
        self._dV, self._dW = dW, dV
        if layer >= self._first:                                             # dS = sum_h dT U^T + dw c^T
            self._left[:, -1], self._right[:, -1] = self._dV[:, 0], self._c[layer][:, 0]
            X = self.use.product_transposed(self._left, self._right, out=self._X)
            np.add(X, np.swapaxes(X, 0, 1), out=self._E)

    # --- the layers before: B and S' = B S B^T are formed ---

    def _matrix_forward(self, layer, P, Q):
        S, B, BS = self._S[layer], self._B[layer], self._BS[layer]
        for h in range(self.heads):
            PS = self.use.left(P[h], S, out=self._PS[layer][h])
            if h == 0:
                self.use.right(PS, Q[h], out=B)
            else:
                B += self.use.right(PS, Q[h], out=self._X)
        np.einsum("iib->ib", B)[...] += 1                                    # a view of the diagonals
        self.use.product(B, self._W[layer], out=self._V[layer + 1])
        self.use.product_symmetric(B, S, out=BS)
        self.use.product_transposed(BS, B, out=self._S[layer + 1])

    def _matrix_backward(self, layer, P, Q, dP, dQ):
        """derivations/06-block-fast-path.md, eq. 6.5-6.10; dV and E go from after the layer to before it."""
        S, B, H, KT, X, E = self._S[layer], self._B[layer], self._H, self._KT, self._X, self._E
        self.use.product_swapped(E, self._BS[layer], out=H)                  # H = dV W^T + 2 dS' B S
        H += self.use.product_transposed(self._dV, self._W[layer], out=X)
        self._dV, self._dW = self.use.transposed_product(B, self._dV, out=self._dW), self._dV
        if layer >= self._first:                                             # E becomes B^T E' B + X + X^T
            self.use.product(E, B, out=KT)
            self.use.transposed_product(B, KT, out=E)
            self.use.product_transposed(self._dV[:, :1], self._c[layer], out=X)
        for h in range(self.heads):
            PS = self._PS[layer][h]
            dQ[h] += self.use.sum_transposed_product(PS, H)
            self.use.left_transposed(Q[h], H, out=KT)                        # (H Q^T)^T
            dP[h] += self.use.sum_transposed_product(KT, S)
            if layer >= self._first:
                X += self.use.right(KT, P[h], out=PS)                        # (P^T H Q^T)^T; PS has served
        if layer >= self._first:
            E += X
            E += np.swapaxes(X, 0, 1)
