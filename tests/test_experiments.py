"""The small experiments: what their cells compute, what they share, how they are drawn."""
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from toy_claims import TRUE, World, nothing

import lintransformer as lt
from lintransformer.checks import InputError
from lintransformer.paper.cells import KINDS, Trace
from lintransformer.paper.claims.grid_search import search
from lintransformer.paper.claims.study import Study, loss_at
from lintransformer.paper.experiment_cells import (GRID_SETTINGS, README_RATES, ending, full_batch_cell,
                                                   full_parametrization_cell, grid, grid_cell, grid_seeds,
                                                   heads_cell, readme_cell, score_sparsity, short_steps,
                                                   sparsity, sparsity_cell, unclipped_cell, variant)
from lintransformer.paper.figures import experiments, tables
from lintransformer.paper.figures import grid as grid_figure
from lintransformer.paper.options import OPTIMIZERS, Options
from lintransformer.paper.settings import PRESETS, SETTINGS
from lintransformer.paper.training_cells import training_cell
from lintransformer.training import evaluation_batch

PAPER, SMOKE = Options(preset="paper"), Options(preset="smoke", steps=20)
FIGURES = {figure.id: figure for module in (tables, grid_figure, experiments) for figure in module.FIGURES}


class Report:
    """What a computation is given to report to."""

    deadline_seconds = None

    def __call__(self, fraction):
        assert 0 <= fraction <= 1


def compute(cell):
    """Compute a cell here and now, and all it needs."""
    inputs = [compute(need) for need in cell.needs]
    outcome = KINDS[cell.kind].compute(cell.config, inputs, Report())
    return Trace(outcome.arrays, outcome.status, outcome.summary)


def tiny(cell, **changes):
    """The same run on few prompts, so that it takes milliseconds."""
    fixed = {**cell.config["evaluation"], "prompts": 20}
    return variant(cell, "tiny", cell.kind, batch_size=20, evaluation=fixed, **changes)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("setting", GRID_SETTINGS)
def test_the_grid_holds_the_rates_of_paper_and_readme(setting, optimizer):
    rates = grid(setting, optimizer)
    assert len(rates) == (4 if setting == "softmax" else 10) and rates == sorted(set(rates))
    assert SETTINGS[setting].learning_rates[optimizer] in rates
    assert README_RATES.get((setting, optimizer), rates[0]) in rates
    assert all(f"{rate:e}"[0] in "125" for rate in rates)
    few = grid(setting, optimizer, stride=3)
    assert len(few) <= 5 and {SETTINGS[setting].learning_rates[optimizer]} <= set(few) < set(rates)


def test_the_grid_trains_nothing_that_is_trained_anyway():
    assert grid_cell(PAPER, "S1", "adam", 0.005, 0) == training_cell(PAPER, "S1", "adam", 0)
    assert grid_cell(PAPER, "S1", "adam", 0.02, 0) == readme_cell(PAPER, "S1", "adam", 0)
    assert readme_cell(PAPER, "S3", "adam", 0) == training_cell(PAPER, "S3", "adam", 0)
    other = grid_cell(PAPER, "S1", "adam", 0.01, 0)
    assert (other.kind,
            other.config["steps"]) == ("trial", 2000) and other.config["optimizer"]["learning_rate"] == 0.01


@pytest.mark.parametrize("preset", PRESETS)
def test_short_runs_end_where_losses_and_theta_are_kept(preset):
    numbers, steps = PRESETS[preset], short_steps(Options(preset=preset))
    assert steps % numbers.record_every == steps % numbers.hessian_every == 0 and 0 < steps < numbers.steps
    assert short_steps(Options(preset=preset, steps=3)) == 3


def test_a_short_run_is_the_beginning_of_a_long_one():
    long, short = (compute(tiny(training_cell(SMOKE, "S1", "adam", 0), steps=steps)) for steps in (20, 10))
    assert loss_at(long, 10) == loss_at(short) == loss_at(short, 10)
    assert math.isnan(loss_at(short, 20))


def test_a_trial_is_done_when_it_has_diverged():
    wild = tiny(grid_cell(SMOKE, "S1", "sgdm", 1.0, 0), optimizer={"learning_rate": 1e30})
    trace = compute(wild)
    assert (trace.status, ending(trace)) == ("done", "diverged")
    assert math.isnan(loss_at(trace))
    calm = compute(tiny(grid_cell(SMOKE, "S1", "sgdm", 0.01, 0)))
    assert (calm.status, ending(calm)) == ("done", "done") and loss_at(calm) > 0


def test_variants_change_what_they_say_and_nothing_else():
    own = training_cell(PAPER, "S1", "sgdm", 0).config
    changed = {
        "full": (full_parametrization_cell(PAPER, "sgdm", 0), {"model", "steps", "theta_at"}),
        "unclipped": (unclipped_cell(PAPER, "S1", "sgdm", 0), {"clip_threshold", "steps",
                                                               "theta_at"}), "full batch": (full_batch_cell(
                                                                   PAPER, "S1", "sgdm", 0), {"theta_at"})
    }
    for name, (cell, expected) in changed.items():
        assert {key for key in own if own[key] != cell.config[key]} == expected, name
    assert full_parametrization_cell(PAPER, "adam", 0).config["model"]["parametrization"] == "full"
    heads = heads_cell(PAPER, {"attention": "softmax", "heads": 2}, 0).config
    assert heads["model"]["heads"] == 2 and heads["batch_size"] == 250


def test_full_batch_training_repeats_the_first_fresh_batch():
    fresh = compute(tiny(training_cell(SMOKE, "S1", "adam", 3)))
    fixed = compute(tiny(full_batch_cell(SMOKE, "S1", "adam", 3)))
    assert fixed["training_loss"][0] == fresh["training_loss"][0]
    assert fixed["training_loss"][1] != fresh["training_loss"][1]
    assert fixed["evaluation_mean"].shape[0] == 1 + fresh["evaluation_mean"].shape[0]
    recorded = fixed["evaluation_mean"][0][:-1]
    assert recorded == pytest.approx(fixed["training_loss"][fixed["step"][:-1]],
                                     rel=1e-5)  # the sample is the batch
    assert (np.diff(recorded) < 0).all()


@pytest.mark.parametrize("scores, hoyer, participation", [([0, 0, 3, 0], 1, 0.25), ([1, -1, 1, 1], 0, 1),
                                                          ([1, 1, 0, 0], 2 - math.sqrt(2), 0.5)])
def test_sparsity_of_known_scores(scores, hoyer, participation):
    assert sparsity(np.array([scores], float)) == pytest.approx((hoyer, participation))


@given(arrays(float, (2, 5, 3), elements=st.floats(0.1, 10)), st.floats(0.01, 100))
def test_sparsity_has_no_scale_and_lies_in_its_range(scores, scale):
    hoyer, participation = sparsity(scores)
    assert sparsity(-scale * scores) == pytest.approx((hoyer, participation), abs=1e-9)
    assert -1e-9 <= hoyer <= 1 and 1 / 5 - 1e-9 <= participation <= 1 + 1e-9


def test_columns_of_zeros_have_no_sparsity():
    one, other = np.array([[1.0, 0, 0, 0]]), np.zeros((1, 4))
    assert sparsity(np.stack([one, other], axis=2))[0] == pytest.approx(1)
    assert np.isnan(sparsity(other)).all()


@pytest.mark.parametrize("attention", ["linear", "softmax"])
def test_scores_are_those_of_the_first_layer_by_hand(attention):
    distribution = lt.PromptDistribution(2, 4, "orthogonal")
    batch = evaluation_batch(distribution, 0, 3, tokens=True)
    model = lt.build_model(layers=2, dimension=2, attention=attention, form="token", init_scale=1.0)
    theta = model.init(np.random.default_rng(0))
    Q = np.zeros((3, 3))
    Q[:2, :2] = model.unpack(theta)["Q[0,0]"]
    scores = batch.Z.transpose(0, 2, 1) @ Q @ batch.Z
    if attention == "softmax":
        scores = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    query, every = scores[:, :4, 4], scores[:, :4]
    measured = score_sparsity(model, theta, batch)
    assert measured.shape == (2, 2, 2)
    assert measured[:, 0, 0] == pytest.approx(sparsity(query.T[None]))
    assert measured[:, 0, 1] == pytest.approx(sparsity(every.transpose(1, 2, 0)[None]))


def test_identity_scores_of_orthogonal_covariates_are_sparse():
    """Q = I, what training moves to: a query attends to the keys equal to it, a fifth of them."""
    batches = {
        kind: evaluation_batch(lt.PromptDistribution(5, 20, kind), 0, 200, tokens=True)
        for kind in ("orthogonal", "gaussian")
    }
    model = lt.build_model(layers=1, form="token")
    theta = np.concatenate([np.zeros(25), np.eye(5).ravel()])
    found = {kind: score_sparsity(model, theta, batch)[0, 0, 0] for kind, batch in batches.items()}
    assert found["orthogonal"] > found["gaussian"] + 0.2


def test_sparsity_reads_theta_where_it_was_kept():
    cell = sparsity_cell(SMOKE, "S1", "orthogonal", "adam", 0)
    assert cell.needs[0].config["distribution"]["covariates"] == "orthogonal"
    trace = compute(cell)
    assert trace["hoyer"].shape == (2, 3, 2) and np.isfinite(trace["hoyer"]).all()
    empty = KINDS["sparsity"].compute(cell.config, [Trace(status="failed")], Report()).arrays
    assert np.isnan(empty["hoyer"]).all()


def test_the_best_rate_is_the_least_loss_of_those_that_never_diverge():
    class Valley(World):
        def final(self, config):
            return abs(math.log(config["optimizer"]["learning_rate"] / 0.05))

    def status(cell):
        wild = cell.config["optimizer"]["learning_rate"] == 0.05 and cell.config["seed"] == 1
        return "diverged" if wild else "done"

    assert search(Study(PAPER, Valley(TRUE.sign)), "S1", "adam").best == 0.05

    class Short(Valley):
        def train(self, cell):
            trace = super().train(cell)
            return trace if trace.status == "done" else Trace(
                {name: value[..., :2]
                 for name, value in trace.items()}, trace.status, trace.summary)

    found = search(Study(PAPER, Short(TRUE.sign, status)), "S1", "adam")
    assert found.best in (0.02,
                          0.1) and found.score(0.05) == math.inf and found.statuses[0.05][1] == "diverged"
    assert not found.at_edge and len(found.losses[0.1]) == len(grid_seeds(PAPER, "S1"))
    assert search(Study(PAPER, nothing), "S1", "adam").best is None


@pytest.mark.parametrize("world", [TRUE, nothing], ids=["all there", "nothing there"])
@pytest.mark.parametrize("id", FIGURES)
def test_every_figure_is_drawn_from_its_cells(id, world):
    known = {cell.key for cell in FIGURES[id].cells(PAPER)}

    def get(cell):
        assert cell.key in known, cell.label
        return world(cell)

    drawing = FIGURES[id].draw(get, PAPER)
    assert drawing.table or world is nothing
    json.dumps(drawing.caption, default=str)


def test_table_2_says_which_rate_the_evidence_favours():
    rows = FIGURES["table2"].draw(TRUE, PAPER).caption["paper_against_readme"]
    favoured = {(row["part"], row["evaluation"]): row["favoured"] for row in rows}
    key = "mean over prompts, evaluation seed 99"
    assert favoured["Setting 1: n = 20, Gaussian, Adam", key] == "README"  # the toy world likes 0.02
    assert favoured["Setting 2: n = 5, Gaussian, Adam", key] == "Table 2"


def test_table_1_is_the_papers():
    rows = {row["setting"]: row for row in FIGURES["table1"].draw(nothing, PAPER).table}
    assert [(rows[name]["n"], rows[name]["d"], rows[name]["L"])
            for name in ("S1", "S2", "S3")] == [(20, 5, 3), (5, 5, 3), (20, 5, 3)]
    assert rows["S3"]["x"] == "sqrt(Gamma(0.1, 10)) Unif(S^(d-1))" and rows["spherical"][
        "x"] == "Unif(S^(d-1))"
    with pytest.raises(InputError, match="setting 'S9' is not known"):
        Options(preset="paper", settings=("S9",))


def test_markdown_of_a_table():
    text = tables.markdown([{"a": 0.12345, "b": "x|y"}, {"a": None, "b": math.nan}])
    assert text == "| a | b |\n| --- | --- |\n| 0.123 | x\\|y |\n| – | – |\n"


def test_curves_of_sparsity_stand_apart_and_fill_their_panel():
    def small(cell):
        trace = TRUE(cell)
        return Trace({name: values / 10 for name, values in trace.items()}, trace.status, trace.summary)

    axes = FIGURES["sparsity"].draw(small, PAPER).figure.axes[:2]
    assert all(axis.get_ylim()[1] < 0.1 for axis in axes)
    starts = [line.get_xdata()[0] for line in axes[0].lines if line.get_marker() in "os"]
    assert len(set(starts)) == len(starts) == 4


def test_runs_left_out_of_the_sparsity_figure_are_named_below_it():
    drawing = FIGURES["sparsity"].draw(
        lambda cell: nothing(cell) if cell.needs[0].config["seed"] == 1 else TRUE(cell), PAPER)
    assert "gaussian: seed 1 left out (missing)" in drawing.figure.axes[0].texts[0].get_text()
    assert "linear attention, gaussian: seed 1 left out (missing)" in drawing.caption["left_out"]
