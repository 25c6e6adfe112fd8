"""How layers compose: one after another, around a residual, beside one another. Any layer will do.

A layer
-------
    shapes                        list: its weights' shapes, in theta's order
    forward(w, x)  -> y, cache    w a list of arrays of those shapes, x whatever the layer reads; no state is kept
    backward(cache, dy) -> dx, dw the adjoint of x, and a list with the gradient of every weight
    smooth = True                 optional; False: it has kinks, across which Hessians are not taken by differences
    init(rng) -> w                optional; else N(0, 1 / fan-in), fan-in the last axis, and 0 for vectors
    tangent(cache, tw, tx) -> ty, tcache                          optional, both or neither: without them, products
    backward_tangent(cache, tcache, dy, tdy) -> dx, tdx, tdw      with the Hessian are complex steps of `backward`
Tangents (tw, tx, ...) may carry a leading axis K, one entry for each of K directions; tx is None where x does not
depend on the weights. derivations/01-notation.md: composition is the chain rule, sums are rule (1.4).
"""
from __future__ import annotations

from lintransformer.checks import InputError


class Chain:
    """The layers one after another: y = layer_k(... layer_1(x))."""

    def __init__(self, *layers):
        self.layers = list(layers[0]) if len(layers) == 1 and isinstance(layers[0], (list, tuple)) else list(layers)
        for layer in self.layers:
            if not all(hasattr(layer, name) for name in ("shapes", "forward", "backward")):
                raise InputError(f"a layer must have shapes, forward and backward, not {layer!r}")
        self.shapes = [shape for layer in self.layers for shape in layer.shapes]
        self.smooth = all(getattr(layer, "smooth", True) for layer in self.layers)
        self.has_tangents = all(has_tangents(layer) for layer in self.layers)

    def parts(self, w):
        """The weights of each layer, from the list of all."""
        start = 0
        for layer in self.layers:
            stop = start + len(layer.shapes)
            yield w[start:stop]
            start = stop

    def init(self, rng):
        return [weight for layer in self.layers for weight in initial(layer, rng)]

    def forward(self, w, x):
        caches = []
        for layer, part in zip(self.layers, self.parts(w)):
            x, cache = layer.forward(part, x)
            caches.append(cache)
        return x, caches

    def backward(self, caches, dy):
        dw = []
        for layer, cache in zip(reversed(self.layers), reversed(caches)):
            dy, part = layer.backward(cache, dy)
            dw[:0] = part
        return dy, dw

    def resolved(self, caches):
        """Whether rounding leaves every layer's cache any digits, as far as the layers tell."""
        return all(layer.resolved(cache) for layer, cache in zip(self.layers, caches) if hasattr(layer, "resolved"))

    def tangent(self, caches, tw, tx):
        tcaches = []
        for layer, cache, part in zip(self.layers, caches, self.parts(tw)):
            tx, tcache = layer.tangent(cache, part, tx)
            tcaches.append(tcache)
        return tx, tcaches

    def backward_tangent(self, caches, tcaches, dy, tdy):
        tdw = []
        for layer, cache, tcache in zip(reversed(self.layers), reversed(caches), reversed(tcaches)):
            dy, tdy, part = layer.backward_tangent(cache, tcache, dy, tdy)
            tdw[:0] = part
        return dy, tdy, tdw


class Residual(Chain):
    """y = x + the chain of the layers, applied to x."""

    def forward(self, w, x):
        y, caches = super().forward(w, x)
        return x + y, caches

    def backward(self, caches, dy):
        dx, dw = super().backward(caches, dy)
        return dy + dx, dw

    def tangent(self, caches, tw, tx):
        ty, tcaches = super().tangent(caches, tw, tx)
        return (ty if tx is None else tx + ty), tcaches

    def backward_tangent(self, caches, tcaches, dy, tdy):
        dx, tdx, tdw = super().backward_tangent(caches, tcaches, dy, tdy)
        return dy + dx, tdy + tdx, tdw


class Sum(Chain):
    """y = the sum of the layers, each applied to x: heads, or branches."""

    def forward(self, w, x):
        pairs = [layer.forward(part, x) for layer, part in zip(self.layers, self.parts(w))]
        return sum_of(y for y, _ in pairs), [cache for _, cache in pairs]

    def backward(self, caches, dy):
        pairs = [layer.backward(cache, dy) for layer, cache in zip(self.layers, caches)]
        return sum_of(dx for dx, _ in pairs), [gradient for _, dw in pairs for gradient in dw]

    def tangent(self, caches, tw, tx):
        pairs = [layer.tangent(cache, part, tx) for layer, cache, part in zip(self.layers, caches, self.parts(tw))]
        return sum_of(ty for ty, _ in pairs), [tcache for _, tcache in pairs]

    def backward_tangent(self, caches, tcaches, dy, tdy):
        found = [layer.backward_tangent(cache, tcache, dy, tdy)
                 for layer, cache, tcache in zip(self.layers, caches, tcaches)]
        return (sum_of(dx for dx, _, _ in found), sum_of(tdx for _, tdx, _ in found),
                [gradient for _, _, tdw in found for gradient in tdw])


def has_tangents(layer) -> bool:
    """Whether exact products with the Hessian can go through a layer by its own tangents."""
    return getattr(layer, "has_tangents", hasattr(layer, "tangent") and hasattr(layer, "backward_tangent"))


def initial(layer, rng):
    """A layer's weights at the start: its own choice, or N(0, 1 / fan-in) for matrices and 0 for vectors."""
    if hasattr(layer, "init"):
        return list(layer.init(rng))
    return [rng.standard_normal(shape) * shape[-1] ** -0.5 if len(shape) > 1 else 0 * rng.standard_normal(shape)
            for shape in layer.shapes]


def sum_of(arrays):
    """Their sum, without a 0 to start from, and without the None of an input that has no adjoint or does not move."""
    total = None
    for array in arrays:
        if array is not None:
            total = array if total is None else total + array
    return total
