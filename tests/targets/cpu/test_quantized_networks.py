"""Quantised models as exporters write them: blocks of bytes from the first convolution to the last.

Each network is QDQ -> Conv -> what is tested -> QDQ -> Conv -> QDQ, for every signedness, zero
point and granularity of weights; onnxruntime computes the same without its optimisations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.cpu_kernels import cpus
from support.peer import first_result

import graphkiln

Array = np.ndarray
CHANNELS = 20
IMAGE = (6, 9, 4)
STEP = 0.06


class Network:
    """A QDQ model with one input ``x`` [1, C, *S], built layer by layer."""

    def __init__(self, kind: str, zero: int, by_channel: bool, rank: int) -> None:
        self.rng = np.random.default_rng(3)
        self.zero = np.array(zero, kind)
        self.by_channel = by_channel
        self.rank = rank
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, array: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, op: str, *inputs: str, **attrs: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attrs))
        return name

    def qdq(self, x: str, step: float = STEP) -> str:
        parameters = self.weight(np.float32(step)), self.weight(self.zero)
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, *parameters), *parameters)

    def conv(
        self, x: str, channels: int = CHANNELS, step: float = STEP, group: int = 1, size: int = 3
    ) -> str:  # fmt: skip
        """A padded convolution with an int32 bias to 20 channels."""
        shape = (CHANNELS, channels // group, *(size,) * (self.rank - 2))
        scale = 0.0004 + 0.0002 * self.rng.random(CHANNELS if self.by_channel else ())
        scale = (scale * np.sqrt(4000 / np.prod(shape[1:]))).astype(np.float32)
        bytes_ = self.weight(self.rng.integers(-127, 128, shape).astype(np.int8))
        start = self.rng.integers(-3000, 3000, CHANNELS).astype(np.int32)
        steps = np.broadcast_to(scale * np.float32(step), CHANNELS)
        w = self.add("DequantizeLinear", bytes_, self.weight(scale), axis=0)
        b = self.add("DequantizeLinear", self.weight(start), self.weight(steps), axis=0)
        return self.add("Conv", x, w, b, pads=[size // 2] * 2 * (self.rank - 2), group=group)

    def model(self, y: str) -> onnx.ModelProto:
        shape = [1, CHANNELS, *IMAGE[: self.rank - 2]]
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
        outputs = [helper.make_tensor_value_info(y, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "network", inputs, outputs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


Layer = Callable[[Network, str], str]


def activation(op: str, **attrs: Any) -> Layer:
    return lambda n, x: n.qdq(n.add(op, n.conv(x), **attrs))


def between(op: str, step: float = STEP, **attrs: Any) -> Layer:
    """``op`` on what has been quantised."""
    return lambda n, x: n.qdq(n.add(op, n.qdq(n.conv(x)), **attrs), step)


def six(n: Network, x: str) -> str:
    return n.qdq(n.add("Clip", n.conv(x), n.weight(np.float32(0)), n.weight(np.float32(6))))


def hard_swish(n: Network, x: str) -> str:
    x = n.conv(x)
    return n.qdq(n.add("Mul", x, n.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)))


def silu(n: Network, x: str) -> str:
    x = n.qdq(n.conv(x))
    return n.qdq(n.add("Mul", x, n.qdq(n.add("Sigmoid", x), 0.004)))


def depthwise(n: Network, x: str) -> str:
    return n.qdq(n.add("Relu", n.conv(x, group=CHANNELS)))


def pointwise(n: Network, x: str) -> str:
    return n.qdq(n.add("LeakyRelu", n.conv(x, size=1), alpha=0.2))


def residual(n: Network, x: str) -> str:
    return n.qdq(n.add("Relu", n.add("Add", n.qdq(n.conv(x)), x)))


def open_residual(n: Network, x: str) -> str:
    return n.qdq(n.add("Relu", n.add("Add", n.conv(x), x)))


def average(n: Network, x: str) -> str:
    sizes = [2] * (n.rank - 2)
    return between("AveragePool", kernel_shape=sizes, strides=sizes)(n, x)


def maximum(n: Network, x: str) -> str:
    return between("MaxPool", 0.08, kernel_shape=[3] * (n.rank - 2))(n, x)


def squeezed(n: Network, x: str) -> str:
    x = n.qdq(n.conv(x))
    gate = n.add("Sigmoid", n.qdq(n.add("GlobalAveragePool", x), 0.01))
    return n.qdq(n.add("Mul", x, n.qdq(gate, 0.004)))


def resized(mode: str, step: float) -> Layer:
    def layer(n: Network, x: str) -> str:
        factors = n.weight(np.array([1, 1, *(2,) * (n.rank - 2)], np.float32))
        return n.qdq(n.add("Resize", n.qdq(n.conv(x)), "", factors, mode=mode), step)

    return layer


def joined(n: Network, x: str) -> str:
    return n.qdq(n.add("Concat", n.qdq(n.conv(x)), n.qdq(n.conv(x), 0.08), axis=1))


LAYERS: dict[str, tuple[Layer, float, int]] = {
    "relu": (activation("Relu"), STEP, CHANNELS),
    "six": (six, STEP, CHANNELS),
    "relu of bytes": (between("Relu"), STEP, CHANNELS),
    "leaky": (activation("LeakyRelu", alpha=0.1), STEP, CHANNELS),
    "sigmoid": (activation("Sigmoid"), STEP, CHANNELS),
    "hard swish": (hard_swish, STEP, CHANNELS),
    "silu": (silu, STEP, CHANNELS),
    "pointwise": (pointwise, STEP, CHANNELS),
    "depthwise": (depthwise, STEP, CHANNELS),
    "residual": (residual, STEP, CHANNELS),
    "open residual": (open_residual, STEP, CHANNELS),
    "average": (average, STEP, CHANNELS),
    "maximum": (maximum, 0.08, CHANNELS),
    "squeezed": (squeezed, STEP, CHANNELS),
    "nearest": (resized("nearest", STEP), STEP, CHANNELS),
    "linear": (resized("linear", 0.08), 0.08, CHANNELS),
    "joined": (joined, STEP, 2 * CHANNELS),
}
"""Layers with the step and the channels of their results."""

FORMS = [
    ("uint8", 0, False, 4), ("uint8", 100, True, 4), ("int8", 0, True, 4), ("int8", -128, True, 4),
    ("int8", -7, False, 5),
]  # fmt: skip


def network(name: str, kind: str, zero: int, by_channel: bool, rank: int) -> onnx.ModelProto:
    n = Network(kind, zero, by_channel, rank)
    layer, step, channels = LAYERS[name]
    x = layer(n, n.qdq("x"))
    return n.model(n.qdq(n.conv(x, channels, step)))


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHKILN_CACHE", "")


BLOCKED = {
    "kiln.PackChannels": (1, 1), "kiln.UnpackChannels": (1, 1),
    "kiln.ConvBlocked": (1, 3), "kiln.DepthwiseBlocked": (0, 1),
    "Conv": (0, 0), "QLinearConv": (0, 0), "ConvInteger": (0, 0), "MaxPool": (0, 0),
    "AveragePool": (0, 0), "GlobalAveragePool": (0, 0),
}  # fmt: skip
"""How often ops stand in a network after the layout pass: at least, at most."""


@pytest.mark.parametrize("cpu", ["cascadelake", "aarch64-dotprod"])
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_bytes_stay_in_blocks(name: str, form: tuple[str, int, bool, int], cpu: str) -> None:
    model = network(name, *form)
    graph = graphkiln.optimize(model, target=f"cpu:{cpu}", stop_after="layout")
    ops = Counter(n.key for n in graph.nodes)
    for op, (least, most) in BLOCKED.items():
        assert least <= ops[op] <= most, op
    convolutions = [n for n in graph.nodes if n.op in ("ConvBlocked", "DepthwiseBlocked")]
    convolved = [graph.input(n, 0) for n in convolutions]
    assert {v.dtype for v in convolved if v is not None} <= {"int8", "uint8"}


@pytest.mark.parametrize("cpu", cpus(""))
@pytest.mark.parametrize("name", LAYERS)
def test_numbers(name: str, cpu: str) -> None:
    """The same bytes as onnxruntime; averages often fall between two, where either will do."""
    form = FORMS[len(name) % len(FORMS)]
    model = network(name, *form)
    session = graphkiln.compile(model, target=f"cpu:{cpu}", jobs=1).session(threads=1)
    shape = (1, CHANNELS, *IMAGE[: form[3] - 2])
    x = np.random.default_rng(5).normal(size=shape).astype(np.float32) * 4
    want = first_result(model, x, optimised=False)
    off = np.abs(session.run(None, {"x": x})[0] - want) / STEP
    assert len(np.unique(want)) > 100
    assert off.max() < (1.01 if name in ("average", "linear") else 0.01)
