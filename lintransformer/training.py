"""Training on fresh prompts, and the history a run leaves.

Each step: draw B prompts, gradient, joint clipping, optimizer (Section 3.2). The loss is evaluated on fixed
batches, because the mean over fresh prompts can be dominated by a few of them: with n = 5 or Gamma covariates
its average over many batches is 10^4 and more while the median over prompts stays below 1. The history therefore
keeps, for every evaluation batch, the mean, the median over prompts and a trimmed mean.

With six and more layers a rare prompt's loss can exceed float32's 10^38 while training goes well. The gradient
of such a step is then computed in float64, where clipping brings it back to its threshold; where that overflows
as well, it counts as 0, which is what PyTorch's clipping makes of a gradient whose norm overflows. A run whose
gradients are not finite for `PATIENCE` batches in a row, or for all of its batches, or once without clipping,
has diverged. (Our choice: the authors' code would end in NaN at the first.)
"""

import numbers
import time
from dataclasses import dataclass

import numpy as np

from lintransformer.checks import (InputError, check_abilities, check_callable, check_dtype, check_finite_positive,
                                   check_positive_integer, check_type, finite, real_array, refuse_masked, shown)
from lintransformer.objective import check_objective, check_theta
from lintransformer.optimizers import clip
from lintransformer.random import stream
from lintransformer.workspace import Workspace

TRIMMED = 0.05          # share of the prompts dropped at either end of the trimmed mean (our choice)
PATIENCE = 10           # gradients in a row that are not finite before a run counts as diverged (our choice)


@dataclass(frozen=True)
class History:
    """What a run leaves.

    arrays : dict of ndarrays, T records, E evaluation batches, S kept points
        step (T,)                 iteration of each record, theta BEFORE that step; the last: the final point
        evaluation_mean, evaluation_median, evaluation_trimmed (E, T)
        training_loss (steps,)    f on the fresh batch of each step, infinite where it overflows
        gradient_norm (steps,)    joint norm before clipping, likewise
        theta_step (S,), theta (S, p)   kept points: theta before step theta_step
    status : "done", "diverged" or "timed out"
    summary : dict, JSON-able: steps made; how many gradients were not finite, in float32 and in float64; final
        losses on the first evaluation batch, None where they are not finite
    """

    arrays: dict
    status: str
    summary: dict


def evaluation_batch(distribution, seed, prompts, dtype=np.float64, tokens=False):
    """A fixed batch of prompts from a seed of its own ("authors' code": seed 99, 1000 prompts)."""
    check_abilities("distribution", distribution, ("draw",), "lt.PromptDistribution()")
    draw = distribution.draw if tokens or not hasattr(distribution, "draw_gram") else distribution.draw_gram
    return draw(stream(seed, "evaluation"), prompts, dtype)


class Draws:
    """Every draw of a source, handed on as it is."""

    def __init__(self, source, size, dtype):
        self.source, self.size, self.dtype = source, size, dtype

    def draw(self, rng):
        return self.source.draw(rng, self.size, self.dtype)


def sampler_of(source, model, size, dtype):
    """What a loop draws from: the source's own sampler for a model (`sampler_for`), if it has one."""
    check_abilities("distribution", source, ("draw",), "lt.PromptDistribution()")
    return source.sampler_for(model, size, dtype) if hasattr(source, "sampler_for") else Draws(source, size, dtype)


def _size(batch, otherwise):
    """How many examples a batch says that it has."""
    return getattr(batch, "size", otherwise)


def prompt_statistics(losses):
    """Mean, median and trimmed mean of the squared errors of one batch of prompts (B,)."""
    ordered = np.sort(real_array("losses", losses))
    if ordered.ndim != 1 or not len(ordered):
        raise InputError(f"losses must have shape (B,) with B at least 1, not {ordered.shape}")
    if np.isnan(ordered[-1]):                                                # sorting puts NaN last
        return np.nan, np.nan, np.nan
    cut = int(TRIMMED * len(ordered))
    return ordered.mean(), np.median(ordered), ordered[cut:len(ordered) - cut].mean()


def train(model, distribution, optimizer, *, steps, batch_size=1000, clip_threshold=1.0, seed=0,
          dtype="float32", evaluation=(), record_every=50, theta_at=(), theta=None, batch=None,
          deadline_seconds=None, progress=None):
    """Train a model and return its `History`.

    Parameters
    ----------
    model : an objective: what `build_model` or `Objective` returns, or anything with `size` and
        `value_and_gradient(theta, batch)`
    distribution : the source, from which every step draws `batch_size` fresh examples: `PromptDistribution`, or
        anything with `draw(rng, size, dtype)`; what that returns is handed to the model as it is
    optimizer : `SGD`, `Adam`, `SignDescent`, or anything with their `init` and `update`
    steps, batch_size, seed : int; the seed sets the initialisation and the prompts by independent streams
    clip_threshold : float or None, of the joint gradient norm
    dtype : "float32" (authors' code) or "float64", of theta and of every step
    evaluation : batches on which the loss is recorded every `record_every` steps, and at the end
    theta_at : iterations, integers from 0 to `steps`, at which theta is kept; the first and the final point
        always are
    theta : None (the model's `init`, from the seed) or the starting point (p,)
    batch : None (fresh prompts) or one fixed batch for every step: full-batch training on a sample
    deadline_seconds : None, or stop with status "timed out" after so many seconds
    progress : None, or called with the number of steps made: at each record, and at the end

    Raises
    ------
    InputError : a value out of range, a distribution or a batch that does not fit the model.
    """
    steps = check_positive_integer("steps", steps)
    record_every = check_positive_integer("record_every", record_every)
    batch_size = check_positive_integer("batch size", batch_size)
    seed = check_positive_integer("seed", seed, minimum=0)
    dtype = check_dtype(dtype)
    for name, limit, zero_allowed in (("clip_threshold", clip_threshold, False),
                                      ("deadline_seconds", deadline_seconds, True)):
        if limit is not None:
            check_finite_positive(name, limit, zero_allowed)
    check_callable("progress", progress)
    check_objective(model)
    check_abilities("optimizer", optimizer, ("init", "update"), "lt.Adam(0.01)")
    if theta is None:
        if not hasattr(model, "init"):
            raise InputError("the model has no init(rng, dtype): give theta, the starting point")
        theta = model.init(stream(seed, "initialisation"), dtype)
    else:
        theta = check_theta(model, theta)
        if theta.dtype.kind != "f":
            raise InputError(f"theta must be real, not of dtype {theta.dtype}")
        finite("theta", theta)
        with np.errstate(over="ignore"):
            theta = finite(f"theta in {dtype}", theta.astype(dtype))
    recorder = _Recorder(model, evaluation, steps, record_every, theta_at, dtype)
    if batch is None:
        rng, sampler = stream(seed, "training"), sampler_of(distribution, model, batch_size, dtype)
        status, step, theta = _loop(model, optimizer, np.array(theta, dtype), lambda: sampler.draw(rng), batch_size,
                                    clip_threshold, recorder, deadline_seconds, progress)
    else:
        status, step, theta = _loop(model, optimizer, np.array(theta, dtype), lambda: batch, _size(batch, batch_size),
                                    clip_threshold, recorder, deadline_seconds, progress)
    if progress is not None:
        progress(step)
    return recorder.history(step, theta, status)


@np.errstate(over="ignore", invalid="ignore")                                # divergence is detected, and recorded
def _loop(model, optimizer, theta, draw, batch_size, clip_threshold, recorder, deadline_seconds, progress):
    """The algorithm: (status, steps made, theta)."""
    workspace, dtype = Workspace(model, batch_size, theta.dtype), theta.dtype
    state, start = optimizer.init(theta), time.monotonic()
    patience = PATIENCE if clip_threshold else 1
    for step in range(recorder.steps):
        if deadline_seconds is not None and time.monotonic() - start > deadline_seconds:
            return "timed out", step, theta
        if recorder.before_step(step, theta) and progress is not None:
            progress(step)
        prompts = draw()
        value, gradient = workspace.value_and_gradient(theta, prompts)
        wide = not (np.isfinite(value) and np.isfinite(gradient).all())
        if wide:
            value, gradient = Workspace(model, batch_size, "float64").value_and_gradient(theta, prompts)
        clipped, norm = clip(gradient, clip_threshold)
        clipped = clipped.astype(dtype, copy=False)
        finite = bool(np.isfinite(norm) and np.isfinite(clipped).all())
        if recorder.after_gradient(step, value, norm, wide, finite) >= patience:
            return "diverged", step, theta
        theta, state = optimizer.update(state, theta, clipped if finite else np.zeros_like(theta))
    learned = np.isfinite(theta).all() and recorder.in_a_row < recorder.steps    # one gradient at least was finite
    return "done" if learned else "diverged", recorder.steps, theta


class _Recorder:
    """Collects a history while a run goes on."""

    def __init__(self, model, evaluation, steps, record_every, theta_at, dtype):
        evaluation = check_type("evaluation", evaluation, list, tuple)
        if len({id(batch) for batch in evaluation}) < len(evaluation):
            raise InputError("evaluation holds the same batch twice; a sampler's draws overwrite one another: "
                             "use distribution.draw or lt.evaluation_batch")
        workspaces = {size: Workspace(model, size, "float64") for size in {_size(batch, 1) for batch in evaluation}}
        self.evaluators = [(workspaces[_size(batch, 1)], batch) for batch in evaluation]
        self.has_losses = hasattr(model, "losses")
        for workspace, batch in self.evaluators:                             # what does not fit is refused now
            workspace.check(batch)
        self.steps, self.record_every, self.keep = steps, record_every, {0, *_iterations(theta_at, steps)}
        self.loss, self.norm = np.full(steps, np.nan), np.full(steps, np.nan)
        self.step, self.statistics, self.theta_step, self.theta = [], [], [], []
        self.not_finite = {dtype.name: 0, "float64": 0}
        self.dtype, self.in_a_row = dtype, 0

    def before_step(self, step, theta):
        """Record the point before a step; return whether it was evaluated."""
        if step in self.keep:
            self._keep(step, theta)
        if step % self.record_every == 0:
            self._evaluate(step, theta)
        return step % self.record_every == 0

    def after_gradient(self, step, value, norm, wide, finite):
        """Record a step; return how many gradients in a row were not finite."""
        self.loss[step], self.norm[step] = value, norm
        if self.dtype != np.float64:
            self.not_finite[self.dtype.name] += wide
        self.not_finite["float64"] += not finite
        self.in_a_row = 0 if finite else self.in_a_row + 1
        return self.in_a_row

    def history(self, step, theta, status):
        """Close with the final point, `step` steps having been made."""
        if not self.step or self.step[-1] != step:
            self._evaluate(step, theta)
        if not self.theta_step or self.theta_step[-1] != step:
            self._keep(step, theta)
        made = step + (status == "diverged" and step < self.steps)           # the step that failed is recorded
        mean, median, trimmed = np.moveaxis(np.array(self.statistics), 0, -1).swapaxes(0, 1)
        arrays = {
            "step": np.array(self.step), "evaluation_mean": mean, "evaluation_median": median,
            "evaluation_trimmed": trimmed,
            "training_loss": self.loss[:made], "gradient_norm": self.norm[:made],
            "theta_step": np.array(self.theta_step), "theta": np.array(self.theta)}
        final = {name: _json(arrays[name][0, -1]) for name in
                 ("evaluation_mean", "evaluation_median", "evaluation_trimmed") if len(mean)}
        return History(arrays, status, {"steps": step, "not_finite": self.not_finite, **final})

    def _evaluate(self, step, theta):
        self.step.append(step)
        self.statistics.append([self._statistics(workspace, theta, batch)
                                for workspace, batch in self.evaluators] or np.empty((0, 3)))

    def _statistics(self, workspace, theta, batch):
        """Of every example's loss where the model tells them; else the mean alone."""
        if not self.has_losses:
            return workspace.value_and_gradient(theta, batch)[0], np.nan, np.nan
        return prompt_statistics(np.ravel(workspace.prompt_losses(theta, batch)))

    def _keep(self, step, theta):
        self.theta_step.append(step)
        self.theta.append(theta.copy())


def _iterations(theta_at, steps):
    """Integers from 0 to `steps`: at anything else nothing would be kept, without a word."""
    refuse_masked("theta_at", theta_at)
    try:
        wanted = list(theta_at)
    except TypeError:
        raise InputError(f"theta_at must be a sequence of integers, not {shown(theta_at)}") from None
    for one in wanted:
        if isinstance(one, bool) or not isinstance(one, numbers.Integral) or not 0 <= one <= steps:
            raise InputError(f"theta_at must hold integers from 0 to {steps}, the number of steps, not {shown(one)}")
    return map(int, wanted)


def _json(value):
    """A float, or None where JSON has no number."""
    return float(value) if np.isfinite(value) else None
