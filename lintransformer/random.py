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
