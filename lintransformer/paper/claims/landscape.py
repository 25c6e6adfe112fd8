"""Claims 3, 4, 5, 9, 13 and 19: Hessians along the path, and curvature along the steps."""
from __future__ import annotations

import math
from functools import reduce

import numpy as np

from lintransformer.checks import InputError
from lintransformer.diagnostics.conditioning import MEANINGS, robust_condition_number
from lintransformer.diagnostics.smoothness import fit_smoothness
from lintransformer.paper.claims.study import README, Convention, Study, by_seed, optimizer_name, title
from lintransformer.paper.claims.verdicts import above, below
from lintransformer.paper.diagnostic_cells import curvature_cell, smoothness_cell
from lintransformer.paper.experiment_cells import full_parametrization_cell, readme_cell, unclipped_cell
from lintransformer.paper.options import OPTIMIZERS
from lintransformer.paper.training_cells import training_cell

ITERATIONS = (750, 1250)
# Fig. 4 right: mean (standard deviation) over 6 seeds of R_SGD / R_Adam.
PRINTED = {("S1", 750): "1.76 (0.40)", ("S1", 1250): "1.58 (0.41)", ("S2", 750): "3.14 (0.97)",
           ("S2", 1250): "5.98 (2.86)", ("S3", 750): "9.57 (13.3)", ("S3", 1250): "6.53 (3.55)"}
THREE = ("S1", "S2", "S3")
DEFAULT_MEANING = "diagonal"  # max / median of |diag H| over all parameters: authors' code


def condition_number(curvature, meaning: str, steps) -> float:
    """Return the geometric mean of a trace's robust condition numbers at these iterations."""
    chosen = np.isin(curvature["step"], steps)
    if chosen.sum() < len(steps):
        return math.nan
    numbers = robust_condition_number(curvature["diagonal"][chosen], curvature["eigenvalues"][chosen],
                                      curvature["reaches"], meaning)
    usable = numbers.size and np.isfinite(numbers).all() and (numbers > 0).all()
    return float(np.exp(np.mean(np.log(numbers)))) if usable else math.nan


def curvature_cells(study: Study, *settings, make=training_cell):
    """Return ``cells(seed)``: the curvature along SGDM's and Adam's path in each setting."""
    return lambda seed: [
        curvature_cell(make(study.options, setting, name, seed)) for setting in settings
        for name in OPTIMIZERS
    ]


def ratio(curvatures, meaning: str, step: int | None = None, steps=None) -> float:
    """Return R_SGD / R_Adam of (SGDM's, Adam's) curvature: at an iteration, or the geometric mean over
    ``steps`` (all that both have after the start if None)."""
    steps = [step] if step is not None else common_steps(curvatures) if steps is None else steps
    sgdm, adam = (condition_number(curvature, meaning, steps) for curvature in curvatures)
    return sgdm / adam


def common_steps(curvatures) -> np.ndarray:
    """Return the iterations after the start at which all have a Hessian: deep models have fewer."""
    return reduce(np.intersect1d, [curvature["step"][curvature["step"] > 0] for curvature in curvatures])


def adam_better_conditioned(study: Study) -> list[Convention]:
    """Claim 3."""
    settings = [name for name in THREE if study.has(name)]

    def readings(settings, meaning, steps, make=training_cell):
        return tuple(
            by_seed(study, f"{title(name)}, " +
                    (f"iteration {step}" if step else "along the path"), f"R of SGDM / R of Adam, {meaning}",
                    above(1), study.options.training_seeds, curvature_cells(study, name, make=make),
                    lambda *two: ratio(two, meaning, step), untestable=study.too_short,
                    paper=PRINTED.get((name, step)) if (meaning, make) in PRINTED_FOR else None)
            for name in settings for step in steps)

    conventions = [
        Convention(f"R: {meaning}", readings(settings, meaning, ITERATIONS), meaning == DEFAULT_MEANING)
        for meaning in MEANINGS
    ]
    conventions.append(
        Convention(f"R: {DEFAULT_MEANING}, geometric mean along the path",
                   readings(settings, DEFAULT_MEANING, [None])))
    conventions.append(
        Convention(
            f"R: {DEFAULT_MEANING}, {README}",
            readings(study.with_readme_rates(settings), DEFAULT_MEANING, ITERATIONS, readme_cell), True))
    if "S1" in settings:
        conventions += [
            Convention(f"R: {meaning}, full parametrisation (eq. 7)",
                       readings(["S1"], meaning, ITERATIONS, full_cell))
            for meaning in (DEFAULT_MEANING, "eigenvalues")
        ]
    return conventions


def full_cell(options, setting, optimizer, seed):
    """Return S1's full parametrisation, called as `training_cell` is."""
    return full_parametrization_cell(options, optimizer, seed)


PRINTED_FOR = ((DEFAULT_MEANING, training_cell), (DEFAULT_MEANING, readme_cell))


# How a path's smoothness (T,) becomes one number a run.
def median(smoothness) -> float:
    """The median over steps of the directional smoothness."""
    return _over_steps(np.nanmedian, smoothness)


def mean(smoothness) -> float:
    """The mean over steps."""
    return _over_steps(np.nanmean, smoothness)


def _over_steps(statistic, smoothness):
    return float(statistic(smoothness)) if np.isfinite(smoothness).any() else math.nan


def of_medians(first, second) -> float:
    """The ratio of the medians; NaN unless both are positive: curvature may be negative."""
    first, second = median(first), median(second)
    return first / second if first > 0 and second > 0 else math.nan


def minus_medians(first, second) -> float:
    """The difference of the medians, which negative curvature does not spoil."""
    return median(first) - median(second)


def common(first, second):
    """The steps that both paths made: one may have diverged."""
    steps = min(len(first), len(second))
    return first[:steps], second[:steps]


def smoothness_cells(study: Study, setting: str, make=training_cell):
    """Return ``cells(seed)``: the directional smoothness along SGDM's and Adam's first steps."""
    return lambda seed: [smoothness_cell(make(study.options, setting, name, seed)) for name in OPTIMIZERS]


def adam_smoother(study: Study) -> list[Convention]:
    """Claim 4."""
    settings = [name for name in THREE if study.has(name)]

    def convention(name, statistic, measure, region=above(1), settings=settings, make=training_cell,
                   primary=False, is_ratio=True):
        return Convention(
            name,
            tuple(
                by_seed(study, title(setting), statistic, region, study.options.training_seeds,
                        smoothness_cells(study, setting, make),
                        lambda sgdm, adam: measure(sgdm["smoothness"], adam["smoothness"]), ratio=is_ratio,
                        untestable=study.too_short) for setting in settings), primary)

    words = "median over steps of directional smoothness, SGDM / Adam"
    conventions = [
        convention("median over steps", words, of_medians, primary=True),
        convention("difference of the medians", "median over steps, SGDM minus Adam",
                   minus_medians, above(0), is_ratio=False),
        convention("mean over steps", "mean over steps, SGDM minus Adam", lambda a, b: mean(a) - mean(b),
                   above(0), is_ratio=False),
        convention("step by step", "share of the steps at which SGDM's is larger", _share_larger, above(0.5),
                   is_ratio=False),
        convention(README, words, of_medians, settings=study.with_readme_rates(settings), make=readme_cell,
                   primary=True)
    ]
    if "S1" in settings:
        conventions.append(
            convention("full parametrisation (eq. 7), fewer steps", words, of_medians, settings=["S1"],
                       make=full_cell))
    return conventions


def _share_larger(sgdm, adam):
    sgdm, adam = common(sgdm, adam)
    both = np.isfinite(sgdm) & np.isfinite(adam)
    return float(np.mean(sgdm[both] > adam[both])) if both.any() else math.nan


def smoothness_grows_with_gradient(study: Study) -> list[Convention]:
    """Claim 5."""
    settings = [name for name in THREE if study.has(name)]

    def convention(name, statistic, number, optimizer="adam", primary=False):
        def measure(path):
            try:
                return getattr(fit_smoothness(path["gradient_norm"], path["smoothness"]), number)
            except InputError:  # a run of no or equal steps
                return math.nan

        return Convention(
            name,
            tuple(
                by_seed(
                    study, title(setting), statistic, above(0), study.options.training_seeds,
                    lambda seed: [smoothness_cell(training_cell(study.options, setting, optimizer, seed))],
                    measure, ratio=False, correlation=number == "rank_correlation",
                    untestable=study.too_short) for setting in settings), primary)

    rank = "Spearman's rank correlation of smoothness and gradient norm along the path"
    return [
        convention("rank correlation, Adam", rank, "rank_correlation", primary=True),
        convention("slope of the logarithms, positive smoothness only, Adam", "slope of log on log",
                   "log_slope"),
        convention("L1 of the fit smoothness = L0 + L1 ||grad f||, Adam", "L1 by least squares", "L1"),
        convention("rank correlation, SGDM", rank, "rank_correlation", "sgdm")
    ]


def _gap_larger(study, part, heavier, lighter, meaning, step):
    """(R_SGD / R_Adam) in one setting over that in another."""
    def measure(*four):
        steps = common_steps(four)
        return ratio(four[:2], meaning, step, steps) / ratio(four[2:], meaning, step, steps)

    return by_seed(study, part, f"(R of SGDM / R of Adam), {title(heavier)}, over that of {title(lighter)}",
                   above(1), study.options.training_seeds, curvature_cells(study, heavier, lighter), measure,
                   untestable=study.too_short)


def _gap_conventions(study, comparisons):
    """Conventions for claims that one setting's condition-number gap is larger than another's."""
    def convention(name, meaning, step, primary=False):
        return Convention(name,
                          tuple(_gap_larger(study, *comparison, meaning, step) for comparison in comparisons),
                          primary)

    along = [
        convention(f"R: {meaning}, geometric mean along the path", meaning, None, meaning == DEFAULT_MEANING)
        for meaning in MEANINGS
    ]
    return along + [
        convention(f"R: {DEFAULT_MEANING}, iteration {step}", DEFAULT_MEANING, step) for step in ITERATIONS
    ]


def heavier_tails_larger_gap(study: Study) -> list[Convention]:
    """Claim 9."""
    if not (study.has("heavy-tailed") and study.has("spherical")):
        return []
    return _gap_conventions(study, [("heavy-tailed against spherical", "heavy-tailed", "spherical")])


def deeper_larger_gap(study: Study) -> list[Convention]:
    """Claim 13."""
    if not study.has("L2"):
        return []
    return _gap_conventions(study, [(f"{title(name)} against L = 2", name, "L2")
                                    for name in ("L4", "L6", "L8") if study.has(name)])


def clipping_smooths(study: Study) -> list[Convention]:
    """Claim 19."""
    def convention(name, statistic, measure, region, is_ratio=True, primary=False, partial=False):
        return Convention(
            name,
            tuple(
                by_seed(
                    study, f"{title(setting)}, {optimizer_name(optimizer)}", statistic, region,
                    study.options.training_seeds, lambda seed: [
                        smoothness_cell(make(study.options, setting, optimizer, seed))
                        for make in (training_cell, unclipped_cell)
                    ], lambda clipped, free: measure(clipped["smoothness"], free["smoothness"]),
                    partial=partial, ratio=is_ratio, untestable=study.too_short)
                for setting in THREE if study.has(setting) for optimizer in OPTIMIZERS), primary)

    return [
        convention("median over steps", "median directional smoothness, clipped / not clipped",
                   of_medians, below(1), primary=True),
        convention("median over the steps that both made, also where training without clipping diverged",
                   "median directional smoothness, clipped / not clipped",
                   lambda *paths: of_medians(*common(*paths)), below(1), partial=True),
        convention("mean over steps", "mean directional smoothness, clipped minus not clipped",
                   lambda clipped, free: mean(clipped) - mean(free), below(0), is_ratio=False)
    ]
