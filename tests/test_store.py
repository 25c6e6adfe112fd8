"""The results folder: whole files, damage named, a lock, and refusals that leave nothing behind."""
import errno
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import toy_cells
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from lintransformer.checks import InputError
from lintransformer.paper.store import State, Store, StoreError, npz_bytes, plain, write_file

arrays = st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), npst.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.bool_]),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)), max_size=3)


@pytest.fixture
def stored(tmp_path):
    """A store that holds one finished cell."""
    store, cell = Store(tmp_path / "out"), toy_cells.cell(1)
    with store.locked():
        store.save(cell, "done", {"loss": 0.5}, npz_bytes({"x": np.arange(100.0)}), seconds=1.0)
    return store, cell


@given(arrays)
def test_npz_round_trip_and_same_bytes(contents):
    data = npz_bytes(contents)
    assert data == npz_bytes(dict(reversed(contents.items())))
    with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
        assert set(loaded) == set(contents)
        for name, array in contents.items():
            np.testing.assert_array_equal(loaded[name], array)
            assert loaded[name].dtype == array.dtype and loaded[name].shape == array.shape


def test_stored_cell_comes_back(stored):
    store, cell = stored
    trace = store.load(cell)
    np.testing.assert_array_equal(trace["x"], np.arange(100.0))
    assert (trace.status, trace.summary) == ("done", {"loss": 0.5})
    assert store.state(cell) == State("done", "done") and store.state(cell).settled
    assert sorted(os.listdir(store.folder(cell))) == ["config.json", "status.json", "trace.npz"]


def test_what_is_not_stored_is_missing(stored):
    store, _ = stored
    other = toy_cells.cell(2)
    assert store.state(other).status == store.load(other).status == "missing" and not store.load(other)


def edit(name, change):
    """Return an edit of one JSON file by hand."""
    def apply(folder):
        path = folder / name
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))
    return apply


def text(name, content):
    """Return the replacement of one file."""
    return lambda folder: (folder / name).write_bytes(content)


def lose(name):
    """Return the loss of one file."""
    return lambda folder: (folder / name).unlink()


def replace(path, old, new):
    """Replace a part of a file that is there."""
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))


def flip(folder):
    data = bytearray((folder / "trace.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "trace.npz").write_bytes(data)


DAMAGES = {
    "trace cut short": (lambda folder: os.truncate(folder / "trace.npz", 50), "trace.npz has 50 bytes"),
    "trace empty": (lambda folder: os.truncate(folder / "trace.npz", 0), "trace.npz has 0 bytes"),
    "byte flipped": (flip, "trace.npz was altered"),
    "trace lost": (lose("trace.npz"), "trace.npz cannot be read"),
    "config edited": (edit("config.json", lambda value: value["config"].update(seed=9)), "config.json was"),
    "config lost": (lose("config.json"), "config.json cannot be read"),
    "config no json": (text("config.json", b"{"), "config.json is not valid JSON"),
    "config not finite": (lambda folder: replace(folder / "config.json", b'"seed": 1', b'"seed": 1e908'),
                          "config.json holds 1e908, which is no finite number"),
    "config NaN": (text("config.json", b'{"seed": NaN}'), "config.json holds NaN"),
    "config nested without end": (text("config.json", b'{"a":' * 10**5), "config.json is not valid JSON"),
    "config no object": (text("config.json", b"[]"), "config.json is not a JSON object"),
    "status edited": (edit("status.json", lambda value: value.update(status="diverged")), "status.json was"),
    "summary edited": (edit("status.json", lambda value: value["summary"].update(loss=1)), "status.json was"),
    "status empty": (lambda folder: os.truncate(folder / "status.json", 0), "status.json is not valid JSON"),
    "status not utf-8": (text("status.json", b"\xff\xfe{}"), "status.json is not valid JSON"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_never_trusted(stored, damage):
    store, cell = stored
    apply, message = DAMAGES[damage]
    apply(store.folder(cell))
    state = store.state(cell)
    assert state.status == "damaged" and not state.settled
    assert message in state.reason and "\n" not in state.reason
    assert store.load(cell).status == "missing" and not store.load(cell)


def test_a_cell_copied_to_another_key_is_damaged(stored):
    store, cell = stored
    other = toy_cells.cell(2)
    store.folder(cell).rename(store.folder(other))
    assert store.state(other).status == "damaged"


@given(st.data())
def test_any_flipped_byte_of_a_trace_is_noticed(tmp_path_factory, data):
    store, cell = Store(tmp_path_factory.mktemp("flip")), toy_cells.cell(1)
    store.save(cell, "done", {}, npz_bytes({"x": np.arange(5.0)}))
    path = store.folder(cell) / "trace.npz"
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert store.state(cell).status == "damaged"


def test_second_run_on_a_folder_is_refused(stored):
    store, _ = stored
    script = ("import sys; from lintransformer.paper.store import Store, StoreError\n"
              "try:\n  with Store(sys.argv[1]).locked(): print('held')\n"
              "except StoreError as error: print(error)")
    other = [sys.executable, "-c", script, str(store.root)]
    with store.locked():
        refused = subprocess.run(other, capture_output=True, text=True, check=True).stdout
    assert "is in use by another run" in refused and refused.count("\n") == 1
    assert subprocess.run(other, capture_output=True, text=True, check=True).stdout == "held\n"


def test_leftovers_of_a_killed_run_are_cleared(stored):
    store, cell = stored
    leftovers = [store.root / ".manifest.json.123.tmp", store.folder(cell) / ".trace.npz.tmp",
                 store.root / "figures" / ".fig2.png.4.tmp"]
    leftovers[2].parent.mkdir()
    for path in leftovers:
        path.write_bytes(b"half")
    with store.locked():
        assert not any(path.exists() for path in leftovers)
    assert store.state(cell).status == "done"


def test_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="'thesis.tex' and no manifest.json"), Store(tmp_path).locked():
        pass
    assert os.listdir(tmp_path) == ["thesis.tex"]


FOREIGN = {
    "manifest of a web page": ("manifest.json", '{"name": "My page", "icons": []}'),
    "manifest that is no JSON": ("manifest.json", "Manifest-Version: 1.0"),
    "figures": ("figures/table1.csv", "precious"),
    "tables": ("tables/.draft.tmp", "precious"),
    "a report": ("report.md", "precious"),
    "runs": ("runs/monday/config.json", "{}"),
    "a temporary file": (".draft.tmp", "precious"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_names_like_ours_do_not_make_a_folder_ours(case, tmp_path):
    name, content = FOREIGN[case]
    path = write_file(tmp_path / "out" / name, content)
    with pytest.raises(StoreError, match="holds '.*' and no manifest.json that a run wrote"):
        with Store(tmp_path / "out").locked():
            pass
    assert path.read_text() == content and os.listdir(tmp_path / "out") == [name.split("/")[0]]


def test_a_folder_of_a_run_that_was_killed_at_once_is_ours(tmp_path):
    for name in (".lock", ".manifest.json.tmp", ".manifest.json.77.tmp"):
        (tmp_path / name).write_text("")
    with Store(tmp_path).locked():
        assert os.listdir(tmp_path) == [".lock"]


def test_temporary_files_that_are_not_ours_stay(stored):
    store, cell = stored
    others = [store.root / ".draft.tmp", store.root / "figures" / ".draft.txt.tmp",
              store.folder(cell) / ".notes.tmp", store.root / "notes" / ".fig2.png.tmp"]
    for path in others:
        write_file(path, "precious")
    (store.root / "figures" / ".x.png.tmp").mkdir()
    with store.locked():
        assert all(path.read_text() == "precious" for path in others)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_failing_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch, call, code):
    path = write_file(tmp_path / "file.json", "old")

    def fail(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(InputError, match=f"cannot write .*file.json: {os.strerror(code)}") as caught:
        write_file(path, "new")
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.json"]


def test_a_disk_that_takes_only_a_part(tmp_path):
    """Really refused by the system: no file may grow beyond 1,000 bytes."""
    resource = pytest.importorskip("resource")               # not on Windows, where the test above has to do
    write_file(tmp_path / "file.json", "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(InputError, match="cannot write .*file.json: File too large"):
            write_file(tmp_path / "file.json", "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["file.json"] and (tmp_path / "file.json").read_text() == "old"


def test_a_new_file_has_the_mode_of_the_umask_and_an_old_one_its_own(tmp_path):
    before = os.umask(0o027)
    try:
        path = write_file(tmp_path / "file", "new")
        assert path.stat().st_mode & 0o777 == 0o640
        path.chmod(0o604)
        assert write_file(path, "newer").stat().st_mode & 0o777 == 0o604
    finally:
        os.umask(before)


def test_a_planted_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("precious")
    for name in ("file", f".file.{os.getpid()}.tmp"):
        (tmp_path / name).symlink_to("precious")
    write_file(tmp_path / "file", "new")
    assert (tmp_path / "precious").read_text() == "precious" and (tmp_path / "file").read_text() == "new"


def test_path_through_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write .*file"), Store(tmp_path / "file" / "out").locked():
        pass
    with pytest.raises(StoreError, match="cannot write .*file"), Store(tmp_path / "file").locked():
        pass


def test_interrupted_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "file.json", "new")
    assert os.listdir(tmp_path) == []


def test_traces_with_objects_are_refused():
    with pytest.raises(ValueError, match="allow_pickle"):
        npz_bytes({"x": np.array([None])})


def test_plain_values():
    value = {"a": np.float32(0.5), "b": (1, np.int64(2)), 3: float("nan"), "c": np.array([1.0, np.inf]),
             "d": None, "e": True}
    assert plain(value) == {"a": 0.5, "b": [1, 2], "3": "nan", "c": [1.0, "inf"], "d": None, "e": True}
