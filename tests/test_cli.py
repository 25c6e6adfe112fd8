"""The command line: every refusal in one line with exit code 2, and what it tells."""
import os
import re
import subprocess
import sys

import pytest

from lintransformer.cli import main


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


USAGE = {
    "no command": ([], "COMMAND"),
    "unknown command": (["train"], "'train'.*list.*info.*run"),
    "no figure": (["run"], "FIGURE"),
    "unknown figure": (["run", "fig99"], "'fig99' is not known; known: all, fig2"),
    "second figure unknown": (["run", "fig2", "fig98"], "'fig98'"),
    "unknown option": (["run", "fig2", "--presets", "smoke"], "--presets"),
    "unknown preset": (["run", "fig2", "--preset", "huge"], "'huge'.*smoke, laptop, paper"),
    "unknown format": (["run", "fig2", "--formats", "png,gif"], "'gif'.*png, pdf, svg"),
    "no format": (["run", "fig2", "--formats", ""], "''.*png, pdf, svg"),
    "unknown setting": (["run", "fig2", "--settings", "S1,S9"], "'S9'.*S1, S2, S3"),
    "setting of another figure": (["run", "fig2", "--settings", "L8"], "S1, S2, S3; .*L8 leaves none"),
    "seeds not numbers": (["run", "fig2", "--seeds", "a-b"], "'a-b'.*0-5"),
    "seeds negative": (["run", "fig2", "--seeds=-1"], "'-1'"),
    "seeds backwards": (["run", "fig2", "--seeds", "5-2"], "'5-2'.*goes up"),
    "seeds too many": (["run", "fig2", "--seeds", "0-99999999"], "1000"),
    "seeds empty": (["run", "fig2", "--seeds", ""], "''.*0-5"),
    "rate not a number": (["run", "fig2", "--sgdm-rate", "fast"], "--sgdm-rate.*'fast'"),
    "rate negative": (["run", "fig2", "--adam-rate=-0.1"], "learning rate of adam.*-0.1"),
    "rate zero": (["run", "fig2", "--adam-rate", "0"], "learning rate of adam.*0"),
    "rate not finite": (["run", "fig2", "--sgdm-rate", "nan"], "learning rate of sgdm.*finite.*nan"),
    "rate infinite": (["run", "fig2", "--sgdm-rate", "inf"], "learning rate of sgdm.*finite.*inf"),
    "steps zero": (["run", "fig2", "--steps", "0"], "steps.*at least 1.*0"),
    "steps not an integer": (["run", "fig2", "--steps", "1e3"], "--steps.*'1e3'"),
    "jobs zero": (["run", "fig2", "-j", "0"], "-j.*at least 1.*0"),
    "timeout negative": (["run", "fig2", "--timeout=-5"], "--timeout.*-5"),
    "option without value": (["run", "fig2", "--out"], "--out"),
}


@pytest.mark.parametrize("case", USAGE)
def test_bad_usage_is_one_line_and_touches_nothing(case, capsys, tmp_path):
    argv, message = USAGE[case]
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert re.search(message, err) and err.count("\n") == 1 and out == ""
    assert os.listdir(tmp_path) == []


def test_list_names_what_can_be_run(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for name in ("fig2", "smoke", "laptop", "paper", "S1", "S2", "S3", "nonlinear"):
        assert re.search(rf"^  {name} ", out, re.MULTILINE)


def test_info_names_what_results_depend_on(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for name in ("python", "numpy", "processor", "cores"):
        assert re.search(rf"^  {name} +\S", out, re.MULTILINE)


def test_help_exits_with_zero(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["run", "--help"])
    assert stopped.value.code == 0 and "--dry-run" in capsys.readouterr().out


def test_list_is_quick_for_it_loads_no_plotting_and_no_scipy():
    script = ("import sys; from lintransformer.cli import main; main(['list']);"
              "sys.exit(sorted({'matplotlib', 'scipy', 'tqdm'} & set(sys.modules)) or 0)")
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_python_dash_m():
    command = [sys.executable, "-m", "lintransformer", "run", "fig77"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "'fig77'" in done.stderr
