"""Derivatives along a line from values alone, each with an estimate of its error.

derivations/17-checks.md, eq. 17.1-17.4.

Conventions
-----------
F : t -> (q,), float64: a function along the line theta + t v. D(h) = (F(h) - F(-h)) / 2h is the central difference,
S(h) = F(h) - 2 F(0) + F(-h) the second one. Steps are start / 4^k; the table of Richardson and Ridders removes the
terms h^2, h^4, h^6 of D's error, and the disagreement of its neighbours, with the noise of F over h, is the estimate.
"""
from __future__ import annotations

import warnings

import numpy as np

from lintransformer.verification.points import Mistake

RATIO = 4.0
COLUMNS = 3               # powers of h that the table removes
LONGEST = 4.0**6          # a step longer than so many first ones must show F change
FIRST = 5                 # steps taken before any is judged
MOST = 40                 # steps at the most: 4^40 = 24 decades
NOISE_FACTOR = 4.0        # standard deviations of F's noise that count as possible
STAYS = 0.4               # a jump that is one is, from step to step, at least so much of itself
FADED = 1e-3              # a jump that falls to so little of itself before it is lost in noise is none
HIDDEN = 4.0              # a jump just below its noise, 24 / h, adds half of it to an error of 4 / h
FALLING = 8.0             # noise that grows by more with the spacing is not yet seen in full
FAR_NOISE = 8.0            # times the noise at theta, relative to F, is what it may be elsewhere
MOST_NOISE = 2.0**-23      # relative: that of float32 code; more is cancellation at theta, and none elsewhere
SMALLEST = 2.0**-970       # numbers below it lose digits when they are added to one another
COMPLEX_STEP = 1e-20      # its square is below every rounding error; eq. 11.11


def quiet(function, *arguments):
    """The value of a function far from its point: NaN where it raises or is not finite, and no warning."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return function(*arguments)
        except Mistake:
            raise
        except Exception:                                                    # their code, at points far away
            return np.nan


def noise_level(F, least, spacings):
    """The standard deviation (q,) of F's rounding errors: differences of order 3 to 6 at eight points; `least` (q,)
    at the least. F is called with the number of the point and the spacing.

    Hamming's difference table, as More and Wild use it (Estimating computational noise, 2011): noise looks the same
    at every order, and what is left of a smooth F falls with the order, so that the least of them is noise. Code that
    computes in less than theta's precision is constant between its own steps: where nothing is seen, or more than at
    the spacing before, the next of `spacings` (ascending) is looked at too.
    """
    level, size = np.array(least), np.size(least)
    for number, spacing in enumerate(spacings):
        table = np.array([np.broadcast_to(quiet(F, k, spacing), size) for k in range(8)])
        found = np.full(size, np.inf)
        size_of_F = np.max(np.abs(table), axis=0) + np.finfo(float).tiny     # squares neither over- nor underflow
        table = table / size_of_F
        for order in range(1, 7):
            table = np.diff(table, axis=0)
            if order in BINOMIAL:
                found = np.minimum(found, np.sqrt(np.mean(table**2, axis=0) / BINOMIAL[order]))
        found = np.nan_to_num(found * size_of_F, nan=0.0, posinf=0.0)
        settled = number and ((found > 0) & (found <= FALLING * level)).all()
        level = np.fmax(level, found)
        if settled:
            break
    return level


# (2m)! / (m!)^2, the variance of a difference of order m of independent errors
BINOMIAL = {3: 20.0, 4: 70.0, 5: 252.0, 6: 924.0}


class Line:
    """Differences of F along one line, at more and more steps until the derivative is known well enough.

    Parameters
    ----------
    F : callable t -> (F(t) (q,), t as it was really taken)
    value : F(0) (q,)
    noise : (q,), of `noise_level`
    start : float, the middle of the first steps
    smallest : float, the least step that makes sense
    resolution : relative error of the derivative that is good enough

    Attributes
    ----------
    value, error : (q,) the best derivative and the estimate of its error; step (q,), where it was found
    reach : (q,) the longest step taken over which F does not change by more than itself, nor its derivative by half
    """

    def __init__(self, F, value, noise, start, smallest, resolution):
        self.F, self.at_zero, self.noise, self.resolution = F, value, noise, resolution
        self.start, self.smallest = start, smallest
        self.samples, self.refined = {}, False                               # k -> (h, D, S), h = start / 4^k
        # far away F may be larger, and its rounding with it; k -> (q,) of that, and of whether F has doubled
        self.noises, self.doubled = {}, {}
        # (q,) the least change of F that was seen; whether F was not a number somewhere
        self.quantum, self.holes = np.full(value.shape, np.inf), np.zeros(value.shape, bool)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.relative_noise = np.fmin(np.nan_to_num(FAR_NOISE * noise / np.abs(value), nan=0.0), MOST_NOISE)
        for k in range(FIRST // 2 - FIRST + 1, FIRST // 2 + 1):
            self._sample([k])
        self._estimate()
        self._extend()

    @property
    def resolved(self):
        """Where the derivative is known to `resolution` (q,), or exactly 0 at every step."""
        return (self.error <= self.resolution * np.abs(self.value)) | self.untouched

    @property
    def untouched(self):
        """Where F gave the same number at every step (q,)."""
        return np.isinf(self.quantum) & ~self.holes

    def stands(self, output):
        """Whether F gave the same number at some step."""
        return any(D[output] == 0 and S[output] == 0 for _, D, S in self.samples.values())

    def _extend(self):
        """Longer and shorter steps in turn, until all is resolved, or steps make no sense, or are too many."""
        longer, shorter, low, high = True, True, -(FIRST // 2), FIRST // 2
        while (longer or shorter) and len(self.samples) < MOST and not self.resolved.all():
            longer = longer and not self._bent(min(self.samples, default=0)) and self._sample([low - 1, low - 2])
            shorter = shorter and not self._drowned() and self._sample([high + 1, high + 2])
            low, high = low - 2, high + 2
            self._estimate()

    def refine(self):
        """Take every shorter step that makes sense: for kinks, which only short steps see."""
        while len(self.samples) < 2 * MOST and not self._drowned() and self._sample([max(self.samples, default=0) + 1]):
            pass
        self.refined = True
        self._estimate()
        return self

    def _sample(self, ks):
        """Whether all these steps make sense: long enough to be taken, and to finite values."""
        for k in ks:
            h = self.start / RATIO**k
            if h < self.smallest or not np.isfinite(h):
                return False
            (ahead, up), (behind, down) = self.F(h), self.F(-h)
            if not (np.isfinite(ahead).all() and np.isfinite(behind).all()):
                if k < 0:
                    return False
                ahead = behind = np.full_like(self.at_zero, np.nan)
            with np.errstate(over="ignore", invalid="ignore"):
                D, S = (ahead - behind) / (up - down), (ahead - self.at_zero) + (behind - self.at_zero)
                changes = np.abs(np.array([ahead, behind]) - self.at_zero)
                self.holes |= np.isnan(changes).any(axis=0)
                self.quantum = np.fmin(self.quantum, np.where(changes > 0, changes, np.inf).min(axis=0))
                self.doubled[k] = changes.max(axis=0) > np.abs(self.at_zero)
                self.noises[k] = self.noise + self.relative_noise * np.fmax(np.abs(ahead), np.abs(behind))
            self.samples[k] = h, D, S
        return True

    def _drowned(self):
        """Whether at the shortest step nothing is left but noise: shorter ones tell nothing."""
        if not self.samples:
            return False
        k = max(self.samples)
        h, D, S = self.samples[k]
        return bool((NOISE_FACTOR * self.noises[k] > np.fmax(h * np.abs(D), np.abs(S))).all())

    def _bent(self, k):
        """Whether, for most outputs, step k is too long: D has changed since the step before by half of itself."""
        if k not in self.samples or k + 1 not in self.samples:
            return False
        (h, D, S), (_, nearer, shorter) = self.samples[k], self.samples[k + 1]
        too_long = _far(D, nearer, self.noises[k] / h) | _level(S, shorter, self.noises[k]) | \
            self._blind(h, D, self.noises[k])
        return bool(np.mean(too_long) > 0.5)

    def _blind(self, h, D, noise):
        """Whether a step is so long that a bounded F looks flat: longer than theta's scale tells, and nothing above
        noise. Whatever F's derivative is at theta, its differences over infinite steps are 0.
        """
        return (h > LONGEST * self.start) & (np.abs(D) <= 2 * NOISE_FACTOR * RATIO * noise / h)

    def _estimate(self, least=None):
        """The entry of the table with the smallest error estimate, for each of the q outputs.

        Only steps on the near side of the first that is too long count; and an estimate from longer steps must lie
        within what every shorter step, rounding allowed for, leaves possible.
        """
        ks = sorted((k for k in self.samples if least is None or k >= least), reverse=True)   # ascending h
        self.value, self.error = np.zeros_like(self.at_zero), np.full(self.at_zero.shape, np.inf)
        self.step = self.reach = np.full(self.at_zero.shape, self.start)
        if len(ks) < 2:
            return
        h = np.array([self.samples[k][0] for k in ks])[:, None]
        noise = np.array([self.noises[k] for k in ks])
        column, rounding = np.array([self.samples[k][1] for k in ks]), NOISE_FACTOR * noise / h
        with np.errstate(over="ignore", invalid="ignore"):
            near = np.ones(column.shape, bool)
            S = np.array([self.samples[k][2] for k in ks])
            far = _far(column[1:], column[:-1], noise[1:] / h[1:]) | _level(S[1:], S[:-1], noise[1:])
            near[1:] = np.logical_and.accumulate(~far & ~self._blind(h, column, noise)[1:], axis=0)
            width = 2 * rounding + np.abs(np.diff(column, axis=0, append=column[-1:]))
            low = np.maximum.accumulate(np.nan_to_num(column - width, nan=-np.inf), axis=0)
            high = np.minimum.accumulate(np.nan_to_num(column + width, nan=np.inf), axis=0)
            doubled = np.logical_or.accumulate([self.doubled[k] for k in ks], axis=0)
            self.reach = np.max(np.where(near & ~doubled, h, h[0]), axis=0)
            kinked = self._half_jumps(ks)
            self.value, self.step = column[0].copy(), np.broadcast_to(h[0], self.at_zero.shape).copy()
            for j in range(1, min(COLUMNS, len(ks) - 1) + 1):
                # row i of `finer` combines the steps i ... i + j, the shortest of which is h[i]
                finer = column[:-1] + (column[:-1] - column[1:]) / (RATIO ** (2 * j) - 1)
                apart = np.fmax(np.abs(finer - column[:-1]), np.abs(finer - column[1:]))
                apart[:-1] = np.fmax(apart[:-1], np.abs(finer[:-1] - finer[1:]))
                rows = len(finer)
                possible = near[j:] & np.isfinite(finer) & \
                    ((low[:rows] > high[:rows]) | ((finer >= low[:rows]) & (finer <= high[:rows])))
                apart = np.where(possible, apart + rounding[:rows] + kinked[:rows], np.inf)
                row = np.argmin(apart, axis=0)[None]
                found = np.take_along_axis(apart, row, 0)[0]
                better = found < self.error
                self.value = np.where(better, np.take_along_axis(finer, row, 0)[0], self.value)
                self.step = np.where(better, h[row[0], 0], self.step)
                self.error, column = np.where(better, found, self.error), finer

    def _jumps(self, ks):
        """By how much F' jumps within reach of each step, and the noise in it: (rows, q) each; eq. 17.3.

        S(h) = a h^2 + c h^4 + b h, where b is 0 for a smooth F and the jump for a kink at 0: from S at three steps.
        """
        S = np.array([self.samples[k][2] for k in ks])
        h = np.array([self.samples[k][0] for k in ks])[:len(ks) - 2, None]
        with np.errstate(over="ignore", invalid="ignore"):
            b = (256 * (16 * S[:-2] - S[1:-1]) - (16 * S[1:-1] - S[2:])) / (3024 * h)
        return b, 6 * NOISE_FACTOR * np.array([self.noises[k] for k in ks[2:]]) / h

    def _half_jumps(self, ks):
        """What a kink may add to the error of each row, and of longer steps: half of the jump, where above noise."""
        if len(ks) < 3:
            return np.zeros((len(ks), self.at_zero.size))
        b, noise = self._jumps(ks)
        half = np.maximum.accumulate(np.where(np.abs(b) > noise, np.abs(b) / 2, 0.0))
        return np.concatenate([half, np.broadcast_to(half[-1:], (2, half.shape[1]))])

    def kink(self, output=0):
        """Whether F has a kink within reach: the jump stays as steps get shorter; what a smooth F has in place of it
        falls like h^5."""
        ks = sorted(self.samples, reverse=True)
        if len(ks) < 4:
            return False
        b, noise = (part[:, output] for part in self._jumps(ks))
        seen = np.abs(b) > noise
        if not seen.any() or np.abs(b[seen][0]) < FADED * np.max(np.abs(b[seen])):
            return False
        b, near = np.abs(b), np.array([self.samples[k][0] for k in ks[:len(b) - 1]]) <= self.start
        stays = (b[:-1] > STAYS * b[1:]) & (STAYS * b[:-1] < b[1:])          # where F is flat, b falls 4 times
        return bool((seen[:-1] & seen[1:] & stays & near).any())

    def inside_kink(self, output=0):
        """Estimate again from the steps that are too short to reach the kink; False if there are too few of them."""
        ks = sorted(self.samples, reverse=True)
        b, noise = (part[:, output] for part in self._jumps(ks))
        seen = np.flatnonzero(np.abs(b) > noise)
        inside = ks[:seen[0] + 2] if len(seen) else ks                       # row i of b is of steps i, i + 1, i + 2
        if len(inside) < 3:
            return False
        self._estimate(least=inside[-1])
        self.error = HIDDEN * self.error
        return True


def _far(D, nearer, rounding):
    """Whether a difference is far from the one at the next shorter step, rounding (of the longer) allowed for."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(D - nearer) > 0.5 * np.fmax(np.abs(D), np.abs(nearer)) + 2 * NOISE_FACTOR * RATIO * rounding
    return apart | ~np.isfinite(D)


def _level(S, shorter, noise):
    """Whether F flattens out: its second difference, which grows 16 times (at a kink 4 times), has not even doubled."""
    with np.errstate(invalid="ignore"):
        return np.abs(S) + 4 * NOISE_FACTOR * noise < 2 * (np.abs(shorter) - 4 * NOISE_FACTOR * noise)


def complex_derivative(F, v_scale):
    """Im F(i h) / h (eq. 11.11), or the text that says why there is none."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        try:
            value = F(1j * COMPLEX_STEP * v_scale)
        except Exception as error:                                           # their code, of complex numbers
            return f"it fails for complex arguments ({' '.join(str(error).split()) or type(error).__name__})"
    if not np.iscomplexobj(value):
        return "it returns real numbers for complex arguments"
    if 0 < np.max(np.abs(np.real(value))) < SMALLEST / COMPLEX_STEP:
        return "its values are too near to the smallest numbers"
    return np.imag(value) / (COMPLEX_STEP * v_scale)
