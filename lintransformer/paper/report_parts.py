"""What the report says, gathered from a results folder as it is: nothing is drawn or judged anew."""
from __future__ import annotations

import base64
import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

from lintransformer.paper.cells import in_order
from lintransformer.paper.figures import FIGURES
from lintransformer.paper.folder import Folder
from lintransformer.paper.manifest import environment_of, show
from lintransformer.paper.report_ledger import LEDGER
from lintransformer.paper.report_text import duration, explain, read_json, shell_word, table_of, text
from lintransformer.paper.store import Damaged, Store

PICTURES = {"png": "image/png", "svg": "image/svg+xml"}      # what browsers show, in order of preference


@dataclass(frozen=True)
class Section:
    """A figure or table: ``picture`` is a data URI, ``path`` the picture's place in the results folder."""
    id: str
    title: str
    paper: str | None
    picture: str | None = None
    path: str | None = None
    alt: str = ""
    definitions: list = field(default_factory=list)
    tables: list = field(default_factory=list)
    facts: list = field(default_factory=list)
    files: list = field(default_factory=list)
    missing: list = field(default_factory=list)


def sections(folder: Folder) -> list[Section]:
    """Return a section for each figure that was asked for, also for those of which nothing is there."""
    return [section(folder, figure) for figure in folder.figures]


def section(folder: Folder, figure) -> Section:
    """Return the section of a figure."""
    root, missing = folder.root, []
    caption = read_json(root / "figures" / f"{figure.id}.json")
    table = read_json(root / "tables" / f"{figure.id}.json") or {}
    if caption is None:
        missing.append(f"figures/{figure.id}.json is not there: this part was not finished")
    caption = caption or {}
    definitions, tables = explain(caption)
    if figure.id == LEDGER:                 # its rules and rows are the ledger's, which stands above it
        definitions, table = [(name, text) for name, text in definitions if name == "figure"], {}
    if table.get("rows"):
        tables = [other for other in tables if other.rows != table_of("", table["rows"]).rows]
        tables.insert(0, table_of(table.get("title", figure.title), table["rows"]))
        definitions += explain({name: value for name, value in table.items() if name not in caption})[0]
    picture, path, mime = find_picture(root, figure.id)
    files = sorted(str(file.relative_to(root)) for folder in ("figures", "tables")
                   for file in (root / folder).glob(f"{figure.id}.*"))
    if picture is None and caption and not table.get("rows"):
        missing.append("no picture that a browser shows: draw it with --formats png")
    facts, unfinished = cell_facts(folder, figure)
    missing += [*unfinished, *(f"left out: {line}" for line in caption.get("left_out") or ())]
    uri = picture and f"data:{mime};base64,{base64.b64encode(picture).decode()}"
    alt = f"{figure.title}. {definitions[0][1] if definitions else figure.paper}"
    paper = None if figure.id == LEDGER else figure.paper
    return Section(figure.id, figure.title, paper, uri, path, alt, definitions, tables, facts, files, missing)


def find_picture(root, id) -> tuple:
    """Return (bytes, path in the folder, media type) of a figure's picture, or three times None."""
    for name, mime in PICTURES.items():
        path = root / "figures" / f"{id}.{name}"
        if path.is_file():
            return path.read_bytes(), f"figures/{id}.{name}", mime
    return None, None, None


def cell_facts(folder: Folder, figure) -> tuple[list, list]:
    """Return what a figure rests on (settings, seeds, iterations, cells, seconds), and what is not done."""
    options = folder.options
    cells = in_order(figure.cells(options))
    found = {cell: cell_status(folder.store, cell) for cell in cells}
    facts = []
    if figure.settings:
        shown = [name for name in figure.settings if options.settings is None or name in options.settings]
        facts.append(("settings", ", ".join(shown)))
    if cells:
        seeds = sorted({cell.config["seed"] for cell in cells if "seed" in cell.config})
        seconds = sum(status.get("seconds") or 0.0 for status in found.values())
        steps = sorted({cell.config["steps"] for cell in cells if isinstance(cell.config.get("steps"), int)})
        facts += [("seeds", text(seeds)), ("iterations", text(steps) or "none: at initialisation"),
                  ("cells", f"{len(cells)}, {duration(seconds)} of one core (figures share cells)")]
    unfinished = {}
    for cell, status in found.items():
        if status["status"] != "done":
            unfinished.setdefault(status["status"], []).append(cell.label)
    return facts, [f"{len(labels)} of {len(cells)} cells {status}: {first_few(labels)}"
                   for status, labels in unfinished.items()]


def first_few(labels, most: int = 4) -> str:
    """Return some of the labels, and how many more there are."""
    return "; ".join(labels[:most]) + (f"; and {len(labels) - most} more" if len(labels) > most else "")


def cell_status(store: Store, cell) -> dict:
    """Return a cell's stored status; "missing" if there is none to read. Hashes are for `check`."""
    try:
        return {"status": "missing", **(read_json(store.folder(cell) / "status.json") or {})}
    except Damaged:
        return {"status": "damaged"}


def about(folder: Folder) -> dict[str, list]:
    """Return what the run was: configuration, machine, versions, as (name, text) pairs."""
    manifest, preset = folder.manifest, folder.options.numbers
    machine, threads = manifest["machine"], manifest["threads"]
    return {
        "Configuration": [("preset", f"{preset.name}: {preset.meaning}"),
                          *((name, show(value)) for name, value in manifest["configuration"].items()
                            if name != "preset"),
                          *((f"preset: {name}", show(value)) for name, value in explain(preset.as_dict())[0]
                            if name not in ("name", "meaning", "steps", "seeds"))],
        "Machine": [("date", when(folder)), ("seconds in all", duration(manifest["seconds"])),
                    ("processor", f"{machine['processor']}, {machine['cores']} cores, {machine['system']}"),
                    ("BLAS", "; ".join(machine.get("blas", ())) or "not recorded"),
                    ("worker processes", f"{threads['worker_processes']}, each with "
                                         f"{threads['blas_threads_per_worker']} BLAS thread")],
        "Versions": [(name, version or "not installed") for name, version in manifest["versions"].items()],
        "Computed under": computed_under(folder)}


def computed_under(folder: Folder) -> list[tuple]:
    """Return how many of the runs were computed under these versions on this machine, and what was another with
    the others: each run keeps its own.
    """
    cells = in_order(cell for figure in folder.figures for cell in figure.cells(folder.options))
    statuses = (cell_status(folder.store, cell) for cell in cells)
    found = Counter(json.dumps(status.get("environment")) for status in statuses if "key" in status)
    return [(f"{count} of {len(cells)} cells", difference(json.loads(one), environment_of(folder.manifest)))
            for one, count in found.most_common()]


def difference(ran: dict | None, told: dict) -> str:
    """Return in words how versions and machine of a run differ from those that are told above."""
    if not isinstance(ran, dict):
        return "not recorded with the run, as by earlier versions"
    others = [f"{name} {', '.join(value) if isinstance(value, list) else value}"
              for part in told for name, value in ran[part].items() if value != told[part].get(name)]
    return "under other versions or on another machine: " + "; ".join(others) if others else "as above"


def commands(folder: Folder) -> list[str]:
    """Return the commands that made the folder, each once, as they were typed."""
    return list(dict.fromkeys(" ".join(map(shell_word, ["lintransformer", *command["argv"][1:]]))
                              for command in folder.manifest["commands"]))


def when(folder: Folder) -> str:
    """Return the start of the last command, to the minute."""
    return f"{datetime.fromisoformat(folder.manifest['date']).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def not_run(folder: Folder) -> tuple[list, str]:
    """Return the figures the folder was never asked for but could hold, and the command that adds them."""
    asked, chosen = {figure.id for figure in folder.figures}, folder.options.settings
    missing = [figure for figure in FIGURES.values() if figure.id not in asked
               and (chosen is None or not figure.settings or set(chosen) & set(figure.settings))]
    ids = [figure.id for figure in missing]
    return missing, " ".join(["lintransformer run", *ids, *option_words(folder)])


def option_words(folder: Folder) -> list[str]:
    """Return the options of the folder's last command that decide its numbers, and its ``--out``."""
    return [shell_word(word) for word in [*folder.options.words, "--out", out_of(folder)]]


def out_of(folder: Folder) -> str:
    """Return the results folder as the last command named it."""
    argv = folder.manifest["commands"][-1]["argv"] if folder.manifest["commands"] else []
    for word, following in zip(argv, [*argv[1:], ""]):
        if word == "--out":
            return following
        if word.startswith("--out="):
            return word.removeprefix("--out=")
    return f"results/{folder.options.folder_name}"
