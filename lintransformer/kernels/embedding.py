"""The fast path of the MLP embedding: in place, biases as a column, before a kernel for the layers behind it.

    H = [W1 b1] [X; 1]     R = max(H, 0)     E = [W2 b2] [R; 1]     tokens (E, y)

A row of ones below X and R makes the biases, and their gradients, part of products that are there anyway; R takes the
place of H, and the ReLU's derivative is kept as a number, 0 or 1. Derivation: derivations/09-mlp-embedding.md, eq. 9.1
forward, eq. 9.2-9.4 backward. Equal to `layers/embedding.py` in tests/test_embedding_kernel.py, at every size.

Conventions
-----------
Tokens Z (D, ., .) have their features first; the two axes behind, prompts and tokens in the order that the next kernel
likes, are one to the embedding. [W1 b1] is (h, d + 1), [W2 b2] (d, h + 1). All arrays are allocated once and reused.

Whatever comes behind is a kernel that pulls back, `backward` returning the adjoints of its inputs: of tokens
(`softmax.py`), or of Gram statistics, to which `GramOfTokens` leads.
"""

import numpy as np

from lintransformer.layers.compose import Chain
from lintransformer.layers.gram import Gram
from lintransformer.layers.readout import ReadGram


class MLPKernel:
    """The embedding of `count` tokens, in buffers of its own."""

    def __init__(self, hidden, dimension, count, dtype):
        self._X, self._R = np.ones((dimension + 1, count), dtype), np.ones((hidden + 1, count), dtype)
        self._tokens = np.empty((dimension + 1, count), dtype)
        self._active, self._dR = np.empty((2, hidden, count), dtype)

    def embed(self, first, second, Z):
        """The embedded tokens, of Z's shape; valid until the next call."""
        self._X[:-1].reshape((-1, *Z.shape[1:]))[...] = Z[:-1]
        R, active = self._R[:-1], self._active
        np.matmul(first, self._X, out=R)                                                         # (9.1)
        np.greater(R, 0, out=active, casting="unsafe")                       # 1.5 times faster than a mask of bools
        R *= active
        np.matmul(second, self._R, out=self._tokens[:-1])                                        # (9.1)
        tokens = self._tokens.reshape(Z.shape)
        tokens[-1] = Z[-1]
        return tokens

    def pull(self, second, dtokens, dfirst, dsecond):
        """Add to the gradients of [W1 b1] and [W2 b2]; dtokens (d or D, ., .)."""
        d = len(second)
        dE = dtokens[:d].reshape(d, -1)
        dsecond += dE @ self._R.T                                                                # (9.3)
        dR = np.matmul(second[:, :-1].T, dE, out=self._dR)
        dR *= self._active
        dfirst += dR @ self._X.T                                                                 # (9.4)


class EmbeddedKernel:
    """An embedding, then another kernel; its weights are those of the kernel, then the two of the embedding."""

    def __init__(self, embedding, behind):
        self._embedding, self._behind = embedding, behind

    def forward(self, *arguments):
        *weights, first, second, Z = arguments
        return self._behind.forward(*weights, self._embedding.embed(first, second, Z))

    def backward(self, *arguments):
        half = len(arguments) // 2                                           # as many gradients as weights
        (*weights, _, second), dprediction = arguments[:half], arguments[half]
        *gradients, dfirst, dsecond = arguments[half + 1:]
        dtokens = self._behind.backward(*weights, dprediction, *gradients)
        self._embedding.pull(second, dtokens, dfirst, dsecond)


class GramOfTokens:
    """Leads tokens (D, N, c) to a kernel that reads G (D, D, c), symmetric, and z (D, c), and its adjoints back."""

    def __init__(self, kernel, dimension, context_length, prompts, dtype):
        D = dimension + 1
        self._kernel, self._G = kernel, np.empty((D, D, prompts), dtype)
        self._dX, self._dG = np.empty((dimension, context_length + 1, prompts), dtype), np.empty_like(self._G[:-1])

    def forward(self, *arguments):
        *weights, self._Z = arguments
        context = self._Z[:, :-1]
        np.einsum("inb,jnb->ijb", context, context, out=self._G)
        return self._kernel.forward(*weights, self._G, self._Z[:, -1])

    def backward(self, *arguments):
        """The adjoint of the covariates (d, N, c); responses are data."""
        dG, dz = self._kernel.backward(*arguments)
        np.multiply(dG[:-1], 2, out=self._dG)
        np.einsum("ijb,jnb->inb", self._dG, self._Z[:, :-1], out=self._dX[:, :-1])               # (9.2)
        self._dX[:, -1] = dz[:-1]
        return self._dX


class GramLayersKernel:
    """The layers of `layers/gram.py` as a kernel that pulls back; its one weight is theta's arrays, one a layer."""

    def __init__(self, layers, context_length):
        self._chain, self._n = Chain(*layers, ReadGram()), context_length

    def forward(self, parts, G, z):
        prediction, self._cache = self._chain.forward(list(parts), Gram(G, z, self._n))
        return prediction

    def backward(self, parts, dprediction, dparts):
        dstate, gradients = self._chain.backward(self._cache, dprediction)
        for total, gradient in zip(dparts, gradients):
            total += gradient
        return dstate
