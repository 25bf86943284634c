"""Small networks to train, as graphs and as ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from support.graph_text import constant_lines, graph_of

from graphkiln.ir.graph import Graph

SIZES = {"c1": 6, "c2": 8, "f1": 10}


def weights(c1: int, c2: int, f1: int, seed: int = 0) -> dict[str, np.ndarray]:
    """The weights of a network of two convolutions and two matrices, images of 8x8."""
    random = np.random.default_rng(seed)
    shapes = {
        "c1.weight": (c1, 1, 3, 3), "c1.bias": (c1,), "c2.weight": (c2, c1, 3, 3),
        "c2.bias": (c2,), "f1.weight": (f1, c2 * 4), "f1.bias": (f1,), "f2.weight": (3, f1),
        "f2.bias": (3,),
    }  # fmt: skip
    return {n: random.normal(0, 0.4, s).astype(np.float32) for n, s in shapes.items()}


BODY = """
%a = Conv(%x, %c1.weight, %c1.bias) {pads=[1, 1, 1, 1]}
%b = Relu(%a)
%c = MaxPool(%b) {kernel_shape=[2, 2], strides=[2, 2]}
%d = Conv(%c, %c2.weight, %c2.bias) {pads=[1, 1, 1, 1]}
%e = Relu(%d)
%f = AveragePool(%e) {kernel_shape=[2, 2], strides=[2, 2]}
%g = kiln.Reshape(%f) {shape=[<N>, FLAT]}
%h = Gemm(%g, %f1.weight, %f1.bias) {transB=1}
%i = Relu(%h)
%logits = Gemm(%i, %f2.weight, %f2.bias) {transB=1}
return %logits
}"""


def digits_graph(held: dict[str, np.ndarray]) -> Graph:
    """The graph of such a network."""
    lines, constants = constant_lines(held)
    head = f"graph main(%x: float32[N,1,8,8]) -> (logits) {{\n{lines}"
    body = BODY.replace("FLAT", str(held["f1.weight"].shape[1]))
    return graph_of(head + body, constants)


def digits_model(held: dict[str, np.ndarray], batch: int | str = "N") -> onnx.ModelProto:
    """The same as an ONNX model."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "c1.weight", "c1.bias"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"]),
        node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["c", "c2.weight", "c2.bias"], ["d"], pads=[1, 1, 1, 1]),
        node("Relu", ["d"], ["e"]),
        node("AveragePool", ["e"], ["f"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["f"], ["g"]),
        node("Gemm", ["g", "f1.weight", "f1.bias"], ["h"], transB=1),
        node("Relu", ["h"], ["i"]),
        node("Gemm", ["i", "f2.weight", "f2.bias"], ["logits"], transB=1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "digits", [value("x", TensorProto.FLOAT, [batch, 1, 8, 8])],
        [value("logits", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(a, n) for n, a in held.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def bars(count: int = 96, seed: int = 0) -> dict[str, np.ndarray]:
    """Noisy images of a bar: lying, standing or slanted, and which it is."""
    random = np.random.default_rng(seed)
    x = random.normal(0, 0.2, (count, 1, 8, 8)).astype(np.float32)
    label = random.integers(0, 3, count)
    for i, kind in enumerate(label):
        at = random.integers(1, 7)
        if kind == 0:
            x[i, 0, at] += 1
        elif kind == 1:
            x[i, 0, :, at] += 1
        else:
            x[i, 0][np.arange(8), (np.arange(8) + at) % 8] += 1
    return {"x": x, "label": label}


def write_files(folder: Path) -> tuple[Path, Path, Path]:
    """A student, a teacher and samples."""
    student, teacher, data = folder / "s.onnx", folder / "t.onnx", folder / "d.npz"
    onnx.save(digits_model(weights(3, 4, 6, seed=1)), student)
    onnx.save(digits_model(weights(**SIZES)), teacher)
    np.savez(data, **bars())
    return student, teacher, data
