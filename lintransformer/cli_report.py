"""``lintransformer report``: a results folder as one page to read."""
from __future__ import annotations

from lintransformer.cli_arguments import path
from lintransformer.cli_output import printable


def add_report(commands):
    """Add the command ``report``."""
    parser = commands.add_parser(
        "report", help="write report.html and report.md into a results folder", allow_abbrev=False,
        description="Write report.html, one file that needs no other, and report.md into a results folder: "
                    "the ledger of claims, every figure and table, how to reproduce them, what is missing.")
    parser.add_argument("folder", type=path, metavar="FOLDER", help="results, such as results/laptop")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but problems")
    parser.set_defaults(execute=execute)


def execute(args) -> int:
    """Write the report and return the exit code."""
    from lintransformer.paper.report import write_report
    paths = write_report(args.folder)
    if not args.quiet:
        print("\n".join(map(printable, paths)))
    return 0
