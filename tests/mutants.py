"""Typical derivation mistakes, planted one at a time in the shipped functions, and what must notice each.

A mutant replaces one piece of one function's source. If the piece is no longer there, planting fails loudly:
a mutant that changes nothing would prove nothing. The function keeps its identity (only its code object is
exchanged), so that every module that has imported it runs the mutant.
"""

import inspect
import textwrap
from contextlib import contextmanager
from dataclasses import dataclass

from lintransformer import losses, optimizers
from lintransformer.diagnostics import differences, products, spectrum
from lintransformer.distributions import GramSampler, TokenSampler
from lintransformer.kernels import block, evaluator, softmax, vectors
from lintransformer.kernels import embedding as embedding_kernel
from lintransformer.layers import attention, attention_tangents, embedding, gram, parametrization, readout
from lintransformer.objective import Objective


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
FORMS, FAST = "forms agree (token, Gram)", "fast path agrees with the reference"
CLIPPED = "(wide * (largest * factor)).astype(gradient.dtype)"
ADAM, MOMENTS = "Adam, weighted means, eq. 10.5", "second moments of prompts, in standard errors"
FLOAT32, IDLE = "float32 against float64", "idle parameters have derivative 0"

Gram, ToGram = gram.GramAttention, gram.ToGram
Token, Tangent = attention.Attention, attention_tangents.TangentAttention
Separate, MLP, Softmax = parametrization.Parametrization, embedding.MLPEmbedding, attention.Softmax
Kernel, Evaluator = block.BlockGramKernel, evaluator.GramEvaluator
SoftmaxLayer, EmbeddingKernel = softmax._Layer, embedding_kernel.MLPKernel

MUTANTS = [
    # --- a factor ---
    Mutant("lost factor 2 of the square", losses.SquaredError.gradient, "2 * self._residual", "self._residual",
           "linear-block", COMPLEX, "01, eq. 1.10"),
    Mutant("lost factor 2 of the congruence", Gram._backward, "2 * _times(dG_next, c.AG)", "_times(dG_next, c.AG)",
           "linear-full", COMPLEX, "05, eq. 5.4"),
    Mutant("lost factor 2 of C C^T", ToGram.backward, "2 * np.einsum", "np.einsum", "linear-block-mlp",
           COMPLEX, "05, eq. 5.7"),
    Mutant("lost 1/n in the adjoint", Gram._backward, "dA / c.n", "dA", "linear-full", COMPLEX, "05, eq. 5.5"),
    Mutant("lost 1/n in the token form's adjoint", Token.backward, "E = dZ_next / n", "E = dZ_next",
           "softmax-full", COMPLEX, "04, eq. 4.3"),
    Mutant("lost 1/n in the forward pass", Token.forward, 'V, W) / n', 'V, W)', "softmax-full", LOOPS, "03, eq. 3.1"),
    Mutant("wrong sign of the seed", readout.ReadTokens._spread, "= -dprediction", "= dprediction",
           "relu-full", COMPLEX, "04, eq. 4.1"),
    # --- a transpose, an order ---
    Mutant("missing transpose of P", Gram._backward, '"hji,jkb->hikb", c.P', '"hij,jkb->hikb", c.P', "linear-full",
           COMPLEX, "05, eq. 5.6"),
    Mutant("missing transpose of Q", Token.backward, '"hde,hdjb->ejb", Q', '"hed,hdjb->ejb", Q',
           "relu-full", COMPLEX, "04, eq. 4.5"),
    Mutant("missing transpose in the congruence", Gram.forward, "_times_transposed(AG, A)", "_times(AG, A)",
           "linear-full", FORMS, "05, eq. 5.2"),
    Mutant("swapped P and Q", Token.backward, "return dZ, [dP, dQ]", "return dZ, [dQ, dP]", "softmax-full",
           COMPLEX, "04, eq. 4.4"),
    Mutant("swapped query and key matrix", Separate._pull_product,
           'np.einsum("...kj,...ij->...ki", W_k, dQ), np.einsum("...ki,...ij->...kj", W_q, dQ)',
           'np.einsum("...ki,...ij->...kj", W_q, dQ), np.einsum("...kj,...ij->...ki", W_k, dQ)',
           "linear-separate", COMPLEX, "08, eq. 8.2"),
    # --- the mask ---
    Mutant("forgotten query mask, backward", Token.backward, '_masked(np.einsum("djb,hijb->hdib", E, W))',
           'np.einsum("djb,hijb->hdib", E, W)', "softmax-full", COMPLEX, "04, eq. 4.4"),
    Mutant("forgotten query mask, forward", Token.forward, '_masked(np.einsum("hde,eib->hdib", P, Z))',
           'np.einsum("hde,eib->hdib", P, Z)', "softmax-full", LOOPS, "03, eq. 3.2"),
    Mutant("forgotten query column of the embedding", ToGram._tokens, "dstate[1][..., :, None, :]",
           "0 * dstate[1][..., :, None, :]", "linear-block-mlp", COMPLEX, "09, eq. 9.2"),
    # --- a term ---
    Mutant("lost residual, backward", Token.backward, "dZ = (dZ_next + np.einsum", "dZ = (np.einsum",
           "softmax-full", COMPLEX, "04, eq. 4.6"),
    Mutant("lost residual, forward", Gram.forward, "np.eye(len(G), dtype=G.dtype)",
           "0 * np.eye(len(G), dtype=G.dtype)", "linear-full", LOOPS, "05, eq. 5.1"),
    Mutant("unsymmetrised Gram adjoint", Gram._backward,
           '_plus_transposed(np.einsum("hikb,hjk->ijb", PdH, c.Q)) / 2', 'np.einsum("hikb,hjk->ijb", PdH, c.Q)',
           "linear-full", COMPLEX, "05, eq. 5.6"),
    Mutant("softmax Jacobian without its rank-one part", Softmax.pull, "W * (dW - _over_keys(W, dW))", "W * dW",
           "softmax-full", COMPLEX, "07, eq. 7.4"),
    Mutant("softmax, second derivative without the moving weights", Softmax.pull_tangent,
           "_over_keys(tW, dW) + _over_keys(W, tdW)", "_over_keys(W, tdW)", "softmax-full", PRODUCT,
           "07, eq. 7.8"),
    Mutant("softmax over the queries", Softmax.value, "W.sum(axis=-3, keepdims=True)",
           "W.sum(axis=-2, keepdims=True)", "softmax-full", LOOPS, "07, eq. 7.2"),
    Mutant("softmax without the largest score taken off", Softmax.value, "np.exp(R - heaviest)", "np.exp(R)",
           "softmax-full", "softmax of large scores", "07, eq. 7.2"),
    Mutant("ReLU mask on the wrong side", attention.ReLU.pull, "W.real > 0", "dW.real > 0", "relu-full",
           COMPLEX, "07, eq. 7.5"),
    Mutant("ReLU of the embedding forgotten backward", MLP.backward, "_left(W2.T, dE) * active", "_left(W2.T, dE)",
           "linear-block-mlp", COMPLEX, "09, eq. 9.3"),
    Mutant("gradient of an idle parameter", Separate.restrict, "dP[..., :self.width, :self.width]",
           "dP[..., :self.width, :self.width] + 1e-30", "linear-block", IDLE, "03, eq. 3.7"),
    # --- second derivatives ---
    Mutant("Hessian without its residual part", Objective.product,
           "doutput = self.loss.gradient(output, target) / count", "doutput = 0 * self.loss.gradient(output, target)",
           "linear-full", PRODUCT, "11, eq. 11.1"),
    Mutant("tangent of G not symmetric", Gram.tangent, "_plus_transposed(half)", "2 * half",
           "linear-full", PRODUCT, "11, eq. 11.3"),
    Mutant("tangent of the values forgotten", Tangent.tangent, 'tV + np.einsum("hde,...eib->...hdib", P, tZ)', "tV",
           "softmax-full", PRODUCT, "11, eq. 11.7"),
    Mutant("curvature of W_q^T W_k forgotten", Separate.pullback_tangent,
           'if self.name == "separate" else (0,)', 'if self.name == "none" else (0, 0)', "linear-separate",
           PRODUCT, "08, eq. 8.3"),
    Mutant("differences across kinks by default", products.chosen_method, 'return method or "exact"', "return method",
           "relu-block", "H v, the default against exact", "11, eq. 11.9"),
    Mutant("difference step 100 times too long", differences._balanced, "float(np.clip(", "100 * float(np.clip(",
           "relu-block", "H v, difference against exact", "11, eq. 11.10"),
    # --- the fast path ---
    Mutant("fast path: w's part of c's adjoint lost", Kernel._response_backward,
           "if layer < self.layers - 1:", "if False:", "linear-block", FAST, "06, eq. 6.7"),
    Mutant("fast path: s lost from w", Kernel.forward, "np.add(w[:, 0], V[:, 0], out=W[:, 0])",
           "np.add(w[:, 0], 0, out=W[:, 0])", "linear-block", FAST, "06, eq. 6.3"),
    Mutant("fast path: adjoint of S not symmetrised", Kernel._matrix_backward, "E += np.swapaxes(X, 0, 1)",
           "E += X", "linear-block", FAST, "06, eq. 6.9"),
    Mutant("fast path: the rest of the batch dropped", Evaluator._chunks, "range(0, self.batch_size, chunk)",
           "range(0, max(1, self.batch_size // chunk) * chunk, chunk)", "linear-block", FAST,
           "06, eq. 6.2"),
    Mutant("fast path: value of the last chunk only", Evaluator.value_and_gradient,
           "value += float(residual @ residual)", "value = float(residual @ residual)", "linear-block", FAST,
           "06, eq. 6.2"),
    Mutant("fast path: a float64 kernel for float32", Evaluator.kernel, "size, self.dtype", 'size, "float64"',
           "linear-block", FAST, "06, eq. 6.2"),
    Mutant("fast path: rank-one part of the softmax lost", SoftmaxLayer.backward,
           "sigma *= -1", "sigma *= 0",
           "softmax-block", FAST, "18, eq. 18.6"),
    Mutant("fast path: the query forgotten as a key", SoftmaxLayer.forward, "if not self._context_only:", "if False:",
           "softmax-block", FAST, "18, eq. 18.3"),
    Mutant("fast path: the query's value not masked, backward", SoftmaxLayer.backward, "E[..., -1, :] = 0  ",
           "pass  ", "softmax-full-heads2", FAST, "18, eq. 18.9"),
    Mutant("fast path: large scores not shifted", SoftmaxLayer._exponentiate, "if not small:", "if False:",
           "softmax-full", "softmax of large scores", "18, eq. 18.2"),
    Mutant("fast path: ReLU of the embedding forgotten backward", EmbeddingKernel.pull, "dR *= self._active", "pass",
           "linear-full-mlp", FAST, "09, eq. 9.3"),
    # --- the fast path on vectors ---
    Mutant("vectors: residual lost", vectors._Mix.forward, "self._Y += V", "pass", "linear-full", FAST, "19, eq. 19.1"),
    Mutant("vectors: A_l in place of its transpose", vectors._Gram.__init__, "transposed=True", "transposed=False",
           "linear-full", FAST, "19, eq. 19.2"),
    Mutant("vectors: row d + 1 of P read as a column", vectors.FullVectorsKernel.forward, "P[-1, :, -1].T",
           "P[-1, :, :, -1].T", "linear-full-heads2", FAST, "19, eq. 19.3"),
    Mutant("vectors: z lost from the response", vectors.FullVectorsKernel.forward, "y += z[-1, 0]", "pass",
           "linear-full", FAST, "19, eq. 19.3"),
    Mutant("vectors: residual lost, backward", vectors._Mix.backward, "self._Y += dY", "pass", "linear-full", FAST,
           "19, eq. 19.5"),
    Mutant("vectors: adjoint of the outer matrices lost", vectors._Mix.backward,
           "dleft += np.dot(_flat(dY), self._U.T)", "dleft += 0 * np.dot(_flat(dY), self._U.T)", "linear-full", FAST,
           "19, eq. 19.6"),
    Mutant("vectors: heads and rows exchanged", vectors._VectorsKernel._start, "P.transpose(0, 2, 3, 1)",
           "P.transpose(0, 2, 1, 3)", "linear-full-heads2", FAST, "19, eq. 19.1"),
    Mutant("vectors: seed of a^T G b on one side only", vectors.FullVectorsKernel.backward,
           "np.multiply(dy, self._U, out=dV[:, :H])", "dV[:, :H] = 0", "linear-full", FAST, "19, eq. 19.7"),
    Mutant("vectors: adjoint of the last z without its response", vectors.FullVectorsKernel.backward, "dz[-1] += dy",
           "pass", "linear-full", FAST, "19, eq. 19.7"),
    Mutant("vectors: S dw lost from c's adjoint", vectors.BlockVectorsKernel.backward,
           "dc[layer] += self._S[layer].backward(dV[:, :1])[:, 0]", "pass", "linear-block", FAST, "06, eq. 6.7"),
    Mutant("vectors: Q of another head", vectors.BlockVectorsKernel.forward, "Q.sum(axis=1)", "2 * Q[:, 0]",
           "linear-block-heads2", FAST, "06, eq. 6.2"),
    # --- precision, spectra, optimizers, prompts ---
    Mutant("float64 identity in a float32 model", Gram.forward, "np.eye(len(G), dtype=G.dtype)",
           "np.eye(len(G))", "linear-full", FLOAT32, "05, eq. 5.1"),
    Mutant("residuals of Lanczos always 0", spectrum.lanczos, "np.linalg.norm(H.matvec(vector) - value * vector)",
           "0 * np.linalg.norm(H.matvec(vector) - value * vector)", None,
           "residuals of Lanczos, eq. 12.4", "12, eq. 12.4"),
    Mutant("query without the covariance factor", TokenSampler.draw, "self._Z[:d] = X",
           "self._Z[:d] = X; self._Z[:d, -1] = normals[0][:, -1]", None, MOMENTS, "02, eq. 2.1"),
    Mutant("query without the covariance factor, Gram draws", GramSampler._draw_wishart,
           "_transform(covariate_factor, x)", "x", None, MOMENTS, "02, eq. 2.1"),
    Mutant("clipping per matrix", optimizers.clip, CLIPPED,
           "np.concatenate([part * min(1.0, threshold / (np.sqrt(part @ part) + 1e-6))"
           " for part in np.split(gradient, 2)])", None, "joint clipping, eq. 10.9", "10, eq. 10.9"),
    Mutant("momentum with dampening", optimizers.SGD.update, "self.momentum * state.velocity + gradient",
           "self.momentum * state.velocity + (1 - self.momentum) * gradient", None,
           "SGD with momentum, unrolled, eq. 10.2", "10, eq. 10.1"),
    Mutant("Adam's epsilon inside the root", optimizers.Adam.update,
           "np.sqrt(second / (1 - self.beta2**step)) + self.epsilon",
           "np.sqrt(second / (1 - self.beta2**step) + self.epsilon)", None, ADAM, "10, eq. 10.5"),
    Mutant("Adam's betas exchanged in the correction", optimizers.Adam.update,
           "first / (1 - self.beta1**step)", "first / (1 - self.beta2**step)", None, ADAM, "10, eq. 10.5"),
    Mutant("Adam's step counter stops at 6", optimizers.Adam.update, "step = state.step + 1",
           "step = min(state.step + 1, 6)", None, ADAM, "10, eq. 10.4"),
]
