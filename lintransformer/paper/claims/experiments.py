"""Claims 15 to 18: the Gamma law, sparsity of scores, softmax heads, full-batch training."""
from __future__ import annotations

import numpy as np

from lintransformer.distributions import PromptDistribution
from lintransformer.paper.claims.losses import MUCH
from lintransformer.paper.claims.study import (DEFAULT, Convention, Evaluation, Study, by_seed, loss_at,
                                               runs_of, title)
from lintransformer.paper.claims.verdicts import Reading, above, below, within
from lintransformer.paper.experiment_cells import (effort, full_batch_cell, heads_cell, short_steps,
                                                   softmax_seeds, sparsity_cell)
from lintransformer.random import stream

GAMMA, CHI_SQUARE = (0.1, 10.0), (2.5, 2.0)  # (k, theta) of Section 4.1; of ||x||^2 for x ~ N(0, I_5)
SAMPLE = (1000, 99)  # prompts and context tokens drawn a seed to check what our sampler draws


def gamma_law(study: Study) -> list[Convention]:
    """Claim 15: by the formulas, and by what our sampler draws; derivations/02-task.md."""
    first = Reading("k = 2.5, theta = 2 is N(0, I_5)", "largest difference between the laws of ||x||^2",
                    {"exact": _law_difference()}, below(1e-12), ratio=False, exact=True)
    (k, theta), (k0, theta0) = GAMMA, CHI_SQUARE
    part = "k = 0.1, theta = 10 keeps "
    kept = Reading(f"{part}Var ||x||^2", "Var ||x||^2 = k theta^2, over that of N(0, I_5)",
                   {"exact": k * theta**2 / (k0 * theta0**2)}, within(1.01), exact=True)
    lost = Reading(f"{part}Cov x",
                   "variance of a covariate, E ||x||^2 / d = k theta / d, over that of N(0, I_5)",
                   {"exact": k * theta / (k0 * theta0)}, within(1.01), exact=True)
    seeds = study.options.training_seeds
    drawn = {seed: _drawn_moments(seed) for seed in seeds}
    sampled = [
        Reading(f"{part}the {name}", f"{name}, heavy-tailed over Gaussian, drawn by our sampler",
                {seed: float(drawn[seed][index])
                 for seed in seeds}, within(1.1))
        for index, name in enumerate(("mean of ||x||^2", "variance of ||x||^2"))
    ]
    return [
        Convention("variance of the squared length ||x||^2", (first, kept), True),
        Convention("variance of the covariates themselves", (first, lost), True),
        Convention("variance of ||x||^2, sampled", (sampled[1],)),
        Convention("variance of the covariates, sampled", (sampled[0],))
    ]


def _law_difference():
    from scipy import stats
    grid = np.linspace(0, 40, 2001)
    return float(
        np.max(np.abs(stats.gamma.cdf(grid, CHI_SQUARE[0], scale=CHI_SQUARE[1]) - stats.chi2.cdf(grid, 5))))


def _drawn_moments(seed):
    """Mean and variance of ||x||^2, heavy-tailed over Gaussian, of 100,000 covariates each."""
    prompts, tokens = SAMPLE
    moments = []
    for covariates in ("gamma", "gaussian"):
        distribution = PromptDistribution(5, tokens, covariates, gamma_shape=GAMMA[0], gamma_scale=GAMMA[1])
        square = (distribution.draw(stream(seed, "probe"), prompts).Z[:, :5]**2).sum(axis=1)
        moments.append((square.mean(), square.var()))
    return np.divide(*moments)


MEASURES = {
    "Hoyer's measure": ("hoyer", above(0)), "share of keys that carry the scores": ("participation", below(0))
}
SCOPES = {"as the query sees them": 0, "all columns": 1}


def sparser_scores(study: Study) -> list[Convention]:
    """Claim 16."""
    attentions = {"linear": "S1", "softmax": "softmax"}
    attentions = {name: setting for name, setting in attentions.items() if study.has(setting)}

    def readings(array, region, measure, statistic):
        return tuple(
            by_seed(
                study, f"{name} attention", statistic, region,
                softmax_seeds(study.options) if name == "softmax" else study.options.training_seeds,
                lambda seed: [
                    sparsity_cell(study.options, setting, covariates, "adam", seed)
                    for covariates in ("orthogonal", "gaussian")
                ], lambda orthogonal, gaussian: measure(orthogonal[array]) - measure(gaussian[array]),
                ratio=False, untestable=study.too_short) for name, setting in attentions.items())

    conventions, words = [], "orthogonal minus Gaussian covariates, mean over layers"
    for measure, (array, region) in MEASURES.items():
        for where, scope in SCOPES.items():
            conventions.append(
                Convention(
                    f"{measure}, scores {where}",
                    readings(array, region, lambda a: a[1, :, scope].mean(), f"{measure}, trained, {words}"),
                    primary=(array, scope) == ("hoyer", 0)))
    conventions.append(
        Convention(
            "what training adds: change of Hoyer's measure since initialisation",
            readings("hoyer", above(0), lambda a: (a[1] - a[0])[:, 0].mean(),
                     f"Hoyer's measure, gain, {words}")))
    return conventions


# name -> (model of the two heads, model of the one linear head): S1's data
HEADS = {
    "full parametrisation (eq. 7), L = 3": {"parametrization": "full"},
    "block parametrisation, L = 3": {"parametrization": "block"},
    "full parametrisation (eq. 7), L = 1": {"parametrization": "full", "layers": 1}
}


def two_softmax_heads(study: Study) -> list[Convention]:
    """Claim 17: with P free (full), two heads can subtract; in block parametrisation they add."""
    if not study.has("S1"):
        return []
    conventions = []
    for name, model in HEADS.items():
        linear = {**model, "attention": "linear", "heads": 1}

        def reading(heads, region, part):
            softmax = {**model, "attention": "softmax", "heads": heads}
            return by_seed(
                study, part, f"loss of {heads} softmax head(s) / loss of one linear head after "
                f"{short_steps(study.options)} iterations, batches of {effort(study.options).heads_batch}",
                region, softmax_seeds(study.options), lambda seed:
                [heads_cell(study.options, softmax, seed),
                 heads_cell(study.options, linear, seed)], lambda many, one: loss_at(many) / loss_at(one),
                untestable=too_short_for_heads(study))

        two = reading(2, below(MUCH), "two softmax heads come within a factor of 2")
        one = reading(1, above(MUCH), "one softmax head does not")
        conventions.append(Convention(name, (two, one), primary=name == next(iter(HEADS))))
    return conventions


def too_short_for_heads(study: Study) -> str | None:
    """Why the comparison of heads cannot be judged, or None: it is a fifth as long as other runs."""
    if study.too_short:
        return study.too_short
    return None if short_steps(study.options) >= 1000 else (
        f"{short_steps(study.options)} iterations are too few to compare heads (fewer than 1000)")


def gap_without_noise(study: Study) -> list[Convention]:
    """Claim 18."""
    settings = [name for name in ("S1", "S2", "S3") if study.has(name)]

    def convention(name, statistic, make, evaluation, primary=False):
        return Convention(
            name,
            tuple(
                by_seed(
                    study, title(setting), f"final loss of SGDM / Adam {statistic}", above(1), study.options.
                    training_seeds, runs_of(study, (setting, "sgdm"), (
                        setting, "adam"), make=make), lambda sgdm, adam: loss_at(sgdm, evaluation=evaluation)
                    / loss_at(adam, evaluation=evaluation), untestable=study.too_short)
                for setting in settings), primary)

    return [
        convention("full batch, on the sample trained on", "on the sample", full_batch_cell, DEFAULT, True),
        convention("full batch, median over the sample", "on the sample (median over prompts)",
                   full_batch_cell, Evaluation(0, "median")),
        convention("full batch, on fresh prompts", "on the fixed batch (seed 99)", full_batch_cell,
                   Evaluation(1))
    ]
