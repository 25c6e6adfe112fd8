"""The model the rest of the package sees: an embedding (or none), L layers of attention, a prediction.

Conventions
-----------
theta (p,) is one flat vector: the attention part, C-order of [layer, head, part, row, column]
(`lintransformer/models/parameters.py`), then the embedding's W1, b1, W2, b2. A model holds no numbers: it is a
set of pure functions of theta and a batch, and the cache a forward pass returns is the tape.

The stack is written once, for every attention: a form (token, reassociated or Gram) has a state, four functions
of one layer, and a way to start from tokens and to read the prediction.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from lintransformer.checks import InputError, check_dtype, check_generator, numeric_array
from lintransformer.models.parameters import Parametrization
from lintransformer.prompts import GramPrompts, Prompts


class Cache(NamedTuple):
    """The tape of a forward pass."""

    theta: np.ndarray
    tokens: Any          # Z after the embedding (D, N, B), or None when Gram statistics are enough
    embedding: Any       # the embedding's cache
    start: Any           # the first state
    layers: list         # one cache a layer
    state: Any           # the last state


@dataclass(frozen=True)
class Transformer:
    """A stack of linear, ReLU or softmax attention layers; made by `lintransformer.build_model`."""

    parametrization: Parametrization
    form: Any = field(repr=False)
    attention: str
    form_name: str
    mask: str
    embedding: Any
    init_scale: float

    @property
    def layers(self):
        return self.parametrization.layers

    @property
    def heads(self):
        return self.parametrization.heads

    @property
    def dimension(self):
        return self.parametrization.dimension

    @property
    def size(self):
        """p, the number of parameters."""
        return self.parametrization.size + (self.embedding.size if self.embedding else 0)

    @property
    def has_kinks(self):
        """Whether f has kinks: a ReLU around the scores or in the embedding. Differences fail across them."""
        return self.attention == "relu" or self.embedding is not None

    @property
    def needs_tokens(self):
        """Whether Gram statistics are not enough for this model."""
        return self.form.needs_tokens or self.embedding is not None

    def init(self, rng, dtype=np.float64):
        """theta (p,) in float32 or float64: attention entries N(0, init_scale^2).

        "Authors' code": 0.05; Appendix B 0.1.
        """
        dtype = check_dtype(dtype)
        check_generator(rng)
        attention = self.init_scale * rng.standard_normal(self.parametrization.size)
        parts = [attention] if self.embedding is None else [attention, self.embedding.init(rng)]
        return np.concatenate(parts).astype(dtype)

    def named(self):
        """(name, shape, slice, meaning) of every part of theta, in order."""
        yield from self.parametrization.named()
        if self.embedding is not None:
            yield from self.embedding.named(self.parametrization.size)

    def unpack(self, theta):
        """The parts of theta by name, as views: {"P[0,0]": (m, m), ...}."""
        theta = self.check_theta(theta)
        return {name: theta[part].reshape(shape) for name, shape, part, _ in self.named()}

    def describe(self):
        """A table of theta's parts: name, shape, slice, meaning."""
        rows = [("name", "shape", "slice", "meaning")]
        rows += [(name, str(shape), f"{part.start}:{part.stop}", meaning)
                 for name, shape, part, meaning in self.named()]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]) for row in rows]
        title = (f"{self.layers} layers of {self.attention} attention ({self.form_name} form), {self.heads} head(s), "
                 f"d = {self.dimension}, {self.parametrization.name} parametrization: p = {self.size}")
        return "\n".join([title, *lines])

    def reaches_prediction(self):
        """Which entries of theta can change the prediction, by structure (p,) bool."""
        reaches = self.parametrization.reaches_prediction()
        return np.concatenate([reaches, np.ones(self.size - len(reaches), dtype=bool)])

    def forward(self, theta, batch):
        """The predictions TF_L (B,) (Section 3.1) and the cache.

        Parameters
        ----------
        theta : array (p,)
        batch : `Prompts`, or `GramPrompts` for linear attention in Gram form

        Raises
        ------
        InputError : theta or the batch does not fit the model.
        """
        theta = self.check_theta(theta)
        self.check_batch(batch)
        tokens, embedding_cache, start, n = self._start(theta, batch)
        state, caches = start, []
        for P, Q in zip(*self._matrices(theta)):
            state, cache = self.form.layer(state, P, Q, n)
            caches.append(cache)
        return self.form.read(state), Cache(theta, tokens, embedding_cache, start, caches, state)

    def resolved(self, cache):
        """Whether rounding leaves the attention weights of a forward pass any digits (real numbers only)."""
        resolved = getattr(self.form, "resolved", None)
        return resolved is None or all(resolved(layer) for layer in cache.layers)

    def backward(self, cache, dprediction):
        """The gradient (p,) of <dprediction, prediction>, for dprediction (B,)."""
        return self._backward(cache, dprediction)[0]

    def forward_tangent(self, cache, v):
        """The derivative of the prediction along v (p,) or (K, p): (B,) or (K, B); and its cache."""
        v = numeric_array("v", v)
        if v.shape[-1:] != (self.size,) or v.ndim > 2:
            raise InputError(f"v must have shape {(self.size,)} or (K, {self.size}), not {v.shape}")
        split = self._split
        tangents = self.parametrization.tangent(cache.theta[:split], v[..., :split])
        tP, tQ = self.parametrization.dense(*tangents, tangent=True)
        tstate, tembedding, ttokens = self._start_tangent(cache, v)
        tcaches = []
        for layer, layer_cache in enumerate(cache.layers):
            tP_l, tQ_l = tP[..., layer, :, :, :], tQ[..., layer, :, :, :]
            tstate, tcache = self.form.layer_tangent(layer_cache, tstate, tP_l, tQ_l)
            tcaches.append(tcache)
        return self.form.read(tstate), (v, ttokens, tembedding, tcaches)

    def backward_tangent(self, cache, tcache, dprediction, tdprediction):
        """The derivative of `backward` along v, when dprediction (B,) moves along tdprediction ((K,) B)."""
        v, ttokens, tembedding, tcaches = tcache
        _, (dQ, dstate, bcaches, ebcache) = self._backward(cache, dprediction)
        tdstate, tdP, tdQ = self.form.read_backward(cache.state, tdprediction), [], []
        for layer_cache, layer_tcache, bcache in zip(cache.layers[::-1], tcaches[::-1], bcaches):
            tdstate, tdP_l, tdQ_l = self.form.layer_backward_tangent(layer_cache, layer_tcache, bcache, tdstate)
            tdP.append(tdP_l), tdQ.append(tdQ_l)
        split = self._split
        tdP, tdQ = self.parametrization.restrict(np.stack(tdP[::-1], axis=-4), np.stack(tdQ[::-1], axis=-4))
        gradient = self.parametrization.pullback_tangent(cache.theta[:split], v[..., :split], dQ, tdP, tdQ)
        if self.embedding is None:
            return gradient
        tdZ = self.form.start_backward_tangent(cache.tokens, ttokens, dstate, tdstate)
        embedding = self.embedding.backward_tangent(cache.embedding, tembedding, ebcache, tdZ)
        return np.concatenate([gradient, embedding], axis=-1)

    def check_theta(self, theta):
        """theta as an array (p,), or an `InputError`."""
        if type(theta) is not np.ndarray or theta.dtype.char in "Oe":        # what may hide something: lists, masks,
            theta = numeric_array("theta", theta)                            # objects, float16
        if theta.shape != (self.size,):
            raise InputError(f"theta must have shape {(self.size,)} for this model, not {theta.shape}")
        if theta.dtype.kind not in "fcO":
            raise InputError(f"theta must hold floating-point or complex numbers, not dtype {theta.dtype}")
        return theta

    @property
    def _split(self):
        return self.parametrization.size

    def _matrices(self, theta):
        """The dense P and Q of every layer and head, each (L, H, D, D)."""
        return self.parametrization.dense(*self.parametrization.matrices(theta[:self._split]))

    def _start(self, theta, batch):
        """The tokens (None where they are not needed), the embedding's cache, the first state, n."""
        if not self.needs_tokens:
            gram = batch.gram()
            return None, None, (_batch_last(gram.G), _batch_last(gram.z)), gram.context_length
        Z, embedding_cache = np.ascontiguousarray(_batch_last(batch.Z)), None
        if self.embedding is not None:
            Z, embedding_cache = self.embedding.forward(theta[self._split:], Z)
        return Z, embedding_cache, self.form.start(Z), batch.context_length

    def _start_tangent(self, cache, v):
        if self.embedding is None:
            return self.form.zeros_like(cache.start), None, None
        ttokens, tembedding = self.embedding.tangent(cache.embedding, v[..., self._split:])
        return self.form.start_tangent(cache.tokens, ttokens), tembedding, ttokens

    def _backward(self, cache, dprediction):
        """The gradient, and what `backward_tangent` needs of the way to it."""
        dstate, dP, dQ, bcaches = self.form.read_backward(cache.state, dprediction), [], [], []
        for layer_cache in reversed(cache.layers):
            (dstate, dP_l, dQ_l), bcache = self.form.layer_backward(layer_cache, dstate)
            dP.append(dP_l), dQ.append(dQ_l), bcaches.append(bcache)
        dP, dQ = self.parametrization.restrict(np.stack(dP[::-1]), np.stack(dQ[::-1]))
        gradient, ebcache = self.parametrization.pullback(cache.theta[:self._split], dP, dQ), None
        if self.embedding is not None:
            dZ = self.form.start_backward(cache.tokens, dstate)
            embedding, ebcache = self.embedding.backward(cache.embedding, dZ)
            gradient = np.concatenate([gradient, embedding])
        return gradient, (dQ, dstate, bcaches, ebcache)

    def check_batch(self, batch):
        """Raise `InputError` unless the batch fits the model."""
        if not isinstance(batch, (Prompts, GramPrompts)):
            raise InputError(f"batch must be Prompts or GramPrompts, not {type(batch).__name__}")
        if self.needs_tokens and not isinstance(batch, Prompts):
            what = "an embedding" if self.embedding is not None else f"the {self.form_name} form of attention"
            raise InputError(f"batch holds Gram statistics (GramPrompts), but {what} reads tokens: give Prompts")
        if batch.dimension != self.dimension:
            raise InputError(f"batch has dimension {batch.dimension}, but the model has dimension {self.dimension}")


def _batch_last(array):
    return np.moveaxis(array, 0, -1)
