"""Claims 1, 6, 7, 10 and 11: what loss curves show."""
from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from lintransformer.paper.claims.grid_search import search
from lintransformer.paper.claims.study import (DEFAULT, EVALUATIONS, README, Convention, Study, by_seed,
                                               loss_at, optimizer_name, runs_of, title)
from lintransformer.paper.claims.verdicts import Region, above, below, within
from lintransformer.paper.experiment_cells import (full_parametrization_cell, grid_cell, grid_seeds,
                                                   readme_cell, short_steps)
from lintransformer.paper.options import OPTIMIZERS
from lintransformer.paper.training_cells import training_cell

MUCH = 2.0  # "much", "significantly" and "noticeably" mean a factor of 2 (our choice)
DEPTHS = {"L2": 2, "L4": 4, "L6": 6, "L8": 8}


def gap(study: Study, setting: str, region: Region = above(1), evaluation=DEFAULT, make=training_cell,
        part=None):
    """SGDM's final loss over Adam's, paired by seed: both start alike and see the same prompts."""
    return by_seed(
        study, part or title(setting), "final loss of SGDM / final loss of Adam", region,
        study.options.seeds_of(setting), runs_of(study, (setting, "sgdm"), (setting, "adam"), make=make),
        lambda sgdm, adam: loss_at(sgdm, evaluation=evaluation) / loss_at(adam, evaluation=evaluation),
        untestable=study.too_short)


def adam_below_sgdm(study: Study) -> list[Convention]:
    """Claim 1."""
    settings = [name for name in ("S1", "S2", "S3") if study.has(name)]
    conventions = [
        Convention(str(evaluation), tuple(gap(study, name, evaluation=evaluation)
                                          for name in settings), primary=evaluation == DEFAULT)
        for evaluation in EVALUATIONS
    ]
    conventions.append(
        Convention(README, tuple(gap(study, name, make=readme_cell)
                                 for name in study.with_readme_rates(settings)), primary=True))
    conventions.append(
        Convention("each optimizer at the best rate of our grid, shorter runs",
                   tuple(_gap_at_best(study, name) for name in settings)))
    conventions.append(
        Convention("loss averaged (log) over the last tenth of the run",
                   tuple(_late_gap(study, name) for name in settings)))
    if "S1" in settings:
        conventions.append(Convention("full parametrisation (eq. 7), shorter runs", (_full_gap(study),)))
    return conventions


def _gap_at_best(study, setting):
    best = {optimizer: search(study, setting, optimizer) for optimizer in OPTIMIZERS}
    step = short_steps(study.options)

    def cells(seed):
        return [
            grid_cell(study.options, setting, name, found.best or found.rates[0], seed)
            for name, found in best.items()
        ]

    rates = ", ".join(f"{optimizer_name(name)} {found.best}" for name, found in best.items())
    return by_seed(study, title(setting),
                   f"loss of SGDM / loss of Adam after {step} iterations at rates {rates}", above(1),
                   grid_seeds(study.options, setting), cells,
                   lambda sgdm, adam: loss_at(sgdm, step) / loss_at(adam, step), untestable=study.too_short)


def _late_gap(study, setting):
    def measure(sgdm, adam):
        return _late(sgdm) / _late(adam)

    return by_seed(study,
                   title(setting), "SGDM / Adam: geometric mean of the last tenth of the recorded losses",
                   above(1), study.options.training_seeds, runs_of(
                       study, (setting, "sgdm"), (setting, "adam")), measure, untestable=study.too_short)


def _late(trace):
    if trace.status != "done":
        return math.nan
    losses = DEFAULT.losses(trace)
    return float(np.exp(np.mean(np.log(losses[-max(1, len(losses) // 10):]))))


def _full_gap(study):
    def cells(seed):
        return [full_parametrization_cell(study.options, name, seed) for name in OPTIMIZERS]

    return by_seed(study, title("S1"), "final loss of SGDM / final loss of Adam", above(1),
                   study.options.training_seeds, cells, lambda sgdm, adam: loss_at(sgdm) / loss_at(adam),
                   untestable=study.too_short)


def linear_faster_than_softmax(study: Study) -> list[Convention]:
    """Claim 6."""
    if not study.has("softmax") or not study.has("S1"):
        return []

    def reading(name, statistic, measure):
        return by_seed(study, optimizer_name(name), statistic, above(MUCH), study.options.training_seeds,
                       runs_of(study, ("softmax", name), ("S1", name)), measure, untestable=study.too_short)

    conventions = [
        Convention(
            str(evaluation),
            tuple(
                reading(
                    name, "final loss of softmax / final loss of linear attention", lambda softmax, linear:
                    loss_at(softmax, evaluation=evaluation) / loss_at(linear, evaluation=evaluation))
                for name in OPTIMIZERS), primary=evaluation == DEFAULT) for evaluation in EVALUATIONS
    ]
    conventions.append(
        Convention(
            "speed",
            tuple(
                reading(
                    name,
                    "iterations of softmax / iterations until linear attention is below its final loss",
                    _speed_ratio) for name in OPTIMIZERS)))
    conventions.append(
        Convention("softmax at the best rate of our grid, shorter runs",
                   tuple(_softmax_at_best(study, name) for name in OPTIMIZERS)))
    return conventions


def _speed_ratio(softmax, linear):
    reached = np.flatnonzero(DEFAULT.losses(linear) <= loss_at(softmax))
    return softmax["step"][-1] / max(linear["step"][reached[0]], linear["step"][1]) if len(
        reached) else math.nan


def _softmax_at_best(study, optimizer):
    found, step = search(study, "softmax", optimizer), short_steps(study.options)

    def cells(seed):
        return [
            grid_cell(study.options, "softmax", optimizer, found.best or found.rates[0], seed),
            training_cell(study.options, "S1", optimizer, seed)
        ]

    return by_seed(
        study, optimizer_name(optimizer),
        f"loss of softmax (rate {found.best}) / loss of linear (its own rate) after {step} iterations",
        above(MUCH), grid_seeds(study.options, "softmax"), cells,
        lambda softmax, linear: loss_at(softmax, step) / loss_at(linear, step), untestable=study.too_short)


def similar_variants(study: Study) -> list[Convention]:
    """Claim 7."""
    sameness, shapes = [], []
    if study.has("separate") and study.has("S1"):
        for name in OPTIMIZERS:
            both = runs_of(study, ("separate", name), ("S1", name))
            part, seeds = f"separate Q and K, {optimizer_name(name)}", study.options.training_seeds
            sameness.append(
                by_seed(study, part,
                        "factor between the losses with separate Q, K and with one Q, either way, geometric "
                        "mean over the run", below(MUCH), seeds, both, _mean_factor,
                        untestable=study.too_short))
            shapes.append(
                by_seed(study, part, "final loss with separate Q, K / final loss with one Q", within(MUCH),
                        seeds, both, lambda separate, one: loss_at(separate) / loss_at(one),
                        untestable=study.too_short))
    gaps = [
        gap(study, name, part=f"{title(name)}: Adam below SGDM") for name in ("separate", "L8d20n60")
        if study.has(name)
    ]
    return [
        Convention("curves within a factor of 2 on average, Adam ends below SGDM", (*sameness, *gaps), True),
        Convention("final losses within a factor of 2, Adam ends below SGDM", (*shapes, *gaps))
    ]


def _mean_factor(separate, one):
    if len(separate["step"]) != len(one["step"]):
        return math.nan
    return float(np.exp(np.mean(np.abs(np.log(DEFAULT.losses(separate)) - np.log(DEFAULT.losses(one))))))


def light_tails_converge_faster(study: Study) -> list[Convention]:
    """Claim 10."""
    if not study.has("spherical") or not study.has("heavy-tailed"):
        return []

    def relative(trace, evaluation):
        return loss_at(trace, evaluation=evaluation) / loss_at(trace, 0, evaluation)

    conventions = []
    for evaluation in EVALUATIONS:
        faster = [
            by_seed(study, f"{optimizer_name(name)} converges much faster",
                    "(final / initial loss) heavy-tailed / (final / initial loss) spherical", above(MUCH),
                    study.options.training_seeds, runs_of(study, ("heavy-tailed", name), ("spherical", name)),
                    lambda heavy, light: relative(heavy, evaluation) / relative(light, evaluation),
                    untestable=study.too_short) for name in OPTIMIZERS
        ]
        four = [(setting, name) for setting in ("spherical", "heavy-tailed") for name in OPTIMIZERS]
        advantage = by_seed(
            study, "Adam's advantage is not noticeably smaller",
            "final SGDM / Adam, spherical over heavy-tailed", above(1 / MUCH), study.options.training_seeds,
            runs_of(study, *four), lambda a, b, c, d:
            (loss_at(a, evaluation=evaluation) / loss_at(b, evaluation=evaluation) /
             (loss_at(c, evaluation=evaluation) / loss_at(d, evaluation=evaluation))),
            untestable=study.too_short)
        conventions.append(Convention(str(evaluation), (*faster, advantage), evaluation == DEFAULT))
    speed = tuple(
        by_seed(study, f"{optimizer_name(name)} converges much faster",
                "iterations until the loss is a tenth of what it was, heavy-tailed / spherical (at least)",
                above(MUCH), study.options.training_seeds,
                runs_of(study, ("heavy-tailed", name), ("spherical", name)), _times_longer,
                untestable=study.too_short) for name in OPTIMIZERS)
    return [*conventions, Convention("speed", speed)]


def _times_longer(heavy, light):
    """A lower bound where the heavy-tailed run never gets there; no number where the other does not."""
    first, second = (trace["step"][DEFAULT.losses(trace) <= loss_at(trace, 0) / 10] for trace in (heavy, light))
    return (first[0] if len(first) else heavy["step"][-1]) / second[0] if len(second) else math.nan


def gap_grows_with_depth(study: Study) -> list[Convention]:
    """Claim 11."""
    if not all(study.has(name) for name in DEPTHS):
        return []
    seeds, conventions = study.options.training_seeds, []
    for evaluation in EVALUATIONS:

        def reading(part, statistic, region, pairs, measure):
            return by_seed(
                study, part, statistic, region, seeds, runs_of(study, *pairs),
                lambda *traces: measure([loss_at(trace, evaluation=evaluation) for trace in traces]),
                untestable=study.too_short)

        both = [(setting, name) for setting in DEPTHS for name in OPTIMIZERS]
        gaps = reading("the gap grows", "factor a layer of final SGDM / Adam, fitted over L = 2, 4, 6, 8",
                       above(1), both, lambda losses: factor_a_layer(np.divide(losses[::2], losses[1::2])))
        falls = [
            reading(
                f"{optimizer_name(name)}'s loss falls", "factor a layer of the final loss, fitted likewise",
                below(1), [(setting, name) for setting in DEPTHS], factor_a_layer) for name in OPTIMIZERS
        ]
        ends = reading("the gap grows", "final SGDM / Adam at L = 8 over that at L = 2", above(1), both,
                       lambda losses: losses[-2] / losses[-1] / (losses[0] / losses[1]))
        conventions.append(Convention(str(evaluation), (gaps, *falls), evaluation == DEFAULT))
        if evaluation == DEFAULT:
            conventions.append(Convention("L = 8 against L = 2 only", (ends,)))
            conventions.append(Convention("each depth against the one before", tuple(
                reading(f"the gap grows from {title(shallow)} to {title(deep)}",
                        "final SGDM / Adam, over that of the shallower", above(1),
                        [(setting, name) for setting in (deep, shallow) for name in OPTIMIZERS],
                        lambda losses: losses[0] / losses[1] / (losses[2] / losses[3]))
                for shallow, deep in pairwise(DEPTHS))))
    return conventions


def factor_a_layer(values) -> float:
    """Return the factor a layer of values at L = 2, 4, 6, 8: exp of the least-squares slope of the logs."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values)
    return math.exp(np.polyfit(list(DEPTHS.values()), logs, 1)[0]) if np.isfinite(logs).all() else math.nan
