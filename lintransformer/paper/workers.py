"""Worker processes that compute cells, one at a time each, and can be lost without losing the run.

Processes are spawned, not forked: a fork of a process whose BLAS has threads can hang. Each computes with one
BLAS thread, so that the numbers do not depend on how many work at once. A pool of `concurrent.futures` breaks
as a whole when one process is killed; here only that process's cell is lost. (Our choice.)
"""
from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
import traceback
import warnings
from dataclasses import dataclass, field
from multiprocessing import connection, resource_tracker

from lintransformer.memory import keep_freed_memory
from lintransformer.paper.cells import KINDS, Cell, canonical, load
from lintransformer.paper.store import npz_bytes, plain, read_folder

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
                    "NUMEXPR_NUM_THREADS")
STARTED = "started"
REPORT_EVERY = 0.2                # seconds between two progress messages of a worker
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Job:
    """What a worker is sent: how to compute, with what, and for how long at most."""
    function: str                 # "module:function"
    config: dict
    needs: list                   # folders of the needed cells
    deadline_seconds: float | None


@dataclass(frozen=True)
class Result:
    """What comes back for a cell; ``data`` are npz bytes."""
    status: str
    summary: dict
    data: bytes = npz_bytes({})
    more: dict = field(default_factory=dict)


class Report:
    """Progress of a computation, told to the parent now and then; also holds the time allowed."""

    def __init__(self, pipe, deadline_seconds):
        self.pipe, self.deadline_seconds, self.last = pipe, deadline_seconds, time.monotonic()

    def __call__(self, fraction):
        now = time.monotonic()
        if now - self.last >= REPORT_EVERY:
            self.last = now
            self.pipe.send(min(max(float(fraction), 0.0), 1.0))


def serve(pipe):
    """Compute jobs from the pipe until it closes (the main function of a worker process)."""
    from threadpoolctl import threadpool_limits
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with threadpool_limits(1), contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = pipe.recv()
            pipe.send(STARTED)                   # the job's clock starts here, after the imports
            pipe.send(compute(job, Report(pipe, job.deadline_seconds)))


def compute(job: Job, report) -> Result:
    """Compute one job; an exception becomes a result of status "failed" that names it."""
    start = time.perf_counter()
    try:
        with warnings.catch_warnings(record=True) as caught:
            inputs = [read_folder(folder) for folder in job.needs]
            outcome = load(job.function)(job.config, inputs, report)
            summary = json.loads(canonical(plain(outcome.summary)))
            data = npz_bytes(outcome.arrays)
    except (BrokenPipeError, ConnectionResetError):
        raise                                    # the parent is gone
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return Result("failed", {"reason": reason}, more={"traceback": traceback.format_exc()})
    more = {"seconds": round(time.perf_counter() - start, 3)}
    if caught:
        more["warnings"] = sorted({f"{warning.category.__name__}: {warning.message}" for warning in caught})
    return Result(outcome.status, summary, data, more)


def _end_with_parent():
    """Leave at once when the parent dies, however it dies: nothing works on for a run that is over."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


class Worker:
    """The parent's end of one worker process."""

    def __init__(self):
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=serve, args=(theirs,), daemon=True)
        with _one_thread(), _interrupt_held():
            self.process.start()
        theirs.close()
        self.cell: Cell | None = None
        self.started = 0.0
        self.deadline_seconds = None

    def start(self, cell: Cell, folders, deadline_seconds):
        """Give the worker a cell to compute."""
        self.cell, self.started, self.deadline_seconds = cell, time.monotonic(), deadline_seconds
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):    # if it died, `poll` will say so
            self.pipe.send(Job(KINDS[cell.kind].compute, cell.config, list(folders), deadline_seconds))

    def poll(self, grace) -> float | Result | None:
        """Return what the worker has to tell: a fraction, a result, or None.

        A worker that died, or is past its deadline by ``grace`` seconds, gives a result; it is then not
        `alive`.
        """
        try:
            if self.pipe.poll():
                message = self.pipe.recv()
                if message != STARTED:
                    return message
                self.started = time.monotonic()
        except (EOFError, ConnectionResetError):
            self.stop()
            return Result("failed", {"reason": f"its worker process {_how_it_ended(self.process.exitcode)}"})
        limit = self.deadline_seconds
        if limit is not None and time.monotonic() > self.started + limit + grace:
            self.stop()
            return Result("timed out", {"reason": f"stopped after {limit:g} s, with nothing to keep"})
        return None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.is_alive()

    def stop(self):
        """Let the process end if it is idle (it does when its pipe closes); kill it otherwise."""
        self.pipe.close()
        self.process.join(timeout=0.0 if self.cell else 1.0)
        self.process.kill()
        self.process.join()


def wait(workers, seconds):
    """Wait until a worker that computes has something to tell, at most ``seconds``."""
    connection.wait([worker.pipe for worker in workers if worker.cell], timeout=seconds)


def _how_it_ended(exitcode) -> str:
    if exitcode is not None and exitcode < 0:
        names = {number.value: number.name for number in signal.Signals}
        name = names.get(-exitcode, f"signal {-exitcode}")
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"ended with exit code {exitcode}"


@contextlib.contextmanager
def _one_thread():
    """Set the thread variables for processes started here: BLAS reads them once, when NumPy is imported."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _interrupt_held():
    """Start a process with SIGINT blocked: Ctrl-C reaches the whole group, and the parent answers it. Where signals
    cannot be blocked, a worker may end first, with its traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()            # its own start would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
