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


# How many random words are drawn at a time: 64 kB, all that a draw allocates however much it draws
WORDS = 8192
MAKE_WORDS = np.random.SFC64, np.random.PCG64, np.random.PCG64DXSM, np.random.Philox   # MT19937 makes half words
# What makes numbers of bits: integers of a dtype's size, how many bits of them to drop so that a mantissa is left, the
# exponent of [1, 2), and what takes [1, 2) to the open interval: 1 less half a step. derivations/02-task.md, eq. 2.12
MANTISSA = {"float32": (np.uint32, 9, 0x3f800000, 1 - 2.0**-24), "float64": (np.uint64, 12, 0x3ff << 52, 1 - 2.0**-53)}


class NormalBuffer:
    """Standard normals in one buffer, refilled at each `fill` by Box and Muller's transform.

    NumPy's logarithm, sine and cosine run on whole vectors, which in float32 is more than twice as fast as the
    ziggurat of `Generator.standard_normal`. The uniforms are made of the generator's bits and lie strictly between 0
    and 1, on a grid of 2^-23 in float32: no draw lies further out than sqrt(48 log 2) = 5.8, which a normal exceeds
    once in 10^8, and none is 0: a covariate's direction always exists. derivations/02-task.md, eq. 2.12-2.13.

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
        half = (sum(sizes) + 1) // 2                                         # they come in pairs
        self._normals, self._radius = np.empty(2 * half, dtype), np.empty(half, dtype)
        parts = np.split(self._normals[:sum(sizes)], np.cumsum(sizes)[:-1])
        self.arrays = [part.reshape(shape) for part, shape in zip(parts, shapes)]

    def fill(self, rng):
        """Draw all arrays anew."""
        radius, (cosine, angle) = self._radius, np.split(_open_uniforms(rng, self._normals), 2)
        np.log(cosine, out=radius)
        radius *= -2
        np.sqrt(radius, out=radius)
        angle *= 2 * np.pi
        np.cos(angle, out=cosine)
        np.sin(angle, out=angle)
        cosine *= radius
        angle *= radius                                                      # (2.13)
        return self.arrays


def _open_uniforms(rng, out):
    """Fill a vector with uniforms strictly between 0 and 1: odd multiples of half a step."""
    kind, drop, one, shift = MANTISSA[out.dtype.name]
    bits, at_a_time = out.view(kind), WORDS * 8 // out.itemsize
    for start in range(0, len(out), at_a_time):
        part = bits[start:start + at_a_time]
        np.right_shift(_words(rng, -(-part.nbytes // 8)).view(kind)[:len(part)], drop, out=part)
    np.bitwise_or(bits, kind(one), out=bits)                                 # a number of [1, 2)
    return np.subtract(out, out.dtype.type(shift), out=out)                  # (2.12), without any rounding


def _words(rng, count):
    """Random 64-bit words; as the generator makes them where it makes such: the same words in half the time."""
    if isinstance(rng.bit_generator, MAKE_WORDS):
        return rng.bit_generator.random_raw(count)
    return rng.integers(0, 2**64 - 1, count, np.uint64, endpoint=True)
