"""The command line ``lintransformer``; a command is one function in `COMMANDS`."""
from __future__ import annotations

import argparse
import os
import sys

from lintransformer import cli_check, cli_list, cli_report, cli_run, cli_verify
from lintransformer.checks import InputError

# Each adds its parser and sets `execute`; what a command imports waits until it runs.
COMMANDS = (cli_list.add_list, cli_list.add_info, cli_run.add_run, cli_report.add_report, cli_check.add_check,
            cli_verify.add_parser)
EXIT_CODES = "0 done; 1 a check failed; 2 bad usage; 3 runs diverged, timed out or failed; 130 interrupted"


class Parser(argparse.ArgumentParser):
    """A parser that raises `InputError` for bad usage, in place of printing the whole usage."""

    def error(self, message):
        raise InputError(" ".join(message.split()))


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
    try:
        args = build_parser().parse_args(argv)
        return args.execute(args)
    except InputError as error:
        print(f"lintransformer: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lintransformer: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:                        # the reader of our output left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
