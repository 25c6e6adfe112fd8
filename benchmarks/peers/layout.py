"""Where each matrix of the model stands in the flat vector theta, so that every peer reads the same numbers.

Order: C order of [layer, head, (P, Q)] for block and full, of [layer, head, (P, Wq, Wk)] with Q = Wq^T Wk for
separate; then, if there is one, the embedding's W1, b1, W2, b2. Block and separate train d x d matrices and
put P = diag(P', 1), Q = diag(Q', 0) (authors' code); full trains (d+1) x (d+1).
"""
import math


def shapes(case):
    """List of (name, shape) in the order of theta; attention matrices are stacked over layers and heads."""
    d, h = case.dimension, case.embedding
    width = d + 1 if case.parametrization == "full" else d
    factors = 3 if case.parametrization == "separate" else 2
    embedding = [] if h is None else [("W1", (h, d)), ("b1", (h,)), ("W2", (d, h)), ("b2", (d,))]
    return [("attention", (case.layers, case.heads, factors, width, width)), *embedding]


def size(case):
    """Number of parameters p."""
    return sum(math.prod(shape) for _, shape in shapes(case))


def unpack(theta, case):
    """Dict of name -> view of theta (any array type with slicing and `reshape`)."""
    views, start = {}, 0
    for name, shape in shapes(case):
        stop = start + math.prod(shape)
        views[name] = theta[start:stop].reshape(shape)
        start = stop
    return views
