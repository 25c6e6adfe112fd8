"""Cells: what their keys depend on, and what is refused."""
import json

import pytest
import toy_cells
from hypothesis import given
from hypothesis import strategies as st

from lintransformer.checks import InputError
from lintransformer.paper import cells
from lintransformer.paper.cells import KINDS, Cell, Kind, Outcome, canonical, in_order, key_of

names = st.text(max_size=4)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names
values = st.recursive(scalars, lambda inner: (st.lists(inner, max_size=3)
                                              | st.dictionaries(names, inner, max_size=3)), max_leaves=5)
configs = st.dictionaries(names, values, max_size=3)


@given(configs)
def test_key_survives_the_disk(config):
    """A cell read back from its config.json has the same key, whatever the order of the entries."""
    cell = toy_cells.cell(seed=0, inner=config)
    assert key_of(json.loads(json.dumps(cell.record))) == cell.key
    backwards = dict(reversed(cell.record.items()))
    assert key_of(backwards) == cell.key and len(cell.key) == 16


@given(configs, configs)
def test_keys_are_equal_for_equal_configurations_only(one, other):
    same = canonical(one) == canonical(other)
    assert (toy_cells.cell(inner=one) == toy_cells.cell(inner=other)) is same


def test_key_depends_on_kind_version_needs_and_format(monkeypatch):
    toy_cells.install()
    before = toy_cells.cell(1)
    two, three = toy_cells.cell(2), toy_cells.cell(3)
    keys = {before.key, *(toy_cells.cell(1, needs=needs).key for needs in ([two], [three], [two, three]))}
    monkeypatch.setitem(KINDS, "other", Kind(toy_cells.toy, toy_cells.seconds))
    keys.add(Cell("other", {"seed": 1}).key)
    monkeypatch.setitem(KINDS, "toy", Kind(toy_cells.toy, toy_cells.seconds, version=3))
    keys.add(Cell("toy", {"seed": 1}).key)
    monkeypatch.setattr(cells, "FORMAT", 2)
    keys.add(Cell("toy", {"seed": 1}).key)
    assert len(keys) == 7


def test_label_is_not_part_of_the_key():
    toy_cells.install()
    assert Cell("toy", {"seed": 1}, label="one") == Cell("toy", {"seed": 1}, label="other")


def test_configuration_is_copied():
    config = {"seed": 1, "list": [1]}
    cell = toy_cells.cell(**config)
    config["list"].append(2)
    assert cell.config == {"seed": 1, "list": [1]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, slice(3)], ids=repr)
def test_configuration_that_is_not_plain_json_is_refused(value):
    with pytest.raises(InputError, match="plain JSON"):
        toy_cells.cell(value=value)


def test_unknown_kind_and_status_are_refused_by_name():
    toy_cells.install()
    with pytest.raises(InputError, match="'nonsense'.*toy"):
        Cell("nonsense", {})
    with pytest.raises(InputError, match="'finished'.*done, diverged, timed out"):
        Outcome({}, "finished")


def test_order_puts_needs_first_and_shared_cells_once():
    root = toy_cells.cell(0)
    middle = [toy_cells.cell(seed, needs=[root]) for seed in (1, 2)]
    top = toy_cells.cell(3, needs=middle)
    ordered = in_order([top, middle[1], toy_cells.cell(0)])
    assert ordered == [root, *middle, top]
