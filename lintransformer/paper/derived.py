"""What figures, the ledger and the report leave in a results folder: found, and removed when it is outdated."""
from __future__ import annotations

from pathlib import Path

from lintransformer.paper.files import Damaged, StoreError, read_json
from lintransformer.paper.schema import read_options

SUFFIXES = {".csv", ".json", ".md", ".png", ".pdf", ".svg"}
REPORT = ("report.html", "report.md")


def stored_files(root: Path) -> list[str]:
    """Return what figures and the ledger have left in the folder, as paths in it."""
    paths = [*(root / "figures").glob("*"), *(root / "tables").glob("*"), *root.glob("claims.json")]
    return sorted(str(path.relative_to(root)) for path in paths if not path.name.startswith("."))


def captions(root: Path) -> dict[str, Path]:
    """Return the stored captions by the id of their figure."""
    return {path.stem: path for path in sorted((root / "figures").glob("*.json")) if path.name[0] != "."}


def told_by_captions(root: Path) -> dict:
    """Return what the captions of stored figures tell of a manifest that is lost: configuration, figures.

    Raises
    ------
    Damaged
        If there are derived files, and not every caption names the same configuration.
    """
    found, stored = captions(root), stored_files(root)
    if not stored:
        return {}
    told = [read_json(path).get("configuration") for path in found.values()]
    try:
        if not told or any(configuration != told[0] for configuration in told):
            raise ValueError("its figures do not name one configuration")
        read_options(told[0])
    except ValueError as error:
        raise Damaged(f"what configuration {stored[0]} belongs to cannot be told: {error}") from None
    return {"configuration": told[0], "figures": list(found)}


def remove_derived(root: Path, ids):
    """Remove the files of these figures, of those that have a caption, of the ledger and the report.

    Other files that somebody has put beside them stay.

    Raises
    ------
    StoreError
        If one cannot be removed.
    """
    ids = {*ids, *captions(root)}
    paths = [path for path in map(root.joinpath, stored_files(root)) if path.suffix in SUFFIXES and any(
        path.stem == id or path.stem.startswith(f"{id}-") for id in ids)]
    for path in [*paths, *(root / name for name in ("claims.json", *REPORT))]:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot remove {path}: {error.strerror}") from error
