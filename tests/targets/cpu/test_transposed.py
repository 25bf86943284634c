"""Transposed convolutions without overlap: the kernel that sums stores where they belong."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from support.cpu_kernels import Kernel, cpus, run

import graphkiln
from graphkiln.ir.interpreter import evaluate
from graphkiln.targets.cpu.features import features_of


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@pytest.mark.parametrize("open_dims", [{}, {0: "N", 2: "H", 3: "W"}])
def test_a_convolution_spreads_its_blocks_and_goes_on(open_dims: dict[int, str], cpu: str) -> None:
    k, rng, block = Kernel(), np.random.default_rng(0), features_of(cpu).lanes
    x = k.input(rng.random((2, 1, 3, 5, block), np.float32) - 0.5, open_dims)
    w = k.input(rng.random((1, 12, 1, 1, 1, block, block), np.float32) - 0.5)
    attrs = {
        "kernel_shape": (1, 1), "strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0),
        "group": 1, "in_channels": block, "out_channels": 12 * block, "block": block,
    }  # fmt: skip
    y = k.node("ConvBlocked", [x, w], attrs, "kiln")
    y = k.node("DepthToSpaceBlocked", [y], {"window": (2, 3)}, "kiln")
    bias = k.input(rng.random((2, 1, 1, block), np.float32))
    y = k.node("Relu", [k.node("Add", [y, bias])])
    k.finish([y])
    k.want = evaluate(k.graph, {v.name: a for v, a in zip(k.graph.inputs, k.feeds, strict=True)})
    assert k.want[0].shape == (2, 2, 6, 15, block)
    k.check(run(k, cpu))


def decoder(size: int | str) -> onnx.ModelProto:
    """A convolution, two transposed ones, the last of one filter, and what stands between."""
    rng = np.random.default_rng(1)

    def tensor(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((rng.random(shape) - 0.5).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "a"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["c", "b", "b0"], ["u"], strides=[2, 2]),
        helper.make_node("Relu", ["u"], ["r"]),
        helper.make_node("ConvTranspose", ["r", "d", "d0"], ["v"], strides=[2, 2]),
        helper.make_node("Sigmoid", ["v"], ["y"]),
    ]
    weights = [tensor("a", 24, 8, 3, 3), tensor("b", 24, 20, 2, 2), tensor("b0", 20),
               tensor("d", 20, 1, 2, 2), tensor("d0", 1)]  # fmt: skip
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, size, size])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("size", [9, "S"])
def test_a_decoder(size: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("GRAPHKILN_CACHE", str(tmp_path))
    model = decoder(size)
    session = graphkiln.compile(model, jobs=1).session(threads=1)
    assert "kiln.DepthToSpaceBlocked" in session.ir_text
    assert "= ConvTranspose" not in session.ir_text
    for extent in [9] if size == 9 else [1, 9, 20]:
        x = np.random.default_rng(extent).random((1, 8, extent, extent), np.float32)
        (want,) = ReferenceEvaluator(model).run(None, {"x": x})
        np.testing.assert_allclose(session.run(None, {"x": x})[0], want, rtol=1e-4, atol=1e-5)
