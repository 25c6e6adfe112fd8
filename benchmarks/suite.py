"""The parts of a benchmark run: cases, memory, growth. Each yields what it measured, one record at a time."""
from contextlib import ExitStack

from benchmarks import measure, peers
from benchmarks.cases import CASES
from benchmarks.peers import layout
from benchmarks.worker import Worker, WorkerError

MEMORY_STEPS = 20
TOKEN_BYTES = 1.5e9                  # token forms are left out where their scores alone would need more

# axis: (name in Case, values, values of the quick run)
AXES = {
    "n": ("context_length", (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000), (5, 20, 10_000)),
    "d": ("dimension", (2, 4, 8, 16, 32, 64), (2, 8)),
    "L": ("layers", (1, 2, 4, 8, 16, 32), (1, 4)),
    "B": ("batch_size", (10, 30, 100, 300, 1000, 3000, 10_000), (10, 1000)),
}


def available(keys):
    """(peers that can run, {peer: why it cannot})."""
    failing = {key: why_not(key) for key in keys}
    return [key for key in keys if not failing[key]], {key: why for key, why in failing.items() if why}


def why_not(key):
    """Why a peer cannot run here, or None: something is not installed, or does not compile."""
    if peers.missing(key):
        return f"{peers.missing(key)} is not here"
    try:
        with Worker(key) as worker:
            worker.check()
    except WorkerError as error:
        return str(error).splitlines()[0].removeprefix(f"{key}: ")
    return None


def timings(cases, keys, figures, effort):
    """Records of all cases: do the peers agree, timings, and what was left out and why."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(key)) for key in keys]
        for case in cases:
            able = [worker for worker in workers
                    if any(peers.supports(worker.peer, case, figure) for figure in figures)]
            for worker in able:
                worker.prepare(case)
            if "ours" in keys and len(able) > 1:
                yield {"kind": "agreement", "case": case.name, "errors": measure.check_agreement(able, case)}
            for figure in figures:
                yield from time_figure(able, case, figure, effort)


def time_figure(workers, case, figure, effort):
    """Records of one figure of one case, which all workers have prepared."""
    taking_part = []
    for worker in workers:
        if not peers.supports(worker.peer, case, figure):
            continue
        reason = measure.too_slow(worker, figure, layout.size(case), effort)
        if reason is None:
            taking_part.append(worker)
        else:
            yield left_out(case.name, figure, worker.peer, reason)
    for timing in measure.side_by_side(taking_part, case, figure, effort):
        yield {"kind": "timing", **timing.as_dict()}


def left_out(case, figure, peer, why):
    """Record of what was not measured."""
    return {"kind": "left out", "case": case, "figure": figure, "peer": peer, "why": why}


def peak_memory(case, keys):
    """Records of the largest memory of a fresh process that makes some training steps, libraries included."""
    for key in keys:
        if peers.supports(key, case, "step"):
            with Worker(key) as worker:
                worker.prepare(case)
                worker.time("step", MEMORY_STEPS)
                yield {"kind": "memory", "case": case.name, "peer": key, "bytes": worker.peak_memory()}


def allocation(case):
    """Record of the bytes one step of ours takes beyond what the step before left."""
    with Worker("ours") as worker:
        worker.prepare(case)
        return {"kind": "allocation", "case": case.name, "peer": "ours", "bytes": worker.allocated()}


def growth(axis, keys, effort, quick=False):
    """Records of the step's time along one axis (n, d, L or B) from Setting 1; who gets too slow stops."""
    field, values, few = AXES[axis]
    stopped = dict.fromkeys(keys)
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(key)) for key in keys if peers.supports(key, CASES["S1"], "step")]
        for value in few if quick else values:
            case = CASES["S1"].with_(**{field: value})
            taking_part = []
            for worker in workers:
                stopped[worker.peer] = stopped[worker.peer] or reason_to_stop(worker.peer, case)
                if stopped[worker.peer]:
                    yield left_out(f"{axis} = {value}", "step", worker.peer, stopped[worker.peer])
                else:
                    worker.prepare(case)
                    taking_part.append(worker)
            for timing in measure.side_by_side(taking_part, case, "step", effort):
                yield {"kind": "growth", "axis": axis, "value": value, **timing.as_dict()}
                if timing.median > effort.slow_seconds / 20:
                    stopped[timing.peer] = f"{axis} = {value} already takes {timing.median:.1f} s a step"


def reason_to_stop(peer, case):
    """Why a token form cannot be run at this size, or None."""
    scores = case.layers * case.heads * case.batch_size * (case.context_length + 1) ** 2 * 4
    if peer in peers.TOKENS and scores > TOKEN_BYTES:
        return f"the score matrices of its {case.layers} layers would take {scores / 1e9:.1f} GB"
    return None
