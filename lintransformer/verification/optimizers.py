"""Checks of update rules, anybody's and ours, against their closed forms; derivations/10-optimizers.md.

A closed form is no recursion: the weights with which all gradients so far enter are written out, so that a counter
that sticks, or a bias correction that is off by one, has nowhere to hide.
"""
from __future__ import annotations

import inspect

import numpy as np

from lintransformer.checks import InputError, check_choice, check_finite_positive, check_positive_integer
from lintransformer.optimizers import SGD, Adam, SignDescent, clip
from lintransformer.verification.results import FAILED, Check, check_tolerance, combine, relative_error

TOLERANCE = 1e-12
STEPS = 60
LEAST_STEPS = 50
RATE = 0.05

# How options are called by others.
ALIASES = {"learning_rate": ("learning_rate", "lr", "step_size", "rate"), "momentum": ("momentum", "mu"),
           "beta1": ("beta1", "b1", "beta_1"), "beta2": ("beta2", "b2", "beta_2"),
           "epsilon": ("epsilon", "eps")}


def sgd_iterates(theta, gradients, learning_rate, momentum=0.0):
    """(T, p): theta_t = theta_0 - rate sum_s v_s, v_s = sum_k momentum^k g_(s-k); eq. 10.2."""
    velocities = [sum(momentum ** (s - k) * gradients[k] for k in range(s + 1)) for s in range(len(gradients))]
    return theta - learning_rate * np.cumsum(velocities, axis=0)


def adam_iterates(theta, gradients, learning_rate, beta1=0.9, beta2=0.999, epsilon=1e-8):
    """(T, p), the moments as weighted means of all gradients so far; eq. 10.4-10.5."""
    steps = []
    for t in range(len(gradients)):
        mean = np.average(gradients[:t + 1], axis=0, weights=_powers(beta1, t))
        square = np.average(gradients[:t + 1] ** 2, axis=0, weights=_powers(beta2, t))
        steps.append(mean / (np.sqrt(square) + epsilon))
    return theta - learning_rate * np.cumsum(steps, axis=0)


def sign_iterates(theta, gradients, learning_rate):
    """(T, p); eq. 10.8."""
    return theta - learning_rate * np.cumsum((gradients > 0).astype(float) - (gradients < 0), axis=0)


def _powers(beta, t):
    """beta^t ... beta, 1; for beta = 0 the last gradient alone."""
    return beta ** np.arange(t, -1, -1.0)


REFERENCES = {"sgd": sgd_iterates, "adam": adam_iterates, "sign": sign_iterates}


def check_optimizer(optimizer, reference, steps=STEPS, tolerance=None, **options) -> Check:
    """Compare the iterates of an optimizer with those of a reference, step by step, on a fixed list of gradients.

    Parameters
    ----------
    optimizer : object with init(theta) -> state and update(state, theta, gradient) -> (theta, state)
    reference : "sgd" (momentum without dampening, as in PyTorch), "adam" (bias correction, epsilon outside the root),
        "sign"; or an optimizer with `init` and `update`; or a callable (theta (p,), gradients (T, p)) -> (T, p), theta
        after each step
    steps : int, at least 50: slow mistakes need time; theta and gradients are float64
    tolerance : largest error relative to the largest movement; 1e-12 by default
    options : learning_rate, momentum, beta1, beta2, epsilon of the reference; what is not given is read from the
        optimizer's attributes of that name (or lr, betas, eps)

    Returns
    -------
    Check : its text names the step at which the two part, and known mistakes that explain it. An optimizer that
        changes theta, the gradient or an old state in place, or that remembers another run, fails.
    """
    check_positive_integer("steps", steps, minimum=LEAST_STEPS)
    tolerance = check_tolerance(tolerance, TOLERANCE)
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise InputError(f"optimizer must have init and update, not {optimizer!r}")
    theta, gradients = np.linspace(-1.0, 1.0, 8), _gradients(steps)
    name, expected, options = _expected(optimizer, reference, theta, gradients, options)
    try:
        found = _run(optimizer, theta, gradients)
        problem = _not_pure(optimizer, theta, gradients, found)
    except (InputError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"optimizer cannot be run: {' '.join(str(error).split())}") from error
    if problem:
        return Check(f"optimizer against {name}", np.inf, tolerance, problem, decided=FAILED)
    scale = np.max(np.abs(expected - theta))
    with np.errstate(invalid="ignore"):
        apart = np.max(np.abs(found - expected), axis=1) / (scale or 1.0)
    wrong = np.flatnonzero(~(apart <= tolerance))
    error = float(np.max(apart)) if np.isfinite(apart).all() else np.inf
    return Check(f"optimizer against {name}", error, tolerance, f"{steps} steps of {theta.size} entries",
                 lines=tuple(_words(found, expected, theta, gradients, wrong, reference, options)
                             if len(wrong) else ()))


def _gradients(steps=STEPS):
    """Gradients (steps, 8) of sizes that differ over time and entries; the last entry is idle, one is 0 for a while."""
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((steps, 8)) * np.logspace(-2, 1, 8) * np.geomspace(3, 0.3, steps)[:, None]
    gradients[:, -1] = 0
    gradients[:3, 0] = 0
    return gradients


def _expected(optimizer, reference, theta, gradients, options):
    """(name, iterates (T, p), options of a named rule)."""
    if isinstance(reference, str):
        rule = REFERENCES[check_choice("reference", reference, REFERENCES)]
        known = list(inspect.signature(rule).parameters.values())[2:]
        unknown = sorted(set(options) - {parameter.name for parameter in known})
        if unknown:
            raise InputError(f"reference {reference!r} has no option {unknown[0]!r}; "
                             f"allowed: {', '.join(parameter.name for parameter in known)}")
        values = {parameter.name: check_finite_positive(parameter.name, _option(optimizer, parameter, options),
                                                        zero_allowed=True) for parameter in known}
        return reference, rule(theta, gradients, **values), values
    if options:
        raise InputError(f"option {min(options)!r} goes with a reference by name, not with {reference!r}")
    if hasattr(reference, "init") and hasattr(reference, "update"):
        return type(reference).__name__, _run(reference, theta, gradients), {}
    if not callable(reference):
        raise InputError(f"reference must be one of {', '.join(REFERENCES)}, an optimizer or a callable, "
                         f"not {reference!r}")
    expected = np.asarray(reference(theta.copy(), gradients.copy()), dtype=np.float64)
    if expected.shape != gradients.shape:
        raise InputError(f"reference must return theta after each step, of shape {gradients.shape}, "
                         f"not {expected.shape}")
    return getattr(reference, "__name__", "the reference"), expected, {}


def _option(optimizer, parameter, options):
    if parameter.name in options:
        return options[parameter.name]
    if parameter.name in ("beta1", "beta2") and hasattr(optimizer, "betas"):
        return optimizer.betas[parameter.name == "beta2"]
    for alias in ALIASES[parameter.name]:
        if hasattr(optimizer, alias):
            return getattr(optimizer, alias)
    if parameter.default is inspect.Parameter.empty:
        raise InputError(f"the optimizer has no attribute {parameter.name}: give {parameter.name}=...")
    return parameter.default


def _run(optimizer, theta, gradients):
    """theta after each step (T, p)."""
    theta, iterates = theta.copy(), []
    state = optimizer.init(theta.copy())
    for gradient in gradients:
        theta, state = optimizer.update(state, theta.copy(), gradient.copy())
        iterates.append(np.array(theta, dtype=np.float64))
    return np.array(iterates)


def _not_pure(optimizer, theta, gradients, found):
    """Why the optimizer is no pure function of state, theta and gradient; None if it is."""
    theta, gradient = theta.copy(), gradients[0].copy()
    before = theta.tobytes(), gradient.tobytes()
    optimizer.update(optimizer.init(theta), theta, gradient)
    if theta.tobytes() != before[0]:
        return "it changes theta in place"
    if gradient.tobytes() != before[1]:
        return "it changes the gradient in place"
    if not np.array_equal(_run(optimizer, theta, gradients), found, equal_nan=True):
        return "it is not deterministic, or remembers the run before"
    state = optimizer.init(theta)
    once, after = optimizer.update(state, theta, gradient)
    optimizer.update(after, once, gradients[1].copy())
    if not np.array_equal(np.asarray(optimizer.update(state, theta, gradient)[0]), np.asarray(once), equal_nan=True):
        return "it changes an old state in place: a step that is taken again gives another theta"
    return None


def _words(found, expected, theta, gradients, wrong, reference, options):
    """Where the iterates part, and which known mistake explains them."""
    t = int(wrong[0])
    i = int(np.argmax(np.abs(found[t] - expected[t])))
    before_found, before = (path[t - 1, i] if t else theta[i] for path in (found, expected))
    yield (f"step {t + 1} of {len(found)}, entry {i}: yours moves by {found[t, i] - before_found:.6g}, "
           f"the reference by {expected[t, i] - before:.6g}")
    for name, iterates in _mistakes(reference, theta, gradients, options):
        if relative_error(found - theta, iterates - theta) < 1e-9:
            yield f"pattern: {name}"


def _mistakes(reference, theta, gradients, options):
    """What people get wrong, run: (name, iterates)."""
    rate = options.get("learning_rate")
    if reference == "sgd":
        m = options["momentum"]
        yield "momentum with dampening", sgd_iterates(theta, gradients, rate * (1 - m), m)
        yield "no momentum", sgd_iterates(theta, gradients, rate, 0.0)
        plain = sgd_iterates(theta, gradients, rate, m)
        yield "Nesterov's momentum", theta + m * (plain - theta) - rate * np.cumsum(gradients, axis=0)
    elif reference == "adam":
        b1, b2, epsilon = options["beta1"], options["beta2"], options["epsilon"]
        t = np.arange(1, len(gradients) + 1)[:, None]
        sums = [np.array([np.sum(_powers(b, s)[:, None] * g[:s + 1], axis=0) for s in range(len(g))]) * (1 - b)
                for b, g in ((b1, gradients), (b2, gradients**2))]

        def path(first, second, outside=epsilon, inside=0.0):
            return theta - rate * np.cumsum(first / (np.sqrt(second + inside) + outside), axis=0)

        right = [sums[0] / (1 - b1**t), sums[1] / (1 - b2**t)]
        yield "no bias correction", path(*sums)
        yield "no bias correction of the first moment", path(sums[0], right[1])
        yield "no bias correction of the second moment", path(right[0], sums[1])
        yield "epsilon inside the root", path(*right, outside=0.0, inside=epsilon)
        yield "epsilon added before the bias correction", path(right[0], right[1], outside=epsilon / np.sqrt(1 - b2**t))
        yield "the betas exchanged", adam_iterates(theta, gradients, rate, b2, b1, epsilon)
        yield "the betas exchanged in the bias correction", path(sums[0] / (1 - b2**t), sums[1] / (1 - b1**t))
        for off, name in ((1, "bias correction one step late"), (-1, "bias correction one step early")):
            with np.errstate(divide="ignore", invalid="ignore"):
                yield name, path(sums[0] / (1 - b1 ** (t + off)), sums[1] / (1 - b2 ** (t + off)))
        for stuck in range(1, len(gradients)):
            s = np.minimum(t, stuck)
            yield f"the step counter stops at {stuck}", path(sums[0] / (1 - b1**s), sums[1] / (1 - b2**s))
    if rate is not None:
        yield "a step in the wrong direction", 2 * theta - REFERENCES[reference](theta, gradients, **options)


# --- ours, in the battery ---


def clipping() -> Check:
    """The joint norm, one factor for the whole vector, at sizes whose squares overflow too; eq. 10.9."""
    parts = []
    for size in (0.3, 0.999, 7.0, 1e200):
        gradient = _gradients()[0]
        gradient *= size / np.linalg.norm(gradient)
        expected = gradient * min(1.0, 1.0 / (size + 1e-6))
        clipped, norm = clip(gradient, 1.0)
        parts += [Check(f"norm {size}, vector", relative_error(clipped, expected), TOLERANCE),
                  Check(f"norm {size}, norm", relative_error(norm, size), TOLERANCE)]
    return combine("joint clipping, eq. 10.9", parts)


def momentum() -> Check:
    return _renamed("SGD with momentum, unrolled, eq. 10.2", check_optimizer(SGD(RATE, momentum=0.9), "sgd"))


def adam() -> Check:
    """Two betas, so that none is lost."""
    return _renamed("Adam, weighted means, eq. 10.5",
                    check_optimizer(Adam(RATE, beta1=0.9, beta2=0.7, epsilon=1e-3), "adam"))


def sign_descent() -> Check:
    return _renamed("sign descent, eq. 10.8", check_optimizer(SignDescent(RATE), "sign"))


def _renamed(name, check):
    return Check(name, check.error, check.tolerance, check.detail, check.parts, check.lines, check.decided)


OPTIMIZER_CHECKS = [clipping, momentum, adam, sign_descent]
