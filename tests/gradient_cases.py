"""Cases of gradient_families.py, dressed up: length scales, factors, offsets, precisions, structures of theta."""

from dataclasses import replace

import numpy as np
from gradient_families import FAMILIES, Case


def cast_inside(given, dtype):
    """Code that casts to float32, so that it can never be evaluated in double."""
    def to32(t):
        return {key: np.asarray(x).astype(np.float32) for key, x in t.items()}
    return replace(given, name=given.name + ", casts to float32", f=lambda t: given.f(to32(t)),
                   gradient=lambda t: {key: g.astype(np.float32) for key, g in given.gradient(to32(t)).items()})


def wide_inside(given):
    """Float32 code that computes in float64."""
    def to64(t):
        return {key: np.asarray(x).astype(np.float64) for key, x in t.items()}
    return replace(given, name=given.name + ", float64 inside", f=lambda t: given.f(to64(t)),
                   gradient=lambda t: {key: g.astype(np.float32) for key, g in given.gradient(to64(t)).items()})


def rescaled(given, lengths):
    """The same function of theta times `lengths` {name: float}."""
    def inner(t):
        return {key: x / lengths[key] for key, x in t.items()}
    return replace(given, f=lambda t: given.f(inner(t)),
                   gradient=lambda t: {key: g / lengths[key] for key, g in given.gradient(inner(t)).items()},
                   theta={key: np.asarray(x * lengths[key], x.dtype) for key, x in given.theta.items()})


def shifted(given, by):
    """The same function of theta + `by`: theta is far larger than the length on which f changes."""
    def inner(t):
        return {key: x - by for key, x in t.items()}
    return replace(given, name=f"{given.name}, theta near {by:g}", f=lambda t: given.f(inner(t)),
                   gradient=lambda t: given.gradient(inner(t)),
                   theta={key: np.asarray(x + by, x.dtype) for key, x in given.theta.items()})


def times(given, factor, offset=0.0):
    name = given.name + (f" + {offset:g}" if offset else f" * {factor:g}")
    return replace(given, name=name, f=lambda t: given.f(t) * factor + offset,
                   gradient=lambda t: {key: g * factor for key, g in given.gradient(t).items()})


def flattened(given):
    """theta as one vector (p,)."""
    keys, shapes = list(given.theta), [given.theta[key].shape for key in given.theta]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]

    def inner(v):
        return {key: part.reshape(shape) for key, part, shape in zip(keys, np.split(v, ends), shapes)}

    def pack(t):
        return np.concatenate([t[key].reshape(-1) for key in keys])

    return Case(given.name, lambda v: given.f(inner(v)), lambda v: pack(given.gradient(inner(v))), pack(given.theta))


def alone(given):
    """theta as the one array that it holds."""
    key, = given.theta
    return Case(given.name, lambda x: given.f({key: x}), lambda x: given.gradient({key: x})[key], given.theta[key])


def draw(rng, dtype):
    """A case with a right gradient, in a structure of theta."""
    dtype = np.dtype(dtype).type
    double = dtype is np.float64
    given = FAMILIES[rng.integers(len(FAMILIES))](rng, dtype)
    if rng.random() < 0.15:
        given = cast_inside(given, dtype) if not double or rng.random() < 0.3 else given
    elif not double and rng.random() < 0.15:
        given = wide_inside(given)
    floats = all(x.dtype.kind == "f" for x in given.theta.values())
    dress = rng.choice(["none", "length", "lengths", "factor", "tiny", "offset", "shift"],
                       p=[0.25, 0.3, 0.15, 0.1, 0.05, 0.1, 0.05])
    if dress in ("length", "lengths") and floats:
        one = 10 ** rng.uniform(-6, 6)
        given = rescaled(given, {key: float(one if dress == "length" else 10 ** rng.uniform(-6, 6))
                                 for key in given.theta})
    elif dress == "factor":
        given = times(given, float(10 ** (rng.uniform(-30, 30) if double else rng.uniform(-8, 8))))
    elif dress == "tiny" and double and "float32" not in given.name:
        given = times(given, 1e-300)
    elif dress == "offset":
        given = times(given, 1.0, 1e6 if double and "float32" not in given.name else 10.0)
    elif dress == "shift" and floats and "float32" not in given.name:
        given = shifted(given, 1e4 if double else 100.0)
    given = replace(given, name=f"{given.name} [{dress}]")
    if len(given.theta) == 1 and rng.random() < 0.5:
        return alone(given)
    return flattened(given) if floats and rng.random() < 0.5 else given


def wrong(given, rng, dtype):
    """The same with one entry, not 0 at theta, off by a factor 1 + delta; None if all entries are 0."""
    right = given.gradient(given.theta)
    places = [(key, i) for key, g in (right.items() if isinstance(right, dict) else [(None, right)])
              for i in np.flatnonzero(np.asarray(g))]
    if not places:
        return None
    key, i = places[rng.integers(len(places))]
    least = -2 if np.dtype(dtype) == np.float32 or "float32" in given.name else -6
    delta = 10 ** rng.uniform(least, 0) * rng.choice([-1, 1])

    def gradient(theta):
        g = given.gradient(theta)
        g = {k: np.array(a) for k, a in g.items()} if isinstance(g, dict) else np.array(g)
        (g if key is None else g[key]).reshape(-1)[i] *= 1 + delta
        return g

    return replace(given, name=f"{given.name}, entry {key}[{i}] off by {delta:.2e}", gradient=gradient)
