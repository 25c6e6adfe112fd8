"""What the claims measure: cases in which a careless statistic would give the wrong verdict."""
import math

import numpy as np
import pytest
from toy_claims import TRUE, World

from lintransformer.diagnostics.noise import gaussian_norms
from lintransformer.paper.cells import Trace
from lintransformer.paper.claims import ledger
from lintransformer.paper.claims.study import README, Study, by_seed
from lintransformer.paper.claims.verdicts import AGREES, DEPENDS, DIFFERS, NOT_TESTABLE, UNDECIDED, above
from lintransformer.paper.diagnostic_cells import noise_cell
from lintransformer.paper.experiment_cells import grid_seeds
from lintransformer.paper.figures.grid import readme_against_paper
from lintransformer.paper.options import Options

PAPER = Options(preset="paper")


def entry(world, id, options=PAPER):
    return ledger(world, options, [id])["claims"][0]


def convention(world, id, name, options=PAPER):
    return next(found for found in entry(world, id, options)["conventions"] if found["name"].startswith(name))


def changed(kind, change):
    """TRUE, but traces of one kind are changed in place by ``change(cell, trace)``."""
    def world(cell):
        trace = TRUE(cell)
        if cell.kind == kind:
            change(cell, trace)
        return trace
    return world


def test_gaps_are_compared_at_the_iterations_that_all_models_have():
    """Deep models have fewer Hessians: equal gaps must come out equal."""
    def same_gap(cell, trace):
        sgdm = cell.needs[0].config["optimizer"]["name"] == "sgd"
        trace["diagonal"][:, 0] = 10 * (1 + 9 * np.exp(-trace["step"] / 2000)) ** sgdm

    world = changed("curvature", same_gap)
    values = {part["part"]: part["value"] for part in entry(world, 13)["parts"]}
    assert list(values) == ["L = 4 against L = 2", "L = 6 against L = 2", "L = 8 against L = 2"]
    assert list(values.values()) == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("id", [4, 5, 14, 19])
def test_a_path_that_ends_early_is_no_whole_path(id):
    def cut(cell, trace):
        config = cell.needs[0].config
        nonlinear = bool(config["model"].get("embedding")) == (id == 14)
        if nonlinear and config["seed"] == 1 and (config["clip_threshold"] is None) == (id == 19):
            for name in trace:
                trace[name] = trace[name][:10]

    found = entry(changed("smoothness", cut), id)
    assert found["verdict"] == UNDECIDED and "training diverged after 10 of " in found["why"]


def test_clipping_is_also_judged_by_the_steps_that_both_paths_made():
    def cut(cell, trace):
        if cell.needs[0].config["clip_threshold"] is None:
            for name in trace:
                trace[name] = trace[name][:10]

    assert convention(changed("smoothness", cut), 19, "median over the steps that both")["verdict"] == AGREES


def test_norms_of_gaussian_errors_are_not_heavier_than_gaussian():
    """They pass the paper's Q-Q test, being skewed; the claim must not agree."""
    def gaussian(cell, trace):
        trace["spectrum"] = np.geomspace(1, 1e-4, 150)
        trace["norms"] = gaussian_norms(trace["spectrum"], 10_000, seed=50 + cell.config["seed"])

    found = entry(changed("noise", gaussian), 2)
    assert found["conventions"][0]["verdict"] == AGREES and found["verdict"] != AGREES
    assert [one["primary"] for one in found["conventions"][:2]] == [True, True]


def test_curves_that_cross_are_not_similar():
    def crossing(cell, trace):
        if cell.config["model"]["parametrization"] == "separate":
            half = len(trace["step"]) // 2
            trace["evaluation_mean"] = trace["evaluation_mean"] * np.where(
                np.arange(len(trace["step"])) < half, 10.0, 0.1)

    assert entry(changed("train", crossing), 7)["verdict"] == DIFFERS


def test_one_deep_model_does_not_make_the_deep_ones_heavier():
    def light_at_six(cell, trace):
        layers = cell.config["model"]["layers"]
        trace["norms"] = 30 + np.exp({6: 0.1, 8: 2.0}.get(layers, 0.3) * np.log(trace["norms"] - 30) / (
            0.8 if layers > 4 else 0.3))

    assert entry(changed("noise", light_at_six), 12)["verdict"] == DIFFERS


def test_curvature_that_is_negative_has_no_ratio():
    """-5 / -1 is positive, and says the opposite."""
    def negative(cell, trace):
        sgdm = cell.needs[0].config["optimizer"]["name"] == "sgd"
        trace["smoothness"] = np.full(len(trace["step"]), -5.0 if sgdm else -1.0)

    found = entry(changed("smoothness", negative), 4)
    assert found["verdict"] == NOT_TESTABLE and "no such positive number" in found["why"]
    differences = next(one for one in found["conventions"] if one["name"] == "difference of the medians")
    assert differences["parts"][0]["value"] == pytest.approx(-4)


def test_a_ratio_that_is_not_positive_is_named():
    study, cell, values = Study(PAPER, TRUE), noise_cell(PAPER, "S1", 0), iter([-2.0, 0.5, 0.51])
    reading = by_seed(study, "part", "statistic", above(1), (0, 1, 2), lambda seed: [cell],
                      lambda trace: next(values))
    assert reading.values == {0: None, 1: 0.5, 2: 0.51} and reading.verdict == UNDECIDED
    assert "seed 0: no such positive number" in reading.why


def test_speed_counts_iterations_and_is_a_lower_bound():
    class Slow(World):
        def train(self, cell):
            trace, config = super().train(cell), cell.config
            start = {"gamma": 1e9, "spherical": 500}.get(config["distribution"]["covariates"], 0)
            curve = np.where(trace["step"] < start, 1.0, 0.01)
            return Trace({**trace, "evaluation_mean": np.tile(curve, (3, 1))}, trace.status)

    found = convention(Slow(TRUE.sign), 10, "speed")
    assert found["verdict"] == AGREES and found["parts"][0]["value"] == pytest.approx(10_000 / 500)


def test_where_the_authors_rates_contradict_it_depends():
    """Both decide, and the numbers that differ say under which they were measured."""
    def slow_at_table_2_s(cell, trace):
        config = cell.needs[0].config
        if config["distribution"]["context_length"] == 5 and config["optimizer"].get("beta1"):
            trace["smoothness"] = trace["smoothness"] * (100 if config["optimizer"]["learning_rate"] == 0.02 else 1)

    found = entry(changed("smoothness", slow_at_table_2_s), 4)
    assert found["verdict"] == DEPENDS
    assert [part["part"].removeprefix("Setting ") for part in found["parts"]] == [
        "1: n = 20, Gaussian", "2: n = 5, Gaussian (median over steps)", f"2: n = 5, Gaussian ({README})",
        "3: n = 20, heavy-tailed"]


def test_our_numbers_stand_beside_the_paper_s_as_it_gives_them():
    parts = entry(TRUE, 3)["parts"]
    values = np.array(list(parts[0]["by_seed"].values()))
    assert parts[0]["mean_std"] == f"{values.mean():.3g} ({values.std(ddof=1):.2g})"
    eigenvalues = convention(TRUE, 3, "R: eigenvalues")
    assert not any(part["paper"] or part["mean_std"] for part in eigenvalues["parts"])


def test_rates_that_are_asked_for_are_not_called_the_readme_s():
    options = Options(preset="paper", rates={"adam": 0.02})
    assert readme_against_paper(Study(options, TRUE)) == []
    assert len(readme_against_paper(Study(PAPER, TRUE))) == 18
    names = [one["name"] for one in entry(TRUE, 1, options)["conventions"]]
    assert names and not any("README" in name for name in names)


def test_too_few_draws_are_those_of_the_cells():
    found = entry(TRUE, 14, Options(preset="laptop"))
    noise = next(part for part in found["parts"] if part["part"] == "noise at initialisation")
    assert noise["verdict"] == NOT_TESTABLE and noise["why"].startswith("400 draws are too few")


def test_softmax_has_two_seeds_in_the_grid():
    for preset in ("laptop", "paper"):
        assert len(grid_seeds(Options(preset=preset), "softmax")) == 2
        assert len(grid_seeds(Options(preset=preset), "L2")) == 1
    assert not math.isnan(convention(TRUE, 6, "softmax at the best rate")["parts"][0]["interval"][0])
