"""Quantized graphs train through their rounding: straight-through estimation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.graph_text import graph_of

from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.types import dtype
from graphkiln.training import module
from graphkiln.training.ops.quantize import codes
from graphkiln.training.tensors import to_array, to_tensor

TEXT = """graph main(%x: float32[N,2]) -> (y) {
%q = constant int8[2,3] [1, -2, 3, 4, 5, -128]
%s = constant float32[3] [0.5, 0.25, 0.1]
%z = constant int8[3] [0, 0, 0]
%xs = constant float32[] 0.1
%xz = constant uint8[] 10
%xq = QuantizeLinear(%x, %xs, %xz)
%xd = DequantizeLinear(%xq, %xs, %xz)
%w = DequantizeLinear(%q, %s, %z) {axis=1}
%y = MatMul(%xd, %w)
return %y
}"""


def test_the_weight_behind_codes_is_trained() -> None:
    graph = graph_of(TEXT)
    made = module(graph)
    assert list(made.weights) == ["q"]
    want = np.array([[0.5, -0.5, 0.3], [2.0, 1.25, -12.8]], np.float32)
    np.testing.assert_allclose(to_array(made.weights["q"]), want, rtol=1e-6)
    x = np.array([[0.31, -0.2], [100.0, -100.0]], np.float32)
    (expected,) = evaluate(graph, {"x": x})
    np.testing.assert_allclose(to_array(made(to_tensor(x))), expected, rtol=1e-5)


def test_gradients_pass_within_the_range_and_codes_move() -> None:
    graph = graph_of(TEXT)
    made = module(graph)
    x = torch.tensor([[0.31, -5.0]], requires_grad=True)
    made(x).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(to_array(x.grad), [[0.3, 0.0]], atol=1e-6)
    gradient = made.weights["q"].grad
    assert gradient is not None
    # The second input counts for -1.0, the least that its codes hold.
    np.testing.assert_allclose(to_array(gradient), [[0.3] * 3, [-1.0] * 3], atol=1e-6)
    with torch.no_grad():
        made.weights["q"] -= torch.tensor([[0.5, 0.0, 0.04], [0.24, 0.26, 50.0]])
    (node,) = (n for n in made.to_graph().nx if n.outputs and n.outputs[0].name == "q")
    assert node.attrs["value"].dtype == np.int8
    assert node.attrs["value"].tolist() == [[0, -2, 3], [4, 4, -128]]


@given(st.sampled_from(["int8", "uint8", "int4", "uint4", "int16"]), st.integers(0, 2**32 - 1))
def test_codes_are_those_of_quantize_linear(name: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(0, 3, (4, 6)).astype(np.float32)
    x[0] = np.arange(6) * 0.25  # halves
    scale = random.uniform(0.05, 0.5, 6).astype(np.float32)
    scale[:3] = 0.5
    made = codes(to_tensor(x), to_tensor(scale), None, dtype(name), 1, 0)
    low = 0 if name[0] == "u" else -(2 ** (dtype(name).bits - 1))
    want = np.clip(np.rint(x / scale), low, low + 2 ** dtype(name).bits - 1)
    np.testing.assert_array_equal(to_array(made), want)


def test_blocks_share_scales() -> None:
    x, scale = torch.ones(2, 4), torch.tensor([[0.5, 0.25], [1.0, 2.0]])
    made = codes(x, scale, None, dtype("int8"), 1, 2)
    assert made.tolist() == [[2, 2, 4, 4], [1, 1, 0, 0]]


def test_codes_as_results_are_integers() -> None:
    graph = graph_of(
        "graph main(%x: float32[N]) -> (y) {\n%s = constant float32[] 0.5\n"
        "%z = constant int8[] 0\n%y = QuantizeLinear(%x, %s, %z)\nreturn %y\n}"
    )
    assert module(graph)(torch.tensor([0.3, 200.0])).dtype == torch.int8


def test_floats_of_8_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="codes of float8e4m3fn do not run"):
        codes(torch.ones(2), torch.ones(()), None, dtype("float8e4m3fn"), 0, 0)
