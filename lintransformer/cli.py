"""The command line ``lintransformer``; a command is one function in `COMMANDS`."""
from __future__ import annotations

import argparse
import os
import sys

from lintransformer import cli_check, cli_list, cli_report, cli_run, cli_verify
from lintransformer.checks import InputError
from lintransformer.cli_arguments import check_values, check_words
from lintransformer.cli_output import drop_output, open_streams, problem, reader_may_leave

# Each adds its parser and sets `execute`; what a command imports waits until it runs.
COMMANDS = (cli_list.add_list, cli_list.add_info, cli_run.add_run, cli_report.add_report, cli_check.add_check,
            cli_verify.add_parser)
EXIT_CODES = ("0 done; 1 a check failed; 2 bad usage; 3 runs diverged, timed out or failed, or a figure could not be "
              "drawn; 130 interrupted")


class Parser(argparse.ArgumentParser):
    """A parser that raises `InputError` for bad usage, in place of printing the whole usage."""

    def error(self, message):
        raise InputError(message)


def build_parser() -> Parser:
    """Return the parser of all commands."""
    parser = Parser("lintransformer", allow_abbrev=False, epilog=f"Exit codes: {EXIT_CODES}.",
                    description="The experiments of 'Linear attention is (maybe) all you need', in NumPy.")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands)
    return parser


def main(argv=None) -> int:
    """Run one command and return its exit code; bad input is one line on standard error and 2."""
    open_streams()
    try:
        check_words(sys.argv[1:] if argv is None else argv)
        with reader_may_leave():
            args = build_parser().parse_args(argv)
            check_values(args)
            return args.execute(args)
        return 0
    except InputError as error:
        problem(error)
        return 2
    except KeyboardInterrupt:
        problem("interrupted")
        return 130
    except OSError as error:                       # of a path in most cases: too long, not ours to look into
        if error.filename is None:                 # of standard output, which may be a full disk
            try:
                sys.stdout.flush()
            except OSError:
                drop_output()
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)!r}: "
        problem(f"{where}{error.strerror or error}")
        return 2
