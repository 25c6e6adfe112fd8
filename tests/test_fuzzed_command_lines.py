"""A thousand odd command lines: each is done, or refused in one line that leaves everything as it was.

The parser, the options, the store, the plan and the manifest are the real ones; what would take long (training,
drawing, the battery of checks) is replaced.
"""
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
import toy_cells

from lintransformer.cli import main
from lintransformer.paper import checking, figures, runs  # noqa: F401  (checking keeps the real drawing)
from lintransformer.paper.figures.base import Drawing
from lintransformer.paper.store import State
from lintransformer.verification import battery

LINES, SEED = 1000, 20261124
TEXTS = ["", " ", "-", "--", "---", "-1", "0", "1", "2", "007", "1e3", "1e30", "9" * 40, "9" * 5000, "nan", "inf",
         "-inf", "1e308", "1e-320", "1e16", "1000000", "0x10", "1_0", "\N{FULLWIDTH DIGIT ONE}2",
         "0.1234567890123456789", "a\nb", "\x1b[31mred\x1b[0m", "a\rb", "\0", "caf\udce9", "\u202eabc",
         "\N{LATIN SMALL LETTER E WITH ACUTE}", "\N{GRINNING FACE}", "x" * 300, "%s%n%d", "{0}{}", "$(ls)", "`ls`",
         "a;b", "'\"", "<b>|*_[x](y)", "\\", ",", ",,",
         "0-5", "5-2", "0,2", "0-", "-0", "0-99999999", ",".join(f"{n}-{n + 999}" for n in range(0, 50_000, 1000)),
         "None", "True", "[]", "null", "all", "fig2", "claim1", "S1", "S1,S1", "S2,L8", "s1", "smoke", "paper", "png",
         "png,png", "svg,pdf", "PNG", "-h", "--help", "--version", "--out", "--seeds=1"]
PATHS = [".", "..", "/", "~", "file", "file/below", "pipe", "pipe/below", "loop", "loop/below", "dangling", "folder",
         "folder/", "folder/new/newer", "strangers", "new", "new/" + "x" * 300, "x" * 300,
         "a/" * 2000, "a/" * 900, "a/" * 400, "ours", "linked", "no\nline",
         "-out", "--", "", "caf\udce9", "a\0b", "\x1b[2J", "folder/../new", "unreadable"]
FIGURES = ["fig2", "toy", "toy", "toy", "table1", "claim3", "claim99", "fig99", "FIG2", "all"]
OPTIONS = {"run": ["--preset", "--seeds", "--settings", "--sgdm-rate", "--adam-rate", "--steps", "-j", "--jobs",
                   "--out", "--formats", "--timeout", "--force", "--quiet", "-q", "--dry-run"],
           "verify": ["--model", "--json", "--full"], "check": ["-q", "--quiet"], "report": ["-q", "--quiet"],
           "list": [], "info": []}
GOOD = {"--preset": ["smoke", "laptop"], "--seeds": ["0-2", "3"], "--settings": ["S1", "S1,S2"],
        "--sgdm-rate": ["0.1", "5"], "--adam-rate": ["1e-3"], "--steps": ["1", "60"], "-j": ["1", "2"],
        "--jobs": ["2"], "--formats": ["png", "svg,png"], "--timeout": ["1", "1e6"], "--model": ["relu-block", "mlp"]}
FLAGS = ("--force", "--quiet", "-q", "--dry-run", "--full")
ENVIRONMENT = {"MPLBACKEND": ["bogus", "", "\n"], "SOURCE_DATE_EPOCH": ["x", "", "-1", "9" * 30, "1e3", "0"],
               "COLUMNS": ["0", "1", "-5", "x"], "LINES": ["x"], "TERM": ["\x1b"], "OMP_NUM_THREADS": ["x"]}


def fill(folder):
    """Make a working folder with everything that a path may lead to; return the reading end of its pipe."""
    folder.mkdir()
    (folder / "file").write_text("precious")
    (folder / "folder").mkdir()
    (folder / "strangers").mkdir()
    (folder / "strangers" / "thesis.tex").write_text("precious")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere/at/all")
    (folder / "linked").symlink_to("strangers")
    (folder / "unreadable").mkdir(mode=0)
    os.mkfifo(folder / "pipe")
    shutil.copytree(folder.parent / "ours", folder / "ours")
    return os.open(folder / "pipe", os.O_RDWR | os.O_NONBLOCK)               # without a reader a writer waits


def contents(folder):
    """Everything in a folder, and when its files were last changed; but for locks, which may come and go."""
    return {str(path): (status.st_mode, not path.is_dir() and (status.st_size, status.st_mtime_ns))
            for path in folder.rglob("*") if path.name != ".lock" for status in [path.lstat()]}


def odd(rng, option):
    """A value for an option: a good one, or any text or path."""
    if option in GOOD and rng.random() < 0.6:
        return rng.choice(GOOD[option])
    return rng.choice(PATHS if option in ("--out", "--json") and rng.random() < 0.9 else TEXTS)


def line(rng):
    """One command line."""
    command = rng.choices(list(OPTIONS), [70, 10, 8, 6, 3, 3])[0]
    if rng.random() < 0.04:
        return [rng.choice(TEXTS + PATHS + list(OPTIONS)) for _ in range(rng.randrange(4))]
    words = [command]
    if command == "run":
        words += [rng.choice(FIGURES if rng.random() < 0.95 else TEXTS)
                  for _ in range(rng.choice([0, 1, 1, 1, 1, 1, 2]))]
    if command in ("check", "report"):
        words += [rng.choice(PATHS) for _ in range(rng.choice([0, 1, 1, 1, 1, 1, 2]))]
    for option in rng.sample(OPTIONS[command], rng.randrange(min(4, len(OPTIONS[command])) + 1)):
        value = odd(rng, option)
        words += ([option] if option in FLAGS and rng.random() < 0.95 else [f"{option}={value}"] if rng.random() < 0.5
                  else [option, value])
    if command == "run" and rng.random() < 0.5:
        words.append("--dry-run")
    if rng.random() < 0.05:
        words.insert(rng.randrange(len(words) + 1), rng.choice(TEXTS))
    return words


@pytest.fixture
def quick(monkeypatch):
    """What a run computes and draws, and what the battery checks, in no time."""
    def run_cells(store, planned, **options):
        return {item.cell.key: State("done", "done") for item in planned}

    cells = [toy_cells.cell(seed) for seed in range(2)]
    monkeypatch.setitem(figures.FIGURES, "toy", toy_cells.figure("toy", cells))
    monkeypatch.setattr(battery, "run_battery", lambda *arguments: [])
    return lambda: (monkeypatch.setattr(runs, "run_cells", run_cells), monkeypatch.setattr(
        figures, "draw_figure", lambda figure, get, options: Drawing(None, [{"a": 1}], {})))


def test_odd_command_lines(quick, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "toy", "--formats", "png", "--out", "ours", "-q", "-j", "1"]) == 0       # a real one
    quick()
    rng, codes, folder = random.Random(SEED), Counter(), tmp_path / "work"
    for number in range(LINES):
        if not folder.exists():
            reader = fill(folder)
            monkeypatch.chdir(folder)
            before = contents(folder)
        words = line(rng)
        variables = {name: rng.choice(ENVIRONMENT[name]) for name in rng.sample(list(ENVIRONMENT), 2)
                     if rng.random() < 0.1}
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            try:
                code = main(words)
            except SystemExit as stopped:
                assert stopped.code == 0 and {"-h", "--help"} & set(words), words
                code = "help"
        _, err = capsys.readouterr()
        codes[code] += 1
        told = number, words, variables, code, err
        assert code in (0, 1, 2, 3, 130, "help") and "Traceback" not in err, told
        after = contents(folder)
        if code == 2:
            assert err.startswith("lintransformer: ") and err.count("\n") == 1 and err[:-1].isprintable(), told
            assert len(err) < 1100 and after == before, told
        if after != before:
            monkeypatch.chdir(tmp_path)
            os.close(reader)
            (folder / "unreadable").chmod(0o700)
            shutil.rmtree(folder)
    assert Path(tmp_path / "ours/manifest.json").exists()
    assert codes.total() == LINES and codes[2] > LINES / 3 and codes[0] > LINES / 5 and codes["help"] > 1, codes
