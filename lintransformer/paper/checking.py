"""Check a results folder: every stored byte against its hash, everything drawn against the traces.

Hashes find damage and careless edits; what they cannot find (a trace and its hash replaced together) shows
when figures, tables and the ledger are derived from the traces again and compared with the stored ones.
Nothing is trained and nothing in the folder is written. (Our choice.)
"""
from __future__ import annotations

import re
import tempfile
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from lintransformer.paper.cells import in_order
from lintransformer.paper.comparing import first_difference
from lintransformer.paper.derived import stored_files
from lintransformer.paper.environment import environment, same_numbers
from lintransformer.paper.figures import draw_figure, write_drawing
from lintransformer.paper.figures.base import FORMATS
from lintransformer.paper.files import Damaged, is_sealed, json_text, read_json
from lintransformer.paper.folder import Folder, held_for_reading, open_folder, results_store
from lintransformer.paper.manifest import drawn_under
from lintransformer.paper.store import Store, read_folder


@dataclass
class Findings:
    """What a check found.

    Attributes
    ----------
    mismatches : list of str
        One line each; none if all is as it was written.
    cells : dict
        How many stored cells have each status; "damaged" counts those that cannot be trusted.
    files : int
        Derived files (of figures, tables and the ledger) that were compared.
    notes : list of str
        What was not compared, or only to rounding, and why.
    """
    mismatches: list = field(default_factory=list)
    cells: Counter = field(default_factory=Counter)
    files: int = 0
    notes: list = field(default_factory=list)


def check_folder(root, over=iter) -> Findings:
    """Check a results folder.

    Parameters
    ----------
    root : path
    over : callable
        Goes over the list of figures in place of `iter`, such as `tqdm.tqdm`, to show progress.

    Raises
    ------
    StoreError
        If it is no results folder, or a run is writing to it.
    """
    store, findings = results_store(root), Findings()
    with held_for_reading(store.root):
        sound = check_cells(store.root, findings)
        try:
            folder = open_folder(store, trusted=False)
            check_seal(store, findings)
        except Damaged as error:
            findings.mismatches.append(f"{error}: figures, tables and the ledger were not checked")
            return findings
        check_derived(folder, sound, findings, over)
        check_report(folder, findings)
    return findings


def check_cells(root: Path, findings: Findings) -> set[str]:
    """Read every stored cell; return the keys of those that are as they were written."""
    sound = set()
    for path in sorted((root / "runs").glob("*")):
        name = f"runs/{path.name}"
        if not re.fullmatch("[0-9a-f]{16}", path.name) or not path.is_dir():
            findings.mismatches.append(f"{name}: not the folder of a cell")
        elif not (path / "status.json").exists():
            findings.cells["unfinished"] += 1    # a killed run leaves it so: missed only if a figure needs it
        else:
            try:
                findings.cells[read_folder(path).status] += 1
                sound.add(path.name)
                findings.mismatches += [f"{name}/{file}: its layout was changed"
                                        for file in ("config.json", "status.json") if not as_written(path / file)]
            except (Damaged, KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
                findings.cells["damaged"] += 1
                findings.mismatches.append(f"{name}: {_in_words(error)}")
    return sound


def check_seal(store: Store, findings: Findings):
    """Find whether the manifest was edited: every check that follows goes by what it says."""
    sealed = is_sealed(store.manifest())
    if sealed is None:
        findings.notes.append("manifest.json is not sealed, as earlier versions left it: not checked for edits")
    elif not sealed:
        findings.mismatches.append("manifest.json was edited: its digest is not that of its content")
    elif not as_written(store.root / "manifest.json"):
        findings.mismatches.append("manifest.json: its layout was changed")


def as_written(path: Path) -> bool:
    """Whether a JSON file has the bytes that its content is written in: blanks after its end are no content."""
    return path.read_bytes() == json_text(read_json(path)).encode()


def check_derived(folder: Folder, sound: set[str], findings: Findings, over=iter):
    """Derive everything the manifest lists from the traces again, and compare it with what is stored."""
    findings.mismatches += [f"manifest.json: figure {id!r} is not known here: not checked"
                            for id in folder.unknown]
    here, accounted, complete = environment(), set(), not folder.unknown
    exact = {figure.id: same_numbers(drawn_under(folder.manifest, figure.id), here) for figure in folder.figures}
    if not all(exact.values()):
        others = ", ".join(id for id, same in exact.items() if not same)
        findings.notes.append(f"other versions or another machine than the run's: numbers of {others} are compared "
                              "to rounding, pictures not at all")
    for figure in over(folder.figures):
        unsound = [cell for cell in in_order(figure.cells(folder.options)) if cell.key not in sound]
        if unsound:
            complete = False
            findings.mismatches.append(
                f"{figure.id}: not derived again, as it rests on {unsound[0].label} (runs/{unsound[0].key}), "
                "missing or damaged" + (f"; and on {len(unsound) - 1} more such" if len(unsound) > 1 else ""))
        else:
            accounted |= compare_figure(folder, figure, exact[figure.id], findings)
    named = {line.partition(":")[0] for line in findings.mismatches}
    findings.mismatches += [f"{path}: is missing; a run wrote it" for path in folder.manifest.get("files", ())
                            if path not in named and not (folder.root / path).exists()]
    if complete:
        findings.mismatches += [f"{path}: nothing that the manifest lists writes it"
                                for path in stored_files(folder.root) if path not in accounted]


def compare_figure(folder: Folder, figure, exact: bool, findings: Findings) -> set[str]:
    """Draw a figure again beside the folder, and compare the files; return their paths in the folder."""
    formats = [name for name in FORMATS if (folder.root / "figures" / f"{figure.id}.{name}").exists()]
    try:
        drawing = draw_figure(figure, folder.store.load, folder.options)
    except Exception as error:             # traces with sound hashes that no run wrote may break it anywhere
        findings.mismatches.append(f"{figure.id}: cannot be drawn from the traces: {_in_words(error)}")
        return {path for path in stored_files(folder.root) if Path(path).stem == figure.id}
    if drawing.figure is not None and not formats and "files" not in folder.manifest:
        findings.mismatches.append(f"figures/{figure.id}: its picture is missing")
    with tempfile.TemporaryDirectory() as beside:
        written = write_drawing(Path(beside) / "figures", figure, drawing, formats if exact else ())
        paths = {str(path.relative_to(beside)): path.read_bytes() for path in written}
    for path, derived in paths.items():
        findings.files += 1
        try:
            stored = (folder.root / path).read_bytes()
        except OSError as error:
            findings.mismatches.append(f"{path}: cannot be read: {error.strerror}")
            continue
        difference = first_difference(Path(path).suffix, stored, derived, exact)
        if difference:
            findings.mismatches.append(f"{path}: {difference}")
    return {*paths, *(f"figures/{figure.id}.{name}" for name in formats)}


def check_report(folder: Folder, findings: Findings):
    """Note a report that says something else than these results: an older one, or one that was edited."""
    from lintransformer.paper.report import render
    stored = {name: folder.root / name for name in ("report.html", "report.md")}
    if any(path.is_file() for path in stored.values()):
        try:
            derived = dict(zip(stored, render(folder)))
        except Damaged as error:
            findings.notes.append(f"the report cannot be compared: {error}")
            return
        findings.notes += [f"{name} is not what these results give now: write it with `lintransformer report`"
                           for name, path in stored.items()
                           if not path.is_file() or path.read_bytes() != derived[name].encode()]


def _in_words(error) -> str:
    return str(error) if isinstance(error, Damaged) else f"{type(error).__name__}: {error}"
