"""Layers with block-sparse weights, as the compiler sees them: which list their steps, and whether
they are right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.cpu_kernels import cpus
from support.peer import first_result

import graphkiln
from graphkiln.ir.choices import LISTED

Array = np.ndarray
CPUS = cpus("", "x86-64-v3")


def sparse(shape: tuple[int, ...], blocks: tuple[int, ...], share: float, seed: int = 0) -> Array:
    """Random weights, of whose blocks of this shape only a share is not zero."""
    rng = np.random.default_rng(seed)
    grid = tuple(-(-n // b) for n, b in zip(shape, blocks, strict=True))
    kept = rng.permutation(np.arange(np.prod(grid)) < share * np.prod(grid)).reshape(grid)
    for axis, block in enumerate(blocks):
        kept = kept.repeat(block, axis)
    weights = rng.normal(size=shape).astype(np.float32)
    return weights * kept[tuple(map(slice, shape))]


def model(
    nodes: list[onnx.NodeProto], x: tuple[Any, ...], weights: dict[str, Array]
) -> onnx.ModelProto:
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    held = [numpy_helper.from_array(a, n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, "layer", given, made, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def algorithms(artifact: Any) -> set[str]:
    costs = artifact.report["kernel_costs"].values()
    return {c["algorithm"] for c in costs if c["template"]}


def convolution(w: Array, **attrs: Any) -> onnx.ModelProto:
    group = attrs.get("group", 1)
    image = (1, w.shape[1] * group, 15, 14)
    bias = np.arange(len(w), dtype=np.float32)
    node = helper.make_node("Conv", ["x", "w", "b"], ["h"], **attrs)
    relu = helper.make_node("Relu", ["h"], ["y"])
    return model([node, relu], image, {"w": w, "b": bias})


LAYERS = {
    "1x1": convolution(sparse((96, 128, 1, 1), (16, 1, 1, 1), 0.2)),
    "strided": convolution(
        sparse((64, 32, 3, 3), (16, 1, 1, 1), 0.2), strides=[2, 2], pads=[1, 1, 1, 1]
    ),
    "grouped": convolution(sparse((64, 32, 3, 3), (16, 1, 1, 1), 0.2), group=2, strides=[2, 1]),
    "5x5": convolution(sparse((40, 20, 5, 5), (16, 1, 1, 1), 0.2), pads=[2, 2, 2, 2]),
    "product": model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], ("N", 200),
        {"w": sparse((200, 130), (1, 16), 0.2)},
    ),
    "gemm": model(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1, alpha=0.5)], (3, 200),
        {"w": sparse((130, 200), (16, 1), 0.2), "b": np.arange(130, dtype=np.float32)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_layers_of_blocks_list_their_steps(layer: onnx.ModelProto, cpu: str) -> None:
    artifact = graphkiln.compile(layer, target=f"cpu:{cpu}" if cpu else "cpu")
    assert algorithms(artifact) == {LISTED}
    assert sum(p["details"].get("listed", 0) for p in artifact.report["passes"]) == 1
    dims = [d.dim_value or 21 for d in layer.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": np.random.default_rng(1).normal(size=dims).astype(np.float32)}
    (found,) = artifact.session().run(None, feeds)
    np.testing.assert_allclose(found, first_result(layer, feeds["x"]), rtol=1e-4, atol=1e-4)


DENSE = {
    "single zeros": convolution(sparse((96, 128, 1, 1), (1, 1, 1, 1), 0.2)),
    "half of the blocks, faster by Winograd": convolution(
        sparse((64, 64, 3, 3), (16, 1, 1, 1), 0.5), pads=[1, 1, 1, 1]
    ),
    "few zeros": convolution(sparse((96, 128, 1, 1), (16, 1, 1, 1), 0.95)),
}


@pytest.mark.parametrize("layer", DENSE.values(), ids=DENSE)
def test_layers_that_a_list_would_slow_down_stay(layer: onnx.ModelProto) -> None:
    assert LISTED not in algorithms(graphkiln.compile(layer, target="cpu:x86-64-v3"))


def quantized(zeros: bool) -> onnx.ModelProto:
    """A QDQ product with blocks of 16 outputs by 4 inputs, some pairs of which saturate 16 bits."""
    w = sparse((256, 64), (4, 16), 0.25 if zeros else 1.0)
    codes = np.clip(np.rint(w * 60), -127, 127).astype(np.int8)
    weights = {
        "w": codes, "s": np.float32(0.02), "z": np.uint8(120), "ws": np.float32(0.01),
        "ys": np.float32(0.05), "yz": np.uint8(128),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["v"]),
        helper.make_node("MatMul", ["d", "v"], ["h"]),
        helper.make_node("QuantizeLinear", ["h", "ys", "yz"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "ys", "yz"], ["y"]),
    ]
    return model(nodes, (17, 256), {k: np.asarray(v) for k, v in weights.items()})


@pytest.mark.parametrize("cpu", CPUS)
def test_bytes_in_blocks_give_the_same_bits(cpu: str) -> None:
    layer, target = quantized(zeros=True), f"cpu:{cpu}" if cpu else "cpu"
    artifact = graphkiln.compile(layer, target=target)
    assert LISTED in algorithms(artifact)
    feeds = {"x": np.random.default_rng(1).normal(size=(17, 256)).astype(np.float32)}
    (found,) = artifact.session().run(None, feeds)
    want = first_result(layer, feeds["x"])
    assert np.abs(found - want).max() < 0.051 and np.mean(found == want) > 0.99


def test_a_table_that_is_also_looked_up_keeps_its_rows() -> None:
    """A dense last layer shares its packed weights with the embedding; one in a list cannot."""
    table = sparse((160, 64), (16, 1), 0.2)
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Gather", ["w", "i"], ["e"]),
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["e", "t"], ["y"]),
    ]
    layer = model(nodes, (30,), {"w": table})
    artifact = graphkiln.compile(layer)
    assert LISTED in algorithms(artifact)
    feeds = {"x": np.arange(30, dtype=np.float32) * 5}
    (found,) = artifact.session().run(None, feeds)
    np.testing.assert_allclose(found, first_result(layer, feeds["x"]), rtol=1e-4, atol=1e-4)
