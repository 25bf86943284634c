"""What onnx's own evaluator and onnxruntime compute for one op."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

OPSET = 28
RUNTIME_OPSET = 21
RUNTIME_IR = 10


def reference(
    op: str,
    inputs: Sequence[np.ndarray | None],
    attrs: Mapping[str, Any] | None = None,
    num_outputs: int = 1,
) -> list[np.ndarray]:
    """The outputs of an ai.onnx op by onnx's own evaluator."""
    feeds, model = one_node_model(op, inputs, attrs, "", num_outputs, OPSET)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return [np.asarray(a) for a in ReferenceEvaluator(model).run(None, feeds)]


def runtime(
    op: str,
    inputs: Sequence[np.ndarray | None],
    attrs: Mapping[str, Any] | None = None,
    domain: str = "",
    num_outputs: int = 1,
) -> list[np.ndarray]:
    """The outputs of one op by onnxruntime."""
    import onnxruntime

    feeds, model = one_node_model(op, inputs, attrs, domain, num_outputs, RUNTIME_OPSET)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(a) for a in session.run(None, feeds)]


def one_node_model(
    op: str, inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any] | None, domain: str,
    num_outputs: int, opset: int,
) -> tuple[dict[str, np.ndarray], onnx.ModelProto]:  # fmt: skip
    """A model of one node, and what to feed it."""
    names = [f"x{i}" if a is not None else "" for i, a in enumerate(inputs)]
    feeds = {n: np.asarray(a) for n, a in zip(names, inputs, strict=True) if a is not None}
    outputs = [f"y{i}" for i in range(num_outputs)]
    given = {k: list(v) if isinstance(v, tuple) else v for k, v in (attrs or {}).items()}
    node = onnx.helper.make_node(op, names, outputs, domain=domain, **given)
    graph = onnx.helper.make_graph(
        [node], "one",
        [onnx.helper.make_tensor_value_info(n, code(a), a.shape) for n, a in feeds.items()],
        [onnx.helper.make_value_info(n, onnx.TypeProto()) for n in outputs],
    )  # fmt: skip
    sets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("com.microsoft", 1)]
    return feeds, onnx.helper.make_model(graph, opset_imports=sets, ir_version=RUNTIME_IR)


def code(a: np.ndarray) -> int:
    """ONNX's number for the element type of ``a``."""
    return onnx.helper.np_dtype_to_tensor_dtype(a.dtype)
