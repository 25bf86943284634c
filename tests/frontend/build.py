"""Small ONNX models for the frontend's tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graphkiln.frontend import FrontendError, load_model
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.verify import verify

FLOAT = onnx.TensorProto.FLOAT
INT64 = onnx.TensorProto.INT64
BOOL = onnx.TensorProto.BOOL


def value(name: str, shape: Sequence[int | str | None] | None = (2, 3), kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def node(op: str, inputs: str, outputs: str, **attrs: Any) -> onnx.NodeProto:
    """A node; names are separated by blanks, ``-`` omits an input or output."""
    name = attrs.pop("name", f"{op}_{outputs.split()[0]}" if outputs else op)
    spread = [["" if n == "-" else n for n in names.split()] for names in (inputs, outputs)]
    return helper.make_node(op, *spread, name=name, **attrs)


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Any] = (),
    outputs: Sequence[Any] = (),
    weights: Mapping[str, Any] | None = None,
    name: str = "g",
) -> onnx.GraphProto:
    """A graph; outputs may be plain names, whose types nobody reads."""
    infos = [o if not isinstance(o, str) else onnx.ValueInfoProto(name=o) for o in outputs]
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in (weights or {}).items()]
    return helper.make_graph(list(nodes), name, list(inputs), infos, tensors)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Any] = (),
    outputs: Sequence[Any] = (),
    weights: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    functions: Sequence[onnx.FunctionProto] = (),
    **domains: int,
) -> onnx.ModelProto:
    """A model; ``domains`` are further opsets, spelled with ``_`` for ``.``."""
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(d.replace("_", "."), v) for d, v in domains.items()]
    return helper.make_model(
        graph(nodes, inputs, outputs, weights),
        opset_imports=opsets, functions=list(functions), ir_version=10,
    )  # fmt: skip


def refusal(source: Any, **options: Any) -> FrontendError:
    """The error that importing ``source`` must end in."""
    try:
        load_model(source, **options)
    except FrontendError as e:
        assert str(e).splitlines(), "an error must say something"
        return e
    raise AssertionError("the model was imported")


def run(source: Any, feeds: Mapping[str, Any]) -> list[Any]:
    """The results of an imported model, which verifies, each checked against its type."""
    graph = load_model(source).graph
    verify(graph)
    return evaluate(graph, feeds, check_types=True)
