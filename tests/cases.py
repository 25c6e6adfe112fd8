"""The one table of models every test of gradients and Hessians runs over, and how tests draw numbers.

A new model is one new row. Sizes are small and all different, so that a transposed axis cannot go unnoticed.
"""

from itertools import product

import numpy as np
from hypothesis import strategies as st

import lintransformer as lt
from lintransformer.models.build import FORMS
from lintransformer.models.parameters import PARTS

LAYERS, DIMENSION, CONTEXT, BATCH = 2, 3, 4, 5


def _rows():
    attentions = ("linear", "relu", "softmax")
    for attention, parametrization, heads, embedding in product(attentions, PARTS, (1, 2), (None, 6)):
        for form in FORMS if attention == "linear" else ("token",):
            for mask in ("after", "before") if attention == "softmax" else ("after",):
                yield dict(attention=attention, parametrization=parametrization, heads=heads, embedding=embedding,
                           form=form, mask=mask)


def name(row):
    embedding = f"mlp{row['embedding']}" if row["embedding"] else "plain"
    return f"{row['attention']}-{row['form']}-{row['mask']}-{row['parametrization']}-{row['heads']}-{embedding}"


MODELS = {name(row): row for row in _rows()}


def case(row, layers=LAYERS, dimension=DIMENSION, context=CONTEXT, batch=BATCH, seed=0):
    """A model, a point theta and a batch of prompts, large enough entries for every term to matter."""
    model = lt.build_model(layers, dimension, init_scale=0.6, **row)
    rng = np.random.default_rng([seed, layers, dimension, context, batch])
    return model, model.init(rng), lt.PromptDistribution(dimension, context).draw(rng, batch)


def eighths(rng, *shape):
    """Integers in [-8, 8] divided by 8: exact in every floating-point type."""
    return rng.integers(-8, 9, shape) / 8


@st.composite
def sizes(draw):
    """(layers, dimension, context, batch, seed)"""
    return (draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(2, 6)), draw(st.integers(1, 3)),
            draw(st.integers(0, 2**32 - 1)))


def complex_step(f, theta, v, step=1e-20):
    """The derivative of f along v, to rounding: no difference is taken, so nothing cancels."""
    return f(theta + 1j * step * v).imag / step


def relative_error(actual, expected):
    """Largest error in units of the largest expected entry; never a NaN that compares as small."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape and np.isfinite(actual).all() and np.isfinite(expected).all()
    return abs(actual - expected).max() / max(abs(expected).max(), np.finfo(float).tiny)
