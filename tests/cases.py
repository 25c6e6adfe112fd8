"""The zoo in every form, for tests of gradients and Hessians, and how tests draw numbers."""

import numpy as np
from hypothesis import strategies as st

import lintransformer as lt
from lintransformer.models.zoo import ZOO

LAYERS, DIMENSION, CONTEXT, BATCH = 2, 3, 4, 5


MODELS = {f"{row.name}-{form}": {**row.options, "form": form} for row in ZOO for form in row.forms}


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
