"""Independent, named random streams: what is drawn for one purpose never shifts what is drawn for another.

SGDM and Adam under the same seed therefore start from the same weights and see the same prompts, so that
their difference is a paired one (our choice; the authors reseed a single global generator).
"""

import numpy as np

from lintransformer.checks import check_choice, check_positive_integer

# The position in this list is part of every stored result: append, never reorder.
PURPOSES = ["initialisation", "training", "evaluation", "noise", "noise reference", "response", "probe"]


def stream(seed, purpose):
    """Return a fresh `numpy.random.Generator` for one purpose under one seed.

    Parameters
    ----------
    seed : int, at least 0
    purpose : str, one of `PURPOSES`

    Notes
    -----
    SFC64 is NumPy's fastest bit generator on 64-bit machines; the streams differ by their spawn key.
    """
    check_positive_integer("seed", seed, minimum=0)
    check_choice("random stream", purpose, PURPOSES)
    sequence = np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose),))
    return np.random.Generator(np.random.SFC64(sequence))


class NormalBuffer:
    """Standard normals in one buffer, refilled at each `fill` by Box and Muller's transform.

    NumPy's logarithm, sine and cosine run on whole vectors, which in float32 is at least twice as fast as the
    ziggurat of `Generator.standard_normal`. The uniforms then are multiples of 2^-24, so that no draw lies
    further out than sqrt(48 log 2) = 5.8, which a normal exceeds once in 10^8. No draw is 0: a covariate's
    direction always exists.

    Parameters
    ----------
    shapes : shapes of the arrays wanted
    dtype : float32 or float64

    Attributes
    ----------
    arrays : list of arrays, views of the buffer: independent N(0, 1) after each fill
    """

    def __init__(self, shapes, dtype):
        sizes = [int(np.prod(shape)) for shape in shapes]
        half = (sum(sizes) + 1) // 2
        self._normals, self._radius = np.empty(2 * half, dtype), np.empty(half, dtype)
        self._below_one = np.nextafter(np.ones((), dtype), np.zeros((), dtype))
        parts = np.split(self._normals[:sum(sizes)], np.cumsum(sizes)[:-1])
        self.arrays = [part.reshape(shape) for part, shape in zip(parts, shapes)]

    def fill(self, rng):
        """Draw all arrays anew."""
        uniforms, radius = self._normals, self._radius
        rng.random(out=uniforms, dtype=uniforms.dtype)
        cosine, angle = np.split(uniforms, 2)
        np.subtract(1, cosine, out=radius)                                   # in (0, 1): a finite logarithm,
        np.minimum(radius, self._below_one, out=radius)                      # and not 0
        np.log(radius, out=radius)
        radius *= -2
        np.sqrt(radius, out=radius)
        np.maximum(angle, 1 - self._below_one, out=angle)                    # a sine that is not 0
        angle *= 2 * np.pi
        np.cos(angle, out=cosine)
        np.sin(angle, out=angle)
        cosine *= radius
        angle *= radius
        return self.arrays
