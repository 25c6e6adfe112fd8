"""Hessian-vector products, three ways; derivations/11-hessian-vector-products.md.

Conventions
-----------
theta (p,), H = Hessian of f at theta (p, p), v (p,) or a stack (K, p); H v has the
shape of v. All in float64, whatever the dtype of theta, of v and of the batch.

    difference   (g(theta + h u) - g(theta - h u)) / 2h, u = v / ||v||: two gradients, fastest; h by
                 `lintransformer/diagnostics/differences.py`. Wrong where a ReLU's kink lies between the two
    complex      Im g(theta + i h u) / h: no cancellation, hence h = 1e-20
    exact        the objective's own `product`: tangents of the forward and the backward pass, by hand
                 (lintransformer/objective.py)
    None         what is right: difference for smooth objectives that offer `product`, and exact wherever the measured
                 error of the difference is not small, or there are kinks (`has_kinks`). Of an objective without
                 `product`: complex where its gradient is analytic, else difference

v is first scaled by a power of two, so that H v is right whatever the length of v.
"""

import warnings

import numpy as np

from lintransformer.checks import InputError, check_choice, finite, real_array
from lintransformer.diagnostics.differences import difference_step, length_unit
from lintransformer.objective import check_objective, check_theta, exact_hessian_vector_product, gradient, value
from lintransformer.prompts import arrays_of
from lintransformer.random import stream
from lintransformer.workspace import Workspace

COMPLEX_STEP = 1e-20
ERROR_OF_DEFAULT = 1e-8             # above it, by estimate, the default takes the exact route (our choice)
NO_HESSIAN = 1e-3                   # a product that changes by more when theta is rounded otherwise is refused
PROBED_PROMPTS = 64                 # the largest prompts, on which that is tried
ANALYTIC_STEP, ANALYTIC = 1e-5, 1e-5    # a complex step is believed if a difference at this step agrees to this share
PLATEAU = 1e-10                     # ... unless the change is below this share of f in units of length squared
DECIDED_BY_ROUNDING = "the Hessian at theta does not exist in floating point: rounding decides it (a diverged point)"


def hessian_vector_product(model, theta, batch, v, method=None):
    """H v, the Hessian of f at theta on a batch times one vector or a stack of them.

    Parameters
    ----------
    model : an objective, anything with `size` and `value_and_gradient(theta, batch)`
    theta : array (p,)
    batch : what the model reads
    v : array (p,) or (K, p), of any length
    method : None, or one of `METHODS`: "difference" (central differences of the gradient), "complex", "exact".
        None takes "exact" for models with kinks or where differences are not right to about 1e-7, else
        "difference", of which about 10 gradients go into the choice of its step; "complex" in place of "exact" for
        a model that offers no `product`

    Returns
    -------
    array of v's shape, float64

    Raises
    ------
    InputError : an unknown method; v does not fit; theta, the batch or v holds non-finite numbers; f
        overflows at theta, or rounding alone decides the Hessian there, so that none exists in floating point
        (a diverged point); H v overflows.

    Warns
    -----
    UserWarning : "difference", asked for by name, for a model with kinks.
    """
    theta, batch = finite_point(model, theta, batch)
    return make_product(model, theta, batch, chosen_method(model, method))(v)


def chosen_method(model, method):
    """`method` checked; "exact" in place of None for models with kinks; a warning for differences across them."""
    if method is not None:
        check_choice("method", method, METHODS)
    if method == "exact" and not has_product(model):
        raise InputError("method 'exact' needs a model with product(theta, batch, v), hand tangents in every layer; "
                         "allowed: difference, complex")
    if method is None and not has_product(model) and getattr(model, "has_kinks", False):
        return "complex"
    if not getattr(model, "has_kinks", False):
        return method
    if method == "difference":
        warnings.warn("differences of gradients across a model's kinks can be wrong by factors: method=\"exact\" (the "
                      "default for this model) and method=\"complex\" are not", UserWarning, stacklevel=3)
    return method or "exact"


def has_product(model):
    """Whether an objective offers products of its own; one made of layers knows whether all of these have tangents."""
    return getattr(model, "has_product", hasattr(model, "product"))


class Product:
    """The function v -> H v at a point that `finite_point` has passed; `method` is the one in use, `step` what was
    measured of differences (None if nothing was)."""

    def __init__(self, model, method, stack_product, step=None):
        self.size, self.method, self.step, self._stack_product = model.size, method, step, stack_product

    def __call__(self, v):
        v = finite("v", real_array("v", v))
        if v.ndim not in (1, 2) or v.shape[-1] != self.size:
            raise InputError(f"v must have shape {(self.size,)} or (K, {self.size}), not {v.shape}")
        stack = np.atleast_2d(v)
        exponent = np.frexp(np.abs(stack).max(axis=1, keepdims=True))[1]
        with np.errstate(over="ignore", invalid="ignore"):
            Hv = self._stack_product(np.ldexp(stack, -exponent)) if len(stack) else stack.copy()
            if not np.isfinite(Hv).all():
                raise InputError("the Hessian at theta is not finite: f overflows there (a diverged point)")
            Hv = np.ldexp(Hv, exponent)
        if not np.isfinite(Hv).all():
            largest = np.abs(v).max()
            raise InputError(f"H v overflows float64 for a v as long as this; its largest entry is {largest:.3g}")
        return Hv.reshape(v.shape)


def make_product(model, theta, batch, method=None, workspace=None, step=None, tried=False):
    """The `Product` at a point that `finite_point` has passed.

    `method` is what `chosen_method` returned; a workspace and a `Step` of differences may be brought along, and that
    a point nearby was `tried` for a Hessian that rounding decides.
    """
    if method is None and not has_product(model) and _is_analytic(model, theta, batch):
        method = "complex"
    if method in (None, "difference"):
        workspace = workspace or Workspace(model, getattr(batch, "size", 1), "float64")
        measured = step is None
        with np.errstate(all="ignore"):
            step = step or difference_step(lambda point: workspace.value_and_gradient(point, batch), theta)
        if method is None and step.error > ERROR_OF_DEFAULT and has_product(model):
            method = "exact"
        elif measured and step.error > NO_HESSIAN and not getattr(model, "has_kinks", False):
            raise InputError("the Hessian at theta cannot be had by differences: no step gives three digits (f "
                             "overflows, or rounding decides it; a diverged point)")
        else:
            return Product(model, "difference", _difference(theta, batch, workspace, step.h), step)
    product_at = WITHOUT_DIFFERENCES[method](model, batch)
    if not tried:
        _refuse_rounding(model, product_at, theta, _largest_prompts(batch))
    return Product(model, method, lambda v: product_at(theta, batch, v), step)


def _difference(theta, batch, workspace, h):
    def product(v):
        unit, norm = _normalised(v)
        Hv = np.empty_like(v)
        for k, u in enumerate(unit):
            ahead, behind = (workspace.value_and_gradient(theta + s * h * u, batch)[1] for s in (1, -1))
            Hv[k] = ahead - behind
        return Hv * (norm / (2 * h))

    return product


def _complex(model, batch):
    def product_at(theta, batch, v):
        unit, norm = _normalised(v)
        shifted = (gradient(model, theta + 1j * COMPLEX_STEP * u, batch) for u in unit)
        return np.stack([g.imag for g in shifted]) * (norm / COMPLEX_STEP)

    return product_at


def _exact(model, batch):
    def product_at(theta, batch, v):
        return exact_hessian_vector_product(model, theta, batch, v)

    return product_at


WITHOUT_DIFFERENCES = {"complex": _complex, "exact": _exact}
METHODS = ("difference", *WITHOUT_DIFFERENCES)


def _is_analytic(model, theta, batch):
    """Whether complex steps of an unknown gradient are its derivatives, along one direction; else differences serve."""
    v = stream(0, "probe").standard_normal(len(theta))
    v = v / np.linalg.norm(v) * max(1.0, np.abs(theta).max() / 10)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        try:
            shifted = np.asarray(gradient(model, theta + 1j * COMPLEX_STEP * v, batch))
        except Exception:                                                    # whatever their code makes of them
            return False
        ahead, behind = (gradient(model, theta + s * ANALYTIC_STEP * v, batch) for s in (1, -1))
    by_difference, by_step = (ahead - behind) / (2 * ANALYTIC_STEP), shifted.imag / COMPLEX_STEP
    return shifted.dtype.kind == "c" and \
        np.abs(by_difference - by_step).max() <= ANALYTIC * (np.abs(by_step).max() + np.abs(ahead).max())


def _refuse_rounding(model, product_at, theta, prompts):
    """Refuse a theta whose neighbour, one rounding away in every entry, has another Hessian: three products tell.

    A Hessian that is zero to the rounding of f, as on a plateau, is not meant.
    """
    rng = stream(0, "probe")
    V, sides = rng.standard_normal((3, len(theta))), rng.integers(0, 2, len(theta))
    with np.errstate(all="ignore"):
        here = product_at(theta, prompts, V)
        change = np.abs(product_at(theta * np.where(sides, 1 + 4e-16, 1 - 4e-16), prompts, V) - here).max(axis=1)
        if not np.isfinite(change).all():                                    # refused by name, by `Product`
            return
        plateau = PLATEAU * abs(value(model, theta, prompts)) / length_unit(theta) ** 2
    if np.any((change > NO_HESSIAN * np.abs(here).max(axis=1)) & (change > plateau)):
        raise InputError(DECIDED_BY_ROUNDING)


def _largest_prompts(batch):
    """The examples with the largest entries, where something is lost first; a batch that has no `take`, whole."""
    if not hasattr(batch, "take") or batch.size <= PROBED_PROMPTS:
        return batch
    size = np.max([np.abs(array.reshape(len(array), -1)).max(axis=1) for _, array in arrays_of(batch)
                   if array.dtype.kind == "f"] or [np.zeros(batch.size)], axis=0)
    return batch.take(np.sort(np.argsort(-size, kind="stable")[:PROBED_PROMPTS]))


def _normalised(v):
    """Unit vectors (K, p) and norms (K, 1); a zero vector stays zero."""
    norm = np.linalg.norm(v, axis=1, keepdims=True)
    return v / np.where(norm == 0, 1, norm), norm


def finite_point(model, theta, batch):
    """theta and the batch in float64, or an `InputError` if they do not fit, are not real or not finite.

    Also if softmax scores are so large that rounding decides the weights: no derivative there means anything.
    """
    theta = finite("theta", real_array("theta", check_theta(check_objective(model), theta)), " (a diverged point)")
    batch = finite_batch(model, batch)
    if hasattr(model, "resolved"):
        with np.errstate(all="ignore"):
            output, cache = model.forward(theta, _largest_prompts(batch))
            if np.isfinite(output).all() and not model.resolved(cache):
                raise InputError(DECIDED_BY_ROUNDING)
    return theta, batch


def finite_batch(model, batch):
    """The batch in float64, owning its arrays; an `InputError` if it is not finite, or does not fit the model."""
    if hasattr(model, "check_batch"):
        model.check_batch(batch)
    for name, array in arrays_of(batch):
        if array.dtype.kind not in "iub":
            finite(name, real_array(name, array))
    return batch.astype(np.float64) if hasattr(batch, "astype") else batch
