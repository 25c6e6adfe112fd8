"""The paper's figures, by id. A new one is a `Figure` in the ``FIGURES`` of a module here."""
from lintransformer.checks import InputError
from lintransformer.paper.figures import losses
from lintransformer.paper.figures.base import Drawing, Figure, check_formats, draw_figure, write_drawing

__all__ = ["FIGURES", "Drawing", "Figure", "check_formats", "draw_figure", "find_figures", "write_drawing"]

FIGURES: dict[str, Figure] = {figure.id: figure for module in (losses,) for figure in module.FIGURES}


def find_figures(names) -> list[Figure]:
    """Return the figures of these ids, each once.

    Raises
    ------
    InputError
        If one is not known; the message lists those that are.
    """
    for name in names:
        if name not in FIGURES:
            raise InputError(f"figure {name!r} is not known; known: {', '.join(FIGURES)}")
    return [FIGURES[name] for name in dict.fromkeys(names)]
