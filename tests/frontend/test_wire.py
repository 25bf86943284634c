"""Cutting large payloads out of a serialised model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from frontend.build import graph, model, node, refusal, value
from onnx import helper, numpy_helper

from graphkiln.frontend import load_model
from graphkiln.frontend.wire import SPAN_KEY, THRESHOLD, WireError, slim

BIG = np.arange(THRESHOLD, dtype=np.float32)
SMALL = np.arange(6, dtype=np.float32).reshape(2, 3)


def _slimmed(proto: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(slim(memoryview(proto.SerializeToString())))


def test_small_models_stay_as_they_are() -> None:
    data = model([], [value("x")], ["x", "w"], {"w": SMALL}).SerializeToString()
    assert slim(memoryview(data)) == data


def test_large_weights_are_left_where_they_are() -> None:
    proto = model([], [], ["w", "v"], {"w": BIG, "v": SMALL})
    found = _slimmed(proto)
    assert found.ByteSize() < THRESHOLD
    note = {e.key: e.value for e in found.graph.initializer[0].external_data}
    offset, length, field = note[SPAN_KEY].split(":")
    data = proto.SerializeToString()
    assert data[int(offset) : int(offset) + int(length)] == BIG.tobytes() and field == "raw"
    assert found.graph.initializer[1] == proto.graph.initializer[1]


def _nested_model() -> onnx.ModelProto:
    constant = node("Constant", "", "c", value=numpy_helper.from_array(BIG))
    inner = graph([constant], [], ["c"])
    call = node("If", "x", "y", then_branch=inner, else_branch=inner)
    opset = [helper.make_opsetid("", 17)]
    function = helper.make_function("local", "f", [], ["c"], [constant], opset)
    return model([call], [value("x", (), onnx.TensorProto.BOOL)], ["y"], functions=[function])


def test_weights_in_bodies_and_functions_are_cut_too() -> None:
    proto = _nested_model()
    assert proto.ByteSize() > 3 * BIG.nbytes
    assert _slimmed(proto).ByteSize() < THRESHOLD


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64])
def test_typed_data_is_read_in_place(dtype: type, tmp_path: Path) -> None:
    array = BIG.astype(dtype)
    plain = array.view(np.float32) if dtype is np.complex64 else array
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = onnx.TensorProto(name="w", data_type=kind, dims=[len(array)])
    getattr(tensor, "double_data" if dtype is np.float64 else "float_data").extend(plain)
    proto = model([], [], ["w"])
    proto.graph.initializer.append(tensor)
    assert _slimmed(proto).ByteSize() < THRESHOLD
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    found = load_model(tmp_path / "m.onnx").graph.outputs[0].constant
    assert found is not None
    np.testing.assert_array_equal(found, array)
    assert not found.flags.owndata and not found.flags.writeable


def test_typed_data_of_the_wrong_kind_is_refused() -> None:
    proto = model([], [], ["w"])
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.INT32, dims=[len(BIG)])
    tensor.float_data.extend(BIG)
    proto.graph.initializer.append(tensor)
    assert "float_data in a tensor of int32" in str(refusal(proto.SerializeToString()))


def test_every_truncation_is_refused_or_still_a_message() -> None:
    data = model([], [value("x")], ["x", "w"], {"w": BIG}).SerializeToString()
    for end in [*range(1, 200), len(data) // 2, len(data) - 1]:
        try:
            slim(memoryview(data)[:end])
        except WireError:
            continue


def test_notes_that_a_file_carries_itself_stay_inside_it() -> None:
    proto = model([], [], ["w"])
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.UINT8, dims=[1 << 20])
    tensor.external_data.add(key=SPAN_KEY, value=f"0:{1 << 20}:raw")
    proto.graph.initializer.append(tensor)
    assert "outside the file" in refusal(proto.SerializeToString()).reason
    assert "outside the file" in refusal(proto).reason


def _wrap(tag: int, payload: bytes) -> bytes:
    size, n = bytearray(), len(payload)
    while n > 0x7F:
        size.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([tag, *size, n]) + payload


def test_deep_nesting_is_refused() -> None:
    payload = b"\x0a\x00" * THRESHOLD
    for _ in range(100):
        for tag in (0x32, 0x2A, 0x0A):  # attribute.g, node.attribute, graph.node
            payload = _wrap(tag, payload)
    with pytest.raises(WireError, match="deep"):
        slim(memoryview(_wrap(0x3A, payload)))
