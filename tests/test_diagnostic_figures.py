"""Cells and figures of the diagnostics: what they ask for, what they show, what they leave out and say so."""

import csv
import io
import json

import numpy as np
import pytest
from matplotlib.text import Text

import lintransformer as lt
from lintransformer.diagnostics.noise import gradient_noise
from lintransformer.diagnostics.smoothness import directional_smoothness
from lintransformer.paper import diagnostic_cells as cells
from lintransformer.paper.cells import KINDS, Cell, Trace
from lintransformer.paper.figures import clipping, conditioning, noise, nonlinear, ratios, smoothness
from lintransformer.paper.figures.base import axes_row, draw_figure, write_drawing
from lintransformer.paper.figures.panels import log_across
from lintransformer.paper.options import Options
from lintransformer.paper.training_cells import training_cell

OPTIONS = Options("smoke", seeds=(0, 1, 2), steps=60)
FIGURES = {figure.id: figure for module in (clipping, conditioning, noise, nonlinear, ratios, smoothness)
           for figure in module.FIGURES}
REACHES = np.array([True, True, True, True, False])
STEPS = [0, 20, 40, 60]
SPARSE = [0, 60]                # of models whose Hessians take seconds


class Report:
    deadline_seconds = None

    def __call__(self, fraction):
        assert 0 <= fraction <= 1


def compute(cell, known):
    """The trace of a cell and of all it needs, computed once."""
    if cell.key not in known:
        inputs = [compute(need, known) for need in cell.needs]
        outcome = KINDS[cell.kind].compute(cell.config, inputs, Report())
        known[cell.key] = Trace(outcome.arrays, outcome.status, outcome.summary)
    return known[cell.key]


@pytest.fixture(scope="module")
def computed():
    """Real cells, at the smallest sizes: S1 with Adam, 12 steps, all kept; a batch of 20 prompts."""
    own = training_cell(OPTIONS, "S1", "adam", 0).config
    config = {**own, "steps": 12, "batch_size": 30, "theta_at": {"every": 5, "dense_until": 12},
              "evaluation": {"seeds": [99], "prompts": 30}}
    training, known = Cell("train", config), {}
    found = {kind: (cell, compute(cell, known)) for kind, cell in (
        ("curvature", cells.curvature_cell(training)), ("smoothness", cells.smoothness_cell(training)))}
    return compute(training, known), found


def test_curvature_is_the_hessian_at_the_points_the_run_kept(computed):
    training, found = computed
    cell, trace = found["curvature"]
    assert trace["step"].tolist() == cell.config["steps"] == [0, 5, 10, 12]
    model, batch = lt.build_model(), lt.evaluation_batch(lt.PromptDistribution(), 99, 30)
    for i, step in enumerate(trace["step"]):
        dense = lt.hessian(model, training["theta"][step], batch, "exact").to_dense()
        close = 1e-7 * np.abs(dense).max()
        assert np.allclose(trace["diagonal"][i], np.diag(dense), atol=close)
        assert np.allclose(trace["eigenvalues"][i], np.linalg.eigvalsh(dense), atol=close)
        assert np.isclose(trace["value"][i], lt.value(model, training["theta"][step].astype(float), batch))
    assert trace["reaches"].sum() == 125 and trace.summary == {"points_without_hessian": []}


def test_smoothness_is_measured_along_every_kept_step(computed):
    training, found = computed
    trace, theta = found["smoothness"][1], training["theta"]
    assert trace["step"].tolist() == list(range(12))
    model, batch = lt.build_model(), lt.evaluation_batch(lt.PromptDistribution(), 99, 30)
    expected = [directional_smoothness(model, theta[t], theta[t + 1], batch, "exact") for t in range(12)]
    assert np.allclose(trace["smoothness"], expected, rtol=1e-6)


def test_noise_is_drawn_at_the_initialisation_of_the_training_run():
    cell = cells.noise_cell(OPTIONS, "S2", 1)
    small = {**cell.config, "draws": 6, "batch_size": 10, "reference": 3}
    trace = compute(Cell("noise", small), {})
    model = lt.build_model()
    theta = model.init(lt.stream(1, "initialisation"), "float32")
    expected = gradient_noise(model, theta, lt.PromptDistribution(context_length=5), 6, 10, 3, seed=1)
    assert np.array_equal(trace["norms"], expected.norms) and trace["spectrum"].shape == (150,)


def test_a_diverged_run_is_measured_up_to_there(computed):
    training, found = computed

    def measure(kind, kept):
        arrays = {"theta_step": training["theta_step"][:kept], "theta": training["theta"][:kept].copy()}
        if kept > 2:
            arrays["theta"][-1] = np.nan
        return KINDS[kind].compute(found[kind][0].config, [Trace(arrays, "diverged")], Report())

    curvature, smooth = measure("curvature", 8), measure("smoothness", 8)
    assert curvature.summary == {"points_without_hessian": [10, 12]}
    assert np.isfinite(curvature.arrays["eigenvalues"]).all(axis=1).tolist() == [True, True, False, False]
    assert len(smooth.arrays["step"]) == 7 and np.isnan(smooth.arrays["smoothness"][6])
    assert len(measure("smoothness", 2).arrays["step"]) == 1
    assert len(measure("smoothness", 1).arrays["step"]) == 0


def test_points_of_curvature_include_the_paper_s_and_are_all_kept():
    for setting in ("S1", "L8", "nonlinear"):
        training = training_cell(Options("paper"), setting, "adam", 0)
        steps = cells.curvature_steps(training.config)
        assert {0, 750, 1250, 10_000} <= set(steps) and all(step % 250 == 0 for step in steps)
    assert cells.curvature_steps(training_cell(OPTIONS, "S1", "adam", 0).config) == STEPS
    assert cells.curvature_steps(training_cell(OPTIONS, "L6", "adam", 0).config) == SPARSE


def test_hessians_across_kinks_are_exact():
    config = {setting: cells.curvature_cell(training_cell(OPTIONS, setting, "adam", 0)).config
              for setting in ("S1", "nonlinear")}
    assert config["nonlinear"]["method"] == "exact" and "method" not in config["S1"]


def test_cells_are_shared_and_estimated():
    assert set(FIGURES["fig16"].cells(OPTIONS)) < set(FIGURES["fig5"].cells(OPTIONS))
    heavy = [cell for cell in FIGURES["fig11"].cells(OPTIONS) if cell in FIGURES["fig4"].cells(OPTIONS)]
    assert len(heavy) == 6                                                   # heavy-tailed is Setting 3
    every = {cell for figure in FIGURES.values() for cell in figure.cells(OPTIONS)}
    assert all(0 < cell.seconds < 3600 for cell in every)
    assert len(cells.noise_seeds(Options("paper"), "S1")) == 3
    assert len(Options("paper").seeds_of("nonlinear")) == 3
    with pytest.raises(lt.InputError, match="does not keep its first steps"):
        cells.smoothness_cell(training_cell(OPTIONS, "L2", "adam", 0))


# --- figures, from traces with known numbers ---


def made_up(cell):
    """A trace with known values; SGDM's numbers are (seed + 2) times Adam's."""
    if cell.kind == "noise":
        norms = np.random.default_rng(cell.config["seed"]).gamma(4, size=400) + 0.1
        return Trace({"norms": norms, "spectrum": np.linspace(0, 1, 150), "gradient": np.ones(150)})
    training = cell.needs[0] if cell.needs else cell
    seed, sgdm = training.config["seed"], "momentum" in training.config["optimizer"]
    factor = seed + 2.0 if sgdm else 1.0
    if cell.kind == "train":
        steps = np.arange(0, 61, 5)
        return Trace({"step": steps, "evaluation_mean": np.tile(factor * np.exp(-steps / 30), (3, 1))})
    if cell.kind == "curvature":
        size = len(cell.config["steps"])
        values = np.tile([-1.0, 1.0, 2.0, 10 * factor, 0.0], (size, 1))
        return Trace({"step": np.array(cell.config["steps"]), "diagonal": values, "reaches": REACHES,
                      "eigenvalues": np.sort(values)}, summary={"points_without_hessian": []})
    steps = np.arange(0, cell.config["until"], cell.config["stride"])
    values = np.where(steps % 5 == 3, -1.0, factor * (1 + steps))
    return Trace({"step": steps, "smoothness": values, "gradient_norm": 2.0 + steps, "loss": 1.0 + steps,
                  "step_norm": np.ones(len(steps))}, summary={"negative": int(np.sum(values < 0))})


def without(status, *seeds):
    """As `made_up`, but Adam's cells of these seeds have another status, and no arrays."""
    def get(cell):
        training = cell.needs[0] if cell.needs else cell
        sgdm = "momentum" in training.config.get("optimizer", "momentum")
        return made_up(cell) if sgdm or training.config["seed"] not in seeds else Trace(status=status)
    return get


def draw(id, get=made_up, options=OPTIONS):
    return draw_figure(FIGURES[id], get, options)


def text_of(drawing):
    return "\n".join(artist.get_text() for artist in drawing.figure.findobj(Text))


@pytest.mark.parametrize("id", FIGURES)
@pytest.mark.parametrize("get", [made_up, without("failed", 0, 1, 2), lambda cell: Trace(status="missing")],
                         ids=["all", "no Adam", "none"])
def test_every_figure_is_drawn_whatever_is_missing_and_says_what(id, get, tmp_path):
    drawing = draw(id, get)
    write_drawing(tmp_path / "figures", FIGURES[id], drawing, ["png"])
    assert len({tuple(row) for row in drawing.table}) <= 1                   # one set of columns
    caption = json.loads((tmp_path / "figures" / f"{id}.json").read_text())
    gone = any(get(cell).status != "done" for cell in FIGURES[id].cells(OPTIONS))
    assert bool(caption["left_out"]) == gone


@pytest.mark.parametrize("id", ["fig5", "fig16"])
def test_equal_numbers_give_equal_files(id, tmp_path):
    formats = ["png", "pdf"]
    written = [write_drawing(tmp_path / name, FIGURES[id], draw(id), formats) for name in ("one", "two")]
    assert len(written[0]) == 4
    assert [path.read_bytes() for path in written[0]] == [path.read_bytes() for path in written[1]]


def test_fig4_is_the_ratio_of_paired_seeds_under_every_meaning_beside_the_paper_s():
    drawing = draw("fig4")
    shown = [row for row in drawing.table if (row["setting"], row["meaning"]) == ("S1", "diagonal")]
    assert {row["ratio"] for row in shown if row["seed"] == 2} == {4.0}
    assert {row["rates"] for row in shown} == {"Table 2", "README"}
    table = json.loads(drawing.files["tables/fig4.json"])["rows"]
    row = next(row for row in table if (row["setting"], row["meaning"]) == ("S3", "magnitudes"))
    assert (row["mean"], row["median"], row["seeds"], row["iteration"]) == (3.0, 3.0, 3, 60)
    assert np.isclose(row["std"], 1) and np.isclose(row["geometric_mean"], 24 ** (1 / 3))
    rows = list(csv.DictReader(io.StringIO(drawing.files["tables/fig4.csv"])))
    assert len(rows) == len(table) == len(drawing.files["tables/fig4.md"].splitlines()) - 2 == 5 * 6
    assert drawing.caption["batch"].endswith("prompts of evaluation seed 99")
    named = [key for by_rates in drawing.caption["cells"].values() for of in by_rates.values()
             for keys in of.values() for key in keys]
    assert sorted(named) == sorted(cell.key for cell in FIGURES["fig4"].cells(OPTIONS))


def test_fig4_prints_the_paper_s_numbers_where_the_run_reaches_them():
    options = Options("laptop", seeds=(0, 1), steps=1300, settings=("S2",))
    drawing = draw("fig4", options=options)
    assert "| S2 | Table 2 | 1250 | diagonal | 2.5 (0.707) | 2.45 [0.186, 32.2] | 5.98 (2.86) |" in \
        drawing.files["tables/fig4.md"]
    assert "the paper's, ± std" in text_of(drawing) and "rates: README, ± std" in text_of(drawing)
    band = drawing.figure.axes[0].collections[0].get_paths()[0].get_extents()
    assert np.isclose(band.y1, 2.5 + 2**-0.5)                                # whole standard deviations


def test_fig4_ratios_that_have_no_logarithm_have_no_interval():
    found = {"sgdm": {0: (np.array([750]), dict.fromkeys(conditioning.MEANINGS, np.array([-2.0])))},
             "adam": {0: (np.array([750]), dict.fromkeys(conditioning.MEANINGS, np.array([1.0])))}}
    rows = ratios.ratio_summary("S1", "Table 2", *ratios.paired_ratios(found))
    assert rows[0]["mean"] == -2 and np.isnan(rows[0]["low"]) and rows[0]["paper_mean"] == 1.76
    assert "| -2 (-) | - [-, -] | 1.76 (0.4) |" in ratios.ratio_markdown(rows)


def test_asked_for_rates_replace_the_comparison_of_rates():
    options = Options("smoke", rates={"adam": 0.02})
    assert list(ratios.rates_of(options, "S1")) == ["as asked for"]
    assert list(ratios.rates_of(OPTIONS, "S3")) == ["Table 2"]


@pytest.mark.parametrize("id, points", [("fig11", 2 * len(STEPS)), ("fig14", 2 * len(STEPS) + 2 * len(SPARSE))])
def test_condition_numbers_are_shown_for_both_optimizers(id, points):
    drawing = draw(id)
    assert len(drawing.table) == points * 2 * 3 * 6
    row = next(row for row in drawing.table if row["meaning"] == "diagonal-reaching")
    assert (row["optimizer"], row["seed"], row["value"]) == ("sgdm", 0, 20 / 1.5)
    line = drawing.figure.axes[0].lines[0]
    assert line.get_label() == "SGDM" and np.allclose(line.get_ydata(), 30 / 1)           # mean of 20, 30, 40
    assert "median |diag H|" in drawing.caption["shown"] and "std/2" in drawing.caption["band"]


def test_noise_figures_show_statistics_beside_those_of_gaussian_errors():
    drawing, first = draw("fig3"), made_up(FIGURES["fig3"].cells(OPTIONS)[0])["norms"]
    rows = [row for row in drawing.table if row["setting"] == "S1" and row["seed"] == 0]
    value = {(row["part"], row["name"]): row["value"] for row in rows if row["part"] != "histogram"}
    assert value["statistic", "max"] == first.max() and value["statistic", "draws"] == 400
    assert np.isclose(value["statistic", "skewness"], np.mean((first - first.mean())**3) / first.std()**3)
    assert abs(value["Gaussian errors", "skewness"]) < 0.2 < value["statistic", "skewness"]
    counts = [row["value"] for row in rows if row["part"] == "histogram"]
    beyond = int(text_of(drawing).split(" of 400 draws lie further right")[0].split()[-1])
    assert sum(counts) + beyond == 400 and beyond == 2                       # the last half percent
    assert "the null" in drawing.caption["definitions"]["Gaussian errors"]


def test_negative_curvature_is_drawn_and_counted():
    drawing = draw("fig5")
    assert drawing.caption["signs"]["S1"]["adam"] == {"positive": 3 * 16, "negative": 3 * 4}
    marks = [line for line in drawing.figure.axes[0].lines if line.get_marker() == "|"]
    assert [line.get_xdata().tolist() for line in marks] == [[3, 8, 13, 18]] * 2
    assert "negative: SGDM 20.0%, Adam 20.0%" in text_of(drawing)
    negative = [row for row in drawing.table if row["smoothness"] < 0]
    assert len(negative) == 3 * 2 * 3 * 4                                    # and they are in the table


def test_fig16_fits_each_seed_and_gives_intervals_over_seeds():
    drawing = draw("fig16")
    assert [row["seed"] for row in drawing.table] == [0, 1, 2] * 3
    assert all((row["positive"], row["negative"]) == (16, 4) for row in drawing.table)
    mean, low, high = drawing.caption["over_seeds"]["S1"]["L1"]
    assert np.isclose(low, mean) and np.isclose(high, mean)                  # the seeds are alike here
    assert "negative: 20.0% of the steps" in text_of(drawing) and "rank correlation" in text_of(drawing)


def test_fig15_has_four_panels_and_one_table():
    drawing = draw("fig15")
    assert [axis.get_title() for axis in drawing.figure.axes if axis.get_title()] == list(nonlinear.TITLES)
    assert {row["panel"] for row in drawing.table} == {"loss", "noise", "condition number", "smoothness"}
    losses = [row for row in drawing.table if row["panel"] == "loss" and row["optimizer"] == "sgdm"]
    assert losses[0]["mean"] == 2.5 and np.isclose(losses[0]["std"], 0.5**0.5)          # one seed in two: 2, 3


def changed(kind, change):
    """As `made_up`, but traces of one kind are changed by ``change(cell, trace)``."""
    def get(cell):
        trace = made_up(cell)
        if cell.kind == kind:
            change(cell, trace)
        return trace
    return get


def test_curvature_that_is_negative_throughout_is_said_to_be():
    get = changed("smoothness", lambda cell, trace: trace.update(smoothness=np.full(len(trace["step"]), -0.1)))
    for id in ("fig5", "fig15"):
        assert "the median is negative throughout" in text_of(draw(id, get))


def test_a_curve_that_is_nowhere_positive_is_named():
    def negative(cell, trace):
        if "momentum" in cell.needs[0].config["optimizer"]:
            trace["smoothness"] = np.full(len(trace["step"]), -0.1)

    text = text_of(draw("fig5", changed("smoothness", negative)))
    assert text.count("SGDM: no curve, its median is negative throughout") == 3 and "Adam: no curve" not in text


def test_medians_of_short_paths_keep_their_shape():
    line = draw("fig5").figure.axes[0].lines[-2]
    assert line.get_label() == "Adam" and np.nanmax(line.get_ydata()) > 5 * np.nanmin(line.get_ydata())


def test_fig16_gives_intervals_of_three_seeds_and_more_and_names_all_that_is_left_out():
    assert "rank correlation 0.58\n" in text_of(draw("fig16", options=Options("smoke", seeds=(0, 1), steps=60)))
    text = text_of(draw("fig16", without("failed", 0, 1)))
    assert text.count("Adam seed 0 left out (failed)") == text.count("Adam seed 1 left out (failed)") == 3
    scatter = [axis.collections[0] for axis in draw("fig16").figure.axes[:3]]
    assert len({dots.get_clim() for dots in scatter}) == 1                   # one colour bar for all


@pytest.mark.parametrize("low, high", [(3, 15), (0.55, 0.75), (1.1, 1.3), (0.01, 20), (1e-3, 1e9), (4, 8)])
def test_a_logarithmic_axis_across_has_two_labels_at_least(low, high):
    axis = axes_row(1)[1][0, 0]
    axis.set_xlim(low, high)
    log_across(axis)
    assert 2 <= sum(low <= tick <= high for tick in axis.get_xticks()) <= 7


def test_fig15_says_on_how_many_prompts_the_curvature_is_measured():
    assert draw("fig15").caption["batch"] == (
        "fixed; loss: 1000 prompts of evaluation seed 99; condition number and smoothness: 100 prompts of "
        "evaluation seed 99")


def test_paths_that_end_early_are_named_in_the_clipping_figure():
    def cut(cell, trace):
        if cell.needs[0].config["clip_threshold"] is None and cell.needs[0].config["seed"] == 1:
            for name in trace:
                trace[name] = trace[name][:5]

    drawing = draw("clipping", changed("smoothness", cut))
    assert "not clipped: 1 of 3 seeds diverge" in text_of(drawing)
    assert [line.get_xdata() for line in drawing.figure.axes[0].lines if line.get_marker() == "x"] == [[4]]
    assert len(drawing.caption["left_out"]) == 6
    assert "training diverged after 5 of 20 measured steps" in drawing.caption["left_out"][0]


def test_runs_without_a_single_step_are_named_in_the_clipping_figure():
    def empty(cell, trace):
        if cell.needs[0].config["clip_threshold"] is None:
            trace.update({name: values[:0] for name, values in trace.items()})

    drawing = draw("clipping", changed("smoothness", empty))
    assert "not clipped: 3 of 3 seeds diverge" in text_of(drawing) and len(drawing.caption["left_out"]) == 18


@pytest.mark.parametrize("low, high", [(-30, 1e7), (-0.05, 0.12), (0.01, 0.05), (3, 8), (0.2, 1e30), (-1e9, 1e9)])
def test_a_signed_logarithmic_axis_has_labels_that_stand_apart(low, high):
    axis = axes_row(1)[1][0, 0]
    axis.set_ylim(low, high)
    clipping.signed_log_scale(axis)
    ticks = axis.get_yticks()
    assert 2 <= len(ticks) <= 13 and (low <= ticks).all() and (ticks <= high).all()
    assert (0 in ticks) == (low <= 0) and axis.get_ylim() == (low, high)
    places = np.sort(axis.transScale.transform([(0, tick) for tick in ticks])[:, 1])
    assert np.diff(places).min() >= 0.079 * np.ptp(axis.transScale.transform([(0, low), (0, high)])[:, 1])


def test_the_paper_s_error_bars_are_not_shortened():
    """9.57 (13.3) reaches below 0: the bar goes down to the axis, and has no cap there."""
    axis = draw("fig4", options=Options("laptop", seeds=(0, 1, 2))).figure.axes[2]
    lowest = min(np.min(line.get_ydata()) for line in axis.lines if list(line.get_xdata()) == [750, 750])
    assert np.isclose(lowest, axis.get_ylim()[0])


def test_condition_numbers_beyond_the_axis_do_not_set_its_range():
    def high(cell, trace):
        late = trace["step"] > 2500
        trace["diagonal"] = np.where(late[:, None], trace["diagonal"] ** (1 + cell.needs[0].config["seed"]),
                                     trace["diagonal"])

    drawing = draw("fig4", changed("curvature", high), Options("laptop", seeds=(0, 1, 2)))
    assert all(line.get_xdata().max() <= 2500 for axis in drawing.figure.axes for line in axis.lines
               if len(line.get_xdata()) > 2)


@pytest.mark.parametrize("id", ["fig4", "fig14"])
def test_a_seed_that_diverges_does_not_end_the_curve_of_the_others(id):
    def cut(cell, trace):
        if cell.needs[0].config["seed"] == 2:
            trace["diagonal"][-1] = np.nan
            trace.summary["points_without_hessian"] = [cell.config["steps"][-1]]

    drawing = draw(id, changed("curvature", cut))
    line = next(line for line in drawing.figure.axes[0].lines if len(line.get_ydata()) > 2)
    assert np.isfinite(line.get_ydata()).all()
    assert "seed 2 diverged before iteration 60" in text_of(drawing)
    if id == "fig4":
        rows = json.loads(drawing.files["tables/fig4.json"])["rows"]
        assert rows[0]["meaning"] == "diagonal" and (rows[0]["seeds"], rows[0]["mean"]) == (2, 2.5)
