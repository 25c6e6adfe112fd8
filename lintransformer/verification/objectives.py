"""Every generic check on a model of your own: anything with `size` and `value_and_gradient(theta, batch)`.

`lintransformer/objective.py` says what more an objective may offer; what it does not is listed as "not offered".
Derivatives are checked entry by entry for up to 60 of them; beyond, for some of each weight and along random lines.
Derivations: derivations/01-notation.md, eq. 1.11; derivations/11-hessian-vector-products.md, eq. 11.9-11.11;
derivations/17-checks.md.
"""
from __future__ import annotations

import numpy as np

from lintransformer.checks import InputError, check_positive_integer
from lintransformer.verification.batches import cast, error_of, snapshot
from lintransformer.verification.derivatives import check_duality, check_gradient, check_hessian
from lintransformer.verification.kinks import find_kink
from lintransformer.verification.points import real_array
from lintransformer.verification.results import Check, Row, failed, information, not_offered, passed, relative_error
from lintransformer.verification.slices import Slice
from lintransformer.verification.starts import init, source
from lintransformer.verification.taylor import taylor_test

EXACT, FLOAT32 = 1e-12, 2e-5      # two routes to one number; float32 against float64, of the largest entry
ALONE = 1e-9                      # an example's loss that changes by more when it stands alone depends on the others
SPREAD = 0.1                      # added to the initial theta: biases of 0 and gains of 1 are special, our choice


def verify(objective, source, theta=None, batch_size=3, seed=0) -> list[Row]:
    """Run every check that an objective allows, at one generic theta.

    Parameters
    ----------
    objective : anything with `size` and `value_and_gradient(theta, batch)`
    source : anything with `draw(rng, size, dtype)`; what it returns is handed on untouched
    theta : (p,), or None: `objective.init(rng)`, every entry times U(0.5, 1.5), plus 0.1 N(0, 1)
    batch_size : int, small: derivatives are taken entry by entry
    seed : int

    Returns
    -------
    list of `Row`; `row.check.verdict` is "passed", "failed", "inconclusive" (it cannot be told at this theta: a kink,
        rounding), "not offered" (the objective does not have what is checked) or "information"

    Raises
    ------
    InputError : what is given is no objective or no source, or theta is None and the objective has no `init`.
    """
    case = Case(objective, source, theta, batch_size, seed)
    rows, name = [], getattr(objective, "name", type(objective).__name__)
    for check in CHECKS:
        try:
            found = check(case)
        except Exception as error:                                           # somebody else's code: the table goes on
            words = " ".join(str(error).split())
            found = failed(check.__name__.replace("_", " "), f"it raises {type(error).__name__}: {words}")
        rows += [Row(str(name), part) for part in ([found] if isinstance(found, Check) else found)]
        if check is interface and not rows[-1].check.passed:
            break
    return rows


class Case:
    """One objective at one theta (p,) and one batch, in float64."""

    def __init__(self, objective, source, theta, batch_size, seed):
        _require("objective", objective, "size", "value_and_gradient")
        _require("source", source, "draw")
        self.size = check_positive_integer("objective.size", objective.size)
        self.batch_size = check_positive_integer("batch_size", batch_size)
        self.seed = check_positive_integer("seed", seed, minimum=0)
        self.objective, self.source = objective, source
        if theta is None:
            if not hasattr(objective, "init"):
                raise InputError(f"theta must be given, ({self.size},): {type(objective).__name__} has no init(rng)")
            rng = self.rng(1)
            theta = np.asarray(objective.init(rng), dtype=np.float64)
            theta = theta * rng.uniform(0.5, 1.5, theta.shape) + SPREAD * rng.standard_normal(theta.shape)
        self.theta = real_array("theta", theta).astype(np.float64)
        if self.theta.shape != (self.size,):
            raise InputError(f"theta must have shape {(self.size,)}, not {self.theta.shape}")
        self.batch, self.other = self.draw(2), self.draw(6)
        self.drawn = snapshot(self.batch)

    def rng(self, purpose):
        return np.random.default_rng([self.seed, purpose])

    def draw(self, purpose, dtype=np.float64):
        return self.source.draw(self.rng(purpose), self.batch_size, np.dtype(dtype))

    def both(self, theta, batch=None):
        """(f, gradient), of a copy of theta."""
        return self.objective.value_and_gradient(theta.copy(), self.batch if batch is None else batch)

    def value(self, theta):
        value = getattr(self.objective, "value", None)
        return value(theta.copy(), self.batch) if value is not None else self.both(theta)[0]

    def gradient(self, theta):
        return self.both(theta)[1]

    def product(self, theta, v):
        return self.objective.product(theta.copy(), self.batch, v.copy())

    @property
    def has_product(self):
        return hasattr(self.objective, "product") and getattr(self.objective, "has_product", True)

    @property
    def has_kinks(self):
        return bool(getattr(self.objective, "has_kinks", not getattr(self.objective, "smooth", True)))

    def slice(self):
        return Slice(self.theta, getattr(self.objective, "shapes", [(self.size,)]), self.rng(3))


# --- what is asked of every objective ---


def interface(case):
    """One finite number, and a gradient like theta."""
    found = case.both(case.theta)
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        return failed("interface", f"value_and_gradient must return (f, gradient), not {type(found).__name__}")
    f, g = map(np.asarray, found)
    if f.shape != () or g.shape != (case.size,) or {f.dtype, g.dtype} != {np.dtype(np.float64)}:
        return failed("interface", f"for a float64 theta f must be a float64, the gradient ({case.size},) of float64, "
                                   f"not {f.dtype} of shape {f.shape} and {g.dtype} of shape {g.shape}")
    if not (np.isfinite(f) and np.isfinite(g).all()):
        return failed("interface", "f or its gradient is not finite")
    return passed("interface", f"p = {case.size}, f = {f:.6g}")


def gradient(case):
    """By complex steps where f is analytic, else by differences, with the reason."""
    part = case.slice()
    return check_gradient(part.of(case.value), part.gradient_of(case.gradient), part.start)


def taylor_orders(case):
    part = case.slice()
    H = part.product_of(case.product) if case.has_product and not case.has_kinks else None   # order 3 takes long steps
    check = taylor_test(part.of(case.value), part.gradient_of(case.gradient), part.start, H, directions=3,
                        every_entry=False)
    return check.parts or check


def hessian_vector_product(case):
    """The objective's own product: symmetric, the derivative of the gradient, and several directions at once."""
    if not case.has_product:
        return not_offered("Hessian-vector product", "no product(theta, batch, v), or has_product is False")
    part = case.slice()
    check = check_hessian(part.product_of(case.product), part.gradient_of(case.gradient), part.start)
    V = case.rng(4).standard_normal((2, case.size))
    single = np.array([case.product(case.theta, v) for v in V])
    try:
        several = case.product(case.theta, V)
    except Exception as error:                                               # allowed: then tools go one by one
        several = information("H v of several directions", f"one v at a time ({type(error).__name__})")
    else:
        several = Check("H v of several directions", relative_error(several, single), EXACT)
    return [*(check.parts or [check]), several]


def duality(case):
    """<pbar, tangent of v> = <backward of pbar, v>; eq. 1.11."""
    thing = case.objective
    if not all(hasattr(thing, need) for need in ("forward", "backward", "forward_tangent")) or \
            not getattr(thing, "has_tangents", True):
        return not_offered("duality of tangent and adjoint", "no forward_tangent, or layers without tangents")
    return check_duality(thing, case.theta.copy(), case.batch, EXACT)


def mean_of_losses(case):
    name, f = "value is the mean of losses", case.both(case.theta)[0]
    if not hasattr(case.objective, "losses"):
        return not_offered(name, "no losses(theta, batch)")
    losses = np.asarray(case.objective.losses(case.theta, case.batch))
    error = max(relative_error(f, losses.mean()), relative_error(case.value(case.theta), f))
    return Check(name, error, EXACT, f"{losses.size} losses, of shape {losses.shape}")


def mean_of_examples(case):
    """The gradient of a batch is the mean of those of its examples, where the examples do not see one another.

    Whether they do is read off the values: a loss that changes when its example stands alone (batch normalisation) is a
    model's right, and information. Where values are means, and gradients are not, a gradient is wrong.
    """
    name, thing = "gradient is the mean over examples", case.objective
    if not hasattr(case.batch, "take"):
        return not_offered(name, "the batch has no take(index)")
    singles = [case.batch.take(slice(i, i + 1)) for i in range(case.batch_size)]
    values, gradients = zip(*(case.both(case.theta, single) for single in singles))
    weights, whole = np.ones(len(singles)), case.both(case.theta)
    if hasattr(thing, "losses"):
        alone = [np.ravel(thing.losses(case.theta, single)) for single in singles]
        weights = np.array([len(one) for one in alone])                      # sentences may differ in length
        apart = relative_error(np.concatenate(alone), np.ravel(thing.losses(case.theta, case.batch)))
    mean = np.average(values, axis=0, weights=weights), np.average(gradients, axis=0, weights=weights)
    if not hasattr(thing, "losses"):
        apart = relative_error(mean[0], whole[0])
    if apart > ALONE:
        return information(name, f"examples change one another's loss, by {apart:.1e}, as under batch normalisation")
    return Check(name, error_of(mean, whole), EXACT)


def purity(case):
    """theta and the batch stay as they are, calls do not depend on those before, no gradient is overwritten later."""
    theta, before = case.theta.copy(), case.drawn
    f, g = case.objective.value_and_gradient(theta, case.batch)
    kept = np.array(g)
    if theta.tobytes() != case.theta.tobytes():
        return failed("purity", "value_and_gradient changes theta")
    if (after := snapshot(case.batch)) != before:
        changed = next(name for name in before if after.get(name) != before[name])
        return failed("purity", f"value_and_gradient changes {changed}")
    case.both(0.9 * theta, case.other)
    if not np.array_equal(g, kept):
        return failed("purity", "a later call overwrites the gradient that an earlier one returned")
    return Check("purity", error_of(case.both(theta), (f, kept)), EXACT, "called again after another theta and batch")


def float32_against_float64(case):
    name, theta, batch = "float32 against float64", case.theta.astype(np.float32), cast(case.batch, np.float32)
    if batch is None and case.batch is not None:
        return not_offered(name, "the batch has no astype(dtype)")
    try:
        found = case.both(theta, batch)
    except Exception as error:                                               # a refusal is no wrong number
        return not_offered(name, f"float32 raises {type(error).__name__}: {' '.join(str(error).split())}")
    expected = case.both(theta.astype(np.float64), cast(batch, np.float64))
    for what, part in zip(("f", "gradient"), found):
        if type(part) is not float and np.asarray(part).dtype != np.float32:     # a Python number has no dtype
            return failed(name, f"a float32 theta and batch give a {what} of {np.asarray(part).dtype}")
    return Check(name, error_of(found, expected), FLOAT32)


def idle_entries(case):
    """What `reaches_prediction` declares idle has derivative 0, exactly."""
    name = "idle entries have derivative 0"
    if not hasattr(case.objective, "reaches_prediction"):
        return not_offered(name, "no reaches_prediction()")
    reaches = np.asarray(case.objective.reaches_prediction())
    if reaches.dtype != bool or reaches.shape != (case.size,):
        return failed(name, f"it must be ({case.size},) of bool, not {reaches.shape} of {reaches.dtype}")
    wrong = (case.gradient(case.theta) != 0) & ~reaches
    if case.has_product:
        wrong |= (case.product(case.theta, case.rng(7).standard_normal(case.size)) != 0) & ~reaches
    return Check(name, float(wrong.sum()), 0, f"{(~reaches).sum()} of {case.size} idle",
                 lines=(f"theta[{np.argmax(wrong)}] is declared idle, and is not",) if wrong.any() else ())


def kinks(case):
    """A model that does not declare kinks counts as smooth, its Hessians are taken by differences: none may be met."""
    if case.has_kinks:
        return passed("kinks", "declared: Hessians are not taken by differences")
    found = find_kink(case.both, case.theta, case.rng(8))
    words = "has_kinks is False" if hasattr(case.objective, "has_kinks") else "has_kinks is not declared, hence False"
    return passed("kinks", f"{words}; none met on three lines") if found is None else \
        failed("kinks", f"{words}, but at {found}")


CHECKS = [interface, purity, init, source, gradient, taylor_orders, hessian_vector_product, duality, mean_of_losses,
          mean_of_examples, float32_against_float64, idle_entries, kinks]


def _require(what, thing, *names):
    missing = [name for name in names if not hasattr(thing, name)]
    if missing:
        raise InputError(f"{what} must have {' and '.join(names)}, but {type(thing).__name__} has no {missing[0]}")
