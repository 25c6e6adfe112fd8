"""Toy kinds of cells for the tests: fast, and able to crash, hang, diverge and wait."""
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info

from lintransformer.paper.cells import KINDS, Cell, Kind, Outcome
from lintransformer.paper.figures.base import Drawing, Figure, axes_row


def toy(config, inputs, report):
    """Numbers that depend on the seed, on the inputs and on a matrix product (so that BLAS takes part)."""
    Path(config["log"]).open("a").write(f"{config['seed']}\n") if config.get("log") else None
    do = config.get("do", "work")
    flag = Path(config.get("flag", "/nonexistent"))
    if do == "raise":
        raise RuntimeError("the toy broke")
    if do == "die" or (do == "die unless flag" and not flag.exists()):
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "exit":
        os._exit(7)
    if do == "hang":
        time.sleep(600)
    if do == "warn":
        np.log(np.zeros(1))
    if do == "object":
        return Outcome({"x": np.array([None])})
    for step in range(config.get("naps", 0)):
        report(step / config["naps"])
        time.sleep(config["nap"])
        if report.deadline_seconds is not None and step * config["nap"] > report.deadline_seconds:
            return Outcome({"x": np.arange(step)}, "timed out", {"reason": "ran out of time"})
    rng = np.random.default_rng(config["seed"])
    matrix = rng.normal(size=(64, 64)) + sum(trace["x"].sum() for trace in inputs)
    status = "diverged" if do == "diverge" else "done"
    threads = {name: value for name, value in os.environ.items() if name.endswith("_THREADS")}
    return Outcome({"x": matrix @ matrix, "seed": np.array(config["seed"])}, status,
                   {"mean": matrix.mean(), "threads": threads,
                    "blas": [pool["num_threads"] for pool in threadpool_info()]})


def seconds(config):
    """An estimate that differs between seeds, so that order shows."""
    return 1.0 + config["seed"] % 3


def install():
    """Register the kind, in this process and (by name) for its workers."""
    folder = str(Path(__file__).parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    KINDS["toy"] = Kind(toy, seconds)


def cell(seed=0, needs=(), **config):
    """A toy cell."""
    install()
    return Cell("toy", {"seed": seed, **config}, tuple(needs), label=f"toy {seed}")


def figure(name, cells):
    """A figure of toy cells: a bar for each, a row for each."""
    def draw(get, options):
        traces = [get(cell) for cell in cells]
        canvas, axes = axes_row(1)
        heights = [trace["x"].sum() if trace else 0.0 for trace in traces]
        axes[0, 0].bar(range(len(cells)), heights)
        rows = [{"seed": cell.config["seed"], "status": trace.status, "sum": height}
                for cell, trace, height in zip(cells, traces, heights, strict=True)]
        return Drawing(canvas, rows, {"shown": "sums", "configuration": options.configuration})

    return Figure(name, "Toys", "nothing", lambda options: cells, draw)
