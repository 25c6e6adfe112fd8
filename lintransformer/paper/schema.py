"""What a manifest is: its entries and their types, checked once for every command that reads one."""
from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from lintransformer.paper.files import Damaged, is_sealed
from lintransformer.paper.options import Options
from lintransformer.paper.store import Store

LARGEST = 10 ** 15             # of a number in a manifest: none that a run writes comes near it


def read_manifest(store: Store, trusted: bool = True) -> dict | None:
    """Return the manifest of a folder, None if there is none.

    Parameters
    ----------
    trusted : bool
        Refuse one whose seal says that it was edited. One without a seal, as written by earlier versions, is
        read either way.

    Raises
    ------
    Damaged
        If it is not what a run writes; the message names the first entry that is not.
    """
    manifest = store.manifest()
    if manifest is None:
        return None
    try:
        check_shape("", manifest, MANIFEST)
        read_options(manifest["configuration"])
        if trusted and is_sealed(manifest) is False:
            raise Damaged("its digest is not that of its content")
    except ValueError as error:                # also the `InputError` of an option that there is not
        raise Damaged(f"manifest.json was edited: {error}") from None
    return {name: value for name, value in manifest.items() if name != "digest"}


def read_options(configuration: dict) -> Options:
    """Return the options that have this configuration, those of the preset left out.

    Raises
    ------
    ValueError
        If none has; `Damaged` and `InputError` are such.
    """
    check_shape("configuration", configuration, CONFIGURATION)
    given = {name: tuple(value) if isinstance(value, list) else value
             for name, value in configuration.items() if name in CONFIGURATION}
    options = Options(**given)
    if options.configuration != configuration:
        raise ValueError("its configuration is not one that a run writes")
    of_preset = Options(preset=options.preset).configuration
    for name in ("seeds", "steps"):
        if configuration[name] == of_preset[name]:
            given[name] = None
    return Options(**given)


def check_shape(place: str, value, shape):
    """Raise `Damaged`, naming the place, if a value has not the shape.

    A shape is a dict of shapes by name (an object with at least these entries, but for names that end in "?",
    which earlier versions did not write), a list of one shape (a list of such values), or a function that tells
    whether a value is one.
    """
    if isinstance(shape, dict) and isinstance(value, dict):
        for name, inner in shape.items():
            name, later = name.removesuffix("?"), name.endswith("?")
            if name in value:
                check_shape(f"{place}.{name}".lstrip("."), value[name], inner)
            elif not later:
                raise Damaged(f"{f'{place}.{name}'.lstrip('.')} is missing")
    elif isinstance(shape, list) and isinstance(value, list):
        for number, item in enumerate(value):
            check_shape(f"{place}[{number}]", item, shape[0])
    elif isinstance(shape, (dict, list)) or not shape(value):
        shown = ascii(value)
        raise Damaged(f"{place} is {shown if len(shown) <= 60 else shown[:57] + '...'}")


def _text(value) -> bool:
    return isinstance(value, str)


def _integer(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST


def _number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < LARGEST


def _moment(value) -> bool:
    """Whether it is a date and time with its zone, which the report can turn into UTC."""
    try:
        moment = datetime.fromisoformat(value)
        return moment.tzinfo is not None and moment.astimezone(UTC) is not None
    except (TypeError, ValueError, OverflowError):
        return False


def _or_none(check) -> Callable:
    return lambda value: value is None or check(value)


def _some(check) -> Callable:
    return lambda value: isinstance(value, list) and len(value) > 0 and all(map(check, value))


def _named(check) -> Callable:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


CONFIGURATION = {"preset": _text, "seeds": _some(_integer), "steps": _integer,
                 "settings": _or_none(_some(_text)), "rates": _named(_number)}
VERSIONS, MACHINE = _named(_or_none(_text)), {"processor": _text, "cores": _integer, "system": _text, "blas?": [_text]}
COMMAND = {"argv": [_text], "started": _moment, "jobs": _integer, "seconds": _or_none(_number),
           "exit_code": _or_none(_integer), "runs?": _integer, "figures?": [_text],
           "environment?": {"versions": VERSIONS, "machine": MACHINE}}
MANIFEST = {
    "configuration": CONFIGURATION, "figures": [_text], "files?": [_text], "cells": _named(_integer),
    "seeds": [_integer],
    "commands": [COMMAND], "date": _moment, "seconds": _number, "versions": VERSIONS, "machine": MACHINE,
    "threads": {"worker_processes": _integer, "blas_threads_per_worker": _integer}}
