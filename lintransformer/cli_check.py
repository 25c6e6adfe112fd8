"""``lintransformer check``: whether a results folder still is what its runs wrote."""
from __future__ import annotations

import sys

from lintransformer.cli_arguments import path
from lintransformer.cli_output import printable, reader_may_leave


def add_check(commands):
    """Add the command ``check``."""
    parser = commands.add_parser(
        "check", help="check stored traces, figures and the ledger of a results folder", allow_abbrev=False,
        description="Check every stored trace against its hash, derive every figure, table and the ledger "
                    "from the traces again, and name what differs, a line each (then exit code 1).")
    parser.add_argument("folder", type=path, metavar="FOLDER", help="results, such as results/laptop")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but mismatches")
    parser.set_defaults(execute=execute)


def progress_bar(figures):
    """Go over figures with a bar on standard error."""
    from tqdm import tqdm
    layout = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} derived again"
    return tqdm(figures, leave=False, bar_format=layout)


def execute(args) -> int:
    """Run the check and return its exit code."""
    from lintransformer.paper.checking import check_folder
    from lintransformer.paper.figures import ready_to_draw
    ready_to_draw()
    findings = check_folder(args.folder, iter if args.quiet or not sys.stderr.isatty() else progress_bar)
    with reader_may_leave():
        for line in findings.mismatches:
            print(printable(line))
        if not args.quiet:
            for line in findings.notes:
                print(printable(f"note: {line}"))
            cells = ", ".join(f"{count} {status}" for status, count in sorted(findings.cells.items())) or "none"
            found = f"{len(findings.mismatches)} mismatches" if findings.mismatches else "all as written"
            print(printable(f"{args.folder}: cells: {cells}; derived files compared: {findings.files}; {found}"))
    return 1 if findings.mismatches else 0
