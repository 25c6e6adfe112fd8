"""Keep freed memory for the next array."""

import ctypes
import ctypes.util

# <malloc.h>: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, and what they are set to.
OPTIONS = {-1: 1 << 30, -2: 1 << 26, -3: 1 << 25}      # 32 MB is the largest threshold older glibc takes


def keep_freed_memory():
    """Ask the C library not to hand freed memory back to the system; return whether it agreed.

    An array of a megabyte is otherwise mapped anew at each allocation, and the first touch of its pages costs
    more than the arithmetic on it: softmax attention takes half the time with this (measured). It holds for
    the whole process, so it is the program's choice, not the library's: worker processes and benchmarks call
    it. With a C library other than glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(ctypes.util.find_library("c")).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return all(mallopt(option, value) == 1 for option, value in OPTIONS.items())
