"""The command line: every refusal in one line with exit code 2, and what it tells."""
import errno
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from threadpoolctl import threadpool_info

import lintransformer
from lintransformer.cli import main


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(lintransformer.__file__).parent.parent))    # for subprocesses


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
    "flag with a value": (["run", "fig2", "--force=--"], "--force"),
    "out empty": (["run", "fig2", "--out="], "--out.*''"),
    "folder empty": (["check", ""], "FOLDER.*''"),
    "model empty": (["verify", "--model="], "--model.*''"),
    "json empty": (["verify", "--json="], "--json.*''"),
    "json of dashes": (["verify", "--json=--"], "--json.*'--'"),
    "model of dashes": (["verify", "--model=--"], "--model.*'--'"),
    "rate too large": (["run", "fig2", "--sgdm-rate", "1e6"], r"sgdm must lie in \[1e-12, 10000\], not 1000000"),
    "rate too small": (["run", "fig2", "--adam-rate", "1e-300"], r"adam must lie in \[1e-12, 10000\], not 1e-300"),
    "steps beyond memory": (["run", "fig2", "--steps", "1" + "0" * 30], "steps must be at most 10000000.* not 10{30}"),
    "steps of many digits": (["run", "fig2", "--steps", "9" * 5000], r"--steps.*999 \.\.\. 999"),
    "many seeds in many ranges": (["run", "fig2", "--seeds", "0-999,1000"], "at most 1000"),
    "jobs by the thousand": (["run", "fig2", "-j", "9999"], r"-j must be at most \d+ here, not 9999"),
    "timeout without end": (["run", "fig2", "--timeout", "inf"], "--timeout.*finite.*inf"),
    "timeout beyond life": (["run", "fig2", "--timeout", "1e300"], r"--timeout must be at most 1e\+08 seconds"),
    "control characters in an option": (["run", "fig2", "--a\x1b[31m\nb"], r"--a\\x1b\[31m\\nb"),
    "control characters in a command": (["\x1b[2J\r"], r"\\x1b\[2J\\r"),
    "control characters in a folder": (["check", "a\nb\u202e"], r"a\\nb\\u202e is not there"),
    "zero byte": (["check", "a\0b"], "zero byte"),
    # from Python 3.13 "--" is a value as others are, and the message names the thing and not the option
    **{f"{option} of dashes": (["run", "fig2", f"{option}=--"], f"{option.strip('-s')}.*'--'") for option in (
        "--preset", "--seeds", "--settings", "--sgdm-rate", "--adam-rate", "--steps", "--out", "--formats",
        "--timeout")},
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
    for name in ("python", "numpy", "processor", "cores", "blas"):
        assert re.search(rf"^  {name} +\S", out, re.MULTILINE)
    kernels = {pool.get("architecture") for pool in threadpool_info() if pool["user_api"] == "blas"} - {None}
    assert all(f"kernel {kernel}" in out for kernel in kernels)


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


def test_closed_streams_change_nothing():
    for redirected, code in (("list >&-", 0), ("list <&- >&-", 0), ("list 2>&- >&-", 0), ("run fig77 2>&-", 2),
                             ("check nowhere >&- 2>&-", 2)):
        command = f"exec '{sys.executable}' -m lintransformer {redirected}"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_output_that_cannot_be_written_is_one_line(capsys, monkeypatch):
    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.StringIO())
        patch.setattr(sys.stdout, "flush", full)
        assert main(["list"]) == 2
    assert capsys.readouterr().err == f"lintransformer: {os.strerror(errno.ENOSPC)}\n"


def test_output_takes_any_character():
    script = "import sys; from lintransformer.cli import main; sys.exit(main(['report', 'é']))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 2 and "\\xe9 is not there" in done.stderr and done.stderr.count("\n") == 1
