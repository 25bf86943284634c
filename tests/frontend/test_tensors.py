"""Tensors of every element type, in every form a file may hold them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from frontend.build import model, refusal
from onnx import helper, numpy_helper

from graphkiln.frontend import load_model
from graphkiln.ir.onnx_types import element_code
from graphkiln.ir.types import DTYPES, to_numpy_dtype

NUMERIC = [t for t in DTYPES.values() if t.kind != "s"]


def _constant(tensor: onnx.TensorProto | onnx.SparseTensorProto) -> np.ndarray:
    proto = model([], [], ["w"])
    if isinstance(tensor, onnx.TensorProto):
        proto.graph.initializer.append(tensor)
    else:
        proto.graph.sparse_initializer.append(tensor)
    found = load_model(proto).graph.outputs[0].constant
    assert found is not None
    return found


def _fault(**fields: object) -> str:
    proto = model([], [], ["w"])
    proto.graph.initializer.append(onnx.TensorProto(name="w", **fields))  # type: ignore[arg-type]
    return refusal(proto).reason


def _sample(name: str, count: int) -> np.ndarray:
    kind = DTYPES[name]
    target = to_numpy_dtype(kind)
    numbers = np.arange(count) % 7
    if kind.kind in "if" and name != "float8e8m0":
        numbers = numbers - 3
    if kind.bits == 2:
        numbers = np.arange(count) % 4 - (2 if kind.kind == "i" else 0)
    return (numbers % 2 == 0) if kind.kind == "b" else numbers.astype(target)


@pytest.mark.parametrize("count", [0, 1, 5, 12])
@pytest.mark.parametrize("name", [t.name for t in NUMERIC])
def test_raw_data(name: str, count: int) -> None:
    array = _sample(name, count)
    found = _constant(numpy_helper.from_array(array, "w"))
    assert found.dtype == array.dtype and found.shape == array.shape
    assert found.tobytes() == array.tobytes()


@pytest.mark.parametrize("name", [t.name for t in NUMERIC])
def test_typed_data(name: str) -> None:
    array = _sample(name, 6).reshape(2, 3)
    tensor = helper.make_tensor("w", element_code(name), [2, 3], array.ravel().tolist())
    assert not tensor.HasField("raw_data")
    found = _constant(tensor)
    assert found.dtype == array.dtype
    assert found.tobytes() == array.tobytes()


def test_raw_data_is_shared() -> None:
    found = _constant(numpy_helper.from_array(np.arange(6.0), "w"))
    assert not found.flags.owndata


def test_strings() -> None:
    words = np.array([["kiln", "", "naïve"]], object)
    found = _constant(numpy_helper.from_array(words, "w"))
    assert found.dtype == object and found.tolist() == words.tolist()


@pytest.mark.parametrize("linear", [True, False])
def test_sparse_tensors_become_dense(linear: bool) -> None:
    indices = np.array([1, 5]) if linear else np.array([[0, 1], [1, 2]])
    sparse = onnx.SparseTensorProto(dims=[2, 3])
    sparse.values.CopyFrom(numpy_helper.from_array(np.array([3.0, 4.0], np.float32), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(indices))
    assert _constant(sparse).tolist() == [[0, 3, 0], [0, 0, 4]]


@pytest.mark.parametrize("dims", [[1 << 30, 1 << 9], [1 << 35]])
def test_huge_sparse_tensors_are_refused(dims: list[int]) -> None:
    proto = model([], [], ["w"])
    sparse = proto.graph.sparse_initializer.add(dims=dims)
    sparse.values.CopyFrom(numpy_helper.from_array(np.array([3.0], np.float32), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([0])))
    assert "too large" in refusal(proto).reason


@pytest.mark.parametrize("index", [[6], [-1], [[0, 3]], [[-1, 0]], [[0]], [0, 1]])
def test_sparse_indices_that_do_not_fit(index: list[int]) -> None:
    proto = model([], [], ["w"])
    sparse = proto.graph.sparse_initializer.add(dims=[2, 3])
    sparse.values.CopyFrom(numpy_helper.from_array(np.array([3.0], np.float32), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array(index)))
    assert "ind" in refusal(proto).reason


FAULTS = {
    "raw too short": (dict(data_type=1, dims=[3], raw_data=b"\0" * 8), "need 12 bytes"),
    "raw too long": (dict(data_type=1, dims=[3], raw_data=b"\0" * 16), "need 12 bytes"),
    "packed": (dict(data_type=22, dims=[3], raw_data=b"\0"), "need 2 bytes"),
    "typed": (dict(data_type=1, dims=[3], float_data=[1.0]), "need 3 entries in float_data"),
    "no data": (dict(data_type=7, dims=[2]), "need 2 entries"),
    "negative": (dict(data_type=1, dims=[-1], raw_data=b""), "negative dimensions"),
    "absurd": (dict(data_type=1, dims=[2**62, 2**62], raw_data=b""), "absurd dimensions"),
    "absurd but empty": (dict(data_type=1, dims=[2**62, 0], raw_data=b""), "absurd dimensions"),
    "rank": (dict(data_type=1, dims=[1] * 100, raw_data=b"\0" * 4), "absurd dimensions"),
    "undefined": (dict(data_type=0, dims=[1], raw_data=b"\0"), "element type UNDEFINED"),
    "unknown": (dict(data_type=99, dims=[1], raw_data=b"\0"), "element type 99"),
    "not utf-8": (dict(data_type=8, dims=[1], string_data=[b"\xff\xfe"]), "not UTF-8"),
    "strings": (dict(data_type=8, dims=[2], string_data=[b"a"]), "do not fit 1 strings"),
    "external": (dict(data_type=1, dims=[1], data_location=1), "without a location"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults(case: str) -> None:
    fields, reason = FAULTS[case]
    assert reason in _fault(**fields)


def test_small_floats_keep_their_bits() -> None:
    array = np.array([1.5, -0.0, np.inf], ml_dtypes.bfloat16)
    assert _constant(numpy_helper.from_array(array, "w")).tobytes() == array.tobytes()
