"""``lintransformer verify``: the battery of checks on every model, as one table."""
from __future__ import annotations

import json
import os
import stat
import sys
import time

from lintransformer.checks import InputError
from lintransformer.cli_arguments import word
from lintransformer.cli_output import reader_may_leave
from lintransformer.files import write_where_it_leads

COLUMNS = ("model", "check", "largest error", "tolerance", "verdict")


def add_parser(commands):
    """Add the command ``verify``."""
    parser = commands.add_parser("verify", help="check every gradient and Hessian-vector product",
                                 description="Check every model against the definition of a derivative. "
                                             "Exit code 1 if any check fails.", allow_abbrev=False)
    parser.add_argument("--model", metavar="NAME", type=word,
                        help="one model, such as linear-block-mlp, or all whose names have some words, such "
                             "as softmax or mlp-heads2 (default: every model)")
    parser.add_argument("-x", "--stop", action="store_true", help="stop at the first model with a failing check")
    parser.add_argument("--full", action="store_true", help="add exact arithmetic and the paper's size")
    parser.add_argument("--json", metavar="FILE", type=word,
                        help="write the table as JSON too; to a pipe or a device as to a file")
    parser.set_defaults(execute=run)
    return parser


def run(arguments) -> int:
    """Run the battery, print its table, and return 0, or 1 if a check failed."""
    from lintransformer.verification.battery import run_battery
    from lintransformer.verification.models import select_models
    if arguments.json is not None:
        _check_writable(arguments.json)
    start, models = time.perf_counter(), select_models(arguments.model)
    with _Progress(len(models)) as progress:
        rows = run_battery(arguments.model, arguments.full, progress, arguments.stop)
    seconds = time.perf_counter() - start
    passed = all(row.check.passed for row in rows)
    with reader_may_leave():
        print(format_table(rows))
        print("\n" + format_summary(rows, len({row.model for row in rows} & {model.name for model in models}), seconds))
    if arguments.json is not None:
        told = {"passed": passed, "seconds": round(seconds, 3), "rows": [row.as_dict() for row in rows]}
        write_where_it_leads(arguments.json, json.dumps(told, indent=1) + "\n")
    return 0 if passed else 1


def format_table(rows) -> str:
    """One line for each model and check."""
    cells = [COLUMNS] + [(row.model, row.check.name, f"{row.check.error:.1e}", f"{row.check.tolerance:.0e}",
                          "pass" if row.check.passed else "FAIL") for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    failed = [f"\n{row.model}: {row.check}" for row in rows if not row.check.passed]
    return "\n".join(lines + failed)


def format_summary(rows, models, seconds) -> str:
    """How many passed, the largest complex-step error, and what nothing here looks at."""
    from lintransformer.verification.battery import NOT_COVERED
    failed = sum(not row.check.passed for row in rows)
    by_complex_step = [row.check.error for row in rows if "complex" in row.check.name]
    verdict = "all passed" if not failed else f"{failed} FAILED"
    largest = f"; largest error of a complex step {max(by_complex_step):.1e}" if by_complex_step else ""
    return f"{len(rows)} checks, {models} models, {seconds:.1f} s: {verdict}{largest}. Not covered: {NOT_COVERED}"


class _Progress:
    """Which model is being checked, on one line that is erased in the end; silent off a terminal."""

    def __init__(self, count):
        self.count, self.begun, self.shown = count, 0, sys.stderr.isatty()

    def __call__(self, name):
        self.begun += 1
        self._show(f"{self.begun}/{self.count} {name}")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._show("")

    def _show(self, text):
        if self.shown:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _check_writable(path):
    """Refuse before the work rather than after it."""
    try:
        mode = os.stat(path).st_mode
        fits = os.access(path, os.W_OK) and not stat.S_ISDIR(mode) and not stat.S_ISSOCK(mode)
        alone = not stat.S_ISREG(mode)                       # a pipe or a device is written where it is
    except FileNotFoundError:
        fits, alone = not path.endswith(("/", os.sep)), False
    except OSError:                                          # links in a circle, a name too long
        fits = alone = False
    folder = os.path.dirname(os.path.realpath(path))
    if not fits or not alone and not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
        raise InputError(f"--json {path!r} cannot be written; allowed: a file in a folder that exists, a pipe, "
                         "a device")
