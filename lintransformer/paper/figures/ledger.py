"""The ledger as a figure (each claim's numbers with their intervals), as tables and as ``claims.json``."""
from __future__ import annotations

import json
import math
from functools import partial

from lintransformer.paper.claims.registry import CLAIMS, claim_cells, ledger
from lintransformer.paper.claims.verdicts import AGREES, DEPENDS, DIFFERS, NOT_TESTABLE, UNDECIDED
from lintransformer.paper.figures.base import BLACK, BLUE, ORANGE, PURPLE, RED, Drawing, Figure
from lintransformer.paper.figures.tables import table_files
from lintransformer.paper.options import Options
from lintransformer.paper.store import plain

LOOKS = {
    AGREES: (BLUE, "o"), DIFFERS: (RED, "X"), UNDECIDED: (ORANGE, "D"), DEPENDS: (PURPLE, "P"),
    NOT_TESTABLE: ("0.6", ".")
}
COLUMNS = {
    "ratio": "ratio of the claim's statistic (log scale)", "difference": "difference, correlation or slope"
}
SHOWN = {"ratio": (1e-3, 1e4), "difference": (-100.0, 100.0)}  # what the figure shows; arrows beyond


def ledger_cells(ids, options: Options) -> list:
    """Return the cells of these claims (all if None)."""
    return claim_cells(options, ids)


def draw_ledger(id, ids, get, options: Options) -> Drawing:
    """Judge the claims; draw a row for each number that decides one."""
    book = ledger(get, options, ids)
    rows, summary = ledger_rows(book), summary_rows(book)
    caption = {
        "conventions": book["conventions"], "configuration": options.configuration,
        "figure": "for each number that decides a claim, its mean over seeds (ratios: geometric) and 95 % t "
        "interval; beside it: where the claim would be true", "verdicts": {row["claim"]: row["verdict"]
                                                      for row in summary}
    }
    files = {**table_files(id, "Claims of the paper", summary, caption),
             f"tables/{id}.md": f"# Claims of the paper\n\n{ledger_markdown(book)}"}
    if ids is None:
        files["claims.json"] = json.dumps(plain(book), indent=1, allow_nan=False) + "\n"
        files |= table_files("claims-conventions", "Claims of the paper, under every convention", rows, {})
    return Drawing(_forest(book), rows, caption, files)


def ledger_rows(book: dict) -> list:
    """Return a row for each claim, convention and part."""
    return [{
        "claim": entry["id"], "convention": convention["name"], "primary": convention["primary"],
        "convention_verdict": convention["verdict"], "part": part["part"], "statistic": part["statistic"],
        "value": part["value"], "low": part["interval"][0], "high": part["interval"][1], "n": part["n"],
        "scale": part["scale"], "claimed": part["claimed"], "mean_std": part["mean_std"], "paper": part["paper"],
        "verdict": part["verdict"], "why": part["why"], "by_seed": " ".join(
            f"{seed}:{value:.6g}" for seed, value in part["by_seed"].items() if value is not None)
    } for entry in book["claims"] for convention in entry["conventions"] for part in convention["parts"]]


def summary_rows(book: dict) -> list:
    """Return a row for each claim."""
    return [{
        "claim": entry["id"], "says": entry["claim"], "section": entry["section"],
        "verdict": entry["verdict"], "numbers": "; ".join(f"{part['part']}: {_number(part)}"
                                                          for part in entry["parts"]),
        "paper": entry["paper"], "otherwise_under": "; ".join(entry["hangs_on"]) or None,
        "figure": entry["figure"], "cells": len(entry["cells"]), "command": entry["command"]
    } for entry in book["claims"]]


def ledger_markdown(book: dict) -> str:
    """Return the ledger as a Markdown table for readers: a row for each claim, a line for each part."""
    lines = ["| | the paper says | verdict | measured: mean over seeds [95 % interval], claimed |",
             "|---:|---|---|---|"]
    for entry in book["claims"]:
        measured = "<br>".join(
            f"{part['part']}: **{_number(part)}**, {part['claimed']}"
            + (f"; mean (std) {part['mean_std']}, the paper's {part['paper']}" if part["mean_std"] else "")
            for part in entry["parts"]) or entry["why"]
        row = [str(entry["id"]), f"{entry['claim']} ({entry['section']})", f"**{entry['verdict']}**", measured]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines) + "\n"


def _number(part):
    value, (low, high) = part["value"], part["interval"]
    if math.isnan(value):
        return "–"
    return f"{value:.3g}" + ("" if math.isnan(low) or low == high else f" [{low:.3g}, {high:.3g}]")


def _forest(book):
    """Draw ratios in one panel, all else in another; a row for each part, with what the claim says of it."""
    from matplotlib.figure import Figure as Canvas
    from matplotlib.lines import Line2D
    panels = {
        scale: [(entry["id"], part) for entry in book["claims"] for part in entry["parts"]
                if part["scale"] == scale][::-1]
        for scale in COLUMNS
    }
    panels = {scale: rows for scale, rows in panels.items() if rows} or {"ratio": []}
    heights = [len(rows) + 3 for rows in panels.values()]
    figure = Canvas(figsize=(11, 0.27 * sum(heights) + 0.8), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (scale, rows) in zip(axes, panels.items()):
        for height, (_, part) in enumerate(rows):
            _draw_part(axis, height, part)
        axis.set_yticks(range(len(rows)), [f"{id}. {part['part']}: {part['claimed']}" for id, part in rows],
                        fontsize=10)
        axis.set(xlabel=COLUMNS[scale], ylim=(-1, max(1, len(rows))))
        axis.axvline(1 if scale == "ratio" else 0, color=BLACK, linewidth=0.8)
        if scale == "ratio":
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(lambda value, position: f"{value:g}")
            axis.xaxis.set_minor_formatter(lambda value, position: "")
    handles = [
        Line2D([], [], linestyle="", color=color, marker=marker, markersize=9, label=verdict)
        for verdict, (color, marker) in LOOKS.items() if verdict != DEPENDS
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _draw_part(axis, height, part):
    """Draw one estimate and its interval; what lies beyond `SHOWN` becomes an arrow there."""
    color, marker = LOOKS[part["verdict"]]
    least, most = SHOWN[part["scale"]]
    value, (low, high) = part["value"], part["interval"]
    if math.isnan(value):
        return
    axis.plot(min(max(value, least), most), height,
              marker=marker if least <= value <= most else "<>"[value > most], color=color, markersize=8)
    if not math.isnan(low):
        axis.plot([min(max(low, least), most), min(max(high, least), most)], [height, height], color=color,
                  linewidth=2)
        for end, arrow, edge in ((low < least, "<", least), (high > most, ">", most)):
            if end:
                axis.plot(edge, height, marker=arrow, color=color, markersize=6)


PAPER = "What the paper says, claim by claim; of linear Transformers, where it does not say otherwise."
FIGURES = (Figure("claims", "The paper's claims, judged", PAPER, partial(ledger_cells, None),
                  partial(draw_ledger, "claims", None)),)
SINGLE = {
    f"claim{id}": Figure(f"claim{id}", f"Claim {id}: {claim.claim}", PAPER, partial(ledger_cells, [id]),
                         partial(draw_ledger, f"claim{id}", [id]))
    for id, claim in CLAIMS.items()
}
