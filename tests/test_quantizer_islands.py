"""Float islands: what is computed in floats between quantized layers, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import graphkiln

WEIGHTS = {"w1": (32, 48), "w2": (48, 48), "w3": (48, 8)}
SAMPLES = [{"x": np.random.default_rng(i).standard_normal((6, 32)).astype(np.float32)}
           for i in range(3)]  # fmt: skip


def islands(body: str, **options: Any) -> list[dict[str, Any]]:
    """Those of a model whose nodes are named after their results."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[6, 32] x) => (float[6, 8] y)'
        f" {{ {body} }}"
    )
    for name, shape in WEIGHTS.items():
        if name in body:
            array = rng.standard_normal(shape).astype(np.float32) / 6
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for node in model.graph.node:
        node.name = node.output[0]
    found = graphkiln.quantize(model, SAMPLES, target="cpu:cascadelake", jobs=1, **options)
    assert found.islands is None and "islands" not in found.report
    artifact = found.compile()
    assert artifact.report["quantization"]["islands"] == list(found.islands or ())
    return [dict(row) for row in found.islands or ()]


CHAIN = "a = MatMul(x, w1) b = {}(a) c = MatMul(b, w2) d = Relu(c) y = MatMul(d, w3)"


def test_what_becomes_integers_is_none() -> None:
    """The Relu is part of the rounding of sums."""
    assert islands(CHAIN.format("Relu")) == []


def test_an_op_that_takes_no_integers() -> None:
    (row,) = islands(CHAIN.format("Softmax"))
    assert "Softmax" in row["ops"] and "b" in row["onnx"]
    assert row["reason"] == "Softmax takes no 8-bit integers"


def test_a_layer_that_was_left() -> None:
    (row,) = islands(CHAIN.format("Relu"), exclude=["c"])
    assert "c" in row["onnx"] and row["reason"] == "excluded by 'c'"


@pytest.mark.parametrize("body", [CHAIN.format("Relu"), CHAIN.format("Softmax")])
def test_ends_are_none(body: str) -> None:
    """What stands in front of the first quantized layer, or behind the last, lies between none."""
    assert islands(body, only=["c"]) == []
