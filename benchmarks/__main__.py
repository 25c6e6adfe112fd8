"""Measure ours, PyTorch, JAX and C side by side: `python -m benchmarks`. See benchmarks/README.md."""
import argparse
import sys
from pathlib import Path

from benchmarks import bars, measure, peers, plots, results, suite
from benchmarks.cases import CASES
from lintransformer.checks import InputError, check_choice, check_positive_integer

SECTIONS = (*measure.FIGURES, "memory", "growth")
QUICK_CASES = "S1,softmax"


def parse(argv):
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--cases", help=f"comma-separated, of: {', '.join(CASES)} (default: all)")
    parser.add_argument("--figures", default=",".join(SECTIONS), help="default: %(default)s")
    parser.add_argument("--peers", default=",".join(peers.PEERS), help="default: %(default)s")
    parser.add_argument("--axes", default=",".join(suite.AXES), help="of growth; default: %(default)s")
    parser.add_argument("--rounds", type=int, help="turns each peer takes (default: 9; 3 with --quick)")
    parser.add_argument("--quick", action="store_true", help=f"few short samples; {QUICK_CASES}")
    parser.add_argument("--check", action="store_true", help="only what the bars need; exit 1 on a shortfall")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="default: %(default)s")
    options = parser.parse_args(argv)
    default_cases = QUICK_CASES if options.quick else ",".join(CASES)
    options.cases = _names("case", options.cases or default_cases, CASES)
    options.figures = _names("figure", options.figures, SECTIONS)
    options.peers = _names("peer", options.peers, peers.PEERS)
    options.axes = _names("axis", options.axes, suite.AXES)
    if options.rounds is not None:
        check_positive_integer("--rounds", options.rounds)
    return options


def _names(kind, text, known):
    return [check_choice(kind, name, known) for name in text.split(",")]


def effort_of(options):
    """How long to measure."""
    quick = {"rounds": 3, "sample_seconds": 0.03, "slow_seconds": 10.0} if options.quick else {}
    return measure.Effort(**{**quick, **({"rounds": options.rounds} if options.rounds else {})})


def records(options, keys, effort):
    """Everything the options ask for, as it is measured."""
    cases = [CASES[name] for name in options.cases]
    figures = [figure for figure in options.figures if figure in measure.FIGURES]
    if figures:
        yield from suite.timings(cases, keys, figures, effort)
    if "memory" in options.figures:
        for case in cases:
            yield from suite.peak_memory(case, keys)
        if "ours" in keys:
            yield from (suite.allocation(case) for case in cases)
    if "growth" in options.figures:
        for axis in options.axes:
            yield from suite.growth(axis, keys, effort, options.quick)


def records_for_bars(keys, effort):
    """Only what the bars need."""
    for figure, names in bars.NEEDED.items():
        yield from suite.timings([CASES[name] for name in names], keys, [figure], effort)
    for case in CASES.values():
        yield from suite.peak_memory(case, ["ours"])
        yield suite.allocation(case)
    yield from suite.growth("n", ["ours"], effort, quick=True)


def announce(record):
    """One line for a record, on standard error."""
    if record["kind"] in ("timing", "growth"):
        where = record["case"] if record["kind"] == "timing" else f"{record['axis']} = {record['value']}"
        _, _, unit, scale = measure.FIGURES[record["figure"]]
        text = f"{where:10} {record['figure']:9} {record['peer']:18} {scale * record['median']:10.4g} {unit}"
    elif record["kind"] == "left out":
        text = f"{record['case']:10} {record['figure']:9} {record['peer']:18} left out: {record['why']}"
    elif record["kind"] == "agreement":
        errors = ", ".join(f"{peer} {error:.0e}" for peer, error in record["errors"].items())
        text = f"{record['case']:10} gradients agree with ours: {errors}"
    else:
        megabytes = record["bytes"] / bars.MB
        text = f"{record['case']:10} {record['kind']:9} {record['peer']:18} {megabytes:10.4g} MB"
    print(text, file=sys.stderr, flush=True)


def run(options):
    effort = effort_of(options)
    found = results.Results(results.about(sys.argv[1:], effort))
    print(f"BLAS: {'; '.join(found.about['machine']['blas'])}", file=sys.stderr)
    if found.about["coretype"]:
        print(f"warning: OPENBLAS_CORETYPE={found.about['coretype']} chooses our BLAS kernel; without it OpenBLAS takes"
              " the processor's own", file=sys.stderr)
    load = found.about["load_before"]
    if load > 0.5:
        print(f"warning: the machine is busy (load {load:.1f}); seconds will be too long", file=sys.stderr)
    keys, found.about["missing"] = suite.available(options.peers)           # compiles: after the load was taken
    for key, why in found.about["missing"].items():
        print(f"skipped: {peers.NAMES[key]}: {why}", file=sys.stderr)
    options.out.mkdir(parents=True, exist_ok=True)
    for record in records_for_bars(keys, effort) if options.check else records(options, keys, effort):
        announce(record)
        found.add(record)
        found.write(options.out)                         # an interrupted run keeps what it has
    written = plots.save_all(found, options.out)
    print(f"{options.out / 'results.md'}", *written, sep="\n")
    if not options.check:
        return 0
    text, all_pass = bars.lines(found)
    print(*text, sep="\n")
    return 0 if all_pass else 1


def main(argv=None):
    try:
        return run(parse(argv))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: cannot write: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:                        # a peer failed, or computes something else
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: what was measured is kept", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
