"""Hessian-vector products, three ways; derivations/11-hessian-vector-products.md.

Conventions
-----------
theta (p,), H = Hessian of f at theta (p, p), v (p,) or a stack (K, p); H v has the
shape of v. All in float64, whatever the dtype of theta, of v and of the batch.

    difference   (g(theta + h u) - g(theta - h u)) / 2h, u = v / ||v||: two gradients, fastest, the default; wrong
                 where a ReLU's kink lies between the two (`Transformer.has_kinks`: take one of the others)
    complex      Im g(theta + i h u) / h: no cancellation, hence h = 1e-20
    exact        tangents of the forward and the backward pass, by hand (lintransformer/objective.py)
"""

import numpy as np

from lintransformer.checks import InputError, check_choice
from lintransformer.objective import exact_hessian_vector_product, gradient
from lintransformer.prompts import GramPrompts, Prompts
from lintransformer.workspace import Workspace

DIFFERENCE_STEP = np.finfo(np.float64).eps ** (1 / 3) / 10                   # 6.1e-7, see difference_step
COMPLEX_STEP = 1e-20
STACK_ENTRIES = 2_000_000           # exact route: entries of the largest array of a stack of directions (16 MB)


def hessian_vector_product(model, theta, batch, v, method="difference"):
    """H v, the Hessian of f at theta on a batch times one vector or a stack of them.

    Parameters
    ----------
    model : `Transformer`
    theta : array (p,)
    batch : `Prompts` or `GramPrompts`
    v : array (p,) or (K, p)
    method : one of `METHODS`: "difference" (central differences of the gradient), "complex", "exact"

    Returns
    -------
    array of v's shape, float64

    Raises
    ------
    InputError : an unknown method; v does not fit; theta, the batch or v holds non-finite numbers; f
        overflows at theta, so that no Hessian exists in floating point (a diverged point).
    """
    theta, batch = finite_point(model, theta, batch)
    return make_product(model, theta, batch, method)(v)


def make_product(model, theta, batch, method="difference", workspace=None):
    """The function v -> H v at a point that `finite_point` has passed, perhaps with a workspace of theirs."""
    product = METHODS[check_choice("method", method, METHODS)](model, theta, batch, workspace)

    def checked(v):
        v = finite("v", _real("v", v))
        if v.ndim not in (1, 2) or v.shape[-1] != model.size:
            raise InputError(f"v must have shape {(model.size,)} or (K, {model.size}), not {v.shape}")
        stack = np.atleast_2d(v)
        with np.errstate(over="ignore", invalid="ignore"):
            Hv = product(stack) if len(stack) else stack.copy()
        if not np.isfinite(Hv).all():
            raise InputError("the Hessian at theta is not finite: f overflows there (a diverged point)")
        return Hv.reshape(v.shape)

    return checked


def difference_step(theta):
    """h along a unit vector: eq. 11.10, the step where truncation and rounding are equally large (our
    choice).

    h = (3 eps |g| / |D^3 g|)^(1/3) with |D^3 g| = 3000 |g|: f is a polynomial of high degree (52 for three
    layers, eq. 11.12), so its third derivatives are large. On trained models of Settings 1-3 and of six
    layers the Hessian's largest error is then 5e-11 to 7e-10 of its largest entry. Far out the unit of length
    grows with theta.
    """
    return DIFFERENCE_STEP * max(1.0, np.abs(theta).max() / 10)


def _difference(model, theta, batch, workspace):
    workspace, h = workspace or Workspace(model, batch.size, "float64"), difference_step(theta)

    def product(v):
        unit, norm = _normalised(v)
        Hv = np.empty_like(v)
        for k, u in enumerate(unit):
            ahead, behind = (workspace.value_and_gradient(theta + s * h * u, batch)[1] for s in (1, -1))
            Hv[k] = ahead - behind
        return Hv * (norm / (2 * h))

    return product


def _complex(model, theta, batch, workspace):
    def product(v):
        unit, norm = _normalised(v)
        shifted = (gradient(model, theta + 1j * COMPLEX_STEP * u, batch) for u in unit)
        return np.stack([g.imag for g in shifted]) * (norm / COMPLEX_STEP)

    return product


def _exact(model, theta, batch, workspace):
    together = max(1, STACK_ENTRIES // (batch.size * _largest(model, batch)))

    def product(v):
        parts = (v[start:start + together] for start in range(0, len(v), together))
        return np.concatenate([exact_hessian_vector_product(model, theta, batch, part) for part in parts])

    return product


def _largest(model, batch):
    """Entries a prompt of the largest array that a tangent makes."""
    D, N = model.dimension + 1, batch.context_length + 1
    hidden = model.embedding.hidden if model.embedding else 0
    return max(D * D, N * max(hidden, D, N if model.form_name == "token" else 0) if model.needs_tokens else 0)


METHODS = {"difference": _difference, "complex": _complex, "exact": _exact}


def _normalised(v):
    """Unit vectors (K, p) and norms (K, 1); a zero vector stays zero."""
    norm = np.linalg.norm(v, axis=1, keepdims=True)
    return v / np.where(norm == 0, 1, norm), norm


def finite_point(model, theta, batch):
    """theta and the batch in float64, or an `InputError` if they do not fit, are not real or not finite."""
    theta = finite("theta", _real("theta", model.check_theta(theta)), " (a diverged point)")
    if not isinstance(batch, (Prompts, GramPrompts)):
        raise InputError(f"batch must be Prompts or GramPrompts, not {type(batch).__name__}")
    for name in ("Z", "G", "z", "target"):
        if hasattr(batch, name):
            finite(f"batch.{name}", _real(f"batch.{name}", getattr(batch, name)))
    batch = batch.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        model.forward(theta, batch.take(slice(0, 1)))                        # refuses what does not fit
    return theta, batch


def finite(name, array, remark=""):
    """The array, or an `InputError` that says how many entries are not finite and where the first one is."""
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        first = tuple(int(i) for i in np.unravel_index(bad[0], array.shape))
        raise InputError(f"{name} must be finite, but {len(bad)} of {array.size} entries are not{remark}; "
                         f"the first is {array[first]} at {first if len(first) > 1 else first[0]}")
    return array


def _real(name, array):
    array = np.asarray(array)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} must hold real numbers, not dtype {array.dtype}")
    return array.astype(np.float64)
