"""Running cells over worker processes: equal numbers for any -j, deaths, deadlines, kill -9, resuming."""
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toy_cells

from lintransformer.checks import InputError
from lintransformer.paper import runs
from lintransformer.paper.runs import plan, run_cells
from lintransformer.paper.store import Store
from lintransformer.paper.workers import THREAD_VARIABLES

HERE = Path(__file__).parent


def run(folder, cells, force=False, **options):
    """Run cells in a folder and return the store and the status of each."""
    store = Store(folder)
    with store.locked():
        states = run_cells(store, plan(store, cells, force), **options)
    return store, [states[cell.key].status for cell in cells]


def reasons(store, cells):
    return [store.state(cell).reason for cell in cells]


def traces(store):
    return {path.parent.name: path.read_bytes() for path in store.root.glob("runs/*/trace.npz")}


def diamond():
    root = toy_cells.cell(0)
    middle = [toy_cells.cell(seed, needs=[root]) for seed in (1, 2)]
    return [toy_cells.cell(3, needs=middle), toy_cells.cell(4), *middle]


def test_same_bytes_for_any_number_of_workers(tmp_path):
    stores = [run(tmp_path / str(jobs), diamond(), jobs=jobs) for jobs in (1, 2, 3)]
    assert all(statuses == ["done"] * 4 for _, statuses in stores)
    first, *others = (traces(store) for store, _ in stores)
    assert len(first) == 5 and all(other == first for other in others)


def test_inputs_are_the_needed_traces(tmp_path):
    need = [toy_cells.cell(1), toy_cells.cell(2)]
    cell = toy_cells.cell(5, needs=need)
    store, _ = run(tmp_path, [cell])
    shift = sum(store.load(each)["x"].sum() for each in need)
    matrix = np.random.default_rng(5).normal(size=(64, 64)) + shift
    np.testing.assert_allclose(store.load(cell)["x"], matrix @ matrix, rtol=1e-12)


def test_workers_have_one_blas_thread_and_the_parent_keeps_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    before = dict(os.environ)
    store, _ = run(tmp_path, [toy_cells.cell(1)])
    summary = store.load(toy_cells.cell(1)).summary
    assert {summary["threads"][name] for name in THREAD_VARIABLES} == {"1"}
    assert summary["blas"] and set(summary["blas"]) == {1}
    assert dict(os.environ) == before


def test_finished_cells_are_not_run_again_and_force_runs_them(tmp_path):
    log = str(tmp_path / "log")
    cells = [toy_cells.cell(seed, log=log) for seed in range(3)]
    run(tmp_path / "out", cells[:2])
    run(tmp_path / "out", cells)
    assert sorted(Path(log).read_text().split()) == ["0", "1", "2"]
    run(tmp_path / "out", cells[:1], force=True)
    assert sorted(Path(log).read_text().split()) == ["0", "0", "1", "2"]


def test_a_forced_run_keeps_what_is_finished_until_it_is_replaced(tmp_path, monkeypatch):
    log = str(tmp_path / "log")
    cells = [toy_cells.cell(seed, log=log) for seed in (2, 1, 0)]
    store, _ = run(tmp_path / "out", cells)
    before = traces(store)

    def killed(store, cell, *args, **more):                # as the first replacement comes in
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out", cells, force=True)
    assert [store.state(cell).status for cell in cells] == ["done"] * 3 and traces(store) == before
    forced = Path(log).read_text().split()
    run(tmp_path / "out", cells, force=True)
    assert sorted(Path(log).read_text().split()[len(forced):]) == ["0", "1", "2"]


def test_a_shared_cell_runs_once(tmp_path):
    log = str(tmp_path / "log")
    shared = toy_cells.cell(0, log=log)
    cells = [toy_cells.cell(1, needs=[shared]), toy_cells.cell(2, needs=[shared]), shared]
    run(tmp_path / "out", cells, jobs=2)
    assert Path(log).read_text().split() == ["0"]


def test_failures_are_named_and_the_others_go_on(tmp_path):
    broken = toy_cells.cell(1, do="raise")
    cells = [broken, *(toy_cells.cell(seed, do=do) for seed, do in ((2, "die"), (3, "exit"), (4, "object"))),
             toy_cells.cell(5, needs=[broken]), toy_cells.cell(6, do="diverge"), toy_cells.cell(7, do="warn")]
    store, statuses = run(tmp_path, cells, jobs=2)
    assert statuses == ["failed"] * 5 + ["diverged", "done"]
    assert reasons(store, cells)[:5] == [
        "RuntimeError: the toy broke", "its worker process was killed by SIGKILL (out of memory?)",
        "its worker process ended with exit code 7",
        "ValueError: Object arrays cannot be saved when allow_pickle=False", "needs toy 1: failed"]
    status = (store.folder(cells[6]) / "status.json").read_text()
    assert "RuntimeWarning: divide by zero" in status
    again = {item.cell.config["seed"] for item in plan(store, cells) if item.run}
    assert again == {1, 2, 3, 4, 5}, "failed cells run again; a diverged one is deterministic and does not"


def test_failed_cell_succeeds_when_its_cause_is_gone(tmp_path):
    flag = tmp_path / "flag"
    cells = [toy_cells.cell(1, do="die unless flag", flag=str(flag)), toy_cells.cell(2)]
    assert run(tmp_path / "out", cells)[1] == ["failed", "done"]
    flag.write_text("")
    assert run(tmp_path / "out", cells)[1] == ["done", "done"]


def test_deadline_keeps_what_there_is_or_kills(tmp_path):
    cells = [toy_cells.cell(1, naps=400, nap=0.05), toy_cells.cell(2, do="hang"), toy_cells.cell(3)]
    store, statuses = run(tmp_path, cells, jobs=2, timeout=0.8, grace=4.0)           # grace for a busy machine
    assert statuses == ["timed out", "timed out", "done"]
    assert 3 < len(store.load(cells[0])["x"]) < 400 and not store.load(cells[1])
    assert reasons(store, cells)[:2] == ["ran out of time", "stopped after 0.8 s, with nothing to keep"]
    assert [item.run for item in plan(store, cells)] == [True, True, False]


def test_diverged_inputs_still_reach_the_cells_that_need_them(tmp_path):
    need = toy_cells.cell(1, do="diverge")
    assert run(tmp_path, [toy_cells.cell(2, needs=[need]), need])[1] == ["done", "diverged"]


def test_damaged_need_is_run_again_and_what_was_computed_from_it_is_kept(tmp_path):
    log = str(tmp_path / "log")
    need = toy_cells.cell(1, log=log)
    cell = toy_cells.cell(2, needs=[need], log=log)
    store, _ = run(tmp_path / "out", [cell])
    before = traces(store)
    os.truncate(store.folder(need) / "trace.npz", 50)
    assert [(item.cell, item.run, item.state.status) for item in plan(store, [cell])] == [
        (need, True, "damaged"), (cell, False, "done")]
    run(tmp_path / "out", [cell])
    assert traces(store) == before and Path(log).read_text().split() == ["1", "2", "1"]


def test_longest_path_goes_first():
    short, long = toy_cells.cell(0), toy_cells.cell(2)
    chain = toy_cells.cell(5, needs=[toy_cells.cell(4, needs=[toy_cells.cell(3)])])
    order = runs._longest_path_first([short, long, *chain.needs[0].needs, *chain.needs, chain])
    assert [cell.config["seed"] for cell in order] == [3, 4, 2, 5, 0]      # 6, 5, 3, 3, 1 seconds


def test_progress_ends_at_one_for_each_cell_that_runs(tmp_path):
    seen = {}
    cells = [toy_cells.cell(1, naps=12, nap=0.05), toy_cells.cell(2, do="raise")]

    def progress(cell, fraction):
        seen.setdefault(cell.config["seed"], []).append(fraction)

    run(tmp_path, cells, progress=progress)
    assert len(seen[1]) > 2 and seen[1] == sorted(seen[1]) and seen[1].count(1.0) == 1 and seen[2] == [1.0]


@pytest.mark.parametrize("options", [{"jobs": 0}, {"jobs": 1.5}, {"timeout": -1.0}, {"timeout": np.nan}])
def test_bad_options_are_refused(tmp_path, options):
    with pytest.raises(InputError, match=str(next(iter(options)))):
        run(tmp_path, [toy_cells.cell(1)], **options)


def test_full_disk_stops_the_run_and_loses_nothing(tmp_path, monkeypatch):
    cells = [toy_cells.cell(seed) for seed in (2, 1, 0)]
    replace, calls = os.replace, []

    def fill_up(*args):
        calls.append(args)
        if len(calls) > 4:                       # three files of the first cell, one of the second
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(*args)

    monkeypatch.setattr(os, "replace", fill_up)
    with pytest.raises(InputError, match="No space left on device"):
        run(tmp_path, cells)
    monkeypatch.undo()
    store = Store(tmp_path)
    assert [store.state(cell).status for cell in cells] == ["done", "missing", "missing"]
    assert not list(tmp_path.rglob("*.tmp"))
    assert run(tmp_path, cells)[1] == ["done"] * 3


SCRIPT = """
import sys, toy_cells
from lintransformer.paper.store import Store
from lintransformer.paper.runs import plan, run_cells
if __name__ == "__main__":
    cells = [toy_cells.cell(seed, naps=3, nap=0.05) for seed in range(8)]
    with (store := Store(sys.argv[1])).locked():
        run_cells(store, plan(store, cells), jobs=2)
"""


def children(pid):
    lists = [(task / "children").read_text().split() for task in Path(f"/proc/{pid}/task").iterdir()]
    return [int(child) for children in lists for child in children]


@pytest.mark.parametrize("finished", [0, 3])
def test_kill_9_then_the_same_run_gives_the_same_bytes(tmp_path, finished):
    cells = [toy_cells.cell(seed, naps=3, nap=0.05) for seed in range(8)]
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / "killed")],
                               env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parent)))})
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        statuses = list(tmp_path.glob("killed/runs/*/status.json"))
        if len(children(process.pid)) >= 2 and len(statuses) >= finished:
            break
        time.sleep(0.005)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = Store(tmp_path / "killed")
    words = [store.state(cell).status for cell in cells]
    assert set(words) <= {"done", "missing"} and "missing" in words and words.count("done") >= finished
    assert run(tmp_path / "killed", cells, jobs=2)[1] == ["done"] * 8
    assert traces(store) == traces(run(tmp_path / "undisturbed", cells, jobs=3)[0])
    while any(is_running(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(worker) for worker in workers), "workers end with their parent"


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
