"""The fast path of shallow stacks: linear attention on vectors alone, no matrix of a prompt is ever formed.

The prediction asks for A_l on a few vectors only, and whatever A_l asks of G_l, it asks through G_0:

    A_l v = v + sum_h P_h G_l (Q_h v)        A_l^T v = v + sum_h Q_h^T G_l (P_h^T v)        `_Mix`
    G_l v = A_{l-1} G_{l-1} (A_{l-1}^T v)                                                   `_Gram`

so that everything is products of vectors with G_0 (one einsum) and with shared matrices (one BLAS call). Backward,
each runs in reverse: G_0 is its own adjoint, and the adjoints of P, Q and G_0 are sums of outer products of the
vectors that went in and of the adjoints that come back. Derivation: derivations/19-vectors-only.md, eq. 19.1-19.9.
Equal to `lintransformer/layers/gram.py` in tests/test_vectors_kernel.py, at every size.

Conventions
-----------
Arrays are batch last: (rows, k, c) holds k vectors of c prompts; each is allocated once and reused, and backward
writes into what forward no longer needs. Q carries the 1/n. Adjoints are written d. P (L, D, D H) and Q (L, D H, D)
hold the heads of a layer side by side, the head last, so that to what lies below k vectors in H heads are H k vectors.
"""

import numpy as np


def products(layers, heads):
    """How many vectors the full form multiplies by G_0 in a forward pass, and again backward; eq. 19.4."""
    return ((2 * heads + 1) ** layers - 1) // 2


class _Gram:
    """Y = G_l V; V (rows H, k, c) or (rows, k, c)."""

    def __init__(self, kernel, layer, columns, heads=1):
        self._kernel, self._parts, wide = kernel, (), columns * heads
        if layer > 0:
            self._shape = kernel.rows, wide, kernel.prompts
            down, up = _Mix(kernel, layer - 1, wide, transposed=True), _Mix(kernel, layer - 1, wide)
            self._parts = down, _Gram(kernel, layer - 1, wide), up
        else:
            self._shape = kernel.rows, heads, columns, kernel.prompts
            self._Y = np.empty(self._shape, kernel.dtype)

    def forward(self, V):
        self._V = Y = V.reshape(self._shape)
        for part in self._parts:
            Y = part.forward(Y)                                              # (19.2)
        return (Y if self._parts else self._times_G(Y)).reshape(V.shape)

    def backward(self, dY):
        dV = dY.reshape(self._shape)
        if not self._parts:
            if self._kernel.pulls_back:
                self._kernel.add_outer(dV, self._V)                          # (19.8)
            return self._times_G(dV).reshape(dY.shape)                       # (19.5)
        for part in reversed(self._parts):
            dV = part.backward(dV)
        return dV.reshape(dY.shape)

    def _times_G(self, V):
        return np.einsum("ijb,jhkb->ihkb", self._kernel.G, V, out=self._Y)


class _Mix:
    """Y = A_l V = V + P G_l (Q V), or transposed: Y = A_l^T V = V + Q^T G_l (P^T V); into `out` if given."""

    def __init__(self, kernel, layer, columns, transposed=False, out=None):
        self._kernel, self._layer, self._transposed = kernel, layer, transposed
        self._gram = _Gram(kernel, layer, columns, kernel.heads)
        self._Y = np.empty((kernel.rows, columns, kernel.prompts), kernel.dtype) if out is None else out
        rows = kernel.rows * kernel.heads
        if layer == 0:                           # read by einsum alone, which is faster with one vector after another
            self._T = np.empty((columns, rows, kernel.prompts), kernel.dtype).swapaxes(0, 1)
        else:
            self._T = np.empty((rows, columns, kernel.prompts), kernel.dtype)
        overwrites = layer == 0 and not kernel.pulls_back                    # else T is read once more
        self._dU = self._T if overwrites else np.empty_like(self._T)
        self._flat_Y = _flat(self._Y)

    def _sides(self, P, Q):
        """(left, right) of left G_l right."""
        return (Q[self._layer].T, P[self._layer].T) if self._transposed else (P[self._layer], Q[self._layer])

    def forward(self, V):
        left, right = self._sides(self._kernel.P, self._kernel.Q)
        self._V, self._U = V, _flat(self._gram.forward(_left(right, V, out=self._T)))
        np.dot(left, self._U, out=self._flat_Y)
        self._Y += V                                                         # (19.1)
        return self._Y

    def backward(self, dY):
        left, right = self._sides(self._kernel.P, self._kernel.Q)
        dleft, dright = self._sides(self._kernel.dP, self._kernel.dQ)
        dleft += np.dot(_flat(dY), self._U.T)                                # (19.6)
        dT = _flat(self._gram.backward(_left(left.T, dY, out=self._dU)))
        dright += np.dot(dT, _flat(self._V).T)
        np.dot(right.T, dT, out=self._flat_Y)
        self._Y += dY                                                        # (19.5)
        return self._Y


class _VectorsKernel:
    """What both parametrisations do alike.

    Parameters
    ----------
    layers, heads, dimension, prompts : int
    dtype : float32 or float64
    pulls_back : whether `backward` returns the adjoints of G and z, for an embedding that has made them
    """

    extra_rows = 0                               # what G has that d x d matrices of covariates have not

    def __init__(self, layers, heads, dimension, prompts, dtype, pulls_back=False):
        self.layers, self.heads, self.rows, self.prompts = layers, heads, dimension + self.extra_rows, prompts
        self.dtype, self.pulls_back = dtype, pulls_back
        self._prediction, self._copies = self._empty(), {}
        if pulls_back:
            self._dG, self._outer = self._empty(2, dimension + 1, dimension + 1)
            self._dz = self._empty(dimension + 1)

    def _empty(self, *shape):
        return np.empty((*shape, self.prompts), self.dtype)

    def _batch_last(self, array):
        """The array itself if its prompts are contiguous, as a sampler's are, else a copy; in the kernel's dtype."""
        if array.dtype == self.dtype and array.strides[-1] == array.itemsize:
            return array
        copy = self._copies.setdefault(array.ndim, np.empty(array.shape, self.dtype))
        copy[...] = array
        return copy

    def _start(self, P, Q, G):
        """Heads side by side, the head last: one product serves all of them."""
        self.G, rows = self._batch_last(G), self.rows
        self.P = P.transpose(0, 2, 3, 1).reshape(self.layers, rows, -1)
        self.Q = Q.transpose(0, 2, 1, 3).reshape(self.layers, -1, rows)

    def _start_backward(self):
        self.dP, self.dQ = np.zeros_like(self.P), np.zeros_like(self.Q)
        if self.pulls_back:
            self._dG[...] = 0

    def _finish(self, dP, dQ):
        shape = self.layers, self.rows, self.rows, self.heads
        dP += self.dP.reshape(shape).transpose(0, 3, 1, 2)
        dQ += self.dQ.reshape(self.layers, self.rows, self.heads, self.rows).transpose(0, 2, 1, 3)

    def add_outer(self, dY, V):
        """dG += dY V^T, where Y = G V; made symmetric at the end."""
        rows = slice(0, self.rows)
        self._dG[rows, rows] += np.einsum("ihkb,jhkb->ijb", dY, V, out=self._outer[rows, rows])

    def _symmetric(self):
        """dG (D, D, c), which `_outer` then holds."""
        np.add(self._dG, self._dG.swapaxes(0, 1), out=self._outer)
        return np.divide(self._outer, 2, out=self._outer)


class FullVectorsKernel(_VectorsKernel):
    """Full P and Q: rows = D = d + 1. The last layer is a^T G b, a = P^T e and b = Q z, moved to G_0 from both ends."""

    extra_rows = 1

    def __init__(self, layers, heads, dimension, prompts, dtype, pulls_back=False):
        super().__init__(layers, heads, dimension, prompts, dtype, pulls_back)
        self._up = [_Mix(self, layer, 1) for layer in range(layers - 1)]
        self._down = [_Mix(self, layer, 2 * heads, transposed=True) for layer in reversed(range(layers - 1))]
        self._middle = _Gram(self, 0, heads)
        self._ab, self._dab = self._empty(2, self.rows, 2 * heads)
        self._dU, self._dz_last = self._empty(self.rows, heads), self._empty(self.rows, 1)

    def forward(self, P, Q, G, z):
        """The predictions (c,); valid until the next call.

        Parameters
        ----------
        P, Q : arrays (L, H, D, D); Q divided by n
        G, z : arrays (D, D, c), (D, c); `backward` reads them again
        """
        self._start(P, Q, G)
        z = self._batch_last(z)[:, None]
        for mix in self._up:
            z = mix.forward(z)
        H, V, self._z = self.heads, self._ab, z
        V[:, :H] = P[-1, :, -1].T[..., None]
        V[:, H:] = (self.Q[-1] @ z[:, 0]).reshape(self._dU.shape)
        for mix in self._down:
            V = mix.forward(V)
        self._V, self._U = V, self._middle.forward(V[:, H:])
        y = np.einsum("ihb,ihb->b", V[:, :H], self._U, out=self._prediction)
        y += z[-1, 0]                                                        # (19.3)
        return np.negative(y, out=y)

    def backward(self, P, Q, dprediction, dP, dQ):
        """Add the gradients of <dprediction, prediction> to dP and dQ (L, H, D, D); dQ that of Q with its 1/n.

        Returns None, or (dG, dz) of the shapes of G and z if the kernel pulls back; valid until the next call.
        """
        self._start_backward()
        dy, H, dV = -dprediction, self.heads, self._dab
        np.multiply(dy, self._U, out=dV[:, :H])                              # (19.7)
        dV[:, H:] = self._middle.backward(np.multiply(dy, self._V[:, :H], out=self._dU))
        for mix in reversed(self._down):
            dV = mix.backward(dV)
        dP[-1, :, -1] += dV[:, :H].sum(axis=-1).T
        db = np.ascontiguousarray(dV[:, H:]).reshape(-1, self.prompts)
        self.dQ[-1] += db @ self._z[:, 0].T
        dz = self._dz_last
        np.dot(self.Q[-1].T, db, out=dz[:, 0])
        dz[-1] += dy
        for mix in reversed(self._up):
            dz = mix.backward(dz)
        self._finish(dP, dQ)
        return (self._symmetric(), dz[:, 0]) if self.pulls_back else None


class BlockVectorsKernel(_VectorsKernel):
    """Block parametrisation: rows = d, S in place of G, B of A; c, w and the responses as in `BlockGramKernel`."""

    def __init__(self, layers, heads, dimension, prompts, dtype, pulls_back=False):
        super().__init__(layers, heads, dimension, prompts, dtype, pulls_back)
        self._V, self._W = self._empty(2, layers, dimension, 2)              # (s, x) and (w, x) of every layer
        self._dV = self._empty(dimension, 2)
        self._c, self._dc, self._dx = self._empty(3, layers, dimension)
        self._S = [_Gram(self, layer, 1) for layer in range(layers - 1)]
        self._B = [_Mix(self, layer, 2, out=self._V[layer + 1]) for layer in range(layers - 1)]

    def forward(self, P, Q, G, z):
        """The predictions (c,); valid until the next call.

        Parameters
        ----------
        P, Q : arrays (L, H, d, d); Q divided by n
        G, z : arrays (d + 1, d + 1, c), (d + 1, c); `backward` reads G again
        """
        d, V, W, c = self.rows, self._V, self._W, self._c
        self._start(P, Q, G[:d, :d])
        self._Q_sum = Q[:, 0] if self.heads == 1 else Q.sum(axis=1)
        V[0, :, 0], V[0, :, 1] = G[:d, d], z[:d]
        for layer in range(self.layers):
            np.matmul(self._Q_sum[layer].T, V[layer, :, 0], out=c[layer])    # (6.2)
            if layer < self.layers - 1:
                np.add(self._S[layer].forward(c[layer, :, None])[:, 0], V[layer, :, 0], out=W[layer, :, 0])
                W[layer, :, 1] = V[layer, :, 1]
                self._B[layer].forward(W[layer])                             # (6.3), into V[layer + 1]
        y = np.einsum("lib,lib->b", c, V[:, :, 1], out=self._prediction)
        y += z[d]
        return np.negative(y, out=y)

    def backward(self, P, Q, dprediction, dP, dQ):
        """As `FullVectorsKernel.backward`, with dP and dQ (L, H, d, d)."""
        self._start_backward()
        dy, V, last = -dprediction, self._V, self.layers - 1
        dc, dx = np.multiply(dy, V[:, :, 1], out=self._dc), np.multiply(dy, self._c, out=self._dx)     # (6.5)
        dV = self._dV
        dV[...] = 0                                                          # nothing reads s and x of the last layer
        for layer in range(last, -1, -1):
            if layer < last:                                                 # (ds', dx') to (dw, dx), then to (ds, dx)
                dV = self._B[layer].backward(dV)
                dc[layer] += self._S[layer].backward(dV[:, :1])[:, 0]        # (6.7)
            dQ[layer] += V[layer, :, 0] @ dc[layer].T
            if layer > 0 or self.pulls_back:
                dV[:, 0] += np.matmul(self._Q_sum[layer], dc[layer], out=self._c[layer])
                dV[:, 1] += dx[layer]
        self._finish(dP, dQ)
        return self._adjoints(dV, dy) if self.pulls_back else None

    def _adjoints(self, dV, dy):
        """s stands in G twice, and z ends with the response slot."""
        d, dz = self.rows, self._dz
        self._dG[:d, d], dz[:d], dz[d] = dV[:, 0], dV[:, 1], dy
        return self._symmetric(), dz


def _flat(A):
    """(rows, k, c) as the (rows, k c) matrix of one product."""
    return A.reshape(len(A), -1)


def _left(W, A, out):
    """W A, one vector after the other, whatever the order in which A and `out` hold them."""
    np.matmul(W, A.swapaxes(0, 1), out=out.swapaxes(0, 1))
    return out
