"""What is refused of a command line before any command looks at it."""
from __future__ import annotations

import argparse
from pathlib import Path

from lintransformer.checks import InputError


def check_words(words):
    """Raise `InputError` for an argument that is not UTF-8: paths end up in the manifest and the report."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise InputError(f"argument {word!r} is not UTF-8") from None
        if "\0" in word:
            raise InputError(f"argument {word!r} holds a zero byte")


def check_values(args):
    """Raise `InputError` for an option given as ``--option=--``: argparse drops the dashes, in some versions, and
    hands on a list of no values.
    """
    for name, value in vars(args).items():
        if value == []:
            option = "-j" if name == "jobs" else "--" + name.replace("_", "-")
            raise InputError(f"{option} '--': it needs a value, other than dashes")


def word(text):
    """The type of an argument that may be any text but none (and not the dashes that end options)."""
    if text in ("", "--"):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: it needs a value")
    return text


def path(text):
    """The type of an argument that is a path; ``Path("")`` would be the folder one is in."""
    return Path(word(text))
