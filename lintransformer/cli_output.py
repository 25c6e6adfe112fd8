"""What the command line prints, and where to: streams may be closed, readers may leave, names may hold anything."""
from __future__ import annotations

import contextlib
import os
import sys

LONGEST_LINE = 1000              # of a message: what is echoed may be a number of 100,000 digits


@contextlib.contextmanager
def reader_may_leave():
    """Print within this block; if the reader is gone, as with ``| head``, what is left of the block is skipped: no
    reason to change an exit code.
    """
    try:
        yield
        sys.stdout.flush()                         # here, not at exit, where it could only be complained about
    except BrokenPipeError:
        drop_output()


def drop_output():
    """Let standard output end in nothing: what it cannot take would be tried, and complained about, at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_streams():
    """Give every standard stream something to read from or write to, and let output take any character.

    A stream that was closed (``>&-``) is None, and its number would go to the next file that is opened.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def problem(message):
    """Print a line about something that went wrong, on standard error."""
    line = printable(message)
    if len(line) > LONGEST_LINE:
        line = f"{line[:LONGEST_LINE - 300]} ... {line[-290:]}"
    print(f"lintransformer: {line}", file=sys.stderr)


def printable(text) -> str:
    """Return a text with what is no printable character escaped: names and arguments may hold line ends, escape
    sequences of terminals, and bytes that are no text.
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))
