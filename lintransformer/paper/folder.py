"""A results folder as its readers see it: `report` and `check` read what `run` left, and train nothing."""
from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from lintransformer.checks import InputError
from lintransformer.paper.figures import FIGURES, Figure, find_figures
from lintransformer.paper.files import hold
from lintransformer.paper.options import Options
from lintransformer.paper.schema import read_manifest, read_options
from lintransformer.paper.store import Store, StoreError


@dataclass(frozen=True)
class Folder:
    """What the manifest of a results folder says.

    Attributes
    ----------
    store : Store
    manifest : dict
    options : Options
        Those the folder was run with.
    figures : list of Figure
        Those that were asked for, in the order of the registry.
    unknown : list of str
        Ids in the manifest that this version does not know.
    """
    store: Store
    manifest: dict
    options: Options
    figures: list
    unknown: list = field(default_factory=list)

    @property
    def root(self) -> Path:
        """The folder."""
        return self.store.root


def results_store(root) -> Store:
    """Return the store of an existing results folder.

    Raises
    ------
    StoreError
        If it does not exist, is no folder, or holds no manifest.
    """
    root = Path(root)
    if not root.is_dir():
        what = "not a folder" if root.exists() else "not there"
        raise StoreError(f"{root} is {what}: give a results folder, such as results/laptop")
    if not (root / "manifest.json").exists():
        raise StoreError(f"{root} holds no manifest.json: not a results folder")
    return Store(root)


def open_folder(store: Store, trusted: bool = True) -> Folder:
    """Read the manifest; ``trusted`` as for `read_manifest`.

    Raises
    ------
    Damaged
        If it is not what a run writes.
    """
    manifest = read_manifest(store, trusted)
    figures, unknown = split_known(manifest["figures"])
    return Folder(store, manifest, read_options(manifest["configuration"]), figures, unknown)


def split_known(ids) -> tuple[list[Figure], list[str]]:
    """Return the figures of these ids, in the order of the registry, and the ids that are not known."""
    known, unknown = [], []
    for id in ids:
        try:
            known += find_figures([id])
        except InputError:
            unknown.append(id)
    place = {id: number for number, id in enumerate(FIGURES)}
    return sorted(known, key=lambda figure: place.get(figure.id, len(place))), unknown


@contextlib.contextmanager
def held_for_reading(root):
    """Keep runs from writing while the folder is read, without writing to it.

    Raises
    ------
    StoreError
        If another command holds it.
    """
    lock = Path(root) / ".lock"
    try:
        held = hold(lock, seconds=0.0) if lock.exists() else contextlib.nullcontext()
    except OSError:                            # not ours to lock, or copied without it: no run of ours goes on there
        held = contextlib.nullcontext()
    if held is None:
        raise StoreError(f"{root} is in use by another command: wait until it has ended")
    with held:
        yield
