"""The paper's figures, by id. A new one is a `Figure` in the ``FIGURES`` of a module here."""
from lintransformer.checks import InputError
from lintransformer.paper.figures import (clipping, conditioning, experiments, grid, ledger, losses, noise,
                                          nonlinear, ratios, smoothness, tables)
from lintransformer.paper.figures.base import Drawing, Figure, check_formats, draw_figure, ready_to_draw, write_drawing

__all__ = ["FIGURES", "Drawing", "Figure", "check_formats", "draw_figure", "find_figures", "ready_to_draw",
           "write_drawing"]

MODULES = (losses, noise, ratios, conditioning, smoothness, nonlinear, tables, grid, experiments, clipping,
           ledger)


def _place(figure: Figure) -> int:
    """Where a figure stands in lists: the paper's figures by number, then the rest."""
    number = figure.id.removeprefix("fig")
    return int(number) if number.isdecimal() else 1000


_ALL = [figure for module in MODULES for figure in module.FIGURES]
FIGURES: dict[str, Figure] = {figure.id: figure for figure in sorted(_ALL, key=_place)}


def find_figures(names) -> list[Figure]:
    """Return the figures of these ids, each once; "all" is every figure, "claim7" one claim of the ledger.

    Raises
    ------
    InputError
        If one is not known; the message lists those that are.
    """
    names = [known for name in names for known in (FIGURES if name == "all" else [name])]
    for name in names:
        if name not in FIGURES and name not in ledger.SINGLE:
            known = ", ".join(["all", *FIGURES, f"claim1 to claim{len(ledger.SINGLE)}"])
            raise InputError(f"figure {name!r} is not known; known: {known}")
    return [FIGURES.get(name) or ledger.SINGLE[name] for name in dict.fromkeys(names)]
