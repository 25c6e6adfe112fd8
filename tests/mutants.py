"""Typical derivation mistakes, planted one at a time in the shipped functions, and what must notice each.

A mutant replaces one piece of one function's source. If the piece is no longer there, planting fails loudly:
a mutant that changes nothing would prove nothing. The function keeps its identity (only its code object is
exchanged), so that every module that has imported it runs the mutant.
"""

import inspect
import textwrap
from contextlib import contextmanager
from dataclasses import dataclass

from lintransformer import objective, optimizers
from lintransformer.models import activations, attention, block, embedding, gram, parameters, reassociated


@dataclass(frozen=True)
class Mutant:
    """`old` becomes `new` in `function`; `caught_by` must be among the checks that fail on `model`."""

    name: str
    function: object
    old: str
    new: str
    model: str
    caught_by: str
    chapter: str


@contextmanager
def planted(mutant):
    """Exchange the code of the function, and put it back."""
    source = textwrap.dedent(inspect.getsource(mutant.function))
    count = source.count(mutant.old)
    assert count == 1, f"{mutant.name}: {mutant.old!r} stands {count} times in {mutant.function.__qualname__}"
    scope = {}
    code = compile(source.replace(mutant.old, mutant.new), f"<{mutant.name}>", "exec")
    exec(code, mutant.function.__globals__, scope)
    original, changed = mutant.function.__code__, scope[mutant.function.__name__].__code__
    assert changed.co_freevars == original.co_freevars
    mutant.function.__code__ = changed
    try:
        yield
    finally:
        mutant.function.__code__ = original


COMPLEX, PRODUCT = "gradient, complex", "Hessian-vector product, complex"
LOOPS = "eq. 7-8 by loops over tokens"
FORMS, FAST = "forms agree (token, reassociated, Gram)", "fast path agrees with the reference"
FLOAT32, IDLE = "float32 against float64", "idle parameters have derivative 0"

Mixing, Gram, Token = gram.Mixing, gram.GramAttention, attention.TokenAttention
Reassociated, Separate = reassociated.ReassociatedAttention, parameters.Parametrization
Kernel, MLP = block.BlockGramKernel, embedding.MLPEmbedding

MUTANTS = [
    # --- a factor ---
    Mutant("lost factor 2 of the square", objective.value_and_gradient, "2 * residual / batch.size",
           "residual / batch.size", "linear-block", COMPLEX, "01, eq. 1.10"),
    Mutant("lost factor 2 of the congruence", Gram.layer_backward, "2 * times(dG_next, AG)",
           "times(dG_next, AG)", "linear-full", COMPLEX, "05, eq. 5.4"),
    Mutant("lost factor 2 of C C^T", Gram.start_backward, "2 * np.einsum", "np.einsum", "linear-block-mlp",
           COMPLEX, "05, eq. 5.7"),
    Mutant("lost 1/n in the adjoint", Mixing.backward, "dA / cache.n", "dA", "linear-full", COMPLEX,
           "05, eq. 5.5"),
    Mutant("lost 1/n in the token form's adjoint", Token.layer_backward, "dH = dZ_next / n", "dH = dZ_next",
           "softmax-full", COMPLEX, "04, eq. 4.3"),
    Mutant("lost 1/n in the forward pass", Token.layer, "Z + update / n", "Z + update", "softmax-full",
           LOOPS, "03, eq. 3.1"),
    Mutant("wrong sign of the seed", attention.TokenState.read_backward, "= -dprediction", "= dprediction",
           "relu-full", COMPLEX, "04, eq. 4.1"),
    # --- a transpose, an order ---
    Mutant("missing transpose of P", Mixing.backward, '"hji,jkb->hikb"', '"hij,jkb->hikb"', "linear-full",
           COMPLEX, "05, eq. 5.6"),
    Mutant("missing transpose of Q", Token.layer_backward, "left(head.Q.T, ZdS)", "left(head.Q, ZdS)",
           "relu-full", COMPLEX, "04, eq. 4.5"),
    Mutant("missing transpose in the congruence", Gram.layer, "times_transposed(AG, A)",
           "times_transposed(AG, np.swapaxes(A, 0, 1))", "linear-full", FORMS, "05, eq. 5.2"),
    Mutant("swapped P and Q", Token.layer_backward, "(dZ, _heads(dP), _heads(dQ))",
           "(dZ, _heads(dQ), _heads(dP))", "softmax-full", COMPLEX, "04, eq. 4.4"),
    Mutant("swapped query and key matrix", Separate._pull_product,
           'np.einsum("...kj,...ij->...ki", W_k, dQ), np.einsum("...ki,...ij->...kj", W_q, dQ)',
           'np.einsum("...ki,...ij->...kj", W_q, dQ), np.einsum("...kj,...ij->...ki", W_k, dQ)',
           "linear-separate", COMPLEX, "08, eq. 8.2"),
    # --- the mask ---
    Mutant("forgotten query mask, backward", Token.layer_backward, "masked(mix_transposed(dH, head.R))",
           "mix_transposed(dH, head.R)", "softmax-full", COMPLEX, "04, eq. 4.4"),
    Mutant("forgotten query mask, forward", Token.layer, "masked(left(P_h, Z))", "left(P_h, Z)",
           "softmax-full", LOOPS, "03, eq. 3.2"),
    Mutant("forgotten query mask, reassociated", Reassociated.layer_backward,
           "masked(times(plus_transposed(dG), Z))", "times(plus_transposed(dG), Z)", "linear-full", FORMS,
           "04, eq. 4.8"),
    Mutant("forgotten query column of the embedding", Gram._tokens, "dstate[1][..., :, None, :]",
           "0 * dstate[1][..., :, None, :]", "linear-block-mlp", COMPLEX, "09, eq. 9.2"),
    # --- a term ---
    Mutant("lost residual, backward", Token.layer_backward, "dZ, dP, dQ, adjoints = dZ_next,",
           "dZ, dP, dQ, adjoints = 0 * dZ_next,", "softmax-full", COMPLEX, "04, eq. 4.6"),
    Mutant("lost residual, forward", Mixing.matrix, "np.eye(len(G), dtype=G.dtype)",
           "0 * np.eye(len(G), dtype=G.dtype)", "linear-full", LOOPS, "05, eq. 5.1"),
    Mutant("unsymmetrised Gram adjoint", Gram.layer_backward, "plus_transposed(dG) / 2", "dG",
           "linear-full", COMPLEX, "05, eq. 5.6"),
    Mutant("softmax Jacobian without its rank-one part", activations.Softmax.pull,
           "R * (dR - _over_keys(R, dR))", "R * dR", "softmax-full", COMPLEX, "07, eq. 7.4"),
    Mutant("softmax, second derivative without the moving weights", activations.Softmax.pull_tangent,
           "_over_keys(tR, dR) + _over_keys(R, tdR)", "_over_keys(R, tdR)", "softmax-full", PRODUCT,
           "07, eq. 7.8"),
    Mutant("softmax over the queries", activations.Softmax.value, "weights.sum(axis=-3, keepdims=True)",
           "weights.sum(axis=-2, keepdims=True)", "softmax-full", LOOPS, "07, eq. 7.2"),
    Mutant("ReLU mask on the wrong side", activations.ReLU.pull, "R.real > 0", "dR.real > 0", "relu-full",
           COMPLEX, "07, eq. 7.5"),
    Mutant("ReLU of the embedding forgotten backward", MLP._through, "H * active", "H", "linear-block-mlp",
           COMPLEX, "09, eq. 9.3"),
    Mutant("gradient of an idle parameter", Separate.restrict, "dP[..., :self.width, :self.width]",
           "dP[..., :self.width, :self.width] + 1e-30", "linear-block", IDLE, "03, eq. 3.7"),
    # --- second derivatives ---
    Mutant("Hessian without its residual part", objective.exact_hessian_vector_product,
           "2 * residual / batch.size", "0 * residual", "linear-full", PRODUCT, "11, eq. 11.1"),
    Mutant("tangent of G not symmetric", Gram.layer_tangent, "plus_transposed(half)", "2 * half",
           "linear-full", PRODUCT, "11, eq. 11.3"),
    Mutant("curvature of W_q^T W_k forgotten", Separate.pullback_tangent,
           'if self.name == "separate" else (0,)', 'if self.name == "none" else (0, 0)', "linear-separate",
           PRODUCT, "08, eq. 8.3"),
    # --- the fast path ---
    Mutant("fast path: w's part of c's adjoint lost", Kernel._response_backward,
           "if layer < self.layers - 1:", "if False:", "linear-block", FAST, "06, eq. 6.7"),
    Mutant("fast path: s lost from w", Kernel.forward, "np.add(w[:, 0], V[:, 0], out=W[:, 0])",
           "np.add(w[:, 0], 0, out=W[:, 0])", "linear-block", FAST, "06, eq. 6.3"),
    Mutant("fast path: adjoint of S not symmetrised", Kernel._matrix_backward, "E += np.swapaxes(X, 0, 1)",
           "E += X", "linear-block", FAST, "06, eq. 6.9"),
    # --- precision, optimizers ---
    Mutant("float64 identity in a float32 model", Mixing.matrix, "np.eye(len(G), dtype=G.dtype)",
           "np.eye(len(G))", "linear-full", FLOAT32, "05, eq. 5.1"),
    Mutant("clipping per matrix", optimizers.clip, "(wide * (largest * factor)).astype(gradient.dtype)",
           "np.concatenate([part * min(1.0, threshold / (np.sqrt(part @ part) + 1e-6))"
           " for part in np.split(gradient, 2)])", None, "joint clipping, eq. 10.9", "10, eq. 10.9"),
    Mutant("momentum with dampening", optimizers.SGD.update, "self.momentum * state.velocity + gradient",
           "self.momentum * state.velocity + (1 - self.momentum) * gradient", None,
           "SGD with momentum, unrolled, eq. 10.2", "10, eq. 10.1"),
    Mutant("Adam's epsilon inside the root", optimizers.Adam.update,
           "np.sqrt(second / (1 - self.beta2**step)) + self.epsilon",
           "np.sqrt(second / (1 - self.beta2**step) + self.epsilon)", None,
           "Adam, weighted means, eq. 10.5", "10, eq. 10.5"),
    Mutant("Adam's betas exchanged in the correction", optimizers.Adam.update,
           "first / (1 - self.beta1**step)", "first / (1 - self.beta2**step)", None,
           "Adam, weighted means, eq. 10.5", "10, eq. 10.5"),
]
