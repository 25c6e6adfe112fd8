"""`lintransformer verify --json`: written whole, through what is no file, never in place of it."""
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from mutants import MUTANTS, planted

from lintransformer import files
from lintransformer.cli import main
from lintransformer.verification import battery

VERIFY = ["verify", "--model", "relu-block", "--json"]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(files.__file__).parent.parent))    # subprocesses: this code, no other


def is_table(text):
    return json.loads(text)["passed"] is True and len(json.loads(text)["rows"]) > 5


def test_a_new_file_has_the_mode_of_the_umask_and_an_old_one_its_own(tmp_path):
    before = os.umask(0o027)
    try:
        assert main([*VERIFY, "table.json"]) == 0
    finally:
        os.umask(before)
    path = tmp_path / "table.json"
    assert is_table(path.read_text()) and path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o604)
    path.write_text("old")
    assert main([*VERIFY, "table.json"]) == 0
    assert is_table(path.read_text()) and path.stat().st_mode & 0o777 == 0o604
    assert os.listdir() == ["table.json"]


@pytest.mark.parametrize("link", [False, True])
def test_a_pipe_is_written_through(tmp_path, link):
    os.mkfifo("pipe")
    os.symlink("pipe", "link")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    assert main([*VERIFY, "link" if link else "pipe"]) == 0
    reader.join(10)
    assert is_table(read[0]) and (tmp_path / "pipe").is_fifo() and os.readlink("link") == "pipe"


def test_a_device_stays_a_device(tmp_path):
    try:
        os.mknod("null", 0o20666, os.makedev(1, 3))          # character device, as the system's own
        open("null", "w").close()
    except (OSError, AttributeError):
        os.mkfifo("null")                                    # without the right to make one: any node will do
        reader = os.open("null", os.O_RDWR | os.O_NONBLOCK)  # noqa: F841
    before = (tmp_path / "null").stat().st_mode
    assert main([*VERIFY, "null"]) == 0
    assert (tmp_path / "null").stat().st_mode == before


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "target").write_text("old")
    os.symlink("target", "link")
    os.symlink("new", "dangling")
    for link, target in (("link", "target"), ("dangling", "new")):
        assert main([*VERIFY, link]) == 0
        assert os.readlink(link) == target and is_table((tmp_path / target).read_text())


def test_what_is_printed_into_the_same_file_stays():
    with open("both", "w") as both:
        subprocess.run([sys.executable, "-m", "lintransformer", *VERIFY, "both"], check=True, stdout=both)
    table, _, told = open("both").read().partition("{")
    assert "relu-block" in table and "all passed" in table and is_table("{" + told)


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(battery, "run_battery", None)
    os.symlink("loop", "loop")
    os.mkdir("folder")
    (tmp_path / "file").write_text("mine")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("socket")
    for name in ("loop", "folder", "socket", "file/below", "nowhere/file", "new/", "x" * 300):
        before = sorted(os.listdir())
        assert main([*VERIFY, name]) == 2
        out, err = capsys.readouterr()
        assert f"--json {name!r} cannot be written" in err and err.count("\n") == 1 and out == ""
        assert sorted(os.listdir()) == before
    listening.close()


def test_a_full_disk_leaves_the_old_file(tmp_path, capsys, monkeypatch):
    def full(*arguments):
        raise OSError(28, os.strerror(28))

    (tmp_path / "table.json").write_text("old")
    monkeypatch.setattr(files.os, "fsync", full)
    assert main([*VERIFY, "table.json"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "table.json").read_text() == "old" and os.listdir() == ["table.json"]


def test_the_command_prints_one_table_and_writes_json(capsys, tmp_path):
    path = tmp_path / "table.json"
    assert main(["verify", "--model", "linear-separate-heads2-mlp", "--json", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "check", "largest", "error", "tolerance", "verdict"]
    assert all(line.endswith("pass") for line in lines[2:-2]) and "all passed" in lines[-1]
    content = json.loads(path.read_text())
    assert content["passed"] and len(content["rows"]) == len(lines) - 4
    assert set(content["rows"][0]) == {"model", "check", "error", "tolerance", "passed", "detail"}
    assert [file.name for file in tmp_path.iterdir()] == ["table.json"]


def test_x_stops_at_the_first_failing_model_and_names_the_entry(capsys):
    mutant, = (mutant for mutant in MUTANTS if mutant.name == "softmax Jacobian without its rank-one part")
    with planted(mutant):
        assert main(["verify", "-x", "--model", "softmax"]) == 1
    out = capsys.readouterr().out
    models = {line.split()[0] for line in out.splitlines() if line.endswith(("pass", "FAIL"))}
    assert models == {"softmax-block"}
    assert re.search(r"theta\[\d+\]: yours \S+, numerical \S+ \(ratio ", out) and "Not covered: " in out


def test_the_command_fails_with_a_planted_mistake(capsys, tmp_path):
    mutant, = (mutant for mutant in MUTANTS if mutant.name == "softmax Jacobian without its rank-one part")
    with planted(mutant):
        assert main(["verify", "--model", "softmax-full-mlp-before", "--json", str(tmp_path / "a.json")]) == 1
    out = capsys.readouterr().out
    assert "FAIL" in out and "FAILED: gradient" in out
    assert not json.loads((tmp_path / "a.json").read_text())["passed"]


@pytest.mark.parametrize("arguments, words", [
    (["--model", "quadratic"], "quadratic"), (["--json", "no-such-folder/table.json"], "no-such-folder"),
    (["--json", "."], "'.'"), (["--fast"], "--fast")])
def test_the_command_refuses_bad_usage(capsys, arguments, words):
    assert main(["verify", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error


def test_a_full_disk_leaves_nothing_half_written(capsys, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["verify", "--model", "linear-block-heads2-mlp", "--json", str(tmp_path / "a.json")]) == 2
    assert "No space left on device" in capsys.readouterr().err and not list(tmp_path.iterdir())
