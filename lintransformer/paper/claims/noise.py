"""Claims 2, 8, 12 and 14: gradient noise at initialisation, and all of it again for the nonlinear task."""
from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from lintransformer.diagnostics.noise import STATISTICS, gaussian_norms, noise_statistics
from lintransformer.paper.claims import landscape
from lintransformer.paper.claims.losses import gap
from lintransformer.paper.claims.study import (DEFAULT, Convention, Evaluation, Study, by_seed, title)
from lintransformer.paper.claims.verdicts import above
from lintransformer.paper.diagnostic_cells import noise_cell, noise_seeds

TAILS = {"upper_tail": "99 % quantile", "far_upper_tail": "99.9 % quantile"}
TESTABLE_DRAWS = 1000
GAUSSIAN_DRAWS = 100_000


def tail_words(tail: str) -> str:
    """Return what a quantile ratio measures."""
    return f"distance of the {TAILS[tail]} from the median over that of the 75 %, in a Gaussian's units"


def too_few(study: Study, cells) -> str | None:
    """Why these cells of the preset cannot judge gradient noise, or None."""
    preset, draws = study.options.numbers, min(cell.config["draws"] for cell in cells)
    if draws < TESTABLE_DRAWS:
        return f"{draws} draws are too few to judge tails (fewer than {TESTABLE_DRAWS})"
    return preset.batch_size and f"batches of {preset.batch_size} prompts are not the paper's"


def noise_reading(study, part, statistic, settings, measure, region, is_ratio=True):
    """A reading with one value an initialisation; ``measure(*noise traces)``, one for each setting."""
    seeds = noise_seeds(study.options, settings[0])

    def cells(seed):
        return [noise_cell(study.options, name, seed) for name in settings]

    return by_seed(study, part, statistic, region, seeds, cells, measure, ratio=is_ratio,
                   untestable=too_few(study, cells(seeds[0])))


def heavier_than_gaussian(study: Study) -> list[Convention]:
    """Claim 2: against the fitted Gaussian (the paper's Q-Q plots), and against norms of Gaussian errors."""
    settings = [name for name in ("S1", "S2", "S3") if study.has(name)]

    def convention(name, statistic, measure, region, is_ratio=True, primary=False):
        return Convention(
            name,
            tuple(
                noise_reading(study, title(setting), statistic, [setting], measure, region, is_ratio)
                for setting in settings), primary)

    conventions = []
    for tail in TAILS:
        primary = tail == "upper_tail"                # both: norms of Gaussian errors pass the first, too
        conventions.append(
            convention(f"against the fitted Gaussian, {TAILS[tail]}", tail_words(tail),
                       lambda noise: STATISTICS[tail](noise["norms"]), above(1), primary=primary))
        conventions.append(
            convention(f"against norms of Gaussian errors of equal covariance, {TAILS[tail]}",
                       f"{tail_words(tail)}: noise / Gaussian",
                       lambda noise: STATISTICS[tail](noise["norms"]) / of_gaussian_errors(noise, tail),
                       above(1), primary=primary))
    kurtosis = STATISTICS["excess_kurtosis"]
    conventions.append(
        convention("against the fitted Gaussian, excess kurtosis", "excess kurtosis of the error norms",
                   lambda noise: kurtosis(noise["norms"]), above(0), is_ratio=False))
    conventions.append(
        convention("against norms of Gaussian errors, excess kurtosis",
                   "excess kurtosis, noise minus Gaussian",
                   lambda noise: kurtosis(noise["norms"]) - of_gaussian_errors(noise, "excess_kurtosis"),
                   above(0), is_ratio=False))
    return conventions


def of_gaussian_errors(noise, statistic: str) -> float:
    """Return a statistic of the norms of Gaussian errors with the covariance of the measured ones."""
    return _gaussian_statistics(tuple(noise["spectrum"]))[statistic]


@lru_cache(maxsize=32)
def _gaussian_statistics(spectrum):
    """Of so many draws that their own error, the same in every initialisation, is below 1 %."""
    norms = gaussian_norms(np.array(spectrum), GAUSSIAN_DRAWS)
    return {name: float(statistic(norms)) for name, statistic in STATISTICS.items()}


def _compare(study, comparisons):
    """Conventions for the claim that noise has heavier tails in one setting than in another.

    ``comparisons`` : list of (part, heavier setting, lighter setting), all of which must be so.
    """
    def convention(name, statistic, value, is_ratio, primary=False):
        def measure(heavier, lighter):
            values = value(heavier["norms"]), value(lighter["norms"])
            if is_ratio:
                return values[0] / values[1] if min(values) > 0 else np.nan
            return values[0] - values[1]

        return Convention(name, tuple(
            noise_reading(study, part, statistic, settings, measure, above(1 if is_ratio else 0), is_ratio)
            for part, *settings in comparisons), primary)

    conventions = [
        convention(TAILS[tail], f"{tail_words(tail)}: ratio", STATISTICS[tail], True, tail == "upper_tail")
        for tail in TAILS
    ]
    return [
        *conventions, *(convention(words, f"difference of the {words}", STATISTICS[name], False)
                        for name, words in (("excess_kurtosis", "excess kurtosis"), ("skewness", "skewness")))
    ]


def heavier_covariates_heavier_noise(study: Study) -> list[Convention]:
    """Claim 8."""
    if not (study.has("heavy-tailed") and study.has("spherical")):
        return []
    return _compare(study, [("heavy-tailed against spherical", "heavy-tailed", "spherical")])


def deeper_heavier_noise(study: Study) -> list[Convention]:
    """Claim 12."""
    if not all(study.has(name) for name in ("L2", "L4", "L6", "L8")):
        return []
    return _compare(study, [(f"{title(deep)} against {title(shallow)}", deep, shallow)
                            for deep in ("L6", "L8") for shallow in ("L2", "L4")])


def nonlinear_alike(study: Study) -> list[Convention]:
    """Claim 14: Adam below SGDM, heavy tails, better conditioned, smoother; as in claims 1 to 4."""
    if not study.has("nonlinear"):
        return []

    def readings(evaluation=DEFAULT, meaning="diagonal", tail="upper_tail", difference=False):
        seeds = study.options.seeds_of("nonlinear")
        conditions = [
            by_seed(study, f"conditioning, iteration {step}", f"R of SGDM / R of Adam, {meaning}", above(1),
                    seeds, landscape.curvature_cells(study, "nonlinear"),
                    lambda *two: landscape.ratio(two, meaning, step), untestable=study.too_short)
            for step in landscape.ITERATIONS
        ]
        how = "minus" if difference else "/"
        compare = landscape.minus_medians if difference else landscape.of_medians
        smooth = by_seed(study, "smoothness", f"median over steps, SGDM {how} Adam",
                         above(0 if difference else 1), seeds, landscape.smoothness_cells(study, "nonlinear"),
                         lambda a, b: compare(a["smoothness"], b["smoothness"]), ratio=not difference,
                         untestable=study.too_short)
        return (gap(study, "nonlinear", evaluation=evaluation,
                    part="loss"), _one_noise(study, "nonlinear", tail), *conditions, smooth)

    return [
        Convention("as in the figures", readings(), True),
        Convention("loss: median over prompts", readings(Evaluation(0, "median"))),
        Convention("noise: 99.9 % quantile", readings(tail="far_upper_tail")),
        Convention("R: lambda_max / lambda_median", readings(meaning="eigenvalues")),
        Convention("smoothness: difference of the medians", readings(difference=True))
    ]


def _one_noise(study, setting, tail):
    """The tail of a setting; if noise is drawn at one initialisation only, bootstrapped over the draws."""
    seeds = noise_seeds(study.options, setting)
    found = noise_reading(study, "noise at initialisation", tail_words(tail), [setting],
                          lambda noise: STATISTICS[tail](noise["norms"]), above(1))
    trace = study.trace(noise_cell(study.options, setting, seeds[0]))
    if len(seeds) > 1 or not trace:
        return found
    return replace(found, bounds=noise_statistics(trace["norms"])[tail][1:],
                   statistic=f"{found.statistic}; one initialisation, bootstrap interval over its draws")
