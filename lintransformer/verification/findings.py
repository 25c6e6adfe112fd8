"""From the statuses of single entries to one verdict, and to words: which entry, how far off, what it looks like."""
from __future__ import annotations

import numpy as np

from lintransformer.verification.numerical import quiet
from lintransformer.verification.patterns import pattern
from lintransformer.verification.precision import PRECISIONS
from lintransformer.verification.results import FAILED, INCONCLUSIVE, PASSED, Check
from lintransformer.verification.slopes import AGREES, CERTAIN, DIFFERS, KINK, UNKNOWN, Slopes

FURTHER, TRIED = (1.0, 3.0, 8.0, 32.0), 4     # how far along an entry's line, in units of f's length; points tried


class Findings:
    """What is known of every entry of a claimed derivative.

    Parameters
    ----------
    name : str, of the check
    point : `Point`
    slopes : `Slopes` at the point
    claim : callable theta (p,) -> (m, q), the claimed derivatives along the lines of `slopes`; or these at the point
    tolerance : relative error of an entry, or None
    prefix : str, before the names of entries
    by_output : bool; entries are the outputs (all lines tell of each) rather than the lines
    """

    def __init__(self, name, point, slopes, claim, tolerance, prefix="", by_output=False):
        self.name, self.point, self.slopes, self.claim = name, point, slopes, claim
        self.tolerance, self.prefix, self.by_output = tolerance, prefix, by_output
        status, self.claimed, self.measured = slopes.judge(claim, tolerance)
        self.status, self.elsewhere, self.wide = self._of_entries(status), {}, False
        self._lines_status = status

    def _of_entries(self, status):
        """(m, q) to (p,): wrong if wrong anywhere, right if right somewhere and wrong nowhere."""
        if not self.by_output:
            return status[:, 0].copy()
        found = np.where((status == AGREES).any(axis=0), AGREES, UNKNOWN)
        found[(status == KINK).any(axis=0) & (found != AGREES)] = KINK
        found[(status == DIFFERS).any(axis=0)] = DIFFERS
        return found

    def look_at_rounded(self, first, rounding):
        """Compare what float32 code gives in float32, where it is right in float64: it must be its rounding.

        Parameters
        ----------
        first : (p,), the claimed derivatives in float32
        rounding : float, of f in float32. What backward passes add up is as large as f over the length on which it
            changes, and has errors accordingly.
        """
        self.wide = True
        m = self.measured[:, 0]
        apart = np.abs(first - m)
        floor = rounding / self.slopes.reach[:, 0]
        for block in self.point.blocks.values():
            floor[block] += PRECISIONS[self.point.dtype].eps * np.max(np.abs(m[block]), initial=0)
        mistaken = np.abs(self.claimed[:, 0] - m)                            # in float64, or of an array as it is
        self.status[(self.status == DIFFERS) & (mistaken <= CERTAIN * floor)] = UNKNOWN
        right = self.status == AGREES
        exact = apart <= self.slopes.claims.difference * np.abs(m)
        self.status[right & ~exact & (apart > CERTAIN * floor)] = UNKNOWN
        self.status[right & ~exact & ~(apart <= CERTAIN**2 * floor)] = DIFFERS
        shown = right & (self.status != AGREES)
        self.claimed[shown, 0] = first[shown]

    def look_nearby(self, distances):
        """Judge what is UNKNOWN at theta at a few points around it; points that cannot be evaluated are passed over."""
        for number, distance in enumerate(distances):
            unknown = np.flatnonzero(self.status == UNKNOWN)
            if not len(unknown) or (self.status == DIFFERS).any():
                return
            self._look_at(self._nearby(number, distance), unknown)

    def look_along(self):
        """Judge what is UNKNOWN still, one by one, further along its own line: where f has changed by most."""
        for i in np.flatnonzero(self.status == UNKNOWN):
            if (self.status == DIFFERS).any():
                return
            points = [self._moved(i, sign * factor * self.slopes.reach[i, 0]) for factor in FURTHER for sign in (1, -1)]
            changes = [np.abs(self.slopes.tested.near(point) - self.slopes.at)[0] for point in points]
            for k in np.argsort(np.nan_to_num(changes, nan=-1.0, posinf=-1.0))[:-TRIED - 1:-1]:
                if self.status[i] == UNKNOWN:
                    self._look_at(points[k], [i])

    def _moved(self, i, step):
        point = self.point.vector.copy()
        point[i] += step
        return self.slopes.tested.point.rounded(point)

    def _look_at(self, vector, unknown):
        """Judge these entries at another point."""
        lines = self.slopes.lines if self.by_output else [self.slopes.lines[i] for i in unknown]
        select = slice(None) if self.by_output else unknown

        def judged():
            slopes = Slopes(self.slopes.tested, vector, lines, self.slopes.analytic is not None)
            slopes.here, slopes.claims = False, self.slopes.claims
            return slopes.judge(lambda x: self.claim(x)[select], self.tolerance)

        found = quiet(judged) if np.isfinite(quiet(self.slopes.tested, vector)).all() else np.nan
        if not isinstance(found, tuple):
            return
        status, claimed, measured = found
        status = self._of_entries(status)
        for row, i in enumerate(np.arange(len(status)) if self.by_output else unknown):
            if self.status[i] == UNKNOWN and status[row] != UNKNOWN and np.isfinite(claimed).all():
                self.status[i] = status[row] if status[row] != KINK else UNKNOWN
                if status[row] == DIFFERS:
                    at = self._worst_line(claimed, measured, row)
                    self.elsewhere[i] = claimed[at], measured[at]

    def _worst_line(self, claimed, measured, row):
        return (int(np.argmax(np.abs(claimed - measured)[:, row])), row) if self.by_output else (row, 0)

    def _nearby(self, number, distance):
        """theta moved by several of the steps at which its derivatives are measured best."""
        rng = np.random.default_rng([2, number])
        sign = rng.choice([-1.0, 1.0], self.point.size) * rng.uniform(0.5, 1.5, self.point.size)
        step = np.full(self.point.size, np.inf)
        if self.by_output:
            step = self.slopes.scales / 64
        else:
            step = self.slopes.step[:, 0]
        return self.point.rounded(self.point.vector + distance * sign * step)

    def check(self) -> Check:
        """The verdict in numbers and words."""
        wrong = np.flatnonzero(self.status == DIFFERS)
        kinks, unknown = (np.flatnonzero(self.status == kind) for kind in (KINK, UNKNOWN))
        verdict = FAILED if len(wrong) else INCONCLUSIVE if len(kinks) or len(unknown) else PASSED
        lines = self._wrong(wrong) if len(wrong) else []
        if len(kinks):
            lines.append(f"kink near entry {self._entry(kinks[0])}: f has no derivative within reach there "
                         f"({len(kinks)} of {self.point.size} entries)")
        if len(unknown) and not len(wrong):
            i = self._largest_gap(unknown)
            c, m = self._pair(i)
            lines.append(f"at rounding level: {len(unknown)} of {self.point.size} entries cannot be told, such as "
                         f"{self._entry(i)}: yours {c:.6g}, numerical {m:.6g}")
        if verdict != PASSED:
            lines += self.point.special()
        detail = "complex steps" if self.slopes.analytic is not None else \
            f"differences; no complex steps: {self.slopes.why_not}"
        error, tolerance = self._error(), self.tolerance or self._default_tolerance()
        kind = "difference" if self.slopes.analytic is None else "complex"
        if self.wide:
            detail += ", in float64, in which this float32 code can compute"
        return Check(f"{self.name}, {kind}", error, tolerance, detail, lines=tuple(lines), decided=verdict)

    def _default_tolerance(self):
        precision = self.slopes.claims
        return precision.difference if self.slopes.analytic is None else precision.complex_step

    def _error(self):
        """The largest error in units of the largest entry."""
        scale, apart = np.max(np.abs(self.measured), initial=0), np.max(np.abs(self.claimed - self.measured), initial=0)
        return float(apart / scale if scale else apart)

    def _entry(self, i):
        return self.point.entry(int(i), self.prefix)

    def _pair(self, i):
        """(claimed, measured) of entry i where they are furthest apart."""
        if i in self.elsewhere:
            return self.elsewhere[i]
        if not self.by_output:
            return self.claimed[i, 0], self.measured[i, 0]
        bad = np.where(self._lines_status[:, i] == DIFFERS, np.abs(self.claimed - self.measured)[:, i], -1.0)
        row = int(np.argmax(bad))
        return self.claimed[row, i], self.measured[row, i]

    def _largest_gap(self, entries):
        gaps = [abs(c - m) / max(abs(m), abs(c), 1e-300) if np.isfinite(c) else np.inf
                for c, m in map(self._pair, entries)]
        return entries[int(np.argmax(gaps))]

    def _wrong(self, wrong):
        i = self._largest_gap(wrong)
        c, m = self._pair(i)
        counts = []
        for key, block in self.point.blocks.items():
            inside = np.sum((wrong >= block.start) & (wrong < block.stop))
            if inside:
                label = f" of {self.prefix}{key}" if self.point.is_dict else ""
                counts.append(f"{inside} of {block.stop - block.start} entries{label}")
        ratio = f"ratio {_ratio(c / m)}; " if m else ""
        where = " (at a point nearby, where it is above rounding)" if i in self.elsewhere else ""
        digits = 6 if abs(c - m) > 1e-4 * abs(m) else 14
        lines = [f"{self._entry(i)}: yours {c:.{digits}g}, numerical {m:.{digits}g} "
                 f"({ratio}{', '.join(counts)} wrong){where}"]
        if not self.by_output and not self.elsewhere:
            lines += pattern(self.point, self.claimed[:, 0], self.measured[:, 0], wrong, self.prefix)
        elif self.by_output:
            lines += self._pattern_of_lines(wrong)
        return lines

    def _pattern_of_lines(self, wrong):
        ratios = np.array([c / m if m else np.nan for c, m in map(self._pair, wrong)])
        if len(ratios) > 1 and np.ptp(ratios) <= 1e-2 * abs(ratios[0] - 1):
            return [f"pattern: a factor {_ratio(ratios[0])} throughout"]
        return []


def _ratio(ratio):
    """A ratio with as many digits as it takes to see that it is not 1."""
    return f"{ratio:.6g}" if abs(ratio - 1) > 1e-4 else f"1 {'+' if ratio >= 1 else '-'} {abs(ratio - 1):.2g}"
