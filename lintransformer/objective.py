"""The objective f(theta) = mean of a loss over a batch, for any model; and what is asked of anything in its place.

    f = (1/m) sum_i loss_i        grad f = J^T (dloss / m)        H v = J^T (C J v / m) + (d/dv J)^T (dloss / m)
with m losses in the batch, J the Jacobian of the model's output and C the loss's curvature (2 for the squared error):
derivations/11-hessian-vector-products.md, eq. 11.1-11.2.

An objective is anything with
    size                                 p, the length of theta
    value_and_gradient(theta, batch)     (f, gradient (p,)); pure, in theta's precision
What more it has is used, and asked for by name: `init`, `losses`, `product`, `has_kinks`, `reaches_prediction`,
`evaluator`, `check_batch`. theta's and the batch's dtypes promote as NumPy does.
"""
from __future__ import annotations

import math

import numpy as np

from lintransformer.checks import InputError, check_abilities, check_dtype, check_generator, numeric_array
from lintransformer.layers.compose import has_tangents, initial

STACK_ENTRIES = 2_000_000           # of the largest array of a stack of directions (16 MB): longer stacks go in parts


class Objective:
    """A model, made of layers, under a loss.

    Parameters
    ----------
    model : a layer (`lintransformer/layers/compose.py`), such as `Chain(...)`
    loss : `SquaredError()`, `CrossEntropy()`, or anything with their `value` and `gradient`

    Attributes
    ----------
    size : int, p; theta (p,) is the C-order of the model's weights, one after another
    has_kinks : bool; then Hessians are not taken by differences
    """

    def __init__(self, model, loss):
        for name, thing, needs in (("model", model, ("shapes", "forward", "backward")),
                                   ("loss", loss, ("value", "gradient"))):
            if not all(hasattr(thing, need) for need in needs):
                raise InputError(f"{name} must have {', '.join(needs)}, not {thing!r}")
        self.model, self.loss = model, loss
        self.shapes = [tuple(shape) for shape in model.shapes]
        self._ends = np.cumsum([math.prod(shape) for shape in self.shapes]).tolist()
        self.size = self._ends[-1] if self._ends else 0
        self.has_kinks = not getattr(model, "smooth", True)

    def init(self, rng, dtype=np.float64):
        """theta (p,) at the start, float32 or float64, as the layers choose it."""
        dtype = check_dtype(dtype)
        check_generator(rng)
        return self.join(initial(self.model, rng)).astype(dtype)

    def weights(self, theta):
        """The model's weights, views of theta (..., p)."""
        return [part.reshape(part.shape[:-1] + shape)
                for part, shape in zip(np.split(theta, self._ends[:-1], axis=-1), self.shapes)]

    def join(self, weights):
        """The adjoint of `weights`: one flat vector (..., p)."""
        lead = np.broadcast_shapes(*(np.shape(weight)[:np.ndim(weight) - len(shape)]
                                     for weight, shape in zip(weights, self.shapes)))
        flat = [np.broadcast_to(weight, lead + shape).reshape(lead + (-1,))
                for weight, shape in zip(weights, self.shapes)]
        return np.concatenate(flat, axis=-1)

    def read(self, batch):
        """(what the model reads, target) of a batch: `lt.Batch`, or a pair."""
        return (batch.inputs, batch.target) if hasattr(batch, "inputs") else tuple(batch)

    def forward(self, theta, batch):
        """The model's output, and the cache for `backward`."""
        theta = check_theta(self, theta)
        self.check_batch(batch)
        return self.model.forward(self.weights(theta), self.read(batch)[0])

    def backward(self, cache, doutput):
        """The gradient (p,) of <doutput, output>."""
        return self.join(self.model.backward(cache, doutput)[1])

    def forward_tangent(self, cache, v):
        """The derivative of the output along v (p,) or (K, p), and its cache; for models whose layers have tangents."""
        v = numeric_array("v", v)
        if v.shape[-1:] != (self.size,) or v.ndim > 2:
            raise InputError(f"v must have shape {(self.size,)} or (K, {self.size}), not {v.shape}")
        return self.model.tangent(cache, self.weights(v), None)

    def backward_tangent(self, cache, tcache, doutput, tdoutput):
        """The derivative of `backward` along v, when doutput moves along tdoutput (a leading axis K allowed)."""
        return self.join(self.model.backward_tangent(cache, tcache, doutput, tdoutput)[2])

    def resolved(self, cache):
        """Whether rounding leaves a forward pass any digits, as far as the layers tell (real numbers only)."""
        return self.model.resolved(cache) if hasattr(self.model, "resolved") else True

    def losses(self, theta, batch):
        """One number an example (or token)."""
        return self.loss.value(self.forward(theta, batch)[0], self.read(batch)[1])

    def value(self, theta, batch):
        """f(theta), a scalar."""
        losses = self.losses(theta, batch)
        return losses.sum() / losses.size

    def value_and_gradient(self, theta, batch):
        """f(theta) and its gradient (p,)."""
        output, cache = self.forward(theta, batch)
        target = self.read(batch)[1]
        losses = self.loss.value(output, target)
        doutput = self.loss.gradient(output, target) / losses.size
        return losses.sum() / losses.size, self.backward(cache, doutput)

    @property
    def has_tangents(self):
        """Whether `forward_tangent` and `backward_tangent` are there: every layer has tangents."""
        return has_tangents(self.model)

    @property
    def has_product(self):
        """Whether `product` is there: every layer has tangents, and the loss its curvature."""
        return self.has_tangents and hasattr(self.loss, "curvature")

    def product(self, theta, batch, v):
        """H v by hand-derived tangents of the forward and the backward pass; v (p,) or (K, p), and so is H v."""
        output, cache = self.forward(theta, batch)
        target, v = self.read(batch)[1], numeric_array("v", v)
        count = self.loss.value(output, target).size
        doutput = self.loss.gradient(output, target) / count

        def along(v):
            toutput, tcache = self.forward_tangent(cache, v)
            return self.backward_tangent(cache, tcache, doutput, self.loss.curvature(output, target, toutput) / count)

        together = max(1, STACK_ENTRIES // _largest(cache))
        if v.ndim == 1 or len(v) <= together:
            return along(v)
        return np.concatenate([along(v[start:start + together]) for start in range(0, len(v), together)])

    def reaches_prediction(self):
        """Which entries of theta can change the output, by structure (p,) bool."""
        return np.ones(self.size, dtype=bool)

    def check_batch(self, batch):
        """Raise `InputError` unless the batch fits the model."""
        if not hasattr(batch, "inputs") and not (isinstance(batch, (tuple, list)) and len(batch) == 2):
            raise InputError(f"batch must be lt.Batch(inputs, target), or a pair of them, not {type(batch).__name__}")


def _largest(cache):
    """Entries of the largest array that a forward pass keeps."""
    if isinstance(cache, (tuple, list)):
        return max((_largest(part) for part in cache), default=1)
    return max(1, np.size(cache)) if isinstance(cache, np.ndarray) else 1


def check_theta(objective, theta):
    """theta as an array (p,) for any objective, or an `InputError`."""
    if type(theta) is not np.ndarray or theta.dtype.char in "Oe":            # what may hide something: lists, masks,
        theta = numeric_array("theta", theta)                                # objects, float16
    if theta.shape != (objective.size,):
        raise InputError(f"theta must have shape {(objective.size,)} for this model, not {theta.shape}")
    if theta.dtype.kind not in "fcO":
        raise InputError(f"theta must hold floating-point or complex numbers, not dtype {theta.dtype}")
    return theta


def check_objective(model):
    """Return `model` if it is an objective, else raise `InputError`."""
    return check_abilities("model", model, ("size", "value_and_gradient"), "lt.build_model()")


def reaching(model):
    """Which entries of theta can change the output (p,) bool, as the model tells; all of them where it does not."""
    return np.asarray(getattr(model, "reaches_prediction", lambda: np.ones(model.size, dtype=bool))())


def predict(model, theta, batch):
    """The output of the model; the predictions TF_L (B,) of a Transformer."""
    return check_abilities("model", model, ("size", "forward"), "lt.build_model()").forward(theta, batch)[0]


def prompt_losses(model, theta, batch):
    """One loss an example; the squared error of every prompt (B,)."""
    return check_abilities("model", model, ("size", "losses"), "lt.build_model()").losses(theta, batch)


def value(model, theta, batch):
    """f(theta), a scalar, of any objective."""
    return model.value(theta, batch) if hasattr(model, "value") else value_and_gradient(model, theta, batch)[0]


def value_and_gradient(model, theta, batch):
    """f(theta) and its gradient (p,), of any objective.

    Raises
    ------
    InputError : theta or the batch does not fit the model.
    """
    return check_objective(model).value_and_gradient(theta, batch)


def gradient(model, theta, batch):
    """The gradient of f at theta (p,)."""
    return value_and_gradient(model, theta, batch)[1]


def exact_hessian_vector_product(model, theta, batch, v):
    """H v by the objective's own product; v (p,) or (K, p), and so is H v."""
    return check_abilities("model", model, ("size", "product"), "lt.build_model()").product(theta, batch, v)
