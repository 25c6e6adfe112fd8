"""The manifest: checked in whole by every command, sealed, recovered from captions, never over old figures."""
import json
import os
from pathlib import Path

import pytest
import results_folders
import toy_cells
from results_folders import at

from lintransformer.cli import main
from lintransformer.paper.files import is_sealed

# What no run writes into a manifest, and how it is named.
WRONG_ENTRIES = {
    "date": (at("date", "2026-91-22T10:00:00+00:00"), "date is '2026-91-22T10:00:00+00:00'"),
    "date without zone": (at("date", "2026-11-22"), "date is '2026-11-22'"),
    "date that overflows": (at("date", "0001-01-01T00:00:00+05:00"), "date is '0001"),
    "seconds": (at("seconds", "nan"), "seconds is 'nan'"),
    "huge seconds": (at("seconds", 10 ** 400), "seconds is 1000"),
    "figures null": (at("figures", None), "figures is None"),
    "figures of objects": (at("figures", [{}]), "figures[0] is {}"),
    "seconds of a command": (at("commands.0.seconds", "x"), "commands[0].seconds is 'x'"),
    "arguments": (at("commands.0.argv", [1]), "commands[0].argv[0] is 1"),
    "no commands": (lambda manifest: manifest.pop("commands"), "commands is missing"),
    "rates of texts": (at("configuration.rates", {"adam": "x"}), "configuration.rates is {'adam': 'x'}"),
    "rates no object": (at("configuration.rates", [1]), "configuration.rates is [1]"),
    "rate of nobody": (at("configuration.rates", {"him": 1.0}), "optimizer 'him' is not known"),
    "seeds of nothing": (at("configuration.seeds", []), "configuration.seeds is []"),
    "truth for steps": (at("configuration.steps", True), "configuration.steps is True"),
    "more options": (at("configuration.more", 1), "its configuration is not one that a run writes"),
    "machine": (at("machine", "mine"), "machine is 'mine'"),
    "versions": (at("versions", {"numpy": [2]}), "versions is {'numpy': "),
}


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def contents(folder, pattern):
    return {path.name: path.read_bytes() for path in Path(folder).glob(pattern)}


def manifest():
    return json.loads(Path("out/manifest.json").read_text())


@pytest.mark.parametrize("case", WRONG_ENTRIES)
def test_what_no_run_writes_is_named_by_every_command(case, toy, capsys):
    change, message = WRONG_ENTRIES[case]
    message = f"manifest.json was edited: {message}"
    main(command := toy("toy", []))
    results_folders.edit_manifest(Path("out"), change)
    capsys.readouterr()
    assert main(["check", "out", "-q"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(message) and out.count("\n") == 1 and err == ""
    assert main(["report", "out"]) == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and out == ""
    assert main(command) == 0
    err = capsys.readouterr().err
    assert message in err and err.endswith(": written anew\n") and err.count("\n") == 1
    assert manifest()["figures"] == ["toy"] and is_sealed(manifest())


DAMAGE = {"cut short": lambda path: os.truncate(path, 50), "lost": os.unlink,
          "renamed entry": lambda path: path.write_text(path.read_text().replace('"commands"', '"commandz"')),
          "edited": lambda path: path.write_text(path.read_text().replace('"steps": 7', '"steps": 8'))}


@pytest.mark.parametrize("damage", DAMAGE)
def test_without_a_manifest_figures_tell_their_configuration(damage, toy, capsys):
    toy("one", [toy_cells.cell(1)]), toy("two", [toy_cells.cell(2)])
    for name in ("one", "two"):
        assert main(["run", name, "--steps", "7", "--formats", "png", "--out", "out"]) == 0
    DAMAGE[damage](Path("out/manifest.json"))
    before = contents("out", "figures/*")
    capsys.readouterr()
    assert main(["run", "one", "--steps", "8", "--out", "out"]) == 2
    err = capsys.readouterr().err
    assert "holds results of steps 7" in err and err.count("\n") == 1 and contents("out", "figures/*") == before
    assert main(["run", "one", "--steps", "7", "--formats", "png", "--out", "out"]) == 0
    assert manifest()["figures"] == ["one", "two"] and main(["check", "out"]) == 0


def test_results_of_a_configuration_that_cannot_be_told_are_left_alone(toy, capsys):
    main(command := toy("toy", [toy_cells.cell(1)]))
    Path("out/manifest.json").write_text("{")
    Path("out/figures/toy.json").write_text("{}")
    capsys.readouterr()
    assert main(command) == 2
    err = capsys.readouterr().err
    assert "what configuration figures/toy.csv belongs to cannot be told" in err and err.count("\n") == 1
    assert Path("out/manifest.json").read_text() == "{"
    assert main([*command, "--force"]) == 0 and main(["check", "out"]) == 0


def test_an_edited_manifest_is_not_reported(toy, capsys):
    main(toy("toy", []))
    results_folders.edit_manifest(Path("out"), at("machine.processor", "faster"), sealed=False)
    assert main(["report", "out"]) == 2
    assert "manifest.json was edited: its digest" in capsys.readouterr().err
    unsealed = manifest()
    del unsealed["digest"]
    Path("out/manifest.json").write_text(json.dumps(unsealed))
    assert main(["report", "out"]) == 0 and "faster" in Path("out/report.md").read_text()


def test_an_unsealed_manifest_is_read_and_sealed(toy, capsys):
    main(command := toy("toy", [toy_cells.cell(1)]))
    unsealed = manifest()
    del unsealed["digest"]
    Path("out/manifest.json").write_text(json.dumps(unsealed))
    capsys.readouterr()
    assert main(command) == 0 and capsys.readouterr().err == ""
    assert is_sealed(manifest()) and len(manifest()["commands"]) == 2


def test_nothing_derived_under_another_configuration_stays(toy, monkeypatch, capsys):
    results_folders.register(monkeypatch)
    toy("toy", []), toy("other", [])
    smoke = ["--preset", "smoke", "--out", "out", "-q"]
    assert main(["run", "claims", "toy", *smoke, "--formats", "png,svg"]) == 0
    assert main(["report", "out", "-q"]) == 0
    Path("out/figures/mine.txt").write_text("precious")
    assert main(["run", "other", *smoke, "--formats", "svg", "--seeds", "5", "--force"]) == 0
    left = sorted(str(path.relative_to("out")) for path in Path("out").rglob("*") if path.is_file()
                  and path.name != ".lock")                  # filelock's versions differ in whether it stays
    assert left == ["figures/mine.txt", *(f"figures/other.{kind}" for kind in ("csv", "json", "svg")), "manifest.json"]
    Path("out/figures/mine.txt").unlink()
    assert main(["check", "out"]) == 0 and main(["report", "out"]) == 0
    assert "The ledger is not in this folder" in Path("out/report.html").read_text()
