"""What kernels compute and move, counted from their regions."""

from __future__ import annotations

from unittest.mock import ANY

import numpy as np
import pytest
from support.graph_text import constant_lines, graph_of

from graphkiln.codegen.costs import kernel_costs
from graphkiln.codegen.kernels import kernel_spec
from graphkiln.ir.costs import Demand, arithmetic
from graphkiln.ir.dims import parse_dim
from graphkiln.ir.flops import graph_flops
from graphkiln.ir.graph import Graph
from graphkiln.targets import parse_target


def region(params: str, lines: str, results: str = "y") -> Graph:
    names = ", ".join(r.strip() for r in results.split(","))
    values = ", ".join(f"%{r.strip()}" for r in results.split(","))
    return graph_of(f"graph g({params}) -> ({names}) {{\n{lines}\nreturn {values}\n}}")


CASES = {
    "MatMul": ("%x: float32[2,5,7], %w: float32[7,3]", "%y = MatMul(%x, %w)", 2 * 2 * 5 * 7 * 3),
    "Gemm": (
        "%x: float32[7,5], %w: float32[7,3]", "%y = Gemm(%x, %w) {transA=1}", 2 * 5 * 7 * 3,
    ),
    "FusedMatMul": (
        "%x: float32[7,5], %w: float32[7,3]",
        "%y = com.microsoft.FusedMatMul(%x, %w) {transA=1}", 2 * 5 * 7 * 3,
    ),
    "Conv": (
        "%x: float32[1,4,10,10], %w: float32[6,2,3,3]", "%y = Conv(%x, %w) {group=2}",
        2 * 6 * 8 * 8 * 2 * 9,
    ),
    "ConvTranspose": (
        "%x: float32[1,4,5,5], %w: float32[4,6,2,2]",
        "%y = ConvTranspose(%x, %w) {strides=[2, 2]}", 2 * 4 * 25 * 6 * 4,
    ),
    "QLinearConv": (
        "%x: uint8[1,4,10,10], %s: float32[], %z: uint8[], %w: int8[6,4,3,3], %a: float32[], "
        "%b: int8[], %c: float32[], %d: uint8[]",
        "%y = QLinearConv(%x, %s, %z, %w, %a, %b, %c, %d)", 2 * 6 * 64 * 4 * 9,
    ),
    "Einsum": (
        "%x: float32[2,5,7], %w: float32[2,3,7]",
        '%y = Einsum(%x, %w) {equation="bij,bkj->bik"}', 2 * 2 * 5 * 7 * 3,
    ),
    "Attention": (
        "%q: float32[1,2,5,8], %k: float32[1,2,9,8], %v: float32[1,2,9,4]",
        "%y = kiln.Attention(%q, %k, %v)", 2 * 2 * 5 * 9 * (8 + 4),
    ),
    "LSTM": (
        "%x: float32[6,1,3], %w: float32[1,16,3], %r: float32[1,16,4]",
        "%y, %h, %c = LSTM(%x, %w, %r) {hidden_size=4}", 2 * 6 * 16 * (3 + 4),
    ),
    "MaxPool": (
        "%x: float32[1,4,8,8]", "%y = MaxPool(%x) {kernel_shape=[2, 2], strides=[2, 2]}",
        4 * 16 * 4,
    ),
    "Softmax": ("%x: float32[4,8]", "%y = Softmax(%x)", 32),
    "Add": ("%x: float32[4,8], %b: float32[8]", "%y = Add(%x, %b)", 32),
    "Transpose": ("%x: float32[4,8]", "%y = Transpose(%x)", 0),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operations(name: str) -> None:
    params, line, count = CASES[name]
    assert graph_flops(region(params, line)) == count


def test_channels_that_fill_a_block_up_do_not_count() -> None:
    g = region(
        "%x: float32[1,1,6,6,16], %w: float32[1,1,1,3,3,16,16]",
        "%y = kiln.ConvBlocked(%x, %w) {in_channels=3, out_channels=10, block=16, "
        "kernel_shape=[3, 3]}",
    )
    assert graph_flops(g) == 2 * 10 * 16 * 3 * 9


def test_open_sizes_stay_open() -> None:
    demand = Demand(region("%x: float32[N,64], %w: float32[64,32]", "%y = MatMul(%x, %w)"))
    assert demand.flops() == parse_dim("4096*N")
    assert demand.moved_bytes() == parse_dim("384*N+8192")


def test_a_table_moves_only_what_is_looked_up() -> None:
    """Nor is it converted as a whole."""
    plain = region("%t: float32[1000,8], %i: int64[5]", "%y = Gather(%t, %i)")
    assert Demand(plain).moved_bytes() == 4 * 5 * 8 + 8 * 5 + 4 * 5 * 8
    lines = "%f = Cast(%t) {to=1}\n%s = Mul(%f, %k)\n%y = Gather(%s, %i)"
    stored = region("%t: int8[1000,8], %k: float32[], %i: int64[5]", lines)
    assert Demand(stored).moved_bytes() == 5 * 8 + 4 + 8 * 5 + 4 * 5 * 8
    assert Demand(stored).flops() == 2 * 5 * 8
    many = region("%t: float32[3,8], %i: int64[5]", "%y = Gather(%t, %i)")
    assert Demand(many).moved_bytes() == 4 * 3 * 8 + 8 * 5 + 4 * 5 * 8


def test_who_reads_all_makes_all_move() -> None:
    params = "%t: float32[1000,8], %i: int64[5]"
    both = region(params, "%a = Gather(%t, %i)\n%b = ReduceSum(%t)", "a, b")
    assert Demand(both).moved_bytes() == 4 * 8000 + 8 * 5 + 4 * 40 + 4
    broadcast = region(
        "%t: float32[8], %x: float32[9,8]",
        "%a = Add(%x, %t)\n%s = constant int64[1] [0]\n%e = constant int64[1] [1]\n"
        "%y = Slice(%a, %s, %e)",
    )
    assert Demand(broadcast).moved_bytes() == 4 * 8 + 4 * 8 + 4 * 8


@pytest.mark.parametrize(
    ("params", "line", "kind"),
    [
        ("%x: float32[2,4], %w: float32[4,3]", "%y = MatMul(%x, %w)", "float32"),
        ("%x: float16[2,4], %w: float16[4,3]", "%y = MatMul(%x, %w)", "float32"),
        ("%x: float64[2,4], %w: float64[4,3]", "%y = MatMul(%x, %w)", "float64"),
        ("%x: uint8[2,4], %w: int8[4,3]", "%y = MatMulInteger(%x, %w)", "int8"),
        ("%x: float64[2,4]", "%y = Exp(%x)", "float64"),
        ("%x: uint8[2,4]", "%y = Cast(%x) {to=1}", "float32"),
    ],
)
def test_the_arithmetic_that_counts(params: str, line: str, kind: str) -> None:
    assert arithmetic(region(params, line)) == kind


def test_entries_of_the_report() -> None:
    lines, constants = constant_lines({"w": np.ones((64, 32), np.float32)})
    product = "%y = MatMul(%x, %w) @m @[a, b]"
    text = f"graph g(%x: float32[N,64]) -> (y) {{\n{lines}\n{product}\nreturn %y\n}}"
    g = graph_of(text, constants)
    spec = kernel_spec(g, next(n for n in g.nodes if n.op == "MatMul"))
    assert kernel_costs({"k": spec}, {"k": [spec]}, parse_target("cpu")) == {
        "k": {
            "ops": ["MatMul"], "nodes": ["m"], "origins": [["a", "b"]], "symbols": ["s0"],
            "flops": "4096*s0", "bytes": "384*s0+8192", "arithmetic": "float32",
            "template": "MatMul", "algorithm": "direct", "tile": ANY, "generic": "",
        }
    }  # fmt: skip
