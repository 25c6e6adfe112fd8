"""Directional smoothness along a path, and how it grows with the gradient; derivations/14-smoothness.md.

Conventions
-----------
A path is theta_0, theta_1, ... (T + 1, p), one row an iteration. Its smoothness at t
(eq. 14.1) is the curvature of f, on one fixed batch, along the step that was made there (Pan & Li 2023):
    smoothness_t = (theta_{t+1} - theta_t)^T H(theta_t) (theta_{t+1} - theta_t) / ||theta_{t+1} - theta_t||^2
Negative values are kept: along those steps f curves down.
"""

from typing import NamedTuple

import numpy as np

from lintransformer.checks import (InputError, check_abilities, check_callable, check_level, check_positive_integer,
                                   real_array, shown)
from lintransformer.diagnostics.products import chosen_method, finite_batch, finite_point, make_product
from lintransformer.objective import check_objective
from lintransformer.workspace import Workspace

FISHER_MOST = np.arctanh(1 - 1e-12)           # a correlation of exactly 1 has no finite artanh
# How long a path keeps a step of differences: so many measured steps, while the gradient norm has not changed by more
# than this factor (our choice).
ONE_STEP_SERVES, SAME_SCALE = 50, 10


class PathSmoothness(NamedTuple):
    """One entry a step of the path, (T,) each; NaN where nothing can be measured (no step, or not finite).

    smoothness, loss = f(theta_t) and gradient_norm = ||grad f(theta_t)|| are of the fixed batch;
    step_norm = ||theta_{t+1} - theta_t||.
    """

    smoothness: np.ndarray
    gradient_norm: np.ndarray
    loss: np.ndarray
    step_norm: np.ndarray


def directional_smoothness(model, theta, theta_next, batch, method=None):
    """The curvature of f at theta along the step to theta_next, a float.

    Parameters
    ----------
    model : an objective, anything with `size` and `value_and_gradient(theta, batch)`
    theta, theta_next : arrays (p,)
    batch : what the model reads
    method : of the Hessian-vector product, as in `hessian_vector_product`: exact where there are kinks by default

    Raises
    ------
    InputError : theta_next equals theta; theta, theta_next or the batch is not finite.
    """
    theta, batch = finite_point(model, theta, batch)
    method = chosen_method(model, method)
    direction, length = _direction(finite_point(model, theta_next, batch)[0] - theta)
    if length == 0:
        raise InputError("theta_next must differ from theta: a step of length 0 has no direction")
    return float(direction @ make_product(model, theta, batch, method)(direction))


def path_smoothness(model, path, batch, method=None, stride=1, progress=None):
    """Directional smoothness, loss and gradient norm along a path.

    Parameters
    ----------
    path : array (T + 1, p), consecutive iterates; it may end in a divergence
    method : as in `hessian_vector_product`; a step of differences serves up to `ONE_STEP_SERVES` measured steps
    stride : int; measured are the steps 0, stride, 2 stride, ... (each from one iterate to the very next)
    progress : None, or called with the share done

    Returns
    -------
    PathSmoothness

    Raises
    ------
    InputError : a path that does not fit the model or is not real, a batch that is not finite, an unknown method.
    """
    check_objective(model)
    path = real_array("path", path)
    if path.ndim != 2 or len(path) < 2 or path.shape[1] != model.size:
        raise InputError(f"path must have shape (T + 1, {model.size}) with T at least 1, not {path.shape}")
    method, batch = chosen_method(model, method), finite_batch(model, batch)
    check_callable("progress", progress)
    workspace = Workspace(model, getattr(batch, "size", 1), "float64")
    steps = range(0, len(path) - 1, check_positive_integer("stride", stride))
    measured, known = np.full((4, len(steps)), np.nan), None
    for i, t in enumerate(steps):
        if progress is not None:
            progress(i / len(steps))
        measured[:, i], known = _measure(model, workspace, *path[t:t + 2], batch, method,
                                         known if i % ONE_STEP_SERVES else None)
    return PathSmoothness(*measured)


def _measure(model, workspace, theta, theta_next, batch, method, known):
    """(smoothness, gradient norm, loss, step norm) of one step, what overflows being NaN; and what is known.

    That is the step of differences found last and the gradient norm there, or None: both are returned for later.
    """
    if not np.isfinite(theta).all():
        return (np.nan, np.nan, np.nan, np.nan), None
    with np.errstate(over="ignore", invalid="ignore"):
        loss, gradient = workspace.value_and_gradient(theta, batch)
        norm = np.linalg.norm(gradient)
        direction, length = _direction(theta_next - theta)
    if not (np.isfinite(loss) and np.isfinite(norm) and np.isfinite(length)) or length == 0:
        return (np.nan, norm, loss, length), known
    if known and not known[1] / SAME_SCALE <= norm <= known[1] * SAME_SCALE:
        known = None
    step, norm_then = known or (None, norm)
    try:
        if known is None:
            finite_point(model, theta, batch)                                # refuses what rounding decides
        product = make_product(model, theta, batch, method, workspace, step, tried=known is not None)
        return (float(direction @ product(direction)), norm, loss, length), (product.step, norm_then)
    except InputError:                                                       # its Hessian overflows
        return (np.nan, norm, loss, length), None


def _direction(step):
    """step / ||step|| and ||step||, at any scale: a step of 1e-200 has a direction."""
    exponent = np.frexp(np.abs(step).max())[1]
    scaled = np.ldexp(step, -exponent)
    length = np.linalg.norm(scaled)
    return scaled / (length or 1), np.ldexp(length, exponent)


class SmoothnessFit(NamedTuple):
    """smoothness = L0 + L1 gradient_norm along one path, and how far the two go together.

    L0, L1 : weighted least squares on the linear scale, negative curvature included
    covered : share of the points with smoothness <= L0 + L1 gradient_norm
    rank_correlation : Spearman's, which needs no logarithm and keeps negative curvature in its order
    log_slope : slope of log smoothness on log gradient norm, over positive smoothness only (what Fig. 16
        shows)
    positive, negative : how many points have which sign
    """

    L0: float
    L1: float
    covered: float
    rank_correlation: float
    log_slope: float
    positive: int
    negative: int


def fit_smoothness(gradient_norm, smoothness):
    """The (L0, L1) fit of one path (Zhang et al. 2020a); points that are not finite are left out.

    The scatter grows with the level, over many decades: it is taken proportional to median(gradient norm) +
    gradient norm, else the few largest gradients would decide the line alone (our choice).

    Raises
    ------
    InputError : fewer than 3 points, negative gradient norms, all of them equal, or half of them 0 (no scale).
    """
    from scipy import stats
    gradient_norm, smoothness = real_array("gradient_norm", gradient_norm), real_array("smoothness", smoothness)
    if gradient_norm.shape != smoothness.shape or gradient_norm.ndim != 1:
        raise InputError(f"gradient_norm and smoothness must have one shape (T,), not {gradient_norm.shape} "
                         f"and {smoothness.shape}")
    good = np.isfinite(gradient_norm) & np.isfinite(smoothness)
    x, y = gradient_norm[good], smoothness[good]
    if len(x) < 3 or np.ptp(x) == 0:
        raise InputError(f"the (L0, L1) fit needs 3 points with different gradient norms, not {len(x)}")
    if x.min() < 0 or np.median(x) == 0:
        raise InputError(f"gradient_norm must be at least 0 and its median positive, but the smallest is {x.min():g} "
                         f"and the median {np.median(x):g}")
    weight, positive = 1 / (np.median(x) + x), (y > 0) & (x > 0)
    L0, L1 = np.linalg.lstsq(np.stack([weight, weight * x], axis=1), weight * y, rcond=None)[0]
    enough = positive.sum() >= 3 and np.ptp(x[positive]) > 0
    log_slope = stats.linregress(np.log(x[positive]), np.log(y[positive])).slope if enough else np.nan
    rank = stats.spearmanr(x, y).statistic if np.ptp(y) > 0 else np.nan
    numbers = map(float, (L0, L1, np.mean(y <= L0 + L1 * x), rank, log_slope))
    return SmoothnessFit(*numbers, int((y > 0).sum()), int((y < 0).sum()))


def over_paths(fits, level=0.95):
    """Mean and t interval over paths (one a seed) of each number of their fits: {name: (mean, low, high)}.

    The seed is the unit of replication: points of one path follow one another, so that an interval from the
    regression itself would be far too narrow. With one path the interval is NaN.
    """
    try:
        fits = list(fits)
    except TypeError:
        raise InputError(f"fits must be a sequence of fit_smoothness(...), not {shown(fits)}") from None
    for fit in fits:
        check_abilities("each fit", fit, SmoothnessFit._fields, "fit_smoothness(...)")
    numbers = {name: (correlation_interval if name == "rank_correlation" else t_interval)(
                   [getattr(fit, name) for fit in fits], level)
               for name in ("L0", "L1", "covered", "rank_correlation", "log_slope")}
    return {**numbers, "covered": tuple(float(share) for share in np.clip(numbers["covered"], 0, 1))}


def correlation_interval(values, level=0.95):
    """As `t_interval`, of correlations: on Fisher's scale artanh r, so that nothing leaves [-1, 1]."""
    values = real_array("correlations", values)
    if (np.abs(values) > 1 + 1e-12).any():
        raise InputError(f"correlations must lie in [-1, 1], not {values[np.argmax(np.abs(values))]}")
    with np.errstate(divide="ignore"):
        scaled = np.arctanh(np.clip(values, -1, 1))
    return tuple(float(np.tanh(bound)) for bound in t_interval(np.clip(scaled, -FISHER_MOST, FISHER_MOST), level))


def t_interval(values, level=0.95):
    """(mean, low, high) of the mean of independent values; NaN bounds for fewer than two of them."""
    from scipy import stats
    values, level = real_array("values", values), check_level("level", level)
    if values.ndim != 1:
        raise InputError(f"values must have shape (N,), not {values.shape}")
    mean = float(np.mean(values)) if len(values) else np.nan
    if len(values) < 2:
        return mean, np.nan, np.nan
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return mean, mean - float(half), mean + float(half)
