"""Why rewrites were not made, for those who ask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array

import graphkiln
from graphkiln.ir.graph import Graph
from graphkiln.ir.origins import Origins
from graphkiln.passes.near_misses import NearMiss, NearMisses

MODELS = Path(__file__).parent.parent / "models"


def convolution(filters: int, group: int = 1, constant: bool = True) -> object:
    weights = np.ones((filters, 32 // group, 3, 3), np.float32)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32, 8, 8])]
    if not constant:
        shape = list(weights.shape)
        inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, shape))
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", group=group)], "g", inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [from_array(weights, "w")] if constant else [],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (convolution(1), "its 1 filters would leave most of a block of 8 empty"),
        (convolution(32, group=8), "its groups do not fall on blocks of 8 channels"),
        (convolution(32, constant=False), "its weights or its bias are not constant"),
    ],
)
def test_the_layout_pass_says_why_a_convolution_stays(model: object, reason: str) -> None:
    artifact = graphkiln.compile(model, "cpu:x86-64-v3", explain="layout")
    assert [(m.node, m.reason) for m in artifact.near_misses] == [("conv", reason)]


def quantized(zero: int, constant: bool = True, filters: int = 32) -> onnx.ModelProto:
    """``QLinearConv`` with uint8 weights of one zero point, given with the model or at run time."""
    weights = np.full((filters, 32, 3, 3), 9, np.uint8)
    scalars = {"s": np.float32(0.1), "z": np.uint8(3), "wz": np.uint8(zero)}
    image = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 32, 96, 96])
    given = helper.make_tensor_value_info("w", TensorProto.UINT8, list(weights.shape))
    held = [from_array(np.asarray(v), k) for k, v in scalars.items()]
    graph = helper.make_graph(
        [helper.make_node("QLinearConv", ["x", "s", "z", "w", "s", "wz", "s", "z"], ["y"], "conv")],
        "g", [image] if constant else [image, given],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
        [*held, from_array(weights, "w")] if constant else held,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize(
    ("model", "reason", "slow"),
    [
        (quantized(3), "its weights are not symmetric: their zero point is not the middle", True),
        (quantized(128, constant=False), "its weights are not constant", True),
        (quantized(128, filters=1), "its 1 filters would leave most of a block of 8 empty", False),
    ],
)
def test_the_layout_pass_says_why_a_quantized_convolution_stays(
    model: onnx.ModelProto, reason: str, slow: bool
) -> None:
    artifact = graphkiln.compile(model, "cpu:x86-64-v3", explain="layout")
    assert [(m.node, m.reason) for m in artifact.near_misses] == [("conv", reason)]
    (why,) = {c["generic"] for c in artifact.report["kernel_costs"].values() if c["generic"]}
    assert why == "the layout pass left this QLinearConv (--explain layout says why)"
    assert any("generic schedule" in w for w in artifact.report["warnings"]) is slow


def test_nobody_asked() -> None:
    assert graphkiln.compile(convolution(1), "cpu:x86-64-v3").near_misses == []


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("layout", {"layout"}), ("fu*", {"fuse"}), ("conv", {"layout"}), ("/a/*", {"fuse"}),
        ("*", {"layout", "fuse"}), ("Conv", set()),
    ],
)  # fmt: skip
def test_patterns_are_about_rules_nodes_and_onnx_nodes(pattern: str, kept: set[str]) -> None:
    graph = Graph()
    misses = NearMisses(pattern)
    conv = graph.add_node("Conv", [], name="conv")
    relu = graph.add_node("Relu", [], name="relu", origins=Origins(["/a/relu"]))
    for _ in range(2):
        misses("layout", conv, "too few filters")
        misses("fuse", relu, "too many inputs")
    found = list(misses)
    assert {m.rule for m in found} == kept and len(found) == len(kept)
    if pattern == "/a/*":
        assert found == [NearMiss("fuse", "relu", "Relu", ("/a/relu",), "too many inputs")]


def test_rules_of_patterns_tell_too() -> None:
    artifact = graphkiln.compile(MODELS / "sdp_attention_block.onnx", explain="*")
    assert len({m.rule for m in artifact.near_misses}) > 3
    assert all(m.reason and m.op for m in artifact.near_misses)
