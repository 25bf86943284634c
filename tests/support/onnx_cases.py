"""ONNX's own node test cases, as graphs of one operation."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from graphkiln.ir.graph import Graph, Value


@cache
def all_cases() -> tuple[Any, ...]:
    """Every node case of the installed onnx."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():  # making the data overflows on purpose
        warnings.simplefilter("ignore")
        return tuple(collect_testcases(None))


def one_node_cases(*ops: str) -> list[Any]:
    """The cases whose model is one node of the named ai.onnx ops at the newest opset."""
    found = []
    for case in all_cases():
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in ops and nodes[0].domain in ("", "ai.onnx"):
            found.append(case)
    return sorted(found, key=lambda case: str(case.name))


def case_graph(case: Any) -> Graph:
    """The one-node graph of a case; its inputs are untyped."""
    proto = case.model.graph.node[0]
    graph = Graph(case.name)
    values: dict[str, Value | None] = {"": None}
    for i in case.model.graph.input:
        values[i.name] = graph.add_input(i.name, None)  # type: ignore[arg-type]
    attrs = {a.name: attribute_value(a) for a in proto.attribute}
    node = graph.add_node(
        proto.op_type, [values[n] for n in proto.input], attrs, outputs=list(proto.output)
    )
    wanted = {o.name for o in case.model.graph.output}
    graph.set_outputs([v for v in node.values if v.name in wanted])
    return graph


def case_arrays(values: Any) -> list[Any]:
    """The inputs or outputs of a case; those of exotic types come as protos."""
    return [numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for v in values]


def attribute_value(proto: onnx.AttributeProto) -> Any:
    """An attribute as the IR holds it."""
    value = onnx.helper.get_attribute_value(proto)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, int | float):
        return value
    return tuple(v.decode() if isinstance(v, bytes) else v for v in value)


def assert_same(got: Any, want: Any, rtol: float, atol: float) -> None:
    """Equal types, shapes and close numbers, through lists and missing values."""
    if want is None or isinstance(want, list):
        assert isinstance(got, type(want))
        for a, b in zip(got or [], want or [], strict=True):
            assert_same(a, b, rtol, atol)
        return
    want = np.asarray(want)
    assert got.dtype == want.dtype and got.shape == want.shape
    if want.dtype.kind == "O":
        assert got.tolist() == want.tolist()
    else:
        wide = np.float64 if want.dtype.kind not in "c" else np.complex128
        np.testing.assert_allclose(got.astype(wide), want.astype(wide), rtol=rtol, atol=atol)
