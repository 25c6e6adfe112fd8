"""`lintransformer run` and `check` in odd surroundings: environments, places to write, drawings that fail."""
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import toy_cells

import lintransformer
from lintransformer.cli import main
from lintransformer.paper import environment, figures
from lintransformer.paper.options import Options
from lintransformer.paper.report_text import shell_word
from lintransformer.paper.store import Store

SMOKE = ["run", "fig2", "--preset", "smoke", "--settings", "S1", "--steps", "6", "-q", "--out", "out"]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(lintransformer.__file__).parent.parent))    # for subprocesses


def manifest():
    return json.loads(Path("out/manifest.json").read_text())


def test_any_backend_will_do_and_a_wrong_date_is_refused_before_training(monkeypatch):
    def start(*argv, **variables):
        return subprocess.run([sys.executable, "-m", "lintransformer", *argv], capture_output=True, text=True,
                              env={**os.environ, **variables})

    for date in ("x", "-1", "9" * 30, ""):
        for extra in ([], ["--dry-run"]):
            done = start(*SMOKE, *extra, SOURCE_DATE_EPOCH=date)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
            assert f"SOURCE_DATE_EPOCH {date!r}" in done.stderr and os.listdir() == []
    done = start(*SMOKE, MPLBACKEND="bogus", SOURCE_DATE_EPOCH="1700000000")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = start("check", "out", MPLBACKEND="bogus")
    assert done.returncode == 0 and "all as written" in done.stdout
    done = start("check", "out", SOURCE_DATE_EPOCH="x")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_what_draws_is_imported_before_training_and_its_lack_is_no_mismatch(toy, capsys, monkeypatch):
    command = toy("toy", [toy_cells.cell(1)])
    assert main(command) == 0
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    capsys.readouterr()
    for argv in (["check", "out"], [*command[:-1], "other"]):
        assert main(argv) == 2
        out, err = capsys.readouterr()
        assert "figures cannot be drawn: " in err and err.count("\n") == 1 and out == ""
    assert os.listdir() == ["out"]


def test_one_figure_that_cannot_be_drawn_does_not_end_the_others(toy, capsys, monkeypatch):
    def broken(get, options):
        raise OverflowError("not\na number")

    for name, seed in (("one", 1), ("two", 2)):
        toy(name, [toy_cells.cell(seed)])
    monkeypatch.setitem(figures.FIGURES, "one", dataclasses.replace(figures.FIGURES["one"], draw=broken))
    assert main(["run", "one", "two", "--formats", "svg", "--out", "out"]) == 3
    out, err = capsys.readouterr()
    assert err == "lintransformer: one: cannot be drawn: OverflowError: not\\na number\n"
    assert out.startswith("2 cells: 2 run, 0 kept, 0 not done") and Path("out/figures/two.svg").exists()
    command, = manifest()["commands"]
    assert command["exit_code"] == 3 and command["figures"] == ["two"] and manifest()["figures"] == ["one", "two"]
    assert manifest()["files"] == [f"figures/two.{kind}" for kind in ("csv", "json", "svg")]
    toy("one", [toy_cells.cell(1)])
    assert main(["run", "one", "--formats", "svg", "--out", "out"]) == 0 and main(["check", "out"]) == 0


@pytest.mark.parametrize("rate", ["1e4", "1e-12"])
def test_figures_of_the_largest_and_smallest_rates_are_drawn(rate, capsys):
    code = main(["run", "fig2", "fig12", "--preset", "smoke", "--steps", "12", "--seeds", "0", "-q", "--out", "out",
                 "--formats", "png,pdf", "--sgdm-rate", rate, "--adam-rate", rate])
    err = capsys.readouterr().err
    assert code == (3 if "diverged" in err else 0) and "cannot be drawn" not in err and "Warning" not in err
    assert {path.name for path in Path("out/figures").iterdir()} == {
        f"{id}.{kind}" for id in ("fig2", "fig12") for kind in ("csv", "json", "png", "pdf")}


def test_a_rate_of_many_digits_comes_back_exactly(toy, capsys):
    command = [*toy("toy", [toy_cells.cell(1)]), "--adam-rate", "0.12345678901234567", "--sgdm-rate", "5"]
    assert main(command) == main(command) == main(["check", "out"]) == main(["report", "out"]) == 0
    options = Options(rates={"adam": 0.12345678901234567, "sgdm": 5.0})
    assert "--adam-rate 0.12345678901234566 --sgdm-rate 5" in " ".join(options.words)
    assert options.folder_name == "laptop-adam0.12345678901234566-sgdm5"
    assert Options(rates={"adam": 0.1234567890123456, "sgdm": 5.0}).folder_name != options.folder_name


def test_a_dry_run_refuses_what_a_run_would(toy, capsys, tmp_path):
    command = toy("toy", [toy_cells.cell(1)])[:-1]
    Path("file").write_text("mine")
    os.mkfifo("pipe")
    os.symlink("loop", "loop")
    os.symlink("nowhere", "dangling")
    before = sorted(os.listdir())
    for out in ("file", "file/below", "pipe", "pipe/below", "loop", "dangling", "x" * 300, "new/" + "x" * 300,
                "a/" * 1000):
        told = []
        for extra in ([], ["--dry-run"]):
            assert main([*command, out, *extra]) == 2
            told.append(capsys.readouterr())
            assert told[-1].err.count("\n") == 1 and told[-1].out == "" and sorted(os.listdir()) == before
        assert told[0] == told[1]


def test_a_dry_run_refuses_a_folder_without_the_right_to_write(toy, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *arguments: False)               # for root it is never so
    assert main([*toy("toy", [toy_cells.cell(1)]), "--dry-run"]) == 2
    assert "cannot write out: Permission denied" in capsys.readouterr().err


def test_names_with_markup_and_line_ends_stay_text_in_the_report(toy):
    name = "<img src=x onerror=alert(1)>\n```\n<script>alert(2)</script>\n# head\r'"
    command = [*toy("toy", [toy_cells.cell(1)])[:-1], name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["lintransformer", *command])
        assert main(command) == main(["report", name, "-q"]) == main(["check", name]) == 0
    markdown = (Path(name) / "report.md").read_text()
    outside, inside = [], False
    for line in markdown.splitlines():
        inside ^= line.startswith("```")
        if not inside:
            outside.append(line)
    assert not inside and "script>" not in "\n".join(outside) and "<img" not in "\n".join(outside)
    assert markdown.count("--out $'<img") == 2 and "# head\n" not in markdown


def test_a_shell_reads_back_the_word_that_is_shown():
    for word in ("plain", "a b'c", "a\nb\\n'\"$x`", "\x1b[31m\u202e", "\\"):
        shown = shell_word(word)
        done = subprocess.run(["bash", "-c", f"printf %s {shown}"], capture_output=True, env={"LC_ALL": "C.UTF-8"})
        assert shown.isprintable() and done.stdout.decode() == word


def test_runs_and_commands_keep_the_machine_they_had(toy, monkeypatch, capsys):
    here = environment.blas()
    first, second = toy_cells.cell(1), toy_cells.cell(2)
    one, two = toy("one", [first]), toy("two", [first, second])
    monkeypatch.setattr(environment, "_processor", lambda: "the first")
    assert main(one) == 0
    monkeypatch.setattr(environment, "_processor", lambda: "the second")
    monkeypatch.setattr(environment, "blas", lambda: ["openblas 9, kernel Other"])
    assert main(one) == 0                                                     # nothing to compute: not relabelled
    held, commands = manifest()["machine"], manifest()["commands"]
    assert held["processor"] == "the first" and held["blas"] == here
    assert [command["runs"] for command in commands] == [1, 0]
    assert [command["environment"]["machine"]["processor"] for command in commands] == ["the first", "the second"]
    assert main(two) == 0 and manifest()["machine"]["processor"] == "the second"
    statuses = [json.loads((Store("out").folder(cell) / "status.json").read_text()) for cell in (first, second)]
    assert [status["environment"]["machine"]["processor"] for status in statuses] == ["the first", "the second"]
    assert main(["report", "out", "-q"]) == 0
    for name in ("report.md", "report.html"):
        told = " ".join(Path("out", name).read_text().replace("\\", "").split())
        assert "kernel Other" in told and "processor the first" in told and told.count("1 of 2 cells") == 2
    capsys.readouterr()
    assert main(["check", "out"]) == 0 and "note: other versions" not in capsys.readouterr().out     # drawn here, both
    monkeypatch.setattr(environment, "_processor", lambda: "the third")
    assert main(["check", "out"]) == 0
    assert "note: other versions or another machine than the run's: numbers of one, two" in capsys.readouterr().out


def test_a_manifest_of_an_earlier_version_keeps_its_machine(toy, monkeypatch):
    command = toy("toy", [toy_cells.cell(1)])
    monkeypatch.setattr(environment, "_processor", lambda: "the first")
    assert main(command) == 0
    earlier = manifest()
    for name in ("digest", "files"):
        del earlier[name]
    for name in ("environment", "figures", "runs"):
        del earlier["commands"][0][name]
    del earlier["machine"]["blas"]
    Path("out/manifest.json").write_text(json.dumps(earlier))
    assert main(["check", "out"]) == main(["report", "out", "-q"]) == 0
    assert "not recorded" in Path("out/report.md").read_text()
    monkeypatch.setattr(environment, "_processor", lambda: "the second")
    assert main(command) == 0 and manifest()["machine"] == earlier["machine"]
    assert [one["environment"]["machine"]["processor"] for one in manifest()["commands"]] == ["the first", "the second"]
