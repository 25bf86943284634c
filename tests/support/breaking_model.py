"""A model with one layer that 8 bits break, samples with labels, and its metric."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

import graphkiln

RNG = np.random.default_rng(0)
FIRST, SECOND, THIRD = (RNG.standard_normal((16, 16)).astype(np.float32) / 4 for _ in range(3))
FIRST[0] = 0  # what is huge does not matter


def model() -> onnx.ModelProto:
    """The first layer reads one column of huge numbers besides those that count."""
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[4, 16] x) => (float[4, 16] y)'
        " { a = MatMul(x, w1)  b = Relu(a)  c = MatMul(b, w2)  d = Relu(c)  y = MatMul(d, w3) }"
    )
    for name, array in (("w1", FIRST), ("w2", SECOND), ("w3", THIRD)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for number, node in enumerate(proto.graph.node):
        node.name = f"node{number}"
    return proto


def samples(count: int = 12) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(count):
        x = rng.standard_normal((4, 16)).astype(np.float32)
        x[:, 0] *= 1e4
        hidden = np.maximum(np.maximum(x @ FIRST, 0) @ SECOND, 0)
        found.append({"x": x, "label": (hidden @ THIRD).argmax(1)})
    return found


def accuracy(results: Any, sample: Any) -> float:
    return float(np.mean(results["y"].argmax(1) == sample["label"]))


def schemes(found: graphkiln.Quantized) -> dict[str, str]:
    return {row["onnx"][0]: row["scheme"] for row in found.layers}
