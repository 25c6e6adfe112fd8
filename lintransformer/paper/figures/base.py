"""What every figure shares: what a figure is, how it looks, and how it is written to disk.

A figure reads stored traces and never trains. Colours are Okabe and Ito's, which stay apart for colour-blind
readers; line styles differ as well, for print without colour.
"""
from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np

from lintransformer.checks import InputError, check_choice
from lintransformer.paper.cells import Cell, Trace
from lintransformer.paper.options import Options
from lintransformer.paper.store import plain, write_file

LATEST_DATE = 253402300800        # the year 10000, in seconds since 1970: no calendar of Python's goes on
FORMATS = ("png", "pdf", "svg")
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
LOOKS = {"SGDM": {"color": BLUE, "linestyle": "--"}, "Adam": {"color": RED, "linestyle": "-"},
         "linear": {"color": RED, "linestyle": "-"}, "softmax": {"color": GREEN, "linestyle": "-."}}
STYLE = {"font.size": 13, "axes.titlesize": 14, "axes.labelsize": 13, "legend.fontsize": 12,
         "lines.linewidth": 2.2, "axes.grid": True, "axes.axisbelow": True, "grid.alpha": 0.3,
         "axes.spines.top": False, "axes.spines.right": False, "axes.formatter.useoffset": False,
         "figure.dpi": 100, "savefig.dpi": 150, "pdf.fonttype": 42, "svg.hashsalt": "lintransformer"}
METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
            "svg": {"Date": None}}            # no dates: equal numbers give equal files


@dataclass(frozen=True)
class Drawing:
    """A drawn figure.

    Attributes
    ----------
    figure : matplotlib.figure.Figure, or None for what is a table only
    table : list of dict
        The numbers shown, one row each, all with the same keys: the CSV.
    caption : dict
        What is shown: definitions, bands, seeds, settings, what was left out: the JSON.
    files : dict
        More files, text by path in the results folder: ``{"tables/fig4.md": ...}``.
    """
    figure: object
    table: list
    caption: dict
    files: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """A figure of the paper: which cells it needs and how it is drawn from their traces.

    Attributes
    ----------
    id, title : str
        "fig2", and a title of one line.
    paper : str
        What the paper shows there, in few words.
    cells : callable
        ``cells(options) -> list of Cell``.
    draw : callable
        ``draw(get, options) -> Drawing``, where ``get(cell)`` is its `Trace`; a cell that failed has status
        "failed" or "missing" and no arrays.
    settings : tuple of str
        The settings it shows.
    """
    id: str
    title: str
    paper: str
    cells: Callable[[Options], list]
    draw: Callable[[Callable[[Cell], Trace], Options], Drawing]
    settings: tuple = field(default=())


def check_formats(formats) -> tuple[str, ...]:
    """Return the picture formats, each once; raise `InputError` for one that is not known."""
    return tuple(dict.fromkeys(check_choice("format", name, FORMATS) for name in formats))


def axes_row(columns: int, rows: int = 1, *, width: float = 4.6, height: float = 3.9):
    """Return a matplotlib figure and its (rows, columns) axes, without pyplot: no window, no global state."""
    from matplotlib.figure import Figure as Canvas
    figure = Canvas(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def ready_to_draw():
    """Import what draws: what keeps it from drawing is told before anything is trained.

    Raises
    ------
    InputError
        If it cannot be imported, or the environment holds a date for pictures that is none.
    """
    date = os.environ.get("SOURCE_DATE_EPOCH", "0")          # pictures hold no date, but PDF's looks at it
    if not (date.isascii() and date.isdecimal() and int(date[:20]) < LATEST_DATE):
        raise InputError(f"SOURCE_DATE_EPOCH {date!r}: allowed are seconds since 1970, below {LATEST_DATE}")
    backend = os.environ.pop("MPLBACKEND", None)             # of windows, which we do not open: it may be any
    try:
        for name in ("agg", "pdf", "svg"):
            import_module(f"matplotlib.backends.backend_{name}")
    except Exception as error:                               # of another NumPy's, it may be any
        raise InputError(f"figures cannot be drawn: {error}") from None
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


@contextlib.contextmanager
def shared_style():
    """Draw with our style whatever the reader's matplotlibrc says: equal numbers, equal files."""
    ready_to_draw()
    import matplotlib
    with matplotlib.rc_context(), np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)      # of runs that diverged: overflow, nothing but NaN
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def log_scale(axis):
    """Make the vertical axis logarithmic, with plain numbers (0.02, not 2 x 10^-2) beside its ticks."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, value, position=None):
            if not np.isfinite(value):                                           # past the largest number there is
                return ""
            return f"{value:g}" if super().__call__(value, position) else ""     # which ticks: as ever

    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(Plain())
    axis.yaxis.set_minor_formatter(Plain())


def remark_below(axis, lines, most=4):
    """Write remarks in small print under the label of the horizontal axis, at most so many lines of them."""
    if len(lines) > most:
        lines = [*lines[:most - 1], f"and {len(lines) - most + 1} more"]
    if lines:
        axis.text(0.5, -0.21, "\n".join(lines), transform=axis.transAxes, ha="center", va="top", fontsize=10)


def csv_text(rows) -> str:
    """Return the rows as CSV: floats in full (``repr``), None and NaN empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue()


def _cell(value):
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else repr(float(value))
    return "" if value is None else value


def draw_figure(figure: Figure, get, options: Options) -> Drawing:
    """Draw a figure from the traces that ``get(cell)`` returns, in the shared style."""
    with shared_style():
        return figure.draw(get, options)


def write_drawing(folder: Path, figure: Figure, drawing: Drawing, formats) -> list[Path]:
    """Write ``ID.csv``, ``ID.json``, the pictures, and the drawing's own files; return their paths.

    Parameters
    ----------
    folder : path
        ``figures`` of a results folder; the drawing's own files stand beside it.

    Raises
    ------
    StoreError
        If a file cannot be written.
    """
    folder = Path(folder)
    caption = {"id": figure.id, "title": figure.title, "paper": figure.paper, **drawing.caption}
    files = {"csv": csv_text(drawing.table),
             "json": json.dumps(plain(caption), indent=1, allow_nan=False) + "\n"}
    if drawing.figure is not None and formats:
        lay_out(drawing.figure)
        files.update((name, picture(drawing.figure, name)) for name in formats)
    written = [write_file(folder / f"{figure.id}.{name}", data) for name, data in files.items()]
    return written + [write_file(folder.parent / path, data) for path, data in drawing.files.items()]


def lay_out(figure):
    """Place the axes of a figure for good, as for its PNG.

    A constrained layout starts from where the one of the last picture left the axes, so that the bytes of a
    picture would hang on the formats that were saved before it.
    """
    with shared_style():
        figure.set_dpi(STYLE["savefig.dpi"])
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def picture(figure, format: str) -> bytes:
    """Return a matplotlib figure as the bytes of a file, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with shared_style():
        figure.savefig(buffer, format=format, metadata=METADATA[format])
    return buffer.getvalue()
