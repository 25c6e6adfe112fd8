"""Eq. 7-8 of the paper, sum by sum and prompt by prompt: slow, readable, and independent of the models' code.

Differentiation cannot find a forward pass that is wrong and differentiated rightly; this can. It shares
nothing with `lintransformer.models` but the layout of theta (`model.unpack`).
derivations/03-linear-attention.md, eq. 3.2.
"""

import numpy as np


def dense_heads(model, theta):
    """[[(P, Q) of each head] of each layer], each (d+1, d+1); derivations/03-linear-attention.md, eq. 3.4."""
    parts, kind, d = model.unpack(np.asarray(theta)), model.parametrization.name, model.dimension
    layers = []
    for layer in range(model.layers):
        heads = []
        for head in range(model.heads):
            index = f"[{layer},{head}]"
            P, Q = parts["P" + index], (parts["W_q" + index].T @ parts["W_k" + index] if kind == "separate"
                                        else parts["Q" + index])
            if kind != "full":
                small_P, small_Q = P, Q
                P, Q = np.zeros((2, d + 1, d + 1), dtype=P.dtype)
                P[:d, :d], Q[:d, :d], P[d, d] = small_P, small_Q, 1
            heads.append((P, Q))
        layers.append(heads)
    return layers


def predict_by_loops(model, theta, batch, shift=False):
    """The predictions (B,), by loops over prompts, layers, heads, queries and keys.

    With `shift`, the largest of a softmax's scores is taken off all of them, as scores of 1000 need.
    """
    return np.array([_Prompt(model, theta, Z, shift).prediction() for Z in batch.Z])


def relu_arguments(model, theta, batch):
    """The arguments of all ReLUs: f has a kink where one is 0, and is smooth while no sign changes."""
    prompts = [_Prompt(model, theta, Z) for Z in batch.Z]
    for prompt in prompts:
        prompt.prediction()
    return np.array([argument for prompt in prompts for argument in prompt.arguments], dtype=float)


def kink_distance(model, theta, batch):
    """The smallest |argument of a ReLU|, infinite without ReLUs."""
    return np.min(np.abs(relu_arguments(model, theta, batch)), initial=np.inf)


class _Prompt:
    """One prompt on its way through the stack; its tokens are a list of vectors (x_i, y_i)."""

    def __init__(self, model, theta, Z, shift=False):
        self.shift = shift
        self.model, self.parts, self.layers = model, model.unpack(theta), dense_heads(model, theta)
        self.tokens, self.n, self.arguments = list(Z.T), Z.shape[1] - 1, []
        if model.embedding is not None:
            self.tokens = [self._embed(token) for token in self.tokens]

    def prediction(self):
        for heads in self.layers:
            self.tokens = [self._next_token(j, heads) for j in range(self.n + 1)]
        return -self.tokens[self.n][-1]

    def _next_token(self, j, heads):
        """z_j + (1/n) sum over heads and over the n context tokens i of weight_ij P z_i."""
        update = 0
        for P, Q in heads:
            weights = self._weights([self.tokens[i] @ Q @ self.tokens[j] for i in range(self.n + 1)])
            for i in range(self.n):                                  # the query, token n, is never a source
                update = update + weights[i] * (P @ self.tokens[i])
        return self.tokens[j] + update / self.n

    def _weights(self, scores):
        """The activation over the keys of one query; derivations/07-softmax-relu.md, eq. 7.2 and 7.5."""
        if self.model.attention == "linear":
            return scores
        if self.model.attention == "relu":
            return [self._relu(score) for score in scores]
        keys = scores if self.model.mask == "after" else scores[:self.n]
        largest = max(keys) if self.shift else 0.0
        total = sum(np.exp(score - largest) for score in keys)
        return [np.exp(score - largest) / total for score in keys]

    def _embed(self, token):
        """(W2 relu(W1 x + b1) + b2, y); derivations/09-mlp-embedding.md, eq. 9.1."""
        hidden = [self._relu(a) for a in self.parts["W1"] @ token[:-1] + self.parts["b1"]]
        return np.append(self.parts["W2"] @ np.array(hidden) + self.parts["b2"], token[-1])

    def _relu(self, argument):
        self.arguments.append(argument)
        return argument if argument > 0 else 0.0
