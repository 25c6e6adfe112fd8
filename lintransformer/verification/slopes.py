"""Derivatives of a tested function along lines, measured; and what a claimed derivative is worth beside them.

Conventions
-----------
m lines (a coordinate, or a direction (p,)), q outputs; arrays are (m, q). Two measurements: differences with their
error estimate, which hold for any function, and complex steps, which hold to rounding for analytic ones, and are
believed where differences do not contradict them. derivations/17-checks.md, Steps 4 and 5.
"""
from __future__ import annotations

import numpy as np

from lintransformer.checks import InputError
from lintransformer.verification.numerical import SMALLEST, Line, complex_derivative, noise_level, quiet
from lintransformer.verification.precision import PRECISIONS

# What is known of an entry. UNKNOWN: the measurement at this point is too rough to tell right from wrong.
AGREES, UNKNOWN, KINK, DIFFERS = range(4)
LIKELY, CERTAIN = 2.0, 20.0       # error estimates: within the one a difference may be rounding, beyond the other not
ORDINARY = 100.0                  # roundings of the largest entry that an ordinary sum may be off by
SCATTER, SAMPLES = 20.0, 6        # times the scatter of an entry over so many points: likewise
SHORTEST = 2.0**-60               # of the steps around 0, in units of theta's scales
SAME_VALUE, FINER = 1e-3, 2.0**-12 # float64 of float32 code: the same value to so much, its rounding so much finer
NEAR = 2.0**-10                   # how far apart they are, in units of theta's scales


class Slopes:
    """Measured derivatives at one point.

    Parameters
    ----------
    tested : `Tested`
    vector : theta (p,)
    lines : list of int (a coordinate) or array (p,) (a direction)
    complex_too, differences_too : bool, which measurements to make
    claims : dtype of the claimed derivatives, if it is less precise than what is measured

    Attributes
    ----------
    value (m, q), error (m, q), step (m, q) : by differences
    analytic (m, q) : by complex steps, or None; why_not says why
    kink (m, q) : bool, where the derivative does not exist within reach of any step that rounding allows
    """

    def __init__(self, tested, vector, lines, complex_too=True, differences_too=True, claims=None):
        self.here = True                                                     # False: a point that stands in for theta
        self.tested, self.vector, self.lines = tested, vector, lines
        self.scales = tested.point.scales(vector)
        self.at = tested(vector)
        self.precision = PRECISIONS[tested.dtype]
        self.claims = self.precision if claims is None else max(self.precision, PRECISIONS[claims], key=lambda p: p.eps)
        if self.at.dtype.kind == "c":
            raise InputError(f"{tested.what} must return real numbers for real theta")
        shape = len(lines), self.at.size
        self.value, self.error, self.step = np.zeros(shape), np.full(shape, np.inf), np.ones(shape)
        self.kink, self.analytic, self.why_not = np.zeros(shape, bool), None, "it is float32 code"
        if complex_too and tested.dtype == np.float64:
            self.analytic = self._complex_steps()
        self.found, self.untouched, self.reach = {}, np.zeros(shape, bool), np.ones(shape)
        if differences_too:
            # along coordinates steps are taken as they are rounded; along directions their rounding is noise
            self.noise = rounding_of(tested, vector, self.at, all(isinstance(line, int | np.integer) for line in lines))
            for row in range(len(lines)):
                self._keep(row, slice(None), self._line(row))
            self._contradict()

    def _keep(self, row, output, found):
        self.found[row] = found
        self.value[row, output], self.error[row, output] = found.value[output], found.error[output]
        self.step[row, output], self.untouched[row, output] = found.step[output], found.untouched[output]
        self.reach[row, output] = found.reach[output]

    def _complex_steps(self, vector=None, rows=None):
        vector, slopes = self.vector if vector is None else vector, []
        for row in range(len(self.lines)) if rows is None else rows:
            v, scale = self._direction(row)
            slope = complex_derivative(lambda t, v=v: self.tested(vector + t * v), scale)
            if isinstance(slope, str):
                self.why_not = slope
                return None
            slopes.append(slope)
        self.why_not = ""
        return np.array(slopes).reshape(-1, self.at.size)

    def _direction(self, row):
        """v (p,), and the step along it that moves theta by its own scale."""
        line = self.lines[row]
        if isinstance(line, np.ndarray):
            return line, 1 / np.max(np.abs(line) / self.scales)
        v = np.zeros_like(self.vector)
        v[line] = 1.0
        return v, self.scales[line]

    def _line(self, row, shift=1.0):
        """Differences along one line; `shift` moves the steps, for a second opinion."""
        v, scale = self._direction(row)
        size = scale if isinstance(self.lines[row], np.ndarray) else abs(self.vector[self.lines[row]])
        smallest = 8 * self.precision.eps * size or SHORTEST * scale

        def F(h):
            x = self.tested.point.rounded(self.vector + h * v)
            i = self.lines[row]
            return self.tested.near(x), h if isinstance(i, np.ndarray) else x[i] - self.vector[i]

        return Line(F, self.at, self.noise, shift * scale / 64, smallest, self.precision.resolution / LIKELY)

    def _contradict(self):
        """Find kinks, and give up complex steps that are not the derivatives which differences find."""
        if self.analytic is None:
            return
        apart = np.abs(self.analytic - self.value) > CERTAIN * self.error + self.precision.difference * abs(self.value)
        rough = (self.error > self.precision.resolution * np.abs(self.value)) & ~self.untouched & ~apart
        for row, output in np.argwhere(rough):                               # at a kink the complex step takes one side
            if self.found[row].kink(output):
                self.second_opinion(row, output)
        for row, output in np.argwhere(apart):
            if self.second_opinion(row, output) and self._certain(self.analytic[row, output], row, output):
                self.why_not = (f"its complex step {self.analytic[row, output]:.6g} is not its difference quotient "
                                f"{self.value[row, output]:.6g}: abs, norm, max, conj and np.var lose derivatives")
                self.analytic = None
                return

    def require_analytic(self):
        """For complex steps on request: `InputError` unless they are the derivatives along three random directions."""
        problem = self.why_not
        if not problem:
            rng, size = np.random.default_rng(0), self.vector.size
            lines = list(self.scales * rng.choice([-1.0, 1.0], (3, size)) * rng.uniform(0.5, 1, (3, size)))
            problem = Slopes(self.tested, self.vector, lines).why_not
        if problem:
            raise InputError(f"method 'complex' needs an analytic f, but {problem}; allowed: difference")

    def _certain(self, claimed, row, output, spread=0.0):
        """Whether a derivative is not the one that differences find, by far more than their error."""
        value, error = self.value[row, output], self.error[row, output]
        if self.untouched[row, output] and not self.here:
            return False
        if self.found[row].stands(output):
            # f may be too coarse to show more (logits that cancel, say); how coarse, its least change tells
            quantum = min((found.quantum[output] for found in [self.found[row], *self.found.values()]
                           if np.isfinite(found.quantum[output])), default=0.0)
            error = max(error, quantum / self.step[row, output])
        return abs(claimed - value) > spread + CERTAIN * error + self.claims.difference * abs(value)

    def second_opinion(self, row, output):
        """Differences with other, and with the shortest steps; False if they see nothing but a kink."""
        if not self.found[row].refined:
            self.found[row] = self._line(row, 0.61).refine()
        found = self.found[row]
        if found.kink(output) and not (found.inside_kink(output) and found.resolved[output]):
            self.kink[row, output] = True
            return False
        self._keep(row, output, found)
        return True

    def judge(self, claim, tolerance=None):
        """Compare with claimed derivatives.

        Parameters
        ----------
        claim : callable theta (p,) -> (m, q), or that array
        tolerance : relative error of an entry that counts as right, or None for the precision's own

        Returns
        -------
        status (m, q), claimed (m, q), measured (m, q)
        """
        claimed = claim(self.vector) if callable(claim) else claim
        measured = self.value if self.analytic is None else self.analytic
        relative = tolerance or (self.claims.difference if self.analytic is None else self.claims.complex_step)
        rough = max(self.claims.resolution, tolerance or 0.0)
        status = np.where(self._agree(claimed, measured, relative, rough), AGREES, UNKNOWN)
        status[(status == AGREES) & self.kink] = KINK                        # right on one side, as the complex step is
        rows, outputs = np.nonzero((status == UNKNOWN) & np.isfinite(claimed))
        scatter = self._scatter(claim, rows) if len(rows) else None
        ordinary = self._ordinary(measured) if len(rows) else None
        for row, output in zip(rows, outputs):
            spread = max(SCATTER * scatter[row][output], ordinary[row, output])
            status[row, output] = self._closer(claimed, measured, row, output, spread, relative, rough)
        status[~np.isfinite(claimed)] = DIFFERS
        return status, claimed, self.value if self.analytic is None else self.analytic

    def _ordinary(self, measured):
        """The rounding of an ordinary sum (m, q), whatever the scatter says: of the largest entry of its array."""
        largest, lines = np.zeros(measured.shape), self.lines
        for block in self.tested.point.blocks.values():
            if isinstance(lines[0], np.ndarray):
                largest[:, block] = np.max(np.abs(measured[:, block]), axis=1, keepdims=True, initial=0)
            else:
                rows = [row for row, i in enumerate(lines) if block.start <= i < block.stop]
                largest[rows] = np.max(np.abs(measured[rows]), initial=0)
        return ORDINARY * self.claims.eps * np.nan_to_num(largest)

    def _agree(self, claimed, measured, relative, rough):
        apart = np.abs(claimed - measured)
        if self.analytic is not None:
            # elsewhere than at theta two zeros say nothing, nor do numbers that have lost their digits
            return (apart <= relative * np.abs(measured)) & (self.here | (np.abs(measured) > SMALLEST))
        size = np.fmax(np.abs(claimed), np.abs(measured))
        close = (apart <= LIKELY * self.error + relative * np.abs(measured)) & (LIKELY * self.error <= rough * size)
        return close | self.untouched & (claimed == 0) & self.here

    def _closer(self, claimed, measured, row, output, spread, relative, rough):
        """The status of an entry that does not simply agree: rounding, a kink, or a mistake."""
        c, m, at = claimed[row, output], measured[row, output], (slice(row, row + 1), slice(output, output + 1))
        if self.analytic is not None:
            if abs(c - m) <= spread:
                return AGREES if spread <= rough * abs(m) and (self.here or abs(m) > SMALLEST) else UNKNOWN
            if not self.found:                                               # complex steps only: they decide
                return DIFFERS
        suspect = self._certain(c, row, output, spread)
        if suspect or self.found[row].kink(output):
            if not self.second_opinion(row, output):
                return KINK
        if suspect and self._certain(c, row, output, spread):
            return DIFFERS
        return AGREES if self.analytic is None and self._agree(claimed, self.value, relative, rough)[at] else UNKNOWN

    def _nearness(self):
        """How far apart points may be that count as one (p,): far below theta's scales, and f's own."""
        shares = [(row, found.reach.min() / self._direction(row)[1]) for row, found in self.found.items()]
        smallest = min((share for _, share in shares), default=1.0)
        length = NEAR * self.scales * min(1.0, 4 * smallest)
        for row, share in shares:
            if not isinstance(self.lines[row], np.ndarray):
                length[self.lines[row]] = NEAR * self.scales[self.lines[row]] * min(1.0, 4 * share)
        return np.maximum(length, 8 * self.precision.eps * np.abs(self.vector))

    def _scatter(self, claim, rows):
        """How much rounding there is in what is compared: {row: (q,)}, the standard deviation, over points a little
        apart, of claimed minus analytic derivatives, or, where there are none, of claimed ones a rounding apart.

        A rounding error has another value at each point; a mistake follows the derivative, which hardly changes.
        """
        rng, rows = np.random.default_rng(1), np.unique(rows)
        follows = self.analytic is not None and callable(claim)
        length = self._nearness() if follows else self.claims.eps * 2 * np.abs(self.vector)
        found = []
        for _ in range(SAMPLES):
            x = self.tested.point.rounded(self.vector + length * rng.uniform(-1, 1, self.vector.size))
            claims = quiet(claim, x) if callable(claim) else claim
            step = 0.0 if self.analytic is None else quiet(self._complex_steps, x, rows)
            found.append(np.full((len(rows), self.at.size), np.nan) if np.ndim(claims) == 0 or np.ndim(step) == 1
                         or step is None else claims[rows] - step)
        with np.errstate(invalid="ignore"):
            spread = np.std(found, axis=0)
        return dict(zip(rows, np.where(np.isfinite(spread), spread, np.inf)))


def rounding_of(tested, vector, at, exact_steps=True):
    """The standard deviation (q,) of the errors of a tested function around a point where it is `at`; with those that
    come from rounding theta, unless `exact_steps`.
    """
    precision, scales = PRECISIONS[tested.dtype], tested.point.scales(vector)
    level, rng = np.abs(at) * precision.eps / 4, np.random.default_rng(0)
    for _ in range(2):
        w = (vector if vector.any() else scales) * rng.uniform(0.5, 1, scales.size)

        def at_point(k, spacing, w=w):
            step = tested.point.rounded(vector + spacing * w) - vector if exact_steps else spacing * w
            return tested.near(tested.point.rounded(vector + k * step))

        level = noise_level(at_point, level, precision.spacings)
    return level


def in_float64(tested, vector, at):
    """(the same function in float64, its rounding in float32) for float32 code that computes in the type that it is
    given, (None, 0.0) for other code: its rounding falls as that of float64 does, and its value stays.
    """
    if tested.point.dtype != np.float32:
        return None, 0.0
    wide, rounding = tested.wider(), rounding_of(tested, vector, at)[0]
    value = wide.near(vector)
    if not np.isfinite(value).all() or wide.dtype != np.float64:
        return None, 0.0
    apart = abs(value[0] - at[0])
    same = apart <= max(SAME_VALUE * abs(at[0]), rounding / SAME_VALUE)
    finer = rounding_of(wide, vector, value)[0] <= FINER * rounding
    return (wide, max(rounding, apart)) if same and finer else (None, 0.0)
