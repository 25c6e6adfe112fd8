"""What a check returns, and two assertions for derivations.

A check never raises because a derivation is wrong: it returns a `Check` that says by how much, so that a
table of checks is complete. The assertions raise, and name both values: they are for chapters and tests.
"""
from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

import numpy as np

from lintransformer.checks import InputError

PASSED, FAILED, INCONCLUSIVE = "passed", "failed", "inconclusive"


@dataclass(frozen=True, repr=False)
class Check:
    """The outcome of one check. Its `str` and its `repr` are the whole report; it is true if it passed.

    Parameters
    ----------
    name : str, what was compared with what
    error : float, the largest error found; NaN fails
    tolerance : float
    detail : str, how it was measured
    parts : checks that this one sums up; its error and tolerance are those of the worst part
    lines : str each: the worst entry, what the mistake looks like, what else was noticed
    decided : None (passed if `error` <= `tolerance`), or the verdict that the check itself has come to
    """

    name: str
    error: float
    tolerance: float
    detail: str = ""
    parts: tuple = ()
    lines: tuple = ()
    decided: str | None = None

    @property
    def verdict(self) -> str:
        """"passed", "failed" or "inconclusive": what was given to it cannot tell right from wrong."""
        return self.decided or (PASSED if self.error <= self.tolerance else FAILED)

    @property
    def passed(self) -> bool:
        return self.verdict == PASSED

    def __bool__(self):
        return self.passed

    def __str__(self):
        verdict = {FAILED: "FAILED"}.get(self.verdict, self.verdict)
        line = f"{verdict}: {self.name}: error {self.error:.2e}, tolerance {self.tolerance:.0e}"
        line += f" ({self.detail})" if self.detail else ""
        parts = [part for part in self.parts if not part.passed] or self.parts
        return "\n".join([line, *(f"    {text}" for text in self.lines), *(f"    {part}" for part in parts)])

    __repr__ = __str__


def combine(name, parts, detail="") -> Check:
    """One `Check` for several: its numbers and its verdict are those of the worst part."""
    parts = tuple(parts)
    worst = max(parts, key=_badness)
    return Check(name, worst.error, worst.tolerance, detail or f"worst: {worst.name}", parts, decided=worst.decided)


def _badness(check):
    rank = (PASSED, INCONCLUSIVE, FAILED).index(check.verdict)
    if not np.isfinite(check.error):
        return rank, np.inf
    return rank, check.error / check.tolerance if check.tolerance else float(check.error > 0)


def relative_error(left, right) -> float:
    """max |left - right| / max |right|; absolute where right is all zero; infinite if shapes differ."""
    left, right = np.asarray(left), np.asarray(right)
    if left.shape != right.shape:
        return np.inf
    if left.size == 0:
        return 0.0
    scale = np.max(np.abs(right))
    error = np.max(np.abs(left - right))
    return float(error / scale if scale else error)


def check_tolerance(tolerance, default=None):
    """`tolerance` as a float in (0, 1), `default` for None, else `InputError`."""
    if tolerance is None:
        return default
    number = isinstance(tolerance, numbers.Real) and not isinstance(tolerance, (bool, np.bool_))
    if not number or not math.isfinite(tolerance) or not 0 < tolerance < 1:
        raise InputError(f"tolerance must be a number between 0 and 1, not {tolerance!r}")
    return float(tolerance)


def assert_close(left, right, tolerance) -> None:
    """Raise `AssertionError`, naming both values, unless `relative_error(left, right)` <= `tolerance`."""
    if not (isinstance(tolerance, numbers.Real) and 0 <= tolerance < math.inf):
        raise InputError(f"tolerance must be a finite number of at least 0, not {tolerance!r}")
    if np.size(left) == 0 or np.size(right) == 0:
        raise InputError("assert_close compares numbers, but was given none")
    error = relative_error(left, right)
    if not error <= tolerance:
        raise AssertionError(f"relative error {error:.3g} is above {tolerance:.3g}\n"
                             f"left side:  {_short(left)}\nright side: {_short(right)}")


def assert_mean(samples, expected, standard_errors=5) -> None:
    """Raise `AssertionError` unless the mean of `samples` is within so many standard errors of `expected`.

    With 5 standard errors a right mean fails once in 2 million times where the mean is nearly normal (samples many,
    tails light), and one that is off by 10 standard errors passes as rarely: name the sample size beside it.
    """
    samples = np.asarray(samples, dtype=np.float64)
    mean, error = samples.mean(), samples.std(ddof=1) / np.sqrt(len(samples))
    if not abs(mean - expected) <= standard_errors * error:
        raise AssertionError(f"sample mean {mean:.6g} is not within {standard_errors} standard errors "
                             f"({error:.2g}) of the expected {expected:.6g}")


def _short(value):
    return np.array2string(np.asarray(value), threshold=12, edgeitems=3, precision=12)
