"""Broadcasting and axis arithmetic on static and symbolic shapes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphkiln.ir.dims import dim_broadcast, sym
from graphkiln.ir.onnx_types import element_code, element_type
from graphkiln.ir.shapes import (
    broadcast,
    broadcast_known,
    broadcast_to,
    normalize_axes,
    normalize_axis,
)
from graphkiln.ir.types import DTYPES

N, M = sym("N"), sym("M")


@given(st.lists(st.lists(st.sampled_from([0, 1, 2, 3]), max_size=4), max_size=3))
def test_broadcast_of_static_shapes_is_numpys(shapes):
    shapes = [tuple(s) for s in shapes]
    try:
        want = np.broadcast_shapes(*shapes)
    except ValueError:
        with pytest.raises(ValueError, match="broadcast"):
            broadcast(shapes)
    else:
        assert broadcast(shapes) == want


def test_broadcast_of_symbols():
    assert broadcast([(N, 1), (3,)]) == (N, 3)
    assert broadcast([(N,), (4,)]) == (4,)
    assert broadcast([(N, 1), (N, M)]) == (N, M)
    assert broadcast([(N,), (M,)]) == (dim_broadcast(N, M),)
    assert broadcast([(N * 2 + N,), (N * 3,)]) == (3 * N,)
    with pytest.raises(ValueError, match="do not broadcast"):
        broadcast([(N + 5,), (3,)])


def test_broadcast_with_an_unknown_rank_is_unknown():
    assert broadcast_known([(2,), None]) is None
    assert broadcast_known([(2,), (N, 1)]) == (N, 2)


def test_broadcast_to_goes_one_way():
    assert broadcast_to((3,), (2, 3)) == (2, 3)
    assert broadcast_to((N, 1), (2, 3)) == (2, 3)
    with pytest.raises(ValueError):
        broadcast_to((2, 3), (1, 3))
    with pytest.raises(ValueError):
        broadcast_to((1, 3), (3,))


def test_axes_count_from_the_front():
    assert normalize_axis(-1, 3) == 2
    assert normalize_axes((-1, 0), 3) == (2, 0)
    with pytest.raises(ValueError, match="out of range"):
        normalize_axis(3, 3)
    with pytest.raises(ValueError, match="twice"):
        normalize_axes((0, -3), 3)


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_element_codes_are_onnxs(name):
    import onnx

    code = element_code(name)
    assert element_type(code).name == name
    spelled = onnx.TensorProto.DataType.Name(code).lower()
    aliases = {"float": "float32", "double": "float64"}
    assert aliases.get(spelled, spelled) == name
