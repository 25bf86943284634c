"""Networks over volumes: everything between the first convolution and the last stays in blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.cpu_kernels import cpus
from support.peer import first_result

import graphkiln

Array = np.ndarray

PLAIN = ("Conv", "QLinearConv", "MaxPool", "AveragePool", "GlobalAveragePool", "BatchNormalization")
"""Ops of which nothing must be left."""


class Network:
    """An ONNX model with one input ``x``, built layer by layer."""

    def __init__(self, shape: list[int | str]) -> None:
        self.rng = np.random.default_rng(3)
        self.shape = shape
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, array: Array) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def floats(self, *shape: int) -> str:
        return self.weight((self.rng.random(shape) - 0.4).astype(np.float32))

    def add(self, op: str, *inputs: str, **attrs: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attrs))
        return name

    def conv(self, x: str, channels: int, filters: int, kernel: int, **attrs: Any) -> str:
        group = attrs.get("group", 1)
        w = self.floats(filters, channels // group, *(kernel,) * 3)
        pads = [kernel // 2] * 6
        return self.add("Conv", x, w, self.floats(filters), pads=pads, **attrs)

    def normalized(self, x: str, channels: int) -> str:
        variance = self.weight(np.linspace(0.5, 2, channels, dtype=np.float32))
        parts = [self.floats(channels) for _ in range(3)]
        return self.add("BatchNormalization", x, *parts, variance)

    def model(self, y: str) -> onnx.ModelProto:
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)]
        outputs = [helper.make_tensor_value_info(y, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "volumes", inputs, outputs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def classifier(shape: list[int | str]) -> onnx.ModelProto:
    """Few channels first, then residual blocks with groups and depthwise, pools, a head."""
    n = Network(shape)
    x = n.add("Relu", n.normalized(n.conv("x", 3, 32, 3, strides=[1, 2, 2]), 32))
    x = n.add("MaxPool", x, kernel_shape=[3, 3, 3], strides=[1, 2, 2], pads=[1] * 6)
    y = n.add("Relu", n.conv(x, 32, 32, 3))
    y = n.normalized(n.conv(y, 32, 32, 3, group=2), 32)
    x = n.add("Relu", n.add("Add", y, x))
    y = n.add("Clip", n.conv(x, 32, 32, 3, group=32), n.weight(np.float32(0)), "")
    x = n.add("Add", n.conv(y, 32, 32, 1), x)
    x = n.add("AveragePool", x, kernel_shape=[2, 2, 2], strides=[2, 2, 2], ceil_mode=1)
    x = n.add("Sigmoid", n.conv(x, 32, 48, 1, strides=[1, 2, 1]))
    x = n.add("Flatten", n.add("GlobalAveragePool", x))
    return n.model(n.add("Gemm", x, n.floats(48, 7), n.floats(7)))


def segmenter(shape: list[int | str]) -> onnx.ModelProto:
    """Down and up again, with a skip connection that is concatenated."""
    n = Network(shape)
    skip = n.add("Relu", n.conv("x", 1, 16, 3))
    x = n.add("MaxPool", skip, kernel_shape=[2, 2, 2], strides=[2, 2, 2])
    x = n.add("Relu", n.conv(x, 16, 32, 3))
    scales = n.weight(np.array([1, 1, 2, 2, 2], np.float32))
    x = n.add("Resize", x, "", scales, mode="nearest")
    x = n.add("Concat", x, skip, axis=1)
    return n.model(n.conv(x, 48, 20, 3))


def quantized(shape: list[int | str]) -> onnx.ModelProto:
    """Two convolutions of 8-bit integers, each between quantizations."""
    n = Network(shape)
    zero = n.weight(np.array(120, np.uint8))

    def stored(x: str, scale: float) -> str:
        step = n.weight(np.array(scale, np.float32))
        return n.add("DequantizeLinear", n.add("QuantizeLinear", x, step, zero), step, zero)

    x = stored("x", 0.04)
    for channels, filters, scale in ((20, 32, 0.3), (32, 24, 2)):
        steps = n.weight((0.004 + 0.002 * n.rng.random(filters)).astype(np.float32))
        bytes_ = n.rng.integers(-127, 128, (filters, channels, 3, 3, 3)).astype(np.int8)
        w = n.add("DequantizeLinear", n.weight(bytes_), steps, axis=0)
        x = stored(n.add("Conv", x, w, pads=[1] * 6, strides=[1, 1, 2]), scale)
    return n.model(x)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHKILN_CACHE", "")


def in_blocks(model: onnx.ModelProto, cpu: str, unpacked: int) -> graphkiln.Session:
    """The compiled model, of which the last ``unpacked`` results at most leave the blocks."""
    session = graphkiln.compile(model, target=f"cpu:{cpu}", jobs=1).session(threads=1)
    text = session.ir_text
    assert "kiln.ConvBlocked" in text and "NCDHW" in text
    assert not [op for op in PLAIN if f" = {op}(" in text]
    assert text.count(" = kiln.UnpackChannels(") == unpacked
    return session


NETWORKS = {"classifier": (classifier, 3, 0), "segmenter": (segmenter, 1, 1)}


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network(name: str, cpu: str) -> None:
    make, channels, unpacked = NETWORKS[name]
    model = make([1, channels, 6, 16, 18])
    agrees(model, in_blocks(model, cpu, unpacked), (1, channels, 6, 16, 18))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_open_sizes(name: str) -> None:
    make, channels, unpacked = NETWORKS[name]
    model = make(["N", channels, "D", "H", "W"])
    session = in_blocks(model, "", unpacked)
    for batch, *image in [(2, 6, 10, 8), (1, 4, 4, 12)]:
        agrees(model, session, (batch, channels, *image))


def agrees(model: onnx.ModelProto, mine: graphkiln.Session, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).random(shape, np.float32) - 0.5
    want = first_result(model, x)
    np.testing.assert_allclose(
        mine.run(None, {"x": x})[0], want, rtol=1e-3, atol=1e-4 * np.abs(want).max()
    )


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
def test_a_network_of_bytes(cpu: str) -> None:
    model = quantized([1, 20, 4, 7, 9])
    session = in_blocks(model, cpu, 1)
    x = np.random.default_rng(5).random((1, 20, 4, 7, 9), np.float32) * 8 - 4
    want = first_result(model, x, optimised=False)  # in floats, whose sums do not saturate
    steps = (session.run(None, {"x": x})[0] - want) / 2
    assert np.abs(steps).max() < 1.01 and (np.abs(steps) > 0.01).mean() < 1e-3
