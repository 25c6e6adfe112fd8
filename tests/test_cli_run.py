"""`lintransformer run`: exit codes, resuming, interrupts, damage, full disks, silence."""
import errno
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import toy_cells

from lintransformer.cli import main
from lintransformer.paper.store import Store

HERE = Path(__file__).parent
SMOKE = ["run", "fig2", "--preset", "smoke", "--settings", "S1", "--steps", "6", "--formats", "png"]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def contents(folder, pattern):
    return {path.name: path.read_bytes() for path in Path(folder).glob(pattern)}


def test_same_numbers_for_any_number_of_workers(capsys):
    """A real run of Figure 2, and what it leaves behind."""
    assert main([*SMOKE, "-j", "1", "--out", "one"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("4 cells: 4 run, 0 kept, 0 not done") and err == ""
    assert set(out.split()[-3:]) == {f"one/figures/fig2.{kind}" for kind in ("png", "csv", "json")}
    assert main([*SMOKE, "-j", "2", "--out", "two", "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    assert contents("one", "figures/*") == contents("two", "figures/*")
    manifest = json.loads(Path("one/manifest.json").read_text())
    assert manifest["configuration"] == {"preset": "smoke", "rates": {}, "seeds": [0, 1], "settings": ["S1"],
                                         "steps": 6}
    assert manifest["threads"] == {"worker_processes": 1, "blas_threads_per_worker": 1}
    assert manifest["cells"] == {"done": 4} and manifest["commands"][0]["exit_code"] == 0
    assert manifest["versions"]["numpy"] and manifest["machine"]["processor"] and manifest["seconds"] > 0
    for folder in Path("one/runs").iterdir():
        assert sorted(path.name for path in folder.iterdir()) == ["config.json", "status.json", "trace.npz"]


def test_default_folder_is_named_after_the_configuration():
    assert main([*SMOKE, "--seeds", "3", "--adam-rate", "0.01", "-q", "--formats", "svg"]) == 0
    assert os.listdir("results") == ["smoke-seeds3-S1-adam0.01-steps6"]
    assert set(contents("results", "*/figures/*")) == {"fig2.csv", "fig2.json", "fig2.svg"}


def test_dry_run_says_why_and_touches_nothing(toy, capsys):
    command = toy("toy", [toy_cells.cell(seed) for seed in range(3)])
    assert main([*command, "--dry-run"]) == 0 and not Path("out").exists()
    assert capsys.readouterr().out.count("not run yet") == 3
    main(command)
    os.truncate(Store("out").folder(toy_cells.cell(1)) / "trace.npz", 9)
    before = contents("out", "**/*.*")
    capsys.readouterr()
    assert main([*command, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["keep" in lines[0], "run" in lines[1] and "9 bytes" in lines[1], "keep" in lines[2]] == [True] * 3
    assert "1 of 3 cells would run" in lines[3] and contents("out", "**/*.*") == before


def test_damage_is_named_and_mended(toy, capsys):
    cells = [toy_cells.cell(seed) for seed in range(2)]
    command = toy("toy", cells)
    main(command)
    before, store = contents("out", "figures/*"), Store("out")
    os.truncate(store.folder(cells[0]) / "trace.npz", 9)
    config = store.folder(cells[1]) / "config.json"
    config.write_text(config.read_text().replace('"seed": 1', '"seed": 5'))
    capsys.readouterr()
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert out.startswith("2 cells: 2 run")
    assert re.search("toy 0 .*trace.npz has 9 bytes.*: run again\n.*toy 1 .*config.json was edited", err)
    assert contents("out", "figures/*") == before
    for text, message in (("{", "is not valid JSON"),
                          ('{"configuration": 3}', "was edited: configuration is 3")):
        Path("out/manifest.json").write_text(text)
        assert main(command) == 0
        out, err = capsys.readouterr()
        assert out.startswith("2 cells: 0 run, 2 kept") and f"manifest.json {message}: written anew" in err


def test_runs_that_end_badly_give_3_and_are_named(toy, capsys):
    doings = ((0, "work"), (1, "diverge"), (3, "raise"), (4, "die"))
    cells = [toy_cells.cell(seed, do=do) for seed, do in doings]
    command = toy("toy", [*cells, toy_cells.cell(2, naps=99, nap=0.1)])
    assert main([*command, "--timeout", "0.3", "-q"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    for line in ("toy 1 .*: diverged", "toy 2 .*: timed out: ran out of time",
                 "toy 3 .*: failed: RuntimeError: the toy broke",
                 "toy 4 .*: failed: its worker process was killed by SIGKILL"):
        assert re.search(line, err)
    assert Path("out/figures/toy.svg").exists()
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert manifest["cells"] == {"done": 1, "diverged": 1, "timed out": 1, "failed": 2}


def test_folder_of_another_configuration_is_refused_naming_both(toy, capsys):
    command = toy("toy", [toy_cells.cell(1)])
    assert main([*command, "--steps", "7"]) == 0
    before = contents("out", "**/*.*")
    capsys.readouterr()
    for extra in (["--dry-run"], []):
        assert main([*command, "--steps", "8", "--preset", "smoke", *extra]) == 2
        err = capsys.readouterr().err
        assert re.search("preset laptop.*steps 7; asked for is preset smoke.*steps 8.*--force", err)
        assert err.count("\n") == 1
    assert contents("out", "**/*.*") == before
    assert main([*command, "--steps", "7", "-j", "1", "--formats", "png"]) == 0, "these are no configuration"
    assert main([*command, "--steps", "8", "--force"]) == 0
    assert json.loads(Path("out/manifest.json").read_text())["configuration"]["steps"] == 8


def test_force_runs_finished_cells_again(toy):
    command = toy("toy", [toy_cells.cell(1, log="log"), toy_cells.cell(2, log="log")])
    for extra in ([], [], ["--force"]):
        assert main([*command, *extra]) == 0
    assert sorted(Path("log").read_text().split()) == ["1", "1", "2", "2"]


def test_an_interrupted_forced_run_is_to_be_forced_again(toy, capsys, monkeypatch):
    def interrupt(*args, **more):
        raise KeyboardInterrupt

    command = toy("toy", [toy_cells.cell(1)])
    monkeypatch.setattr("sys.argv", ["lintransformer", *command, "--force"])
    monkeypatch.setattr(Store, "save", interrupt)
    assert main([*command, "--force"]) == 130
    assert capsys.readouterr().err.endswith(" --out out --force\n")


def test_two_runs_on_one_folder(toy, capsys):
    command = toy("toy", [toy_cells.cell(1)])
    with Store("out").locked():
        assert main(command) == 2
    err = capsys.readouterr().err
    assert "out is in use by another run" in err and err.count("\n") == 1
    assert main(command) == 0


def test_disk_that_fills_up_is_one_line(toy, capsys, monkeypatch):
    command = toy("toy", [toy_cells.cell(seed) for seed in range(3)])
    replace, calls = os.replace, []

    def fill_up(*args):
        calls.append(args)
        if len(calls) > 5:                       # the manifest, one cell, and one file of the next
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fill_up)
        assert main(command) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(r"lintransformer: cannot write out/runs/.*: No space left on device\n", err)
    assert not list(Path("out").rglob("*.tmp"))
    assert main(command) == 0 and capsys.readouterr().out.startswith("3 cells: 2 run, 1 kept")


def test_out_that_cannot_be_written_is_one_line(toy, capsys):
    command = toy("toy", [toy_cells.cell(1)])[:-1]
    Path("file").write_text("mine")
    for out in ("file", "file/below"):
        assert main([*command, out]) == 2
        err = capsys.readouterr().err
        assert "cannot write file" in err and err.count("\n") == 1
    assert Path("file").read_text() == "mine"


def test_odd_paths_are_one_line(toy, capsys):
    command = toy("toy", [toy_cells.cell(1)])
    assert main(command) == 0
    Path("out/figures/.x.tmp").mkdir()
    assert main(command) == 0
    Path("out/figures/toy.svg").unlink()
    Path("out/figures/toy.svg").mkdir()
    Path("out/report.html").mkdir()
    capsys.readouterr()
    odd = {(*command[:-1], "x" * 300): "'x+': File name too long", ("check", "x" * 300): "File name too long",
           (*command[:-1], "caf\udce9"): r"'caf\\udce9' is not UTF-8", ("report", "caf\udce9"): "not UTF-8",
           tuple(command): "cannot write out/figures/toy.svg: Is a directory",
           ("report", "out"): "cannot write out/report.html: Is a directory"}
    for argv, message in odd.items():
        assert main(list(argv)) == 2
        out, err = capsys.readouterr()
        assert re.search(message, err) and err.count("\n") == 1 and out == ""
    Path("out/figures/toy.svg").rmdir()
    assert main(command) == 0 and main(["check", "out"]) == 0
    assert sorted(os.listdir()) == ["out"]


SCRIPT = """
import signal, sys, toy_cells
from lintransformer.cli import main
from lintransformer.paper import figures
signal.signal(signal.SIGINT, signal.default_int_handler)      # whatever the tests were started with
if __name__ == "__main__":
    cells = [toy_cells.cell(seed, naps=4, nap=0.05) for seed in range(6)]
    figures.FIGURES["toy"] = toy_cells.figure("toy", cells)
    sys.exit(main())
"""


def start(*argv, **streams):
    """Start the command line with the toy figure in a process group of its own."""
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *argv], text=True, start_new_session=True,
                            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parent)))},
                            **streams)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What the toy figure leaves if nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert start("run", "toy", "--formats", "svg", "--out", str(folder), "-j", "3", "-q").wait(60) == 0
    return contents(folder, "figures/*")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["2", "15", "9"])
def test_interrupted_run_resumes_with_the_same_numbers(number, undisturbed):
    """Ctrl-C (sent to the whole group, as a terminal does), SIGTERM and kill -9 to the parent."""
    command = ("run", "toy", "--formats", "svg", "--out", "out")
    process = start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not list(Path("out").glob("runs/*/status.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    _, err = process.communicate(timeout=30)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130 and "Traceback" not in err
        assert re.fullmatch(f"lintransformer: interrupted; .* resume with: .*{' '.join(command)}\n", err)
    assert not Path("out/figures").exists()
    again = start(*command, stdout=subprocess.PIPE)
    assert re.match(r"6 cells: [1-5] run, [1-5] kept, 0 not done", again.communicate(timeout=60)[0])
    assert contents("out", "figures/*") == undisturbed


def test_progress_bar_on_a_terminal_only():
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = start("run", "toy", "--formats", "svg", "--out", "out", stderr=theirs, stdout=subprocess.PIPE)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:                          # the other end is closed
            break
    os.close(ours)
    assert process.wait(30) == 0 and "6 cells: 6 run" in process.stdout.read()
    assert re.search(rb"\d+%.*[1-6]/6 cells, toy \d", shown)
