"""Timing side by side: the peers take turns, round by round, and a figure is the median over rounds."""
import statistics
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks import peers

FIGURES = {                          # figure: (what it is, calls it stands for, unit, units in a second)
    "step": ("one training step: data, gradient, clip, Adam", 1, "ms", 1e3),
    "gradient": ("gradient on a fixed batch", 1, "ms", 1e3),
    "hessian": ("dense Hessian on a fixed batch", 1, "s", 1),
    "noise": ("1000 gradient-noise draws", 1000, "s", 1),
}
LEAST_DRAWS = 20                     # of gradient noise in one sample: its centre costs one gradient more
LARGEST_NOISE = 1000                 # parameters; the paper shows noise up to 400
TOLERANCE = 2e-5                     # float32 gradients of two peers, relative to the largest entry


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: int = 9
    sample_seconds: float = 0.3      # a sample is repeated calls that together take about this long
    slow_seconds: float = 60.0       # what would take longer than this in one call is left out, and named
    least_rounds: int = 3            # of what takes longer than five samples a call

    def rounds_of(self, seconds):
        """Fewer rounds for slow calls."""
        return self.rounds if seconds < 5 * self.sample_seconds else min(self.rounds, self.least_rounds)


@dataclass(frozen=True)
class Timing:
    """Seconds per figure (a call, or 1000 noise draws), one number a round."""

    case: str
    figure: str
    peer: str
    seconds: tuple
    threads: float                   # CPU seconds over wall seconds: near 1 if it kept to one thread
    calls: int                       # in one sample

    @property
    def median(self):
        return statistics.median(self.seconds)

    @property
    def spread(self):
        """Quartiles over the rounds."""
        return tuple(float(q) for q in np.quantile(self.seconds, (0.25, 0.75)))

    def as_dict(self):
        return {**asdict(self), "median": self.median, "quartiles": self.spread}


def calibrate(worker, figure, effort):
    """(calls a sample, seconds of the shortest sample), after a call that warms up and compiles."""
    worker.time(figure, 1)
    if figure == "noise":
        once = worker.time(figure, LEAST_DRAWS)[0] / (LEAST_DRAWS + 1)
        return max(LEAST_DRAWS, round(effort.sample_seconds / once)), LEAST_DRAWS * once
    once = worker.time(figure, 1)[0]
    if once < effort.sample_seconds / 10:                # time several short calls, to get past the start-up
        count = max(5, int(effort.sample_seconds / 10 / max(once, 1e-6)))
        once = worker.time(figure, count)[0] / count
    return max(1, round(effort.sample_seconds / max(once, 1e-9))), once


def side_by_side(workers, case, figure, effort):
    """`Timing` of each worker, which all have `case` prepared: they take turns, in an order that rotates."""
    calibrated = {worker: calibrate(worker, figure, effort) for worker in workers}
    samples = {worker: [] for worker in workers}
    for turn in range(effort.rounds if workers else 0):
        first = turn % len(workers)
        for worker in workers[first:] + workers[:first]:
            calls, once = calibrated[worker]
            if turn < effort.rounds_of(once):
                samples[worker].append(worker.time(figure, calls))
    return [_timing(case, figure, worker.peer, samples[worker], calibrated[worker][0]) for worker in workers]


def _timing(case, figure, peer, samples, calls):
    wall, cpu = np.array(samples).T
    worth = (calls + 1) / FIGURES[figure][1] if figure == "noise" else calls
    return Timing(case.name, figure, peer, tuple(float(seconds) for seconds in wall / worth),
                  float(cpu.sum() / wall.sum()), calls)


def too_slow(worker, figure, parameters, effort):
    """Why a figure would take too long here, or None.

    A Hessian is two gradients for each of the p parameters, about, whoever computes it. Our noise comes with
    the spectrum of its (p, p) covariance, which outweighs the draws when p is in the thousands.
    """
    if figure == "noise" and parameters > LARGEST_NOISE:
        return f"the spectrum of our noise would outweigh the draws at p = {parameters}"
    if figure != "hessian":
        return None
    worker.time("gradient", 1)                                               # the first call may compile
    estimate = 2 * parameters * worker.time("gradient", 1)[0]
    return f"one call would take about {estimate:.0f} s" if estimate > effort.slow_seconds else None


def disagreement(gradients):
    """Largest relative difference of any peer's gradient {peer: (p,)} from ours."""
    ours = gradients["ours"].astype(np.float64)
    return {peer: float(np.abs(gradient - ours).max() / np.abs(ours).max())
            for peer, gradient in gradients.items() if peer != "ours"}


def check_agreement(workers, case):
    """Compare gradients at one seeded point; raises if one is farther than TOLERANCE from ours."""
    errors = disagreement({worker.peer: worker.gradient_at(case, 1, case.init_scale) for worker in workers})
    for peer, error in errors.items():
        if not error <= TOLERANCE:
            raise RuntimeError(f"{peers.NAMES[peer]} computes another gradient of {case.name} than ours: "
                               f"relative difference {error:.1e}, allowed {TOLERANCE:g}; nothing to compare")
    return errors
