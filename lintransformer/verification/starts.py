"""Checks of what training starts from: the initial theta of an objective, and the batches of a source."""
from __future__ import annotations

import numpy as np

from lintransformer.verification.batches import arrays_of, floats, snapshot
from lintransformer.verification.results import failed, information, not_offered, passed


def init(case):
    """theta at the start: size, dtype, and the same from the same state."""
    if not hasattr(case.objective, "init"):
        return not_offered("init", "no init(rng)")
    first, second = (np.asarray(case.objective.init(case.rng(9))) for _ in range(2))
    if first.shape != (case.size,) or first.dtype != np.float64 or not np.isfinite(first).all():
        return failed("init", f"theta must be ({case.size},) of finite float64, not {first.shape} of {first.dtype}")
    if first.tobytes() != second.tobytes():
        return failed("init", "the same state of rng gives another theta: draw from rng alone")
    try:
        dtype = np.asarray(case.objective.init(case.rng(9), np.float32)).dtype
    except TypeError:
        return passed("init", "init(rng) takes no dtype")
    return passed("init") if dtype == np.float32 else failed("init", f"init(rng, float32) gives {dtype}")


def source(case):
    """Batches follow from rng, in the precision asked for, and stay as they are when the next one is drawn."""
    if not arrays_of(case.batch):
        return information("source", "the batch holds no arrays that can be compared")
    size = getattr(case.batch, "size", case.batch_size) if not isinstance(case.batch, np.ndarray) else len(case.batch)
    if size != case.batch_size:
        return failed("source", f"draw(rng, {case.batch_size}, dtype) gives a batch of {size}")
    for dtype in (np.float64, np.float32):
        first, second = case.draw(10, dtype), case.draw(10, dtype)
        before = snapshot(first)
        if before != snapshot(second):
            return failed("source", "the same state of rng gives another batch: draw from rng alone")
        wrong = [f"{name} is {array.dtype}" for name, array in floats(first).items() if array.dtype != dtype]
        if wrong:
            return failed("source", f"asked for {np.dtype(dtype)}, {wrong[0]}")
        if snapshot(case.draw(11, dtype)) == before:
            return information("source", "another state of rng gives the same batch")
        if snapshot(first) != before:
            return failed("source", "a later draw overwrites an earlier batch")
    return passed("source")
