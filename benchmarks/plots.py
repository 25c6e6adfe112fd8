"""The plots of a benchmark run: times by case, and growth against n, d, L and B. Readable without colour."""
import io

from benchmarks import peers
from benchmarks.measure import FIGURES
from lintransformer.paper.store import write_file

# Okabe and Ito's colours, one a library and compiler; token form filled, Gram form hollow; a marker each, so that
# the peers can be told apart in print too.
LOOKS = {
    "torch": {"color": "#D55E00", "marker": "s"},
    "torch-compile": {"color": "#CC79A7", "marker": "P"},
    "jax": {"color": "#E69F00", "marker": "^"},
    "torch-gram": {"color": "#D55E00", "marker": "s", "markerfacecolor": "white"},
    "torch-compile-gram": {"color": "#CC79A7", "marker": "P", "markerfacecolor": "white"},
    "jax-gram": {"color": "#009E73", "marker": "D", "markerfacecolor": "white"},
    "jax-scan-gram": {"color": "#56B4E9", "marker": "v", "markerfacecolor": "white"},
    "native": {"color": "#000000", "marker": "x"},
    "ours": {"color": "#0072B2", "marker": "o"},
}
STYLE = {"font.size": 12, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True,
         "axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42, "savefig.dpi": 150}
AXIS_TITLES = {"n": "context length n", "d": "dimension d", "L": "layers L", "B": "batch size B"}


def save_all(results, folder):
    """cases.png/pdf and growth.png/pdf, as far as the run holds them; returns the paths written."""
    import matplotlib
    matplotlib.use("Agg")
    with matplotlib.rc_context(STYLE):
        drawings = {"cases": by_case(results), "growth": growth(results)}
    drawn = {name: figure for name, figure in drawings.items() if figure is not None}
    return [path for name, figure in drawn.items() for path in _save(figure, folder / name)]


def by_case(results):
    """One panel a figure: cases downwards, seconds on a log axis, medians with quartiles."""
    from matplotlib.figure import Figure
    records = results.of("timing")
    figures = [name for name in FIGURES if any(record["figure"] == name for record in records)]
    if not figures:
        return None
    cases = list(dict.fromkeys(record["case"] for record in records))
    drawing = Figure(figsize=(2.2 + 3.6 * len(figures), 1.9 + 0.42 * len(cases)), layout="constrained")
    panels = drawing.subplots(1, len(figures), sharey=True, squeeze=False)[0]
    for panel, figure in zip(panels, figures):
        title, _, unit, scale = FIGURES[figure]
        for key in peers.PEERS:
            mine = [record for record in records if record["figure"] == figure and record["peer"] == key]
            if mine:
                _dots(panel, [cases.index(r["case"]) for r in mine], mine, scale, key, horizontal=True)
        panel.set(xscale="log", xlabel=unit, title=title.replace(": ", ":\n").replace(" on a", "\non a"))
        _plain_numbers(panel.xaxis)
    panels[0].set_yticks(range(len(cases)), cases)
    panels[0].set_ylim(len(cases) - 0.5, -0.5)
    _legend(drawing, panels)
    return drawing


def growth(results):
    """One panel an axis: ms a step, both axes logarithmic."""
    from matplotlib.figure import Figure
    records = results.of("growth")
    axes = list(dict.fromkeys(record["axis"] for record in records))
    if not axes:
        return None
    drawing = Figure(figsize=(4.2 * len(axes), 4.6), layout="constrained")
    panels = drawing.subplots(1, len(axes), sharey=True, squeeze=False)[0]
    for panel, axis in zip(panels, axes):
        for key in peers.PEERS:
            mine = [record for record in records if record["axis"] == axis and record["peer"] == key]
            if mine:
                _dots(panel, [record["value"] for record in mine], mine, 1e3, key)
        panel.set(xscale="log", yscale="log", xlabel=AXIS_TITLES[axis])
        low, high = panel.get_ylim()
        if high < 4 * low:                                   # else noise of a percent would look like a trend
            middle = (low * high) ** 0.5
            panel.set_ylim(middle / 2, middle * 2)
        _plain_numbers(panel.xaxis)
        _plain_numbers(panel.yaxis)
    panels[0].set_ylabel("ms for one training step (Setting 1)")
    _legend(drawing, panels)
    return drawing


def _dots(panel, places, records, scale, key, horizontal=False):
    """Medians with quartiles of one peer; joined by a line if the places are numbers."""
    median = [scale * record["median"] for record in records]
    low, high = ([scale * record["quartiles"][end] for record in records] for end in (0, 1))
    whiskers = [[m - end for m, end in zip(median, low)], [end - m for m, end in zip(median, high)]]
    look = {**LOOKS[key], "label": peers.NAMES[key], "markersize": 8, "capsize": 3}
    if horizontal:
        panel.errorbar(median, places, xerr=whiskers, linestyle="none", **look)
    else:
        panel.errorbar(places, median, yerr=whiskers, linewidth=2, **look)


def _plain_numbers(axis):
    """1, 2, 5, 10 ... written out, where there is room."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _legend(drawing, panels):
    shown = {label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels())}
    order = [name for name in peers.NAMES.values() if name in shown]
    drawing.legend([shown[name] for name in order], order, loc="outside lower center", ncols=min(len(order), 3),
                   frameon=False)


def _save(figure, path):
    for extension in ("png", "pdf"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=extension)
        yield write_file(path.with_suffix("." + extension), buffer.getvalue())
