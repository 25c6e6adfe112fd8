"""`lintransformer check`: silence over sound results, a line for whatever was changed."""
import hashlib
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import results_folders

from lintransformer.cli import main
from lintransformer.paper import environment
from lintransformer.paper.comparing import first_difference
from lintransformer.paper.store import Store, npz_bytes, read_folder, seal


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        return results_folders.make(tmp_path_factory.mktemp("results") / "sound", monkeypatch)


@pytest.fixture
def folder(sound, tmp_path, monkeypatch):
    results_folders.register(monkeypatch)
    return results_folders.copy(sound, tmp_path / "copy")


def cell(folder):
    """The folder of one training cell, always the same."""
    return sorted((folder / "runs").iterdir())[0]


def change(path, *replacements):
    text = path.read_text()
    for old, new in replacements:
        assert re.search(old, text)
        text = re.sub(old, new, text, count=1)
    path.write_text(text)


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def cut(path, at):
    path.write_bytes(path.read_bytes()[:at])


def forge(path):
    """Change a trace and everything that vouches for it."""
    arrays = dict(read_folder(path))
    vouch(path, npz_bytes({**arrays, "evaluation_mean": arrays["evaluation_mean"] * np.float32(1.001)}))


def pickled(path):
    """Put a pickle where the trace was."""
    np.savez(path / "trace.npz", step=np.array([None]))
    vouch(path, (path / "trace.npz").read_bytes())


def vouch(path, data):
    """Store a trace with hashes that vouch for it."""
    status = json.loads((path / "status.json").read_text())
    status.pop("digest")
    status.update(trace_bytes=len(data), trace_sha256=hashlib.sha256(data).hexdigest())
    (path / "trace.npz").write_bytes(data)
    (path / "status.json").write_text(json.dumps(seal(status)))


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def drop(path):
    path.unlink()


def pipe(path):
    path.unlink()
    os.mkfifo(path)


# What is done to a folder, and what one of the lines then says.
DAMAGE = {
    "trace cut short": (lambda f: cut(cell(f) / "trace.npz", -9),
                        r"runs/\w{16}: trace.npz has \d+ bytes, \d+ were written"),
    "trace flipped": (lambda f: flip(cell(f) / "trace.npz", 500), r"runs/\w{16}: trace.npz was altered"),
    "trace gone": (lambda f: drop(cell(f) / "trace.npz"), r"runs/\w{16}: trace.npz cannot be read"),
    "trace forged": (lambda f: forge(cell(f)), r"figures/fig2.csv: line \d+, \w+ is '.*', from the traces '"),
    "trace pickled": (lambda f: pickled(cell(f)), r"runs/\w{16}: ValueError: .*pickle"),
    "trace emptied": (lambda f: vouch(cell(f), npz_bytes({})),
                      "fig2: cannot be drawn from the traces: KeyError"),
    "trace no archive": (lambda f: vouch(cell(f), b"nothing"), r"runs/\w{16}: \w+: "),
    "config edited": (lambda f: change(cell(f) / "config.json", ('"seed": 0|"seed": 1', '"seed": 7')),
                      r"runs/\w{16}: config.json was edited"),
    "config not JSON": (lambda f: (cell(f) / "config.json").write_text("{"), "config.json is not valid JSON"),
    "status edited": (lambda f: change(cell(f) / "status.json", ('"steps": 6', '"steps": 7')),
                      "status.json was edited"),
    "status empty": (lambda f: (cell(f) / "status.json").write_text("{}"), "status.json was edited"),
    "status gone": (lambda f: drop(cell(f) / "status.json"),
                    r"fig2: not derived again, as it rests on S1 .* \(runs/\w{16}\), missing or damaged$"),
    "cell renamed": (lambda f: cell(f).rename(f / "runs" / ("0" * 16)), "0{16}: config.json was edited"),
    "stranger among cells": (lambda f: (f / "runs" / "notes").mkdir(),
                             "runs/notes: not the folder of a cell"),
    "table edited": (lambda f: change(f / "figures" / "fig2.csv", (r"99,mean,5,2,\d", "99,mean,5,2,8")),
                     r"figures/fig2.csv: line 3, mean is '8.*', from the traces '"),
    "row gone": (lambda f: change(f / "figures" / "fig2.csv", (r"\n.*\n\Z", "\n")),
                 r"figures/fig2.csv: line \d+, setting is missing"),
    "row too many": (lambda f: change(f / "figures" / "fig2.csv", (r"\Z", "S9,\n")),
                     r"line \d+, setting does not come from the traces"),
    "table laid out anew": (lambda f: change(f / "figures" / "fig2.csv", ("\n", "\r\n")),
                            "figures/fig2.csv: the layout of the file was changed"),
    "caption edited": (lambda f: change(f / "figures" / "fig2.json", (r"std/4", "std/2")),
                       r"figures/fig2.json: band is .*std/2.*, from the traces .*std/4"),
    "caption not JSON": (lambda f: (f / "figures" / "fig2.json").write_text("{"),
                         "figures/fig2.json: not readable as JSON"),
    "picture flipped": (lambda f: flip(f / "figures" / "fig2.png", 3000),
                        "figures/fig2.png: not the picture"),
    "picture gone": (lambda f: drop(f / "figures" / "fig2.png"), "figures/fig2.png: is missing; a run wrote it"),
    "blanks after the end": (lambda f: (cell(f) / "status.json").open("a").write("\n "),
                             r"runs/\w{16}/status.json: its layout was changed"),
    "blanks after the manifest": (lambda f: (f / "manifest.json").open("a").write("\n"),
                                  "manifest.json: its layout was changed"),
    "trace a pipe": (lambda f: pipe(cell(f) / "trace.npz"), r"runs/\w{16}: trace.npz cannot be read: not a file"),
    "manifest a pipe": (lambda f: pipe(f / "manifest.json"), "manifest.json cannot be read: not a file"),
    "table gone": (lambda f: drop(f / "tables" / "claims.csv"), "tables/claims.csv: cannot be read"),
    "figure of another run": (lambda f: (f / "figures" / "fig3.csv").write_text("a\n1\n"),
                              "figures/fig3.csv: nothing that the manifest lists writes it"),
    "verdict edited": (lambda f: change(f / "claims.json", ('"verdict": "[a-z ]+"', '"verdict": "certain"')),
                       r"claims.json: claims\[0\].*verdict is 'certain', from the traces '"),
    "number of a claim edited": (lambda f: change(f / "claims.json", (r'"value": [\d.]+', '"value": 1.5')),
                                 r"claims.json: claims\[\d+\].*value is 1.5, from the traces"),
    "claim taken out of the manifest": (lambda f: change(f / "manifest.json", (r'\[\s*"claims",', "[")),
                                        "claims.json: nothing that the manifest lists writes it"),
    "manifest cut short": (lambda f: cut(f / "manifest.json", 50),
                           "manifest.json is not valid JSON: figures, tables and the ledger were not"),
    "manifest without commands": (lambda f: change(f / "manifest.json", ('"commands"', '"orders"')),
                                  "manifest.json was edited"),
    "manifest of unknown options": (lambda f: change(f / "manifest.json", ('"preset"', '"present"')),
                                    "manifest.json was edited: configuration.preset is missing"),
    "processor edited": (lambda f: change(f / "manifest.json", (r'"processor": ".*"', '"processor": "faster"')),
                         "manifest.json was edited: its digest is not that of its content"),
    "seconds edited": (lambda f: change(f / "manifest.json", ('"seconds": ', '"seconds": 1')),
                       "manifest.json was edited: its digest"),
    "seeds edited": (lambda f: change(f / "manifest.json", (r'"seeds": \[\s*0', '"seeds": [5')),
                     "fig2: not derived again, as it rests on S1 SGDM seed 5 .*and on 1 more such"),
    "unknown figure": (lambda f: change(f / "manifest.json", (r'"fig2"\s*\]', '"fig99"]')),
                       "figure 'fig99' is not known"),
}


def test_sound_results_pass(folder, capsys):
    before = contents(folder)
    assert main(["check", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert re.fullmatch(r".*: cells: 4 done; derived files compared: \d+; all as written\n", out)
    assert int(re.search(r"compared: (\d+)", out)[1]) > 8            # figure, tables, the ledger itself
    assert contents(folder) == before
    assert main(["check", str(folder), "-q"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named_in_a_line(case, folder, capsys):
    damage, message = DAMAGE[case]
    damage(folder)
    assert main(["check", str(folder)]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    lines = [line for line in lines if not line.startswith("note: ")]
    assert any(re.search(message, line) for line in lines), lines
    assert re.search(rf"; {len(lines)} mismatch", last)


def test_a_manifest_of_an_earlier_version_has_no_seal_and_is_read(folder, capsys):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["digest"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert main(["check", str(folder)]) == 0
    assert "note: manifest.json is not sealed" in capsys.readouterr().out


def test_every_damage_is_named(folder, capsys):
    first, second = sorted((folder / "runs").iterdir())[:2]
    flip(first / "trace.npz", 300)
    flip(second / "trace.npz", 300)
    flip(folder / "figures" / "claims.png", 3000)
    assert main(["check", str(folder), "-q"]) == 1
    lines = capsys.readouterr().out.splitlines()
    starts = [f"runs/{first.name}:", f"runs/{second.name}:", "fig2:", "figures/claims.png:"]
    assert len(lines) == len(starts) and all(line.startswith(start) for line, start in zip(lines, starts))


def test_a_reader_that_leaves_does_not_change_the_exit_code(folder):
    flip(cell(folder) / "trace.npz", 300)
    for command, code in ((["check", str(folder)], 1), (["list"], 0)):
        process = subprocess.Popen([sys.executable, "-m", "lintransformer", *command], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.close()
        assert process.wait(60) == code and process.stderr.read() == ""
        process.stderr.close()


def test_a_cell_that_was_killed_is_no_damage_unless_it_is_needed(folder, capsys):
    (folder / "runs" / ("f" * 16)).mkdir()
    (folder / "runs" / ("f" * 16) / "config.json").write_text("{}")
    assert main(["check", str(folder)]) == 0
    assert "4 done, 1 unfinished" in capsys.readouterr().out


def test_on_another_machine_rounding_is_forgiven_and_no_more(folder, capsys, monkeypatch):
    monkeypatch.setattr(environment, "_processor", lambda: "another processor")
    path = folder / "figures" / "fig2.csv"
    change(path, (r"(99,mean,0,2,\d\.\d{9})\d+", r"\g<1>"))
    flip(folder / "figures" / "fig2.png", 3000)
    assert main(["check", str(folder)]) == 0
    assert "note: other versions or another machine" in capsys.readouterr().out
    change(path, (r"99,mean,0,2,\d\.", "99,mean,0,2,9."))
    assert main(["check", str(folder)]) == 1


@pytest.mark.parametrize("formats", ["pdf", "svg", "pdf,png", "png,svg,pdf"])
def test_pictures_hang_on_no_order_of_formats(formats, folder, capsys):
    assert main([*results_folders.RUN, str(folder), "--formats", formats, "-j", "1"]) == 0
    assert main(["check", str(folder), "-q"]) == 0, capsys.readouterr().out


def test_a_report_that_is_out_of_date_is_noted(folder, capsys):
    assert main(["report", str(folder), "-q"]) == 0 and main(["check", str(folder)]) == 0
    assert "note" not in capsys.readouterr().out
    change(folder / "report.html", ("agrees", "AGREES"))
    assert main(["check", str(folder)]) == 0
    assert "note: report.html is not what these results give now" in capsys.readouterr().out


def test_what_is_no_results_folder_is_refused(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name, message in (("nowhere", "not there"), ("file", "not a folder"), ("empty", "no manifest.json")):
        for command in ("check", "report"):
            assert main([command, str(tmp_path / name)]) == 2
            out, err = capsys.readouterr()
            assert message in err and err.count("\n") == 1 and out == ""
    assert main(["check"]) == 2 and "FOLDER" in capsys.readouterr().err


def test_a_folder_in_use_is_left_alone(folder, capsys):
    with Store(folder).locked():
        for command in ("check", "report"):
            assert main([command, str(folder)]) == 2
            assert "in use by" in capsys.readouterr().err
    (folder / ".lock").unlink(missing_ok=True)       # a copy without the lock is not in use
    assert main(["check", str(folder)]) == 0


@pytest.mark.parametrize("suffix, stored, derived, exact, rounded", [
    (".csv", b"a,b\n1,2\n", b"a,b\n1,2\n", None, None),
    (".csv", b"a,b\n1,2\n", b"a,b\n1,3\n", "line 2, b is '2', from the traces '3'", "line 2, b is '2'"),
    (".csv", b"a,b\n1,2\n", b"a,c\n1,2\n", "the header is 'a,b'", "the header is"),
    (".csv", b"a\n1.0000000001\n", b"a\n1\n", "line 2, a is", None),
    (".csv", b"a\n\n", b"a\n1\n", "line 2, a is missing", "line 2, a is missing"),
    (".json", b'{"a": [{"b": 2}]}', b'{"a": [{"b": 2.5}]}', "a[0].b is 2, from the traces 2.5", "a[0].b is"),
    (".json", b'{"a": []}', b'{"a": [1]}', "a[0] is missing", "a[0] is missing"),
    (".json", b'{"a": true}', b'{"a": false}', "a is true, from the traces false", "a is true"),
    (".json", b'{"a": null}', b'{"a": 0}', "a is null", "a is null"),
    (".json", b'{"a":1}', b'{"a": 1}', "the layout of the file was changed", None),
    (".json", b'\xff', b'{"a": 1}', "not readable as JSON", "not readable as JSON"),
    (".csv", b'a\n"1', b"a\n1\n", "not readable as CSV", "not readable as CSV"),
    (".csv", b"a\n" + b"1" * 200_000, b"a\n1\n", "not readable as CSV", "not readable as CSV"),
    (".json", b"[" * 100_000, b'{"a": 1}', "not readable as JSON", "not readable as JSON"),
    (".json", b'{"a": 1' + b"0" * 400 + b"}", b'{"a": 1}', "a is 1000", "a is 1000"),
    (".md", b"| 1.0 |\n", b"| 1.1 |\n", "line 1 is '| 1.0 |'", None),
    (".png", b"1", b"2", "not the picture that the traces give", "not the picture"),
])
def test_first_difference(suffix, stored, derived, exact, rounded):
    for expected, how in ((exact, True), (rounded, False)):
        found = first_difference(suffix, stored, derived, how)
        assert found is None if expected is None else found.startswith(expected)


def test_of_long_texts_the_part_that_differs_is_shown():
    stored, derived = ('{"a": "' + "x" * 200 + word + "y" * 200 + '"}' for word in ("one", "two"))
    found = first_difference(".json", stored.encode(), derived.encode(), True)
    assert "xone" in found and "xtwo" in found and len(found) < 180
