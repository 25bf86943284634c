"""Kernels that look bytes up in tables: alone, behind convolutions and products, in vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphkiln
from graphkiln import runtime
from graphkiln.frontend import load_model
from graphkiln.ir.interpreter import evaluate
from graphkiln.machine import cpu_features

F32 = np.float32
TARGETS = ["cpu", "cpu:x86-64-v3"] if "avx2" in cpu_features() else ["cpu"]


def model(shape: list[int], first: str, weights: np.ndarray | None, kind: str) -> onnx.ModelProto:
    """A float op on quantised data, then a sigmoid, all between quantisers of type ``kind``."""
    code = TensorProto.UINT8 if kind == "uint8" else TensorProto.INT8
    middle = 128 if kind == "uint8" else 0
    constants = {
        "sx": F32(0.04), "zx": np.array(middle, kind), "sy": F32(0.3), "zy": np.array(99, kind),
        "st": F32(1 / 256), "zt": np.array(0 if kind == "uint8" else -128, kind),
    }  # fmt: skip
    nodes = [helper.make_node("DequantizeLinear", ["x", "sx", "zx"], ["f"])]
    if weights is not None:
        constants |= {"w": weights, "sw": F32(0.02)}
        nodes += [
            helper.make_node("DequantizeLinear", ["w", "sw"], ["wf"]),
            helper.make_node(first, ["f", "wf"], ["c"]),
            helper.make_node("QuantizeLinear", ["c", "sy", "zy"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "sy", "zy"], ["d"]),
        ]
    nodes += [
        helper.make_node("Sigmoid", ["d" if weights is not None else "f"], ["s"]),
        helper.make_node("QuantizeLinear", ["s", "st", "zt"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", code, shape)],
        [helper.make_tensor_value_info("y", code, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


CASES = {
    "short": ([3, 7], "", None),
    "rows": ([5, 130], "", None),
    "long": ([70_001], "", None),
    "image": ([1, 3, 9, 11], "", None),
    "conv": ([1, 8, 9, 11], "Conv", (40, 8, 3, 3)),
    "pointwise": ([2, 32, 5, 7], "Conv", (24, 32, 1, 1)),
    "product": ([9, 64], "MatMul", (64, 50)),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("case", CASES)
def test_kernels_agree_with_the_interpreter(
    case: str, kind: str, target: str, tmp_path: Path
) -> None:
    shape, first, sizes = CASES[case]
    random = np.random.default_rng(7)
    weights = None if sizes is None else random.integers(-99, 99, sizes).astype(np.int8)
    low = 0 if kind == "uint8" else -128
    x = random.integers(low, low + 256, shape).astype(kind)
    made = model(shape, first, weights, kind)
    (wanted,) = evaluate(load_model(made).graph, {"x": x})
    artifact = graphkiln.compile(made, target, dump_ir=tmp_path)
    text = "".join(p.read_text("utf-8") for p in tmp_path.glob("*_tabulate.txt"))
    assert "kiln.MapBytes" in text
    with runtime.load(artifact.save(tmp_path / "m.kiln")) as session:
        (actual,) = session.run(None, {"x": x})
    # A step of the sums is up to 0.07 here, of which the sigmoid's greatest slope makes 18 steps.
    steps = 0 if weights is None else 19
    assert actual.dtype == wanted.dtype
    difference = np.abs(actual.astype(int) - wanted.astype(int))
    assert difference.max() <= steps and np.mean(difference > 0) < 0.02


@pytest.mark.parametrize(
    "cpu, way", [("icelake-server", "permuted"), ("x86-64-v4", "shuffled"), ("x86-64-v2", "single")]
)
def test_vectors_are_permuted_where_the_cpu_can(cpu: str, way: str, tmp_path: Path) -> None:
    weights = np.random.default_rng(7).integers(-99, 99, (32, 32, 1, 1)).astype(np.int8)
    made = model([1, 32, 8, 8], "Conv", weights, "uint8")
    graphkiln.compile(made, f"cpu:{cpu}", dump_ir=tmp_path)
    listed = [p.read_text("utf-8") for p in (tmp_path / "kernels").glob("conv*.txt")]
    assert any(f'"byte_tables": "{way}"' in text for text in listed)
