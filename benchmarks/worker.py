"""One process for each peer: nobody's threads or memory stand in another's way, and only one works at a time.

`Worker(peer)` starts a fresh interpreter with one thread; its methods run there and return here.
"""
import multiprocessing
import os
import re
import resource
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from benchmarks import cases, peers
from benchmarks.peers import layout

# Read when BLAS, OpenMP and XLA are loaded, hence set before the workers start. NPROC is XLA's thread pool;
# TORCHINDUCTOR_COMPILE_THREADS = 1 compiles in the worker itself, which leaves no idle processes behind.
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"), "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}


class WorkerError(RuntimeError):
    """A peer failed; the message is the last line of its traceback, and the traceback follows."""


class Worker:
    """A peer in a process of its own. Use it in a `with` block."""

    def __init__(self, peer):
        os.environ.update(ONE_THREAD)
        context = multiprocessing.get_context("spawn")
        self.peer = peer
        self._pipe, far_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(far_end, peer), daemon=True)
        self._process.start()
        far_end.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._pipe.close()                               # the worker's recv ends with EOFError
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()

    def __getattr__(self, name):
        """`worker.time(...)` calls `Servant.time(...)` in the other process."""
        def call(*arguments):
            self._pipe.send((name, arguments))
            try:
                succeeded, answer = self._pipe.recv()
            except EOFError:
                self._process.join(timeout=1)
                code = self._process.exitcode
                raise WorkerError(f"{self.peer} died with exit code {code} in {name}") from None
            if not succeeded:
                raise WorkerError(answer)
            return answer
        return call


class Servant:
    """What a worker can be asked for; holds one prepared case."""

    def __init__(self, peer):
        self.module = peers.load(peer)

    def check(self):
        """Raise if the peer cannot run on this machine although it is installed."""
        getattr(self.module, "check", lambda: None)()

    def prepare(self, case):
        """Build the peer's runner for a case."""
        self.runner = self.module.Runner(case)

    def time(self, figure, count):
        """(wall seconds, CPU seconds of all threads) of `count` calls, or of one `noise` of `count` draws.

        A peer that has `steps(count)` makes its `count` steps in one call.
        """
        at_once = getattr(self.runner, {"noise": "noise", "step": "steps"}.get(figure, ""), None)
        function = at_once or getattr(self.runner, figure)
        wall, cpu = time.perf_counter(), time.process_time()
        if at_once:
            function(count)
        else:
            for _ in range(count):
                function()
        return time.perf_counter() - wall, time.process_time() - cpu

    def gradient_at(self, case, seed, spread):
        """Gradient (p,), float32, at a seeded theta on seeded prompts: the same numbers in for every peer."""
        theta = spread * np.random.default_rng(seed).standard_normal(layout.size(case))
        return self.module.value_and_gradient(theta.astype(np.float32), *cases.prompts(case, seed), case)[1]

    def allocated(self):
        """Bytes one step takes beyond what the step before left (ours only)."""
        return self.runner.allocated()

    def peak_memory(self):
        """Largest resident memory of this process in bytes, libraries included."""
        return peak_memory()


def peak_memory():
    """Largest resident memory of this process so far, in bytes."""
    try:                                       # Linux: ru_maxrss would count the parent's memory before exec
        return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _serve(pipe, peer):
    try:
        servant = Servant(peer)
        while True:
            name, arguments = pipe.recv()
            try:
                pipe.send((True, getattr(servant, name)(*arguments)))
            except Exception as error:
                pipe.send((False, f"{peer}: {type(error).__name__}: {error}\n{traceback.format_exc()}"))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return                                           # the run is over
