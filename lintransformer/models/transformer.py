"""The model the paper is about: an embedding (or none), L layers of attention, a prediction, under the squared error.

Conventions
-----------
theta (p,) is one flat vector: the attention part, C-order of [layer, head, part, row, column]
(`lintransformer/layers/parametrization.py`), then the embedding's W1, b1, W2, b2. It is an `Objective` whose model is a
chain of layers; it holds no numbers.
"""
from __future__ import annotations

import numpy as np

from lintransformer.checks import InputError, check_dtype, check_generator
from lintransformer.kernels.evaluator import (EmbeddedEvaluator, GramEvaluator, GramLayersEvaluator, SoftmaxEvaluator,
                                              kernel_for)
from lintransformer.layers.compose import Chain
from lintransformer.layers.embedding import MEANING as EMBEDDING_MEANING
from lintransformer.layers.gram import Gram, ToGram
from lintransformer.layers.parametrization import PARTS
from lintransformer.layers.readout import ReadGram, ReadTokens
from lintransformer.losses import SquaredError
from lintransformer.objective import Objective, check_theta
from lintransformer.prompts import GramPrompts, Prompts

MEANING = {
    "P": "value projection P (eq. 7)",
    "Q": "query-key matrix Q (eq. 7): score of key i for query j is z_i^T Q z_j",
    "W_q": "query matrix; Q = W_q^T W_k",
    "W_k": "key matrix; Q = W_q^T W_k",
}
CORNER = {"P": ", P = diag(P', 1)", "Q": ", Q = diag(Q', 0)"}


class Transformer(Objective):
    """A stack of attention layers; made by `lintransformer.build_model`.

    Parameters
    ----------
    attention_layers : list of `Parametrized`, all of one shape
    embedding : None or `MLPEmbedding`
    form : "gram" or "token": what the layers' state is
    attention, mask : their names, for `describe` and for checks that know the paper's formulas
    """

    def __init__(self, attention_layers, embedding, form, attention, mask):
        self.parametrization, self.layers = attention_layers[0].parametrization, len(attention_layers)
        self.embedding, self.form_name, self.attention, self.mask = embedding, form, attention, mask
        self.init_scale, self.attention_layers = attention_layers[0].init_scale, attention_layers
        before = [] if embedding is None else [embedding, ToGram()] if form == "gram" else [embedding]
        super().__init__(Chain(*before, *attention_layers, ReadGram() if form == "gram" else ReadTokens()),
                         SquaredError())
        if embedding is not None:                                            # in theta it comes last
            self.shapes = self.shapes[len(embedding.shapes):] + self.shapes[:len(embedding.shapes)]
            self._ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes]).tolist()

    @property
    def heads(self):
        return self.parametrization.heads

    @property
    def dimension(self):
        return self.parametrization.dimension

    @property
    def needs_tokens(self):
        """Whether Gram statistics are not enough for this model."""
        return self.form_name != "gram" or self.embedding is not None

    @property
    def attention_size(self):
        """How many entries of theta are the attention's."""
        return self._ends[self.layers - 1]

    def init(self, rng, dtype=np.float64):
        """theta (p,) in float32 or float64: attention entries N(0, init_scale^2).

        "Authors' code": 0.05; Appendix B 0.1.
        """
        dtype = check_dtype(dtype)
        check_generator(rng)
        attention = self.init_scale * rng.standard_normal(self.attention_size)
        parts = [] if self.embedding is None else [part.reshape(-1) for part in self.embedding.init(rng)]
        return np.concatenate([attention, *parts]).astype(dtype)

    def weights(self, theta):
        """In the order of the layers: the embedding's first."""
        parts = super().weights(theta)
        return parts[self.layers:] + parts[:self.layers]

    def join(self, weights):
        first = len(weights) - self.layers
        return super().join(weights[first:] + weights[:first])

    def stacked(self, theta):
        """theta's attention part (L, H, parts, m, m), a view."""
        return theta[:self.attention_size].reshape((self.layers,) + self.parametrization.shape)

    def read(self, batch):
        """Batch-last arrays: tokens (D, N, B), or (G, z, n); and the target."""
        if self.needs_tokens:
            return np.ascontiguousarray(_batch_last(batch.Z)), batch.target
        gram = batch.gram()
        return Gram(_batch_last(gram.G), _batch_last(gram.z), gram.context_length), batch.target

    def attention_weights(self, theta, batch):
        """W = phi(Z^T Q Z) of every layer, (H, n + 1, n + 1, B) each: row key, column query; token form only."""
        if self.form_name != "token":
            raise InputError(f"the {self.form_name} form has no weights of single tokens: use form='token'")
        caches, first = self.forward(theta, batch)[1], 0 if self.embedding is None else 1
        return [layer.attention.weights(cache) for layer, (_, cache) in
                zip(self.model.layers[first:first + self.layers], caches[first:first + self.layers])]

    def named(self):
        """(name, shape, slice, meaning) of every part of theta, in order."""
        names, matrix = PARTS[self.parametrization.name], (self.parametrization.width,) * 2
        start = 0
        for layer, head, part in np.ndindex(self.layers, self.heads, len(names)):
            symbol, stop = names[part], start + matrix[0] ** 2
            corner = "" if self.parametrization.name == "full" else CORNER.get(symbol, "")
            yield f"{symbol}[{layer},{head}]", matrix, slice(start, stop), MEANING[symbol] + corner
            start = stop
        for (name, meaning), shape in zip(EMBEDDING_MEANING.items(), self.embedding.shapes if self.embedding else ()):
            stop = start + int(np.prod(shape))
            yield name, shape, slice(start, stop), meaning
            start = stop

    def unpack(self, theta):
        """The parts of theta by name, as views: {"P[0,0]": (m, m), ...}."""
        theta = check_theta(self, theta)
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

    def evaluator(self, batch_size, dtype, chunk=None):
        """The fast path (chapters 6, 18 and 19), or None where there is none.

        The rule: softmax attention has one, and linear attention in Gram form where `kernel_for` knows a kernel, with
        an embedding before it or without; behind an embedding the layers serve otherwise, in chunks. Token forms of
        linear attention, ReLU, and activations of a reader's own go by their layers.
        """
        arguments = self.layers, self.parametrization, batch_size, dtype, chunk
        make = kernel_for(self.parametrization, self.layers)
        if self.attention == "softmax":
            fast = SoftmaxEvaluator(self.mask == "before", *arguments)
        elif self.form_name == "gram" and make:
            fast = GramEvaluator(make, *arguments)
        elif self.form_name == "gram" and self.embedding is not None:
            fast = GramLayersEvaluator(self.attention_layers, *arguments)
        else:
            return None
        return fast if self.embedding is None else EmbeddedEvaluator(fast, self.embedding, chunk)

    def suffixes(self, theta, batch):
        """(objective, part, batch) of f as a function of theta[part] alone, a slice: of all of theta, and of layer l
        and later ones only, l = 1, ..., L - 1, which read the state that the layers before them leave at theta.

        For dense Hessians: derivations/20-dense-hessians.md, eq. 20.1.
        """
        yield self, slice(0, self.size), batch
        if type(self) is not Transformer:                                    # a subclass may have changed anything
            return
        (state, target), width = self.read(batch), self.attention_size // self.layers
        pairs = list(zip(self.model.layers, self.model.parts(self.weights(theta))))[:-2]
        for done, (layer, weights) in enumerate(pairs, start=self.layers - len(pairs)):
            state = layer.forward(weights, state)[0]
            if done > 0:
                rest = Transformer(self.attention_layers[done:], None, self.form_name, self.attention, self.mask)
                yield rest, slice(done * width, self.attention_size), _as_batch(state, target)

    def reaches_prediction(self):
        """Which entries of theta can change the prediction (p,), by structure.

        The prediction reads row d of Z_L only. The last layer's P therefore matters through its row d alone:
        not at all when that row is fixed (block, separate). With one layer, column d of a full Q multiplies
        the query's own response, which eq. 4 sets to 0. derivations/03-linear-attention.md, eq. 3.7.
        """
        reaches = np.ones(self.size, dtype=bool)
        stacked = self.stacked(reaches)
        stacked[-1, :, 0] = False
        if self.parametrization.name == "full":
            stacked[-1, :, 0, -1] = True
            if self.layers == 1:
                stacked[0, :, 1, :, -1] = False
        return reaches

    def check_batch(self, batch):
        """Raise `InputError` unless the batch fits the model."""
        if not hasattr(batch, "gram"):
            raise InputError(f"batch must be Prompts or GramPrompts, not {type(batch).__name__}")
        if self.needs_tokens and not hasattr(batch, "Z"):
            what = "an embedding" if self.embedding is not None else f"the {self.form_name} form of attention"
            raise InputError(f"batch holds Gram statistics (GramPrompts), but {what} reads tokens: give Prompts")
        if batch.dimension != self.dimension:
            raise InputError(f"batch has dimension {batch.dimension}, but the model has dimension {self.dimension}")


def _as_batch(state, target):
    """The batch that a model reads as this state, a `Gram` or tokens (D, N, B)."""
    if not isinstance(state, Gram):
        return Prompts._trusted(np.moveaxis(state, -1, 0), target)
    return GramPrompts._trusted(np.moveaxis(state.G, -1, 0), np.moveaxis(state.z, -1, 0), target, state.n)


def _batch_last(array):
    return np.moveaxis(array, 0, -1)
