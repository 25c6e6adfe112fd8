"""Linear attention on tokens with the products in the other order: O(n d^2) a prompt in place of O(n^2 d).

Z' = A Z with A = I + (1/n) sum_h P_h (Z M Z^T) Q_h. Everything about A is shared with the Gram form. The four
functions of a layer are those of `lintransformer/models/attention.py`; derivations/03-linear-attention.md,
eq. 3.3, and derivations/04-backward-token.md, eq. 4.8.
"""

from lintransformer.models.attention import TokenState
from lintransformer.models.products import masked, plus_transposed, times, token_gram, transposed_times


class ReassociatedAttention(TokenState):
    """The stack's state is Z (D, N, B), as in the literal form."""

    def __init__(self, mixing):
        self.mixing = mixing

    def layer(self, Z, P, Q, n):
        A, mcache = self.mixing.matrix(token_gram(masked(Z), Z), P, Q, n)
        return times(A, Z), (Z, A, mcache)

    def layer_backward(self, cache, dZ_next):
        Z, A, mcache = cache
        (dG, dP, dQ), mbcache = self.mixing.backward(mcache, token_gram(dZ_next, Z))
        dZ = transposed_times(A, dZ_next) + masked(times(plus_transposed(dG), Z))
        return (dZ, dP, dQ), (dZ_next, dG, mbcache)

    def layer_tangent(self, cache, tZ, tP, tQ):
        Z, A, mcache = cache
        tG = plus_transposed(token_gram(masked(tZ), Z))
        tA, mtcache = self.mixing.tangent(mcache, tG, tP, tQ)
        return times(tA, Z) + times(A, tZ), (tZ, tA, mtcache)

    def layer_backward_tangent(self, cache, tcache, bcache, tdZ_next):
        (Z, A, mcache), (tZ, tA, mtcache), (dZ_next, dG, mbcache) = cache, tcache, bcache
        tdA = token_gram(tdZ_next, Z) + token_gram(dZ_next, tZ)
        tdG, tdP, tdQ = self.mixing.backward_tangent(mcache, mtcache, mbcache, tdA)
        tdZ = transposed_times(tA, dZ_next) + transposed_times(A, tdZ_next)
        tdZ = tdZ + masked(times(plus_transposed(tdG), Z) + times(plus_transposed(dG), tZ))
        return tdZ, tdP, tdQ
