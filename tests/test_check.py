"""``graphkiln.check`` says beforehand what ``compile`` would say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from frontend.build import INT64, model, node, value

import graphkiln
from graphkiln.driver import check
from graphkiln.errors import GraphkilnError

SCALES = {"s": np.array([1, 2], np.float32), "k": np.array(2)}


def sequence() -> onnx.ValueInfoProto:
    elements = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
    return onnx.helper.make_value_info("q", onnx.helper.make_sequence_type_proto(elements))


MODELS: dict[str, tuple[list[onnx.NodeProto], list[Any]]] = {
    "an unknown op": ([node("Frobnicate", "x", "y", domain="foreign")], [value("x")]),
    "a mode that no kernel knows": (
        [node("Resize", "x - s", "y", coordinate_transformation_mode="diagonal")], [value("x")]
    ),
    "two kernels": (
        [node("Resize", "x - s", "a", coordinate_transformation_mode="diagonal"),
         node("Resize", "a - s", "y", nearest_mode="up")], [value("x", ("N", 3))],
    ),
    "an unknown rank": (
        [node("SequenceAt", "q i", "t"), node("Relu", "t", "y")],
        [sequence(), value("i", (), INT64)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_what_compile_refuses(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHKILN_CACHE", str(tmp_path))
    nodes, inputs = MODELS[name]
    proto = model(nodes, inputs, ["y"], SCALES)
    with pytest.raises(GraphkilnError) as refused:
        graphkiln.compile(proto, jobs=1)
    blockers = check(proto)
    assert [str(b) for b in blockers] == str(refused.value).splitlines()
    assert blockers == list(refused.value.blockers)
    assert all(b.node and b.op and b.reason for b in blockers)


def test_what_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is built and after."""
    monkeypatch.setenv("GRAPHKILN_CACHE", str(tmp_path))
    proto = model([node("TopK", "x k", "y z")], [value("x")], ["y", "z"], {"k": np.array([2])})
    assert check(proto) == []
    graphkiln.compile(proto, jobs=1)
    assert check(proto) == []
