"""Training on fresh prompts, and the history a run leaves.

Each step: draw B prompts, gradient, joint clipping, optimizer (Section 3.2). The loss is evaluated on fixed
batches, because the mean over fresh prompts can be dominated by a few of them: with n = 5 or Gamma covariates its
average over many batches is 10^4 and more while the median over prompts stays below 1. The history therefore
keeps, for every evaluation batch, the mean, the median over prompts and a trimmed mean.

With six and more layers a rare prompt's loss can exceed float32's 10^38 while training goes well. The gradient of
such a step is then computed in float64, where clipping brings it back to its threshold; where that overflows as well,
it counts as 0, which is what PyTorch's clipping makes of a gradient whose norm overflows. A run whose gradients are
not finite for `PATIENCE` batches in a row, or at all without clipping, has diverged. (Our choice: the authors' code
would end in NaN at the first.)
"""

import time
from dataclasses import dataclass

import numpy as np

from lintransformer.checks import InputError, check_finite_positive, check_positive_integer
from lintransformer.optimizers import clip
from lintransformer.random import stream
from lintransformer.workspace import Workspace

TRIMMED = 0.05          # share of the prompts dropped at either end of the trimmed mean (our choice)
PATIENCE = 10           # gradients in a row that are not finite before a run counts as diverged (our choice)


@dataclass(frozen=True)
class History:
    """What a run leaves.

    arrays : dict of ndarrays, T records, E evaluation batches, S kept points
        step (T,)                 iteration of each record: theta BEFORE that step; the last is the final point
        evaluation_mean, evaluation_median, evaluation_trimmed (E, T)
        training_loss (steps,)    f on the fresh batch of each step, infinite where it overflows
        gradient_norm (steps,)    joint norm before clipping, likewise
        theta_step (S,), theta (S, p)   kept points: theta before step theta_step
    status : "done", "diverged" or "timed out"
    summary : dict, JSON-able: steps made, steps whose gradient overflowed float32 and float64, final losses on the
        first evaluation batch
    """

    arrays: dict
    status: str
    summary: dict


def evaluation_batch(distribution, seed, prompts, dtype=np.float64, tokens=False):
    """A fixed batch of prompts from a seed of its own ("authors' code": seed 99, 1000 prompts)."""
    draw = distribution.draw if tokens else distribution.draw_gram
    return draw(stream(seed, "evaluation"), prompts, dtype)


def prompt_statistics(losses):
    """Mean, median and trimmed mean of the squared errors of one batch of prompts (B,)."""
    ordered = np.sort(np.asarray(losses, dtype=np.float64))
    cut = int(TRIMMED * len(ordered))
    return ordered.mean(), np.median(ordered), ordered[cut:len(ordered) - cut].mean()


def train(model, distribution, optimizer, *, steps, batch_size=1000, clip_threshold=1.0, seed=0, dtype="float32",
          evaluation=(), record_every=50, theta_at=(), theta=None, batch=None, deadline_seconds=None, progress=None):
    """Train a model and return its `History`.

    Parameters
    ----------
    model : `Transformer`
    distribution : `PromptDistribution`, from which every step draws `batch_size` fresh prompts
    optimizer : `SGD`, `Adam`, `SignDescent`, or anything with their `init` and `update`
    steps, batch_size, seed : int; the seed sets the initialisation and the prompts by independent streams
    clip_threshold : float or None, of the joint gradient norm
    dtype : "float32" (authors' code) or "float64"
    evaluation : batches on which the loss is recorded every `record_every` steps, and at the end
    theta_at : iterations at which theta is kept; the first and the final point always are
    theta : None (initialised from the seed) or the starting point (p,)
    batch : None (fresh prompts) or one fixed batch for every step: full-batch training on a sample
    deadline_seconds : None, or stop with status "timed out" after so many seconds
    progress : None, or called with the number of steps made, at each record

    Raises
    ------
    InputError : a value out of range, a distribution that does not fit the model.
    """
    check_positive_integer("steps", steps)
    check_positive_integer("record_every", record_every)
    if clip_threshold is not None:
        check_finite_positive("clip_threshold", clip_threshold)
    if distribution.dimension != model.dimension:
        raise InputError(f"distribution has dimension {distribution.dimension}, but the model has dimension "
                         f"{model.dimension}")
    workspace = Workspace(model, batch_size if batch is None else batch.size, dtype)
    sampler = distribution.sampler(batch_size, dtype, "tokens" if model.needs_tokens else "gram")
    rng = stream(seed, "training")
    theta = model.init(stream(seed, "initialisation"), dtype) if theta is None else model.check_theta(theta)
    recorder = _Recorder(model, evaluation, steps, record_every, theta_at, dtype)
    state, start, status = optimizer.init(theta), time.monotonic(), "done"

    with np.errstate(over="ignore", invalid="ignore"):                       # divergence is detected, and recorded
        for step in range(steps):
            recorder.before_step(step, theta)
            if step % record_every == 0:
                if progress is not None:
                    progress(step)
                if deadline_seconds is not None and time.monotonic() - start > deadline_seconds:
                    status = "timed out"
                    break
            prompts = sampler.draw(rng) if batch is None else batch
            value, gradient = workspace.value_and_gradient(theta, prompts)
            if not (np.isfinite(value) and np.isfinite(gradient).all()):
                value, gradient = Workspace(model, prompts.size, "float64").value_and_gradient(theta, prompts)
            clipped, norm = clip(gradient, clip_threshold)
            if recorder.after_gradient(step, value, norm, gradient.dtype) >= (PATIENCE if clip_threshold else 1):
                status = "diverged"
                break
            if not np.isfinite(norm):
                clipped = np.zeros_like(theta)
            theta, state = optimizer.update(state, theta, clipped.astype(theta.dtype, copy=False))
        else:
            step = steps
            status = "done" if np.isfinite(theta).all() else "diverged"
        return recorder.history(step, theta, status)


class _Recorder:
    """Collects a history while a run goes on."""

    def __init__(self, model, evaluation, steps, record_every, theta_at, dtype):
        self.evaluators = [(Workspace(model, batch.size, "float64"), batch) for batch in evaluation]
        self.record_every, self.keep, self.dtype = record_every, {0, *map(int, theta_at)}, np.dtype(dtype)
        self.loss, self.norm = np.full(steps, np.nan), np.full(steps, np.nan)
        self.step, self.statistics, self.theta_step, self.theta = [], [], [], []
        self.overflows = {"float32": 0, "float64": 0}
        self.in_a_row = 0

    def before_step(self, step, theta):
        if step % self.record_every == 0:
            self._evaluate(step, theta)
        if step in self.keep:
            self._keep(step, theta)

    def after_gradient(self, step, value, norm, dtype):
        """Record a step; return how many gradients in a row were not finite."""
        self.loss[step], self.norm[step] = value, norm
        self.overflows["float32"] += dtype != self.dtype
        self.overflows["float64"] += not np.isfinite(norm)
        self.in_a_row = 0 if np.isfinite(norm) else self.in_a_row + 1
        return self.in_a_row

    def history(self, step, theta, status):
        """Close with the final point, `step` steps having been made."""
        if not self.step or self.step[-1] != step:
            self._evaluate(step, theta)
        if self.theta_step[-1] != step:
            self._keep(step, theta)
        made = step + (status == "diverged" and step < len(self.loss))       # the step that failed is recorded too
        mean, median, trimmed = np.moveaxis(np.array(self.statistics), 0, -1).swapaxes(0, 1)
        arrays = {
            "step": np.array(self.step), "evaluation_mean": mean, "evaluation_median": median,
            "evaluation_trimmed": trimmed, "training_loss": self.loss[:made], "gradient_norm": self.norm[:made],
            "theta_step": np.array(self.theta_step), "theta": np.array(self.theta)}
        final = {name: float(arrays[name][0, -1]) for name in ("evaluation_mean", "evaluation_median",
                                                               "evaluation_trimmed") if len(mean)}
        return History(arrays, status, {"steps": step, "overflows": self.overflows, **final})

    def _evaluate(self, step, theta):
        self.step.append(step)
        self.statistics.append([prompt_statistics(workspace.prompt_losses(theta, batch))
                                for workspace, batch in self.evaluators] or np.empty((0, 3)))

    def _keep(self, step, theta):
        self.theta_step.append(step)
        self.theta.append(theta.copy())
