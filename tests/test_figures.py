"""Figures: the cells they ask for, the numbers they show, what they leave out, files equal to the byte."""
import csv
import dataclasses
import io
import json

import numpy as np
import pytest

from lintransformer.checks import InputError
from lintransformer.paper import figures
from lintransformer.paper.cells import KINDS, Outcome, Trace
from lintransformer.paper.figures import FIGURES, base
from lintransformer.paper.figures.base import check_formats, draw_figure, write_drawing
from lintransformer.paper.figures.losses import ROWS, Curve, Panel, loss_figure
from lintransformer.paper.figures.panels import over_seeds
from lintransformer.paper.options import Options, parse_seeds
from lintransformer.paper.settings import PRESETS
from lintransformer.paper.training_cells import (EVALUATION_SEEDS, theta_steps, train_cell, train_seconds,
                                                 training_cell)

OPTIONS = Options("smoke", seeds=(0, 1, 2), steps=40)
STEPS = np.arange(0, 41, 5)
TRAINED = {2: [2.87277, 2.94293, 2.96002]}       # final losses of a short run, by version of its kind


def made_up(cell):
    """A trace with known values: seed and optimizer decide the height, the evaluation batch adds to it."""
    scale = (1 + cell.config["seed"]) * (2 if "momentum" in cell.config["optimizer"] else 1)
    mean = scale * 10.0 ** (-STEPS / 20) + 0.1 * np.arange(len(EVALUATION_SEEDS))[:, None]
    return Trace({"step": STEPS, "evaluation_mean": mean, "evaluation_median": mean / 4,
                  "evaluation_trimmed": mean / 2})


def diverged_for(*seeds):
    """As `made_up`, but these seeds of SGDM diverged."""
    def get(cell):
        bad = cell.config["seed"] in seeds and "momentum" in cell.config["optimizer"]
        return Trace(status="diverged") if bad else made_up(cell)
    return get


class Report:
    """What a worker hands to a computation."""
    deadline_seconds = None

    def __call__(self, fraction):
        assert 0 <= fraction <= 1


def draw(get=made_up, options=OPTIONS, figure=None):
    return draw_figure(figure or FIGURES["fig2"], get, options)


def text_of(figure):
    """Everything a reader can read in a figure."""
    from matplotlib.text import Text
    return "\n".join(artist.get_text() for artist in figure.findobj(Text))


def test_fig2_asks_for_each_setting_optimizer_and_seed_once():
    cells = FIGURES["fig2"].cells(OPTIONS)
    assert len(cells) == len({cell.key for cell in cells}) == 3 * 2 * 3
    assert len(FIGURES["fig2"].cells(Options("paper", settings=("S2",)))) == 2 * 6


def test_settings_that_differ_in_name_only_share_their_cells():
    assert training_cell(OPTIONS, "S3", "adam", 0) == training_cell(OPTIONS, "heavy-tailed", "adam", 0)
    assert training_cell(OPTIONS, "S1", "adam", 0) != training_cell(OPTIONS, "S2", "adam", 0)


def test_options_reach_the_configuration():
    config = training_cell(Options("paper", rates={"adam": 0.25}, steps=123), "S1", "adam", 4).config
    assert (config["optimizer"]["learning_rate"], config["steps"], config["seed"]) == (0.25, 123, 4)
    assert (config["batch_size"], config["clip_threshold"], config["model"]["layers"]) == (1000, 1.0, 3)
    assert training_cell(Options("paper"), "S1", "adam", 0).config["optimizer"]["learning_rate"] == 0.005
    assert training_cell(Options("paper"), "spherical", "sgdm", 0).config["clip_threshold"] == 0.1


def test_a_training_cell_is_reproducible_from_its_configuration_alone():
    config = json.loads(json.dumps(training_cell(Options("smoke", steps=7), "S1", "sgdm", 1).config))
    first, second = (train_cell(config, [], Report()) for _ in range(2))
    assert isinstance(first, Outcome) and first.status == "done"
    assert set(first.arrays) >= {"step", "evaluation_mean", "evaluation_median", "evaluation_trimmed"}
    assert len(first.arrays["evaluation_mean"]) == len(EVALUATION_SEEDS)
    assert list(first.arrays["theta_step"]) == list(range(8))
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name])


@pytest.mark.parametrize(("every", "dense", "steps", "kept"), [
    (4, 2, 9, [0, 1, 2, 4, 8, 9]), (50, 0, 10, [0, 10]), (5, 100, 3, [0, 1, 2, 3]), (5, 0, 10, [0, 5, 10])])
def test_theta_is_kept_as_the_rule_says(every, dense, steps, kept):
    assert list(theta_steps({"every": every, "dense_until": dense}, steps)) == kept


def test_estimates_grow_with_the_work():
    def seconds(setting):
        return train_seconds(training_cell(OPTIONS, setting, "adam", 0).config)

    assert 0 < seconds("L2") < seconds("S1") < seconds("S3") < seconds("softmax")
    assert seconds("L8") < seconds("L8d20n60") and seconds("S1") < seconds("nonlinear")


def test_curves_show_mean_and_band_over_seeds():
    axis = draw().figure.axes[0]
    sgdm, adam = axis.lines
    traces = [made_up(training_cell(OPTIONS, "S1", "adam", seed)) for seed in range(3)]
    values = np.array([trace["evaluation_mean"][0] for trace in traces])
    np.testing.assert_allclose(adam.get_ydata(), values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(sgdm.get_ydata(), 2 * values.mean(axis=0), rtol=1e-12)
    band = axis.collections[1].get_datalim(axis.transData)
    np.testing.assert_allclose(band.y1, (values.mean(axis=0) + values.std(axis=0, ddof=1) / 4)[0], rtol=1e-12)
    assert axis.get_yscale() == "log" and axis.get_xlabel() == "iteration"
    assert sgdm.get_color() != adam.get_color() and sgdm.get_linestyle() != adam.get_linestyle()


def test_table_holds_every_batch_and_statistic():
    drawing = draw()
    rows = list(csv.DictReader(io.StringIO(base.csv_text(drawing.table))))
    assert len(rows) == 3 * 2 * len(EVALUATION_SEEDS) * 3 * len(STEPS)
    columns = ("setting", "optimizer", "evaluation_seed", "over_prompts", "step")
    row = next(row for row in rows if [row[name] for name in columns] == ["S2", "sgdm", "100", "median", "0"])
    traces = [made_up(training_cell(OPTIONS, "S2", "sgdm", seed)) for seed in range(3)]
    values = [trace["evaluation_median"][1, 0] for trace in traces]
    expected = {"mean": np.mean(values), "std": np.std(values, ddof=1), "min": min(values),
                "max": max(values)}
    assert {name: float(row[name]) for name in expected} == expected and row["seeds"] == "3"


def test_caption_tells_batches_band_and_ends():
    caption = draw().caption
    assert caption["evaluation_seeds"] == [99, 100, 101] and "std/4" in caption["band"]
    assert "evaluation seed 99" in caption["curve"] and caption["left_out"] == []
    end = next(end for end in caption["final"] if (end["setting"], end["curve"]) == ("S1", "Adam"))
    assert end["by_seed"] == pytest.approx({0: 0.01, 1: 0.02, 2: 0.03}) and end["mean"] == pytest.approx(0.02)
    assert len(end["cells"]) == 3


def test_diverged_runs_are_left_out_and_named():
    drawing = draw(diverged_for(1, 2))
    assert "SGDM: seed 1, 2 left out (diverged)" in text_of(drawing.figure)
    assert len(drawing.caption["left_out"]) == 3
    np.testing.assert_allclose(drawing.figure.axes[0].lines[0].get_ydata(), 2 * 10.0 ** (-STEPS / 20))
    assert {row["seeds"] for row in drawing.table if row["optimizer"] == "sgdm"} == {1}
    assert "nan" not in base.csv_text(drawing.table), "no deviation of one run: an empty field"


def test_nothing_to_show_is_said():
    drawing = draw(lambda cell: Trace(status="failed"))
    assert text_of(drawing.figure).count("no finished run") == 6 and drawing.table == []


def test_median_over_prompts_is_drawn_below():
    figure = draw().figure
    assert [axis.get_ylabel() for axis in figure.axes[::3]] == list(ROWS.values())
    above, below = (figure.axes[row].lines[1].get_ydata() for row in (0, 3))
    np.testing.assert_allclose(below, above / 4, rtol=1e-12)


@pytest.mark.parametrize("name", base.FORMATS)
def test_pictures_are_equal_byte_for_byte_whatever_the_readers_style(name):
    import matplotlib
    first = base.picture(draw().figure, name)
    with matplotlib.rc_context({"font.size": 40, "axes.grid": False, "savefig.dpi": 20}):
        assert base.picture(draw().figure, name) == first
    assert not any(date in first for date in (b"CreationDate", b"dc:date", b"tIME"))


def test_files_are_written_and_equal(tmp_path):
    for folder in ("one", "two"):
        written = write_drawing(tmp_path / folder, FIGURES["fig2"], draw(), ("png", "pdf"))
        assert [path.name for path in written] == ["fig2.csv", "fig2.json", "fig2.png", "fig2.pdf"]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    caption = json.loads((tmp_path / "one" / "fig2.json").read_text())
    assert caption["id"] == "fig2" and caption["title"] and caption["paper"]


def test_another_figure_is_a_few_lines():
    """As figure 7 will be: two settings in one panel."""
    panel = Panel("Adam", (Curve("linear", "S1", "adam"), Curve("softmax", "softmax", "adam")))
    figure = loss_figure("fig7", "linear and softmax", "much faster", (panel,))
    assert figure.settings == ("S1", "softmax") and len(figure.cells(OPTIONS)) == 6
    text = text_of(draw(figure=figure).figure)
    assert "linear, rate 0.005" in text and "softmax, rate 0.005" in text


def test_settings_leave_out_panels_and_refuse_an_empty_figure():
    assert len(draw(options=dataclasses.replace(OPTIONS, settings=("S1", "S3", "L8"))).figure.axes) == 2 * 2
    with pytest.raises(InputError, match="fig2 shows the settings S1, S2, S3; --settings L8 leaves none"):
        FIGURES["fig2"].cells(dataclasses.replace(OPTIONS, settings=("L8",)))


def test_over_seeds():
    values = over_seeds([[1.0, 2.0], [3.0, 6.0]])
    assert {name: list(value) for name, value in values.items()} == {
        "mean": [2.0, 4.0], "std": pytest.approx([2 ** 0.5, 8 ** 0.5]), "min": [1.0, 2.0], "max": [3.0, 6.0]}
    assert np.isnan(over_seeds([[1.0]])["std"]).all()


def test_seeds_count_as_far_as_they_have_values():
    values = over_seeds([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan], [5.0, 4.0, np.nan]])
    np.testing.assert_array_equal(values["mean"], [3.0, 3.0, np.nan])
    np.testing.assert_array_equal(values["max"], [5.0, 4.0, np.nan])


def test_unknown_figures_and_formats_are_refused():
    with pytest.raises(InputError, match="'fig0'.*fig2"):
        figures.find_figures(["fig2", "fig0"])
    assert [figure.id for figure in figures.find_figures(["fig2", "fig2"])] == ["fig2"]
    with pytest.raises(InputError, match="'gif'.*png, pdf, svg"):
        check_formats(["png", "gif"])


@pytest.mark.parametrize(("text", "seeds"), [("0-5", range(6)), ("0,2,4", (0, 2, 4)), ("3,0-1,1", (0, 1, 3))])
def test_seeds(text, seeds):
    assert parse_seeds(text) == tuple(seeds)


@pytest.mark.parametrize("text", ["", ",", "1,", "-1", "1-", "a", "1.5", "5-2", "0-1000", "1--2", "٣"])
def test_seeds_that_are_none(text):
    with pytest.raises(InputError, match="seeds"):
        parse_seeds(text)


def test_folder_names_tell_what_differs_from_the_preset():
    assert Options("smoke").folder_name == "smoke"
    assert Options("smoke", seeds=PRESETS["smoke"].seeds, steps=PRESETS["smoke"].steps).folder_name == "smoke"
    rates = {"sgdm": 0.02, "adam": 0.005}
    changed = Options("smoke", seeds=(0, 2), settings=("S2", "S1"), rates=rates, steps=9)
    assert changed.folder_name == "smoke-seeds0,2-S1+S2-adam0.005-sgdm0.02-steps9"
    many, fewer = (Options("smoke", seeds=tuple(range(count))).folder_name for count in (100, 99))
    assert len(many) < 40 and many != fewer


def test_same_configuration_same_folder():
    one, other = Options(settings=("S1", "S2")), Options(settings=("S2", "S1"))
    assert one.configuration == other.configuration and one.folder_name == other.folder_name


def test_numbers_of_training_change_with_the_version_of_their_kind():
    """Stored runs are recognised by configuration and version: if this fails on purpose, raise the version in
    `KINDS` and put the new value here."""
    config = training_cell(Options("smoke", steps=20), "S1", "adam", 0).config
    final = train_cell(config, [], Report()).arrays["evaluation_mean"][:, -1]
    np.testing.assert_allclose(final, TRAINED[KINDS["train"].version], rtol=1e-3)


def test_a_peak_does_not_press_the_curves_together():
    def peak(cell):
        trace = made_up(cell)
        trace["evaluation_mean"] = trace["evaluation_mean"] + 1e30 * (STEPS == 20)
        return trace

    figure = draw(peak).figure
    assert all(axis.get_ylim()[1] < 1e5 for axis in figure.axes)
    assert text_of(figure).count("mean of prompts: peaks to 1e+30 are cut off") == 3
    least = min(line.get_ydata().min() for line in figure.axes[0].lines)
    assert least / 10 < figure.axes[0].get_ylim()[0] < least
    assert "cut off" not in text_of(draw().figure)


def test_a_level_is_no_peak():
    def level(cell):
        trace = made_up(cell)
        trace["evaluation_mean"] = trace["evaluation_mean"] + 1e6 * (STEPS >= 20)
        return trace

    figure = draw(level).figure
    assert figure.axes[0].get_ylim()[1] > 1e6 and "cut off" not in text_of(figure)


def test_attentions_have_colours_of_their_own():
    """Figure 7 has a panel for each optimizer: a curve in Adam's colour under SGDM's title would mislead."""
    taken = {base.LOOKS[name]["color"] for name in ("SGDM", "Adam")}
    colours = [line.get_color() for line in draw(figure=FIGURES["fig7"]).figure.axes[0].lines]
    assert len(set(colours)) == 2 and not taken & set(colours)


def test_four_panels_in_a_row_are_narrow_so_that_letters_stay_large():
    width = {id: draw(figure=FIGURES[id]).figure.get_size_inches()[0] for id in ("fig2", "fig12")}
    assert width["fig12"] / 4 < 0.85 * width["fig2"] / 3
