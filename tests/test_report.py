"""`lintransformer report`: one page that needs nothing else, says what is stored, names what is missing."""
import base64
import errno
import json
import os
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import results_folders

from lintransformer.cli import build_parser, main
from lintransformer.paper.figures import FIGURES
from lintransformer.paper.report_text import duration, explain, interval, text

VOID = {"meta", "link", "img", "br"}
PAPER = "https://arxiv.org/abs/2310.01082"
HOSTILE = """<script>alert(1)</script> "quoted" & 'single' | pipe *star* [link](http://x) `code`"""


class Page(HTMLParser):
    """A page's elements, as (tag, attributes), its text, and whether every tag is closed in order."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes)
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())

    def all(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        return results_folders.make(tmp_path_factory.mktemp("results") / "sound", monkeypatch)


@pytest.fixture
def folder(sound, tmp_path, monkeypatch):
    results_folders.register(monkeypatch)
    return results_folders.copy(sound, tmp_path / "copy")


def report(folder):
    assert main(["report", str(folder), "-q"]) == 0
    return Page((folder / "report.html").read_text()), (folder / "report.md").read_text()


def edit(path, **entries):
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_the_page_needs_nothing_else(folder, capsys):
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.split() == [str(folder / "report.html"), str(folder / "report.md")]
    page = Page((folder / "report.html").read_text())
    addresses = [value for _, attributes in page.elements for name, value in attributes.items()
                 if name in ("src", "href", "srcset", "action", "data", "poster")]
    assert {address for address in addresses if not address.startswith(("#", "data:"))} == {PAPER}
    style = re.search(r"<style>(.*?)</style>", (folder / "report.html").read_text(), re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style and "@media print" in style
    assert "prefers-color-scheme: dark" in style
    assert not page.all("script", "iframe", "object", "embed", "form")
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")


def test_pictures_are_those_of_the_folder_and_described(folder):
    images = report(folder)[0].all("img")
    data = [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in images]
    assert data == [(folder / "figures" / f"{id}.png").read_bytes() for id in ("claims", "fig2")]
    assert all(len(image["alt"]) > 20 for image in images)


def test_anchors_resolve_and_tables_have_captions(folder):
    page, _ = report(folder)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    links = [link["href"][1:] for link in page.all("a") if link["href"].startswith("#")]
    assert len(ids) == len(set(ids)) and set(links) <= set(ids) and len(links) > 20
    assert page.elements[0] == ("html", {"lang": "en"})
    assert len(page.all("table")) == len(page.all("caption")) > 10
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))
    assert [tag for tag, _ in page.elements].count("h1") == 1


def test_the_ledger_comes_first_and_is_the_stored_one(folder):
    page, markdown = report(folder)
    book = json.loads((folder / "claims.json").read_text())
    assert [section["id"] for section in page.all("section")] == ["ledger", "fig2", "missing", "reproduce"]
    assert len(book["claims"]) == len(page.all("article")) == 19
    for claim in book["claims"]:
        for told in (page.text, " ".join(markdown.replace("\\", "").split())):
            assert claim["claim"] in told and claim["why"] in told and claim["command"] in told
        assert re.search(rf"{claim['id']} \. {re.escape(claim['claim'])} \S {claim['verdict']}", page.text)
        for convention in claim["conventions"]:
            assert convention["name"] in page.text
    assert "1.76 (0.40)" in page.text                 # a number that the paper prints, beside ours


def test_it_tells_how_the_results_came_about(folder):
    page, markdown = report(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    for told in (page.text, markdown):
        assert "lintransformer run fig2 claims --preset smoke --settings S1 --steps 6 -q --out" in told
        assert "/somewhere" not in told
        assert manifest["versions"]["numpy"] in told and manifest["machine"]["processor"] in told
        assert "mean +- std/4 over seeds" in told.replace("\\", "") and "4, 0." in told
    final = json.loads((folder / "figures" / "fig2.json").read_text())["final"]
    assert all(text(curve["mean"]) in page.text for curve in final)
    assert "settings S1 seeds 0, 1 iterations 6 cells 4, " in page.text


def test_commands_are_quoted_for_the_shell(folder):
    results_folders.edit_manifest(
        folder, results_folders.at("commands.0.argv", ["lintransformer", "run", "fig2", "--out", "my $(ls) runs"]))
    page, markdown = report(folder)
    for told in (page.text, markdown):
        assert all(f"lintransformer {command} 'my $(ls) runs'" in told for command in ("check", "report"))
        assert "--out 'my $(ls) runs'" in told


def test_equal_results_give_equal_bytes(folder, tmp_path):
    report(folder)
    elsewhere = results_folders.copy(folder, tmp_path / "elsewhere")
    before = [(folder / name).read_bytes() for name in ("report.html", "report.md")]
    report(elsewhere)
    assert [(elsewhere / name).read_bytes() for name in ("report.html", "report.md")] == before


def test_everything_is_escaped(folder):
    edit(folder / "figures" / "fig2.json", band=HOSTILE, left_out=[HOSTILE],
         final=[{HOSTILE: HOSTILE, "other": "a\nb"}])
    book = json.loads((folder / "claims.json").read_text())
    book["claims"][0].update(claim=HOSTILE, why=HOSTILE, verdict=HOSTILE)
    edit(folder / "claims.json", **book)
    page, markdown = report(folder)
    assert not page.all("script") and page.text.count(HOSTILE) > 5
    assert r"\<script\>" in markdown and r"\[link\](http://x)" in markdown
    assert not re.search(r"(?<!\\)<(?!br>)", markdown) and not re.search(r"(?<!\\)\]\(http://", markdown)


def test_tables_of_the_markdown_are_whole(folder):
    edit(folder / "figures" / "fig2.json", final=[{"a|b": "c|d", "e": "f\n|"}])
    lines = report(folder)[1].splitlines()
    tables = 0
    for above, line in pairwise(lines):
        if re.fullmatch(r"\|(---\|)+", line):
            tables += 1
            columns = line.count("|")
        if line.startswith("|"):
            if above.startswith("|"):
                assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", above)) == columns
            else:
                columns = len(re.findall(r"(?<!\\)\|", line))
    assert tables > 10


def test_pictures_of_the_markdown_are_there(folder):
    _, markdown = report(folder)
    paths = re.findall(r"^!\[.*\]\((.*)\)$", markdown, re.MULTILINE)
    assert paths == ["figures/claims.png", "figures/fig2.png"]
    assert all((folder / path).exists() for path in paths)


def remove(*paths):
    return lambda folder: [(folder / path).unlink() for path in paths]


def diverge(folder):
    path = sorted((folder / "runs").iterdir())[0] / "status.json"
    edit(path, status="diverged")


def interrupt(folder):
    results_folders.edit_manifest(
        folder, lambda manifest: manifest["commands"][-1].update(exit_code=None, seconds=None))


MISSING = {
    "picture": (remove("figures/fig2.png"), "no picture that a browser shows"),
    "everything of a figure": (remove("figures/fig2.png", "figures/fig2.csv", "figures/fig2.json"),
                               "figures/fig2.json is not there: this part was not finished"),
    "ledger": (remove("claims.json", "figures/claims.json", "figures/claims.png"),
               "The ledger is not in this folder"),
    "cell": (lambda folder: (sorted((folder / "runs").iterdir())[0] / "status.json").unlink(),
             "1 of 4 cells missing: S1 "),
    "cell that cannot be read": (
        lambda folder: (sorted((folder / "runs").iterdir())[0] / "status.json").write_text("{"),
        "1 of 4 cells damaged: S1 "),
    "diverged cell": (diverge, "1 of 4 cells diverged: S1 "),
    "what a figure left out": (lambda folder: edit(folder / "figures" / "fig2.json", left_out=["S1: seed 3"]),
                               "left out: S1: seed 3"),
    "interrupted": (interrupt, "The last command was interrupted"),
    "unknown figure": (lambda folder: results_folders.edit_manifest(
        folder, results_folders.at("figures", ["claims", "fig2", "fig99"])), "not known to this version fig99"),
}


@pytest.mark.parametrize("case", MISSING)
def test_what_is_missing_is_named(case, folder):
    damage, message = MISSING[case]
    assert message not in report(folder)[0].text
    damage(folder)
    page, markdown = report(folder)
    assert message in page.text
    assert message.split(" fig99")[0] in " ".join(markdown.replace("\\", "").split())


def test_figures_that_were_not_asked_for_are_listed_with_their_command(folder):
    page, markdown = report(folder)
    found = re.search(r"lintransformer (run \S+.*--settings S1 --steps 6 --out \S+)", markdown)[1]
    named = build_parser().parse_args(found.split()).figures
    assert named == [id for id, figure in FIGURES.items()
                     if id not in ("fig2", "claims") and ("S1" in figure.settings or not figure.settings)]
    assert all(FIGURES[id].title in page.text for id in named)


@pytest.mark.parametrize("name, data, message", [
    ("claims.json", "{", "claims.json cannot be read"),
    ("claims.json", "[]", "claims.json is not a JSON object"),
    ("claims.json", '{"claims": [{"id": 1}]}', "a stored file was edited: KeyError"),
    ("figures/fig2.json", "{", "fig2.json cannot be read"),
    ("manifest.json", "{", "manifest.json is not valid JSON"),
    ("manifest.json", "{}", "manifest.json was edited"),
])
def test_what_cannot_be_read_is_refused_and_the_old_report_stays(name, data, message, folder, capsys):
    report(folder)
    before = (folder / "report.html").read_bytes()
    (folder / name).write_text(data)
    assert main(["report", str(folder)]) == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and out == ""
    assert (folder / "report.html").read_bytes() == before


@pytest.mark.parametrize("change", [results_folders.at("figures", ["fig2"]),
                                    results_folders.at("configuration.seeds", [5])], ids=["figures", "seeds"])
def test_a_ledger_of_other_results_is_not_shown(change, folder):
    assert report(folder)[0].all("article")
    results_folders.edit_manifest(folder, change)
    page, _ = report(folder)
    assert not page.all("article") and "The ledger is not in this folder" in page.text


def test_on_a_full_disk_the_old_report_stays(folder, capsys, monkeypatch):
    report(folder)
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    edit(folder / "figures" / "fig2.json", band="another")
    assert main(["report", str(folder)]) == 2
    assert re.search(r"cannot write .*report.html: No space left", capsys.readouterr().err)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_values_are_written_for_people():
    values = (None, "nan", float("nan"), True, 0.123456, 7, "inf", [1, 0.5], {"a_b": 1})
    assert [text(value) for value in values] == [
        "–", "–", "–", "yes", "0.1235", "7", "∞", "1, 0.5", "a b: 1"]
    assert interval(9.5678, [7.1, "inf"]) == "9.57 [7.1, ∞]" and interval(1.0, [1.0, 1.0]) == "1"
    assert interval("nan", ["nan", "nan"]) == "–" and interval(2.0, ["nan", "nan"]) == "2"
    assert [duration(seconds) for seconds in (3.04, 59.96, 200, 5235)] == [
        "3.0 s", "1 min 0 s", "3 min 20 s", "1 h 27 min"]
    definitions, tables = explain({
        "curve": "a mean", "seeds": {"S1": [0, 1]}, "cells": ["k"], "of": {"long": "x" * 50}, "empty": [],
        "draws": {"S1": {"n": 3}}, "final": [{"a": 1}, {"a": None, "b_c": 2.5}]})
    assert definitions == [("curve", "a mean"), ("seeds", "S1: 0, 1"), ("of: long", "x" * 50)]
    assert [(table.caption, table.columns, table.rows) for table in tables] == [
        ("draws", ["", "n"], [["S1", "3"]]), ("final", ["a", "b c"], [["1", "–"], ["–", "2.5"]])]
