"""Output whose reader may leave before its end, as ``| head`` does: no reason to change an exit code."""
from __future__ import annotations

import contextlib
import os
import sys


@contextlib.contextmanager
def reader_may_leave():
    """Print within this block; if the reader is gone, what is left of the block is skipped."""
    try:
        yield
        sys.stdout.flush()                         # here, not at exit, where it could only be complained about
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
