"""What a check returns, and two assertions for derivations.

A check never raises because a derivation is wrong: it returns a `Check` that says by how much, so that a
table of checks is complete. The assertions raise, and name both values: they are for chapters and tests.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Check:
    """The outcome of one check: passed if `error` <= `tolerance`; true if it passed.

    Parameters
    ----------
    name : str, what was compared with what
    error : float, the largest error found; NaN fails
    tolerance : float
    detail : str, how it was measured
    parts : checks that this one sums up; its error and tolerance are those of the worst part
    """

    name: str
    error: float
    tolerance: float
    detail: str = ""
    parts: tuple = ()

    @property
    def passed(self):
        return bool(self.error <= self.tolerance)

    def __bool__(self):
        return self.passed

    def __str__(self):
        verdict = "passed" if self.passed else "FAILED"
        line = f"{verdict}: {self.name}: error {self.error:.2e}, tolerance {self.tolerance:.0e}"
        lines = [line + (f" ({self.detail})" if self.detail else "")]
        return "\n".join(lines + [f"    {part}" for part in self.parts])


def combine(name, parts, detail=""):
    """One `Check` for several: its numbers are those of the part with the largest error / tolerance."""
    parts = tuple(parts)
    worst = max(parts, key=_badness)
    return Check(name, worst.error, worst.tolerance, detail or f"worst: {worst.name}", parts)


def _badness(check):
    if not np.isfinite(check.error):
        return np.inf
    return check.error / check.tolerance if check.tolerance else (0.0 if check.passed else np.inf)


def relative_error(left, right):
    """max |left - right| / max |right|; absolute where right is all zero; infinite if shapes differ."""
    left, right = np.asarray(left), np.asarray(right)
    if left.shape != right.shape:
        return np.inf
    if left.size == 0:
        return 0.0
    scale = np.max(np.abs(right))
    error = np.max(np.abs(left - right))
    return float(error / scale if scale else error)


def assert_close(left, right, tolerance):
    """Raise `AssertionError`, naming both values, unless `relative_error(left, right)` <= `tolerance`."""
    error = relative_error(left, right)
    if not error <= tolerance:
        raise AssertionError(f"relative error {error:.3g} is above {tolerance:.3g}\n"
                             f"left side:  {_short(left)}\nright side: {_short(right)}")


def assert_mean(samples, expected, standard_errors=5):
    """Raise `AssertionError` unless the mean of `samples` is within so many standard errors of `expected`."""
    samples = np.asarray(samples, dtype=np.float64)
    mean, error = samples.mean(), samples.std(ddof=1) / np.sqrt(len(samples))
    if not abs(mean - expected) <= standard_errors * error:
        raise AssertionError(f"sample mean {mean:.6g} is not within {standard_errors} standard errors "
                             f"({error:.2g}) of the expected {expected:.6g}")


def _short(value):
    return np.array2string(np.asarray(value), threshold=12, edgeitems=3, precision=12)
