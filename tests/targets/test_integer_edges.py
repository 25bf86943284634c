"""Integers at the edges of their types: arithmetic wraps around as in C, whatever TVM may fold."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import graphkiln

INTEGERS = ("int64", "uint64", "int32", "uint32", "int16", "uint16", "int8", "uint8")
WRAPPING: dict[str, Callable[[Any, Any], Any]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
}


def edges(dtype: str) -> list[int]:
    limits = np.iinfo(dtype)
    low = [limits.min, limits.min + 1, -2, -1] if limits.min else []
    return [*low, 0, 1, 2, 3, limits.max // 2, limits.max // 2 + 1, limits.max - 1, limits.max]


class Cases:
    """One model of many results, and what each should be."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.wanted: dict[str, np.ndarray] = {}

    def constant(self, value: int) -> str:
        name = f"c{value}".replace("-", "m")
        self.constants[name] = np.array(value).astype(self.x.dtype)
        return name

    def add(self, op: str, a: str, b: str, wanted: Any = None, **attrs: int) -> str:
        name = f"y{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [a, b], [name], **attrs))
        if wanted is not None:
            self.wanted[name] = np.asarray(wanted).astype(self.x.dtype)
        return name

    def check(self) -> None:
        kind = helper.np_dtype_to_tensor_dtype(self.x.dtype)
        graph = helper.make_graph(
            self.nodes, "g", [helper.make_tensor_value_info("x", kind, self.x.shape)],
            [onnx.ValueInfoProto(name=n) for n in self.wanted],
            [numpy_helper.from_array(v, n) for n, v in self.constants.items()],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", 18)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        got = graphkiln.compile(model).session().run(None, {"x": self.x})
        for result, (name, wanted) in zip(got, self.wanted.items(), strict=True):
            node = next(n for n in self.nodes if n.output[0] == name)
            told = f"{node.op_type}({', '.join(node.input)})"
            np.testing.assert_array_equal(result, wanted, err_msg=told)


def exact(function: Callable[[int, int], int], a: np.ndarray, b: int, dtype: str) -> np.ndarray:
    """Python's integers, cut to the width of the type."""
    bits = np.iinfo(dtype).bits
    raw = np.array([function(int(v), b) % 2**bits for v in a], np.uint64)
    return raw.astype(f"uint{bits}").view(dtype)


def truncated(a: int, b: int) -> int:
    """The quotient towards zero; 0 for a divisor of 0."""
    if b == 0:
        return 0
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_arithmetic_wraps(dtype: str) -> None:
    x = np.array(edges(dtype) * 2, dtype)
    cases = Cases(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for op, f in WRAPPING.items():
            cases.add(op, "x", "x", f(x, x))
            for value in edges(dtype):
                c, array = cases.constant(value), np.array(value).astype(dtype)
                cases.add(op, "x", c, f(x, array))
                cases.add(op, c, "x", f(array, x))
    cases.check()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_quotients_by_constants(dtype: str) -> None:
    x = np.array(edges(dtype) * 2, dtype)
    cases = Cases(x)
    for value in edges(dtype):
        c = cases.constant(value)
        cases.add("Div", "x", c, exact(truncated, x, value, dtype))
        rest = exact(lambda a, b: a % b if b else 0, x, value, dtype)
        cases.add("Mod", "x", c, rest)
    cases.check()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_a_product_that_wrapped_is_divided_as_it_is(dtype: str) -> None:
    """``x * 2 / 2`` is not ``x``, nor ``x + 1 - 1 > x`` always false."""
    x = np.array(edges(dtype) * 2, dtype)
    cases = Cases(x)
    for value in (2, 3, 7):
        c = cases.constant(value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            wrapped = x * np.array(value, dtype)
        cases.add("Div", cases.add("Mul", "x", c), c, exact(truncated, wrapped, value, dtype))
        cases.add("Sub", cases.add("Add", "x", c), c, x)
    cases.check()


def test_sums_of_64_bits_wrap() -> None:
    x = np.array([[2**63 - 1, 1, 5], [-(2**63), -1, 0]], np.int64)
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)], "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.INT64, x.shape)],
        [onnx.ValueInfoProto(name="y")], [numpy_helper.from_array(np.array([1]), "axes")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (y,) = graphkiln.compile(model).session().run(None, {"x": x})
    np.testing.assert_array_equal(y, x.sum(axis=1))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_truth_of_floats(dtype: str) -> None:
    """NaN is not zero; both zeros are."""
    x = np.array([np.nan, 0.0, -0.0, np.inf, -np.inf, 1e-7, 2.0, -1.0], dtype)
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    nodes = [
        helper.make_node("Cast", ["x"], ["b"], to=onnx.TensorProto.BOOL),
        helper.make_node("NonZero", ["x"], ["n"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, x.shape)],
        [onnx.ValueInfoProto(name=n) for n in "bn"],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    truth, places = graphkiln.compile(model).session().run(None, {"x": x})
    np.testing.assert_array_equal(truth, x.astype(bool))
    np.testing.assert_array_equal(places, np.nonzero(x))


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_a_constant_divisor_of_zero(zero: float) -> None:
    x = np.array([1.0, -1.0, 0.0, np.nan, np.inf], np.float32)
    graph = helper.make_graph(
        [helper.make_node("Div", ["x", "c"], ["y"])], "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [onnx.ValueInfoProto(name="y")], [numpy_helper.from_array(np.float32([zero]), "c")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (y,) = graphkiln.compile(model).session().run(None, {"x": x})
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(y, x / np.float32(zero))
