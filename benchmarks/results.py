"""What a benchmark run leaves: records, kept as JSON, shown as Markdown."""
import os
from importlib import metadata

from benchmarks import bars, peers
from benchmarks.measure import FIGURES
from lintransformer.paper.environment import machine, versions
from lintransformer.paper.store import write_file, write_json


class Results:
    """Records of one run. Every record is a dict with its `kind`."""

    def __init__(self, about=None, records=()):
        self.about, self.records = about or {}, list(records)

    def add(self, record):
        """Keep one record."""
        self.records.append(record)

    def of(self, kind):
        """All records of a kind, in the order they were measured."""
        return [record for record in self.records if record["kind"] == kind]

    def timing(self, case, figure, peer):
        """The record of a timing, or None."""
        found = [r for r in self.of("timing") if (r["case"], r["figure"], r["peer"]) == (case, figure, peer)]
        return found[-1] if found else None

    def median(self, case, figure, peer):
        """Median seconds, or None."""
        record = self.timing(case, figure, peer)
        return record and record["median"]

    def growth(self, axis, value, peer):
        """Median seconds of a step at one point of an axis, or None."""
        point = axis, value, peer
        found = [r["median"] for r in self.of("growth") if (r["axis"], r["value"], r["peer"]) == point]
        return found[-1] if found else None

    def write(self, folder):
        """results.json and results.md, each whole."""
        write_json(folder / "results.json", {"about": self.about, "records": self.records})
        write_file(folder / "results.md", markdown(self))


def about(arguments, effort):
    """Versions, machine, load and arguments of this run."""
    installed = {}
    for name in ("torch", "jax", "jaxlib"):
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = None
    return {"versions": {**versions(), **installed}, "machine": machine(), "compiler": peers.compiler() and
            os.path.basename(peers.compiler()), "load_before": os.getloadavg()[0], "arguments": arguments,
            "rounds": effort.rounds, "sample_seconds": effort.sample_seconds,
            "coretype": os.environ.get("OPENBLAS_CORETYPE")}


def markdown(results):
    """The whole run as Markdown."""
    known = results.about
    parts = ["# Benchmarks", _setting(known)]
    if known.get("missing"):
        parts.append("Skipped: " + "; ".join(f"{peers.NAMES[key]} ({why})"
                                             for key, why in known["missing"].items()) + ".")
    for figure, (title, _, unit, scale) in FIGURES.items():
        parts += _timing_table(results, figure, f"{title[0].upper()}{title[1:]}", unit, scale)
    parts += _memory_table(results) + _growth_tables(results) + _left_out(results) + _bar_table(results)
    return "\n\n".join(parts) + "\n"


def _setting(known):
    found = ", ".join(f"{name} {version}" for name, version in known["versions"].items()
                      if version and name in ("python", "numpy", "torch", "jax"))
    chosen = f" (chosen by OPENBLAS_CORETYPE={known['coretype']})" if known.get("coretype") else ""
    return (f"{known['machine']['processor']}, {known['machine']['cores']} cores, one thread each; {found}; "
            f"BLAS {'; '.join(known['machine']['blas'])}{chosen}; "
            f"load before the run {known['load_before']:.1f}. Float32, except our Hessian (float64). Medians "
            f"over {known['rounds']} rounds (fewer of slow calls), the peers taking turns; quartiles in "
            "brackets; in italics how many times the seconds of ours.")


def table(header, rows):
    """A Markdown table, first column left, the others right."""
    rule = "|".join(["---", *["---:"] * (len(header) - 1)])
    return "\n".join([f"| {' | '.join(header)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)])


def _timing_table(results, figure, title, unit, scale):
    records = [record for record in results.of("timing") if record["figure"] == figure]
    keys = [key for key in peers.PEERS if any(record["peer"] == key for record in records)]
    cases = list(dict.fromkeys(record["case"] for record in records))
    if not records:
        return []
    rows = [[case, *(_cell(results, case, figure, key, scale) for key in keys)] for case in cases]
    return [f"## {title}, {unit}", table(["case", *(peers.NAMES[key] for key in keys)], rows)]


def _cell(results, case, figure, key, scale):
    record = results.timing(case, figure, key)
    if record is None:
        return ""
    low, high = (format(scale * quartile, ".3g") for quartile in record["quartiles"])
    text, ours = f"{scale * record['median']:.3g} [{low}, {high}]", results.median(case, figure, "ours")
    return text if key == "ours" or ours is None else f"{text} *{record['median'] / ours:.3g}*"


def _memory_table(results):
    records = results.of("memory")
    keys = [key for key in peers.PEERS if any(record["peer"] == key for record in records)]
    used = {(record["case"], record["peer"]): f"{record['bytes'] / bars.MB:.0f}" for record in records}
    if not records:
        return []
    rows = [[case, *(used.get((case, key), "") for key in keys)]
            for case in dict.fromkeys(record["case"] for record in records)]
    allocated = ", ".join(f"{r['bytes'] / 1e3:.1f} kB ({r['case']})" for r in results.of("allocation"))
    return ["## Peak memory of training steps in a fresh process, MB, libraries included",
            table(["case", *(peers.NAMES[key] for key in keys)], rows),
            *([f"One step of ours allocates (tracemalloc): {allocated}."] if allocated else [])]


def _growth_tables(results):
    parts, records = [], results.of("growth")
    for axis in dict.fromkeys(record["axis"] for record in records):
        values = list(dict.fromkeys(record["value"] for record in records if record["axis"] == axis))
        keys = [key for key in peers.PEERS if any(r["peer"] == key and r["axis"] == axis for r in records)]
        rows = [[f"{value}", *(_milliseconds(results.growth(axis, value, key)) for key in keys)]
                for value in values]
        names = [peers.NAMES[key] for key in keys]
        parts += [f"## One step of Setting 1 against {axis}, ms", table([axis, *names], rows)]
    return parts


def _milliseconds(seconds):
    return "" if seconds is None else f"{1e3 * seconds:.3g}"


def _left_out(results):
    reasons = {}
    for r in results.of("left out"):
        reasons.setdefault((r["peer"], r["figure"], r["why"]), []).append(r["case"])
    listed = [f"- {peers.NAMES[peer]}, {figure} at {', '.join(where)}: {why}"
              for (peer, figure, why), where in reasons.items()]
    return ["## Left out", "\n".join(listed)] if listed else []


def _bar_table(results):
    rows = []
    for bar in bars.BARS:
        measured, verdict = bar.judge(results)
        if measured is not None:
            rows.append([bar.name, f"{bar.bound} {bar.value:g} {bar.unit}", f"{measured:.3g}", verdict])
    return ["## Bars", table(["what", "bar", "measured", "verdict"], rows)] if rows else []
