"""Run cells: what is stored and sound is kept, the rest is computed by worker processes and stored.

The numbers do not depend on the number of workers: a cell's computation sees its configuration and its inputs
only.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lintransformer.checks import check_finite_positive, check_positive_integer
from lintransformer.paper.cells import Cell, in_order
from lintransformer.paper.environment import environment
from lintransformer.paper.store import State, Store
from lintransformer.paper.workers import Result, Worker, wait

GRACE_SECONDS = 5.0       # past its deadline a cell has this long to hand in what it has, then it is killed
POLL_SECONDS = 0.25       # how often deadlines are looked at


@dataclass(frozen=True)
class Planned:
    """A cell, whether it is to run, and why."""
    cell: Cell
    run: bool
    state: State


def plan(store: Store, cells: Iterable[Cell], force: bool = False) -> list[Planned]:
    """Return every cell needed, needed ones first, with what is to be done about it.

    A cell runs if it is missing, damaged, failed or timed out, or if ``force``. What is stored of a forced cell
    stays until its replacement is ready: a run that is killed loses nothing, and is to be forced again. A sound
    cell is kept even where one it needs is damaged: running that one again gives the trace it was computed from.
    """
    planned = []
    for cell in in_order(cells):
        state = store.state(cell)
        if force and state.settled:
            state = State(state.status, f"{state.reason}; computed again (--force)")
        planned.append(Planned(cell, force or not state.settled, state))
    return planned


def run_cells(store: Store, planned: list[Planned], *, jobs: int = 1, timeout: float | None = None,
              grace: float = GRACE_SECONDS, progress: Callable[[Cell, float], None] | None = None
              ) -> dict[str, State]:
    """Compute and store what the `plan` says, over ``jobs`` processes.

    Parameters
    ----------
    store : Store
        Held by `Store.locked`.
    timeout : float, optional
        Seconds a cell may take.
    progress : callable, optional
        ``progress(cell, fraction)``; the fraction is 1 once, when the cell has ended, whatever its status.

    Returns
    -------
    dict of State by key
        For every planned cell, also those that were stored before.

    Raises
    ------
    StoreError
        If a result cannot be written. What was stored before stays; no worker process is left behind.
    """
    check_positive_integer("jobs", jobs)
    if timeout is not None:
        check_finite_positive("timeout", timeout)
    states = {item.cell.key: item.state for item in planned if not item.run}
    queue = _longest_path_first([item.cell for item in planned if item.run])
    workers: list[Worker] = []
    here = environment() if queue else {}
    tell = progress or (lambda cell, fraction: None)

    def settle(cell, result):
        store.save(cell, result.status, result.summary, result.data, **result.more, environment=here)
        states[cell.key] = State(result.status, result.summary.get("reason", result.status))
        tell(cell, 1.0)

    try:
        while queue or any(worker.cell for worker in workers):
            _hand_out(queue, workers, states, jobs, store, timeout, settle)
            wait(workers, POLL_SECONDS)
            for worker in workers:
                message = worker.poll(grace) if worker.cell else None
                if isinstance(message, Result):
                    cell, worker.cell = worker.cell, None
                    settle(cell, message)
                elif message is not None:
                    tell(worker.cell, message)
    finally:
        for worker in workers:
            worker.stop()
    return states


def _hand_out(queue, workers, states, jobs, store, timeout, settle):
    """Give free workers the first cells of the queue that can start; replace workers that are gone."""
    for cell in list(queue):
        waiting = [need for need in cell.needs if need.key not in states]
        unusable = [need for need in cell.needs if need.key in states and not states[need.key].settled]
        if unusable:
            queue.remove(cell)
            reason = f"needs {unusable[0].label}: {states[unusable[0].key].status}"
            settle(cell, Result("failed", {"reason": reason}))
        elif not waiting and sum(worker.cell is not None for worker in workers) < jobs:
            queue.remove(cell)
            workers[:] = [worker for worker in workers if worker.cell or worker.alive]
            worker = next((worker for worker in workers if not worker.cell), None)
            if worker is None:
                workers.append(worker := Worker())
            worker.start(cell, [store.folder(need) for need in cell.needs], timeout)


def _longest_path_first(cells: list[Cell]) -> list[Cell]:
    """Sort cells by the estimated seconds from their start to the end of the last cell that hangs on them."""
    path = {cell.key: cell.seconds for cell in cells}
    for cell in reversed(cells):
        for need in cell.needs:
            if need.key in path:
                path[need.key] = max(path[need.key], need.seconds + path[cell.key])
    return sorted(cells, key=lambda cell: -path[cell.key])
