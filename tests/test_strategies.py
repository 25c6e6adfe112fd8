"""Strategies draw data at which mistakes show: axes that differ, nothing symmetric, nothing equal, away from kinks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lintransformer as lt
from lintransformer.checks import InputError
from lintransformer.verification import check_vjp
from lintransformer.verification import strategies as some
from lintransformer.verification.points import special


@given(some.axes("B", "d", "h", "n"))
def test_axes_all_differ(lengths):
    assert len(set(lengths.values())) == 4 and min(lengths.values()) >= 2 and set(lengths) == set("Bdhn")


@given(some.axes("a", "b", least=4, most=5))
def test_axes_keep_their_bounds(lengths):
    assert sorted(lengths.values()) == [4, 5]


@given(some.shapes(3))
def test_shapes_all_differ(shape):
    assert len(set(shape)) == 3


@given(st.one_of(some.generic((4, 4)), some.generic((2, 2)), some.generic(some.shapes(2)), some.generic((2, 3, 3))))
def test_generic_arrays_hide_nothing(array):
    assert not list(special(array)) and (array != 0).all() and array.dtype == np.float64
    assert not any(list(special(face)) for face in array) or array.ndim < 3


@given(some.generic((3,), dtype=np.float32, scale=1e-6))
def test_generic_arrays_have_a_dtype_and_a_scale(array):
    assert array.dtype == np.float32 and (np.abs(array) < 2e-6).all() and (np.abs(array) > 1e-7).all()


@given(some.generic(()))
def test_numbers(number):
    assert number.shape == () and number != 0


@given(some.eighths((4, 3)))
def test_eighths_are_exact(array):
    assert (array * 8 == np.rint(array * 8)).all() and (array != 0).all() and not list(special(array))
    assert (array.astype(np.float16) == array).all()


@given(some.away_from((4, 3), [0.0, 1.0], distance=0.1))
def test_points_away_from_kinks(array):
    assert (np.abs(array) >= 0.1).all() and (np.abs(array - 1) >= 0.1).all()


@given(some.inputs(x="B d", W="d h", b="h", c=""))
def test_inputs_share_their_axes(arrays):
    (B, d), h = arrays["x"].shape, arrays["b"].shape[0]
    assert arrays["W"].shape == (d, h) and len({B, d, h}) == 3 and arrays["c"].shape == ()


@given(some.inputs(arrays=some.away_from, x="B d"))
def test_a_layer_with_kinks(arrays):
    assert check_vjp(lambda x: np.maximum(x, 0), lambda dy, x: {"x": dy * (x > 0)}, arrays)


@given(some.batches())
def test_batches(batch):
    assert isinstance(batch, lt.Prompts)


@given(some.batches(dimension=3, context_length=5, size=2))
def test_a_batch_of_given_sizes(batch):
    assert batch.size == 2


@pytest.mark.parametrize("build", [
    lambda: some.axes("a", "b", "c", least=2, most=3), lambda: some.axes("a", least=0), lambda: some.shapes(0),
    lambda: some.generic((2,), scale=0), lambda: some.generic((2,), scale=np.nan), lambda: some.eighths((2,), most=0),
    lambda: some.away_from((2,), distance=-1), lambda: some.axes("a", least=3, most=2)])
def test_refusals(build):
    with pytest.raises(InputError):
        build()
