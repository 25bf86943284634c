"""Which nodes share a kernel: those that differ only in what a kernel takes as an argument."""

from __future__ import annotations

import pytest
from support.graph_text import graph_of
from support.pass_checks import run

from graphkiln.codegen.kernels import KernelSpec, kernel_spec
from graphkiln.ir.graph import Graph

QUANTIZE = "%y = QuantizeLinear(%x, %s, %z)"
FUSED = "%a = Exp(%x)\n%y = QuantizeLinear(%a, %s, %z)"
FACTOR = "%a = Exp(%x)\n%y = Mul(%a, %s)"
ADDEND = "%y = Add(%x, %s)"


def graph(lines: str, scale: float, zero: int = 3) -> Graph:
    constants = f"%s = constant float32[] {scale}\n%z = constant uint8[] {zero}"
    return graph_of(f"graph g(%x: float32[N,8]) -> (y) {{\n{constants}\n{lines}\nreturn %y\n}}")


def kernels(g: Graph) -> list[KernelSpec]:
    """The kernels of a graph's nodes, fused into regions."""
    run(g, "fuse,dce")
    return [kernel_spec(g, n) for n in g.nodes if n.op != "Constant"]


@pytest.mark.parametrize("lines", [QUANTIZE, FUSED, FACTOR, ADDEND])
def test_scales_are_arguments(lines: str) -> None:
    assert kernels(graph(lines, 0.3)) == kernels(graph(lines, 0.7))


def test_zero_points_are_arguments() -> None:
    shift = "%q = Cast(%x) {to=2}\n%y = DequantizeLinear(%q, %s, %z)"
    assert kernels(graph(shift, 0.3, 3)) == kernels(graph(shift, 0.3, 255))


@pytest.mark.parametrize("lines", [QUANTIZE, FUSED])
def test_zero_points_of_results_are_code(lines: str) -> None:
    """They are the limits of results."""
    (spec,) = kernels(graph(lines, 0.3, 3))
    assert "constant uint8[] 3" in spec.text


@pytest.mark.parametrize("scale", [1.0, 0.5, -4.0, 0.0])
def test_scales_that_make_arithmetic_cheaper_are_code(scale: float) -> None:
    (spec,) = kernels(graph(FUSED, scale))
    assert f"constant float32[] {scale}" in spec.text


def test_zero_points_of_zero_are_code() -> None:
    shift = "%q = Cast(%x) {to=2}\n%y = DequantizeLinear(%q, %s, %z)"
    (spec,) = kernels(graph(shift, 0.3, 0))
    assert "constant uint8[] 0" in spec.text
    assert "constant float32" not in spec.text


def test_scalars_that_decide_what_code_there_is_are_code() -> None:
    """An exponent: squares are products."""
    (spec,) = kernels(graph("%a = Exp(%x)\n%y = Pow(%a, %s)", 3.0))
    assert "constant float32[] 3.0" in spec.text


def test_integers_of_indices_are_code() -> None:
    text = "graph g(%x: int64[N]) -> (y) {\n%c = constant int64[] 3\n%y = Add(%x, %c)\nreturn %y\n}"
    (spec,) = kernels(graph_of(text))
    assert "constant int64[] 3" in spec.text


def test_a_scale_that_is_an_exponent_too_is_code() -> None:
    (spec,) = kernels(graph("%a = Mul(%x, %s)\n%y = Pow(%a, %s)", 3.0))
    assert "constant float32[] 3.0" in spec.text
