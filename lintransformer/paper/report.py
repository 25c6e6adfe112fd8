"""The report of a results folder: ``report.html``, one file that needs no other, and ``report.md``.

Equal results give equal bytes: the date is the manifest's. What is missing is named. (Our choice.)
"""
from __future__ import annotations

import re
from pathlib import Path

from lintransformer.paper import report_ledger, report_parts as parts
from lintransformer.paper.folder import Folder, open_folder, results_store
from lintransformer.paper.report_text import shell_word
from lintransformer.paper.store import Damaged, StoreError, write_file

PAPER = "https://arxiv.org/abs/2310.01082"
MARKDOWN = re.compile(r"([\\`*_\[\]<>|$~#&!])")
LINE_ENDS = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")


def write_report(root) -> list[Path]:
    """Write the report into a results folder; return the paths of its two files.

    Raises
    ------
    StoreError
        If it is no results folder, a run holds it, a stored file cannot be read, or it cannot be written.
    """
    store = results_store(root)
    with store.locked():
        try:
            page, plain = render(open_folder(store))
        except Damaged as error:
            raise StoreError(f"{store.root}: {error}; `lintransformer check` tells more") from None
        return [write_file(store.root / "report.html", page), write_file(store.root / "report.md", plain)]


def render(folder: Folder) -> tuple[str, str]:
    """Return the report as HTML and as Markdown.

    Raises
    ------
    Damaged
        If a stored file is not what a run writes.
    """
    from jinja2 import UndefinedError
    try:
        told = facts(folder)
        html = environment().get_template("report.html").render(told)
        markdown = environment(finalize=as_markdown).get_template("report.md").render(told)
    except (AttributeError, KeyError, IndexError, TypeError, UndefinedError) as error:
        raise Damaged(f"a stored file was edited: {type(error).__name__}: {error}") from None
    return html, re.sub(r"\n{3,}", "\n\n", markdown).rstrip() + "\n"


def facts(folder: Folder) -> dict:
    """Return everything the templates say."""
    book, entries = report_ledger.ledger(folder)
    sections = parts.sections(folder)
    ledger = next((section for section in sections if section.id == report_ledger.LEDGER), None)
    missing, command = parts.not_run(folder)
    return {"paper": PAPER, "name": folder.options.folder_name, "date": parts.when(folder),
            "book": book, "entries": entries, "counts": report_ledger.counts(entries), "ledger": ledger,
            "sections": [section for section in sections if section is not ledger],
            "drawn": {section.id for section in sections}, "unknown": folder.unknown, "not_run": missing,
            "command": command, "commands": parts.commands(folder), "about": parts.about(folder),
            "out": shell_word(parts.out_of(folder)), "interrupted": interrupted(folder)}


def interrupted(folder: Folder) -> bool:
    """Whether the last command did not come to its end."""
    commands = folder.manifest["commands"]
    return not commands or commands[-1]["exit_code"] is None


def environment(**how):
    """Return jinja2's environment of our templates.

    All that is put in is escaped; a name that is not there is an error, never empty.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    made = Environment(loader=PackageLoader("lintransformer.paper"), undefined=StrictUndefined,
                       autoescape=True, trim_blocks=True, lstrip_blocks=True, **how)
    made.globals.update(raw=Markup, code=as_code)
    return made


def as_markdown(value):
    """Return a value as Markdown that shows it literally, on one line; what is marked as safe stays."""
    from markupsafe import Markup
    if isinstance(value, Markup):
        return value
    return Markup(MARKDOWN.sub(r"\\\1", LINE_ENDS.sub(" ", str(value))))


def as_code(value):
    """Return a path or command between the backticks of Markdown."""
    from markupsafe import Markup
    return Markup(f"`{LINE_ENDS.sub(' ', str(value)).replace('`', '')}`")
