"""From numbers to verdicts: one value a seed, a t interval, and the region where the claim would be true.

A claim about a number mu (the mean over seeds of a statistic) says that mu lies in a region, such as
mu > 0. Its verdict follows from the 95 % t interval of mu over seeds alone:

    agrees       the whole interval lies in the region
    differs      no point of it does
    undecided    it straddles the edge, or there are too few seeds, or a run diverged

Statistics of positive quantities are ratios: the interval is taken of their logarithms, and given back as
ratios. The seed is the unit: values of one run at different iterations are not independent. (Our choice
throughout; the paper gives means and standard deviations.)
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lintransformer.diagnostics.smoothness import correlation_interval, t_interval

AGREES, DIFFERS, UNDECIDED = "agrees", "differs", "undecided"
NOT_TESTABLE, DEPENDS = "not testable here", "depends on the convention"
VERDICTS = (AGREES, DIFFERS, UNDECIDED, NOT_TESTABLE, DEPENDS)
LEVEL = 0.95


@dataclass(frozen=True)
class Region:
    """An open interval (low, high) of values for which a claim would be true, and the words for it."""

    low: float = -math.inf
    high: float = math.inf

    def __str__(self):
        if math.isinf(self.high):
            return f"> {self.low:g}"
        return f"< {self.high:g}" if math.isinf(self.low) else f"between {self.low:.3g} and {self.high:.3g}"

    def judge(self, low: float, high: float) -> str:
        """Return the verdict for the interval [low, high]."""
        if self.low < low and high < self.high:
            return AGREES
        return DIFFERS if high <= self.low or low >= self.high else UNDECIDED


def above(low: float) -> Region:
    """The claim says: more than this."""
    return Region(low=low)


def below(high: float) -> Region:
    """The claim says: less than this."""
    return Region(high=high)


def within(factor: float) -> Region:
    """The claim says: the same, which we take as a ratio between 1 / factor and factor."""
    return Region(1 / factor, factor)


@dataclass(frozen=True)
class Reading:
    """One number measured for a claim.

    Parameters
    ----------
    part : what of the claim it is, such as a setting
    statistic : what was measured, in words
    values : {seed: value}; None where the seed has none
    region : where the claim would be true
    ratio : whether the values are positive ratios: the interval is then taken on the logarithm
    correlation : whether they are correlations: it is then taken on Fisher's scale
    paper : the number the paper prints, in words, or None
    problems : why seeds have no value, or why a value cannot be trusted
    untestable : None, or why the run's configuration cannot show it at all
    exact : the values are computed, not sampled: one is enough, and it has no interval
    bounds : None, or the interval of a single value, where it has one by itself (a bootstrap over its draws)
    diverged : whether a run that should give a value diverged
    """

    part: str
    statistic: str
    values: dict
    region: Region
    ratio: bool = True
    paper: str | None = None
    problems: tuple = ()
    untestable: str | None = None
    exact: bool = False
    bounds: tuple | None = None
    diverged: bool = False
    correlation: bool = False

    @property
    def usable(self) -> list[float]:
        """The values that are numbers (and positive, if ratios)."""
        return [
            value for value in self.values.values()
            if value is not None and math.isfinite(value) and (value > 0 or not self.ratio)
        ]

    @property
    def interval(self) -> tuple[float, float, float]:
        """(estimate, low, high): geometric mean of ratios, mean of others; the t interval; NaN if unknown."""
        values = np.array(self.usable)
        if self.exact and len(values):
            return float(values[0]), float(values[0]), float(values[0])
        if self.bounds and len(values) == 1:
            return float(values[0]), *self.bounds
        if self.correlation:
            return correlation_interval(values, LEVEL)
        estimate, low, high = t_interval(np.log(values) if self.ratio else values, LEVEL)
        return (math.exp(estimate), _exp(low), _exp(high)) if self.ratio else (estimate, low, high)

    @property
    def mean_std(self) -> str | None:
        """The arithmetic mean and (standard deviation), as the paper prints its numbers; None without one."""
        if not self.paper or len(self.usable) < 2:
            return None
        return f"{np.mean(self.usable):.3g} ({np.std(self.usable, ddof=1):.2g})"

    @property
    def verdict(self) -> str:
        return self._judged[0]

    @property
    def why(self) -> str:
        """The reason of the verdict, in a line."""
        return self._judged[1]

    @property
    def _judged(self):
        if self.untestable:
            return NOT_TESTABLE, self.untestable
        estimate, low, high = self.interval
        problems = first_few(self.problems)
        if self.diverged:
            return UNDECIDED, f"diverged runs have no number: {problems}"
        if len(self.usable) < 2 and not self.exact and not (self.bounds and self.usable):
            reason = problems or "an interval needs two seeds or more"
            return (UNDECIDED if len(self.usable) else NOT_TESTABLE), reason
        verdict = self.region.judge(low, high)
        if len(self.usable) < len(self.values):
            return UNDECIDED, f"only {len(self.usable)} of {len(self.values)} seeds have a value: {problems}"
        of = "value" if self.exact else f"{LEVEL:.0%} interval [{low:.3g}, {high:.3g}]"
        relation = {AGREES: "lies in", DIFFERS: "lies outside", UNDECIDED: "straddles the edge of"}[verdict]
        return verdict, f"{estimate:.3g}, {of} {relation} {self.region}"

    def as_dict(self) -> dict:
        """Everything about the reading, JSON-able but for NaN."""
        estimate, low, high = self.interval
        return {
            "part": self.part, "statistic": self.statistic, "scale": "ratio" if self.ratio else "difference",
            "by_seed": {str(seed): value
                        for seed, value in self.values.items()}, "value": estimate, "interval": [low, high],
            "n": len(self.usable), "mean_std": self.mean_std, "claimed": str(self.region), "paper": self.paper,
            "verdict": self.verdict,
            "why": self.why, "problems": list(self.problems)
        }



def combine(verdicts) -> str:
    """Return the verdict of a claim that says several things at once: true if all are, false if one is."""
    verdicts = list(verdicts)
    testable = [verdict for verdict in verdicts if verdict != NOT_TESTABLE]
    if not testable:
        return NOT_TESTABLE
    if DIFFERS in testable:
        return DIFFERS
    return AGREES if all(verdict == AGREES for verdict in verdicts) else UNDECIDED


def first_few(lines, most: int = 3) -> str:
    """Return some of the lines, and how many more there are."""
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return "; ".join([*lines[:most], *more])


def _exp(value: float) -> float:
    return math.inf if value >= 700 else math.exp(value)
