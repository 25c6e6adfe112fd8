"""Value, gradient and losses by the fast paths: which weights, inputs and chunks each kernel is given.

The numbers are those of the layers up to rounding.
"""
from __future__ import annotations

import math

import numpy as np

from lintransformer.kernels.block import BlockGramKernel
from lintransformer.kernels.chunks import ChunkedEvaluator
from lintransformer.kernels.embedding import EmbeddedKernel, GramLayersKernel, GramOfTokens, MLPKernel
from lintransformer.kernels.softmax import SoftmaxKernel
from lintransformer.kernels.vectors import BlockVectorsKernel, FullVectorsKernel, products

# At most this much memory for the largest array of one layer: for one (d, d, c) array of the block kernel, and
CHUNK_BYTES = 2_000_000
# for one (H, c, N, N) array of softmax weights: twice the chunk is no faster, half of it a tenth slower (S1).
WEIGHTS_BYTES = 500_000
# Behind an embedding: the hidden units of 250 prompts stay in the second-level cache (h = 30, n = 20), and fewer do not
# pay for the calls that a chunk makes, whatever n (measured up to n = 1000).
EMBEDDED_PROMPTS = 250
# The vectors-only kernels pass G_0 over `products` times forward. That wins, measured over L = 2 to 6, d = 2 to 20 and
# 1 to 4 heads, up to this often: derivations/19-vectors-only.md, eq. 19.10
FULL_PRODUCTS = 3                    # times H L D, against the layers, which form A_l and G_l
BLOCK_PRODUCTS = 2                   # times d, against `BlockGramKernel`, which forms S_l up to the last layer but two


def kernel_for(parametrization, layers):
    """The class of the fastest kernel for a stack of linear attention, or None where the layers themselves are."""
    heads, d = parametrization.heads, parametrization.dimension
    if parametrization.name == "full":
        return FullVectorsKernel if products(layers, heads) <= FULL_PRODUCTS * heads * layers * (d + 1) else None
    count = products(layers - 1, heads) // heads * (1 + 2 * heads)           # S_l on c and on every Q_h (w, x)
    return BlockVectorsKernel if count <= BLOCK_PRODUCTS * d else BlockGramKernel


class GramEvaluator(ChunkedEvaluator):
    """Linear attention in Gram form: derivations/06-block-fast-path.md and derivations/19-vectors-only.md.

    make : class of the kernel, as of `kernel_for`
    """

    for_every_length = True

    def __init__(self, make, layers, parametrization, batch_size, dtype, chunk=None):
        super().__init__(layers, parametrization, batch_size, dtype, chunk)
        self._make = make

    def weights(self, theta, n):
        P, Q = self.parametrization.matrices(self.parts(theta))
        return P, Q / n

    def gradient(self, theta, n, dP, dQ):
        dQ /= n
        return self.parametrization.pullback(self.parts(theta), dP, dQ).reshape(-1)

    def prompts_at_once(self, n):
        return max(64, CHUNK_BYTES // (self.parametrization.dimension**2 * self.dtype.itemsize))

    def kernel(self, size, n, pulls_back=False):
        shape = self.parametrization
        return self._make(self.layers, shape.heads, shape.dimension, size, self.dtype, pulls_back)


class SoftmaxEvaluator(ChunkedEvaluator):
    """Softmax attention, any parametrisation: derivations/18-softmax-fast-path.md.

    context_only : bool, mask "before"
    """

    reads_tokens, token_order = True, (1, 0, 2)

    def __init__(self, context_only, *arguments):
        super().__init__(*arguments)
        self.context_only = context_only

    def weights(self, theta, n):
        P, Q = self.parametrization.dense(*self.parametrization.matrices(self.parts(theta)))
        return P / n, Q

    def gradient(self, theta, n, dP, dQ):
        dP /= n
        return self.parametrization.pullback(self.parts(theta), *self.parametrization.restrict(dP, dQ)).reshape(-1)

    def prompts_at_once(self, n):
        return self.evenly(WEIGHTS_BYTES // (self.parametrization.heads * (n + 1) ** 2 * self.dtype.itemsize))

    def kernel(self, size, n, pulls_back=False):
        shape = self.parametrization
        return SoftmaxKernel(self.layers, shape.heads, shape.dimension, n, size, self.dtype, self.context_only,
                             pulls_back)


class GramLayersEvaluator(ChunkedEvaluator):
    """Linear attention in Gram form by its readable layers, in chunks: what stands behind an embedding."""

    def __init__(self, attention_layers, *arguments):
        super().__init__(*arguments)
        self.attention_layers = attention_layers

    def weights(self, theta, n):
        return (self.parts(theta),)

    def gradient(self, theta, n, dparts):
        return dparts.reshape(-1)

    def prompts_at_once(self, n):
        return self.batch_size                                               # the embedding has fewer

    def kernel(self, size, n, pulls_back=False):
        return GramLayersKernel(self.attention_layers, n)


class EmbeddedEvaluator(ChunkedEvaluator):
    """An embedding before any evaluator whose kernels pull back: derivations/09-mlp-embedding.md.

    behind : `ChunkedEvaluator` for the attention part of theta, of the same batch size and dtype
    embedding : `MLPEmbedding`
    """

    reads_tokens = True

    def __init__(self, behind, embedding, chunk=None):
        super().__init__(behind.layers, behind.parametrization, behind.batch_size, behind.dtype, chunk)
        self.behind, self.embedding, self.token_order = behind, embedding, behind.token_order
        self._ends = np.cumsum([math.prod(shape) for shape in embedding.shapes])[:-1]

    def weights(self, theta, n):
        W1, b1, W2, b2 = (part.reshape(shape) for part, shape in
                          zip(np.split(self._split(theta)[1], self._ends), self.embedding.shapes))
        first, second = np.column_stack([W1, b1]), np.column_stack([W2, b2])
        return (*self.behind.weights(self._split(theta)[0], n), first, second)

    def gradient(self, theta, n, *gradients):
        *gradients, first, second = gradients
        attention = self.behind.gradient(self._split(theta)[0], n, *gradients)
        parts = (part.reshape(-1) for column in (first, second) for part in (column[:, :-1], column[:, -1]))
        return np.concatenate([attention, *parts])

    def prompts_at_once(self, n):
        return self.evenly(min(EMBEDDED_PROMPTS, self.behind.prompts_at_once(n)))

    def kernel(self, size, n):
        behind, d = self.behind.kernel(size, n, pulls_back=True), self.parametrization.dimension
        if not self.behind.reads_tokens:
            behind = GramOfTokens(behind, d, n, size, self.dtype)
        return EmbeddedKernel(MLPKernel(self.embedding.hidden, d, size * (n + 1), self.dtype), behind)

    def _split(self, theta):
        """theta's attention part, then the embedding's."""
        return np.split(theta, [len(theta) - sum(math.prod(shape) for shape in self.embedding.shapes)])
