"""Three models out of `small_layers`, each with a source of batches: what tests of an open core run on."""

from small_attention import CausalAttention
from small_images import LSTM, AveragePool, Convolution, Flatten
from small_layers import Dense, FeedForward, LayerNorm, Tanh, TokenEmbedding

import lintransformer as lt

VOCABULARY, LENGTH = 7, 5


class Text:
    """Random tokens (B, T), and the next ones."""

    def draw(self, rng, size, dtype):
        tokens = rng.integers(0, VOCABULARY, (size, LENGTH))
        return lt.Batch(tokens[:, :-1], tokens[:, 1:])


class Images:
    """Noise (B, 1, 14, 10), and classes (B,)."""

    def draw(self, rng, size, dtype):
        return lt.Batch(rng.standard_normal((size, 1, 14, 10)).astype(dtype), rng.integers(0, 4, size))


class Sequences:
    """Noise (B, T, 3), and noise (B, 2)."""

    def draw(self, rng, size, dtype):
        return lt.Batch(rng.standard_normal((size, 6, 3)).astype(dtype), rng.standard_normal((size, 2)).astype(dtype))


def gpt(width=6, hidden=8, heads=2, blocks=2):
    """Pre-LN, learned positions: 689 weights."""
    block = [lt.Residual(LayerNorm(width), CausalAttention(width, heads)),
             lt.Residual(LayerNorm(width), FeedForward(width, hidden))]
    model = lt.Chain(TokenEmbedding(VOCABULARY, width, LENGTH), *(block * blocks), LayerNorm(width),
                     Dense(width, VOCABULARY))
    return lt.Objective(model, lt.CrossEntropy()), Text()


def convolution_net():
    """As LeNet-5: convolution, tanh, average pool, twice; then dense layers. 14 x 10 pixels, 4 classes."""
    model = lt.Chain(Convolution(1, 2, 3), Tanh(), AveragePool(2),                           # (B, 2, 6, 4)
                     Convolution(2, 3, 3, padding=1), Tanh(), AveragePool(2),                # (B, 3, 3, 2)
                     Flatten(), Dense(18, 5), Tanh(), Dense(5, 4))
    return lt.Objective(model, lt.CrossEntropy()), Images()


def recurrent():
    """An LSTM's last state, read by a Dense layer."""
    return lt.Objective(lt.Chain(LSTM(3, 4), Dense(4, 2)), lt.SquaredError()), Sequences()


MODELS = {"GPT": gpt, "convolution net": convolution_net, "LSTM": recurrent}
