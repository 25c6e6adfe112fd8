"""The ledger of claims as the report tells it: the entries of claims.json in texts."""
from __future__ import annotations

from dataclasses import dataclass

from lintransformer.paper.folder import Folder
from lintransformer.paper.report_text import Table, interval, read_json, table_of, text

LEDGER = "claims"      # the id of its figure
# Verdict -> (its class in the style sheet, the sign beside it: colour alone would not do).
MARKS = {"agrees": ("agrees", "✓"), "differs": ("differs", "✗"), "undecided": ("undecided", "?"),
         "depends on the convention": ("depends", "±"), "not testable here": ("untestable", "–")}


@dataclass(frozen=True)
class Entry:
    """A claim in the ledger, in texts; ``record`` is its entry in claims.json."""
    record: dict
    mark: tuple
    statistics: list
    measured: list
    parts: Table
    conventions: Table


def ledger(folder: Folder) -> tuple[dict | None, list[Entry]]:
    """Return the stored ledger and its entries; None if it is not there, or is not of these results."""
    book = read_json(folder.root / "claims.json") if LEDGER in folder.manifest["figures"] else None
    if book is None or book["configuration"] != folder.manifest["configuration"]:
        return None, []
    return book, [entry(record) for record in book["claims"]]


def entry(record: dict) -> Entry:
    """Return a claim's entry in texts."""
    measured = [f"{numbers(part)}; claimed {unbroken(part['claimed'])}"
                + (f"; the paper's {unbroken(part['paper'])}, ours likewise {unbroken(part['mean_std'] or '-')}"
                   if part["paper"] else "")
                for part in record["parts"]]
    statistics = list(dict.fromkeys(part["statistic"] for part in record["parts"]))
    rows = [{"part": part["part"], "statistic": part["statistic"],
             "value [95 % interval]": interval(part["value"], part["interval"]), "seeds": part["n"],
             "claimed": unbroken(part["claimed"]), "the paper's mean (std)": part["paper"],
             "ours": part["mean_std"], "verdict": part["verdict"],
             "by seed": text(part["by_seed"], digits=3)} for part in record["parts"]]
    said_above = {"statistic"} if len(statistics) < 2 else set()
    empty = set() if record["paper"] else {"the paper's mean (std)", "ours"}
    rows = [{name: value for name, value in row.items() if name not in said_above | empty} for row in rows]
    conventions = [{"convention": convention["name"] + (" (decides)" if convention["primary"] else ""),
                    "verdict": convention["verdict"],
                    "measured": "; ".join(map(numbers, convention["parts"]))}
                   for convention in sorted(record["conventions"], key=lambda one: not one["primary"])]
    name = f"Claim {record['id']}"
    return Entry(record, MARKS.get(record["verdict"], ("untestable", "–")), statistics, measured,
                 table_of(f"{name}: the numbers that decide it", rows),
                 table_of(f"{name}, under each convention", conventions))


def numbers(part: dict) -> str:
    """Return what was measured of a part of a claim."""
    return f"{part['part']}: {unbroken(interval(part['value'], part['interval']))}"


def unbroken(words: str) -> str:
    """Return words that stay on one line."""
    return words.replace(" ", "\N{NO-BREAK SPACE}")


def counts(entries) -> list[tuple]:
    """Return (verdict, mark, how many) for every verdict that occurs."""
    found = [entry.record["verdict"] for entry in entries]
    return [(verdict, mark, found.count(verdict)) for verdict, mark in MARKS.items() if verdict in found]
