"""Synthetic models of any size, for measuring how compilation grows."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def synthetic_model(nodes: int, seed: int = 0) -> onnx.ModelProto:
    """A model of about ``nodes`` nodes: blocks of convolutions, branches, reductions and gates.

    Every block has eight nodes and its own weights; shapes repeat, as they do in real networks.
    """
    random = np.random.default_rng(seed)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8, 8, 8])
    body: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = [
        numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
        numpy_helper.from_array(np.array(0.5, np.float32), "half"),
    ]
    last = "x"
    for i in range(max(1, nodes // 8)):
        w = random.standard_normal((8, 8, 1, 1)).astype(np.float32) * 0.3
        weights.append(numpy_helper.from_array(w, f"w{i}"))

        def add(op: str, inputs: list[str], name: str, i: int = i, **attrs: object) -> str:
            body.append(helper.make_node(op, inputs, [f"{name}{i}"], name=f"{name}{i}", **attrs))
            return f"{name}{i}"

        conv = add("Conv", [last, f"w{i}"], "conv")
        relu = add("Relu", [conv], "relu")
        mean = add("ReduceMean", [relu, "axes"], "mean", keepdims=1)
        gate = add("Sigmoid", [mean], "gate")
        scaled = add("Mul", [relu, gate], "scaled")
        added = add("Add", [scaled, last], "sum")
        halved = add("Mul", [added, "half"], "halved")
        last = add("Tanh", [halved], "block")
    y = helper.make_tensor_value_info(last, TensorProto.FLOAT, None)
    graph = helper.make_graph(body, "synthetic", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
