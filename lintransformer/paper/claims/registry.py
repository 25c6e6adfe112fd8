"""The claims of the paper, and the ledger: each with its verdict, under every convention it may hang on."""
from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from lintransformer.checks import check_choice
from lintransformer.paper.cells import Cell, Trace, in_order
from lintransformer.paper.claims import experiments, landscape, losses, noise
from lintransformer.paper.claims.study import Study, once
from lintransformer.paper.claims.verdicts import (AGREES, DEPENDS, DIFFERS, LEVEL, NOT_TESTABLE,
                                                  UNDECIDED, combine)
from lintransformer.paper.experiment_cells import README_RATES
from lintransformer.paper.options import OPTIMIZERS, Options
from lintransformer.paper.settings import SETTINGS


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: where it stands, in our words, and how it is measured.

    ``measure(study) -> list of Convention``, the primary ones deciding; none if its settings are left out.
    ``figure`` is the id of the figure that shows the same.
    """

    id: int
    section: str
    claim: str
    measure: Callable
    figure: str


_ALL = [
    Claim(1, "3.2-1, Fig. 2", "Adam reaches a lower loss than SGDM in Settings 1, 2, 3",
          losses.adam_below_sgdm, "fig2"),
    Claim(2, "3.2-2, Fig. 3", "gradient noise at initialisation is heavier-tailed than Gaussian",
          noise.heavier_than_gaussian, "fig3"),
    Claim(3, "3.2-3, Fig. 4", "robust condition numbers along Adam's path are lower than along SGDM's",
          landscape.adam_better_conditioned, "fig4"),
    Claim(4, "3.2-4, Fig. 5", "Adam's directional smoothness is lower than SGDM's", landscape.adam_smoother,
          "fig5"),
    Claim(5, "3.2-5, Fig. 16", "smoothness grows with the gradient norm along the path",
          landscape.smoothness_grows_with_gradient, "fig16"),
    Claim(6, "3.1, Fig. 7", "the loss of linear attention falls much faster than that of softmax attention",
          losses.linear_faster_than_softmax, "fig7"),
    Claim(7, "3.1, Fig. 8",
          "separate Q and K give a largely similar loss plot, and a larger L and d a similar one",
          losses.similar_variants, "fig8"),
    Claim(8, "4.1, Fig. 10", "heavier-tailed covariates give heavier-tailed gradient noise",
          noise.heavier_covariates_heavier_noise, "fig10"),
    Claim(9, "4.1, Fig. 11", "heavier tails give larger gaps in robust condition number",
          landscape.heavier_tails_larger_gap, "fig11"),
    Claim(
        10, "4.1, Fig. 9",
        "both optimizers converge much faster on spherical covariates, and Adam's relative "
        "advantage does not shrink noticeably there", losses.light_tails_converge_faster, "fig9"),
    Claim(11, "4.2, Fig. 12", "the gap between SGDM and Adam grows with depth, and the loss falls for both",
          losses.gap_grows_with_depth, "fig12"),
    Claim(12, "4.2, Fig. 13", "noise is heavier-tailed for L = 6, 8 than for L = 2, 4",
          noise.deeper_heavier_noise, "fig13"),
    Claim(13, "4.2, Fig. 14", "the gap in robust condition number is larger for L = 4, 6, 8 than for L = 2",
          landscape.deeper_larger_gap, "fig14"),
    Claim(14, "App. B, Fig. 15", "the nonlinear task gives similar plots", noise.nonlinear_alike, "fig15"),
    Claim(15, "4.1", "k = 2.5, theta = 2 is N(0, I_5), and k = 0.1, theta = 10 keeps the variance the same",
          experiments.gamma_law, "table1"),
    Claim(16, "3.1", "orthogonal covariates make learned attention scores sparser, linear and softmax alike",
          experiments.sparser_scores, "sparsity"),
    Claim(17, "3.1", "two softmax heads are needed to recover one linear head (from von Oswald et al.)",
          experiments.two_softmax_heads, "softmax-heads"),
    Claim(18, "2.2", "Adam's advantage stays without gradient noise (full batch; said of full Transformers)",
          experiments.gap_without_noise, "full-batch"),
    Claim(19, "2.4", "clipping lowers directional smoothness (said of full Transformers)",
          landscape.clipping_smooths, "clipping"),
]
CLAIMS = {claim.id: claim for claim in _ALL}


def claim_cells(options: Options, ids=None) -> list[Cell]:
    """Return every cell that the claims rest on, needed ones first."""
    study = Study(options, lambda cell: Trace(status="missing"))
    for id in ids or CLAIMS:
        CLAIMS[check_choice("claim", id, CLAIMS)].measure(study)
    return in_order(study.cells.values())


def ledger(get: Callable[[Cell], Trace], options: Options, ids=None) -> dict:
    """Return the ledger: what ``claims.json`` holds.

    Parameters
    ----------
    get : callable
        ``get(cell)`` returns its `Trace`; nothing is computed that is not there.
    ids : list of int, optional
        Only these claims.
    """
    read = once(get)
    return {
        "claims": [entry(CLAIMS[id], read, options) for id in ids or CLAIMS],
        "configuration": options.configuration,
        "conventions": {
            "interval": f"{LEVEL:.0%} t interval of the mean over seeds (n = seeds); ratios on a log scale, "
                        "correlations on Fisher's",
            "verdict": "agrees: the interval lies where the claim is true; differs: nowhere there; "
                       "undecided: it straddles the edge, a run diverged, seeds or settings lack; "
                       "not testable here: the preset's runs are too small, or not run",
            "unless a convention says otherwise": "block parametrisation, Table 2's learning rates or "
            f"those asked for, {options.training_steps} iterations, losses and Hessians on the fixed batch of "
            "evaluation seed 99. Not varied: that batch for Hessians; the parametrisation for noise",
            "rates": "; ".join(
                f"{OPTIMIZERS[name]} in {setting}: Table 2 {SETTINGS[setting].learning_rates[name]:g}, the "
                f"authors' README {rate:g}" for (setting, name), rate in README_RATES.items()),
            "several parts": "a claim about several settings agrees if all do and differs if one does",
            "much": f"'much', 'similar', 'noticeably' mean a factor of {losses.MUCH:g} (our choice)"}}


def entry(claim: Claim, get, options: Options) -> dict:
    """Return one claim's entry in the ledger."""
    study = Study(options, get)
    conventions = [convention for convention in claim.measure(study) if convention.readings]
    verdict, deciding = decide(conventions)
    why = _why(verdict, deciding)
    if study.left_out and verdict == AGREES:               # of a part of the claim only
        verdict, why = UNDECIDED, f"not run: {', '.join(study.left_out.values())}; the rest agrees: {why}"
    parts = deciding_parts(deciding)
    return {
        "id": claim.id, "section": claim.section, "claim": claim.claim, "figure": claim.figure,
        "verdict": verdict, "why": why, "statistic": "; ".join(
            dict.fromkeys(part["statistic"] for part in parts)), "parts": parts,
        "decided_by": [convention.name for convention in deciding], "hangs_on": [
            convention.name for convention in conventions
            if convention.verdict not in (verdict, NOT_TESTABLE)
        ], "conventions": [convention.as_dict() for convention in conventions],
        "paper": "; ".join(f"{part['part']}: {part['paper']}" for part in parts if part["paper"]) or None,
        "cells": [cell.key for cell in in_order(study.cells.values())], "command": command(claim, options)
    }


def deciding_parts(deciding) -> list[dict]:
    """Return the numbers that decide, each once; conventions that measure one part differently are named."""
    found = {}
    for convention in deciding:
        for reading in convention.readings:
            same = found.setdefault(reading.part, {})
            if reading not in same.values():
                same[convention.name] = reading
    return [{**reading.as_dict(), "part": part + (f" ({name})" if len(same) > 1 else "")}
            for part, same in found.items() for name, reading in same.items()]


def decide(conventions) -> tuple[str, list]:
    """Return the verdict and the primary conventions it comes from: where these contradict, it depends."""
    deciding = [convention for convention in conventions if convention.primary]
    verdicts = {convention.verdict for convention in deciding}
    if not deciding:
        return NOT_TESTABLE, []
    if {AGREES, DIFFERS} <= verdicts:
        return DEPENDS, deciding
    return (verdicts.pop() if len(verdicts) == 1 else combine(verdicts)), deciding


def _why(verdict, deciding):
    """The readings that make the verdict what it is, in a line."""
    if not deciding:
        return "the settings it is about were not run"
    if verdict == DEPENDS:
        return "; ".join(f"{convention.name}: {convention.verdict}" for convention in deciding)
    readings = [reading for convention in deciding for reading in convention.readings]
    telling = [reading for reading in readings if reading.verdict == verdict] or readings
    if verdict in (AGREES, UNDECIDED) and len(telling) < len(readings):
        telling = [reading for reading in readings if reading.verdict != AGREES]
    return "; ".join(dict.fromkeys(f"{reading.part}: {reading.why}" for reading in telling))


def command(claim: Claim, options: Options) -> str:
    """Return the command that runs a claim's cells and judges it."""
    return shlex.join(["lintransformer", "run", f"claim{claim.id}", *options.words])
