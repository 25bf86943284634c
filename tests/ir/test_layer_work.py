"""The work of layers, read from their nodes."""

from __future__ import annotations

import numpy as np
import pytest

from graphkiln.ir.choices import ProductShape
from graphkiln.ir.costs import USUAL
from graphkiln.ir.edit import Editor
from graphkiln.ir.graph import Graph
from graphkiln.ir.infer import infer_types
from graphkiln.ir.layer_work import LayerWork, layer_work
from graphkiln.ir.parser import parse_graph
from graphkiln.ir.windows import ConvShape


def work(op: str, x: str, weights: tuple[int, ...], **attrs: object) -> LayerWork | None:
    """That of ``op(x, w)`` for an ``x`` of a type such as ``float32[2,8]``."""
    graph: Graph = parse_graph(f"graph k(%x: {x}) -> (x) {{\nreturn %x\n}}")
    editor = Editor(graph, infer_types(graph))
    array = np.ones(weights, x.partition("[")[0])
    return layer_work(graph, editor.op(op, graph.inputs[0], editor.constant(array), **attrs).node)


def test_a_convolution() -> None:
    found = work(
        "Conv", "float32[2,8,20,30]", (12, 4, 3, 5), group=2, strides=(2, 1), pads=(1, 2, 1, 2)
    )
    shape = ConvShape(4, 6, 2, (3, 5), (2, 1), (1, 1), (10, 30), False)
    assert found == LayerWork(shape, 2, 2 * 8 * 20 * 30, 12 * 4 * 3 * 5, short_sums=True)
    assert not found.is_integer and found.in_bytes().is_integer
    assert found.in_bytes().read == found.read


def test_images_of_open_size_have_room_for_a_window() -> None:
    found = work("Conv", "float32[N,1,L]", (16, 1, 256), strides=(128,))
    assert found is not None and isinstance(found.shape, ConvShape)
    assert found.shape.image == (1,) and found.images == USUAL
    fixed = work("Conv", "float32[0,1,8]", (16, 1, 1))
    assert fixed is not None and fixed.written == 0


@pytest.mark.parametrize(
    ("op", "x", "weights", "attrs", "shape"),
    [
        ("MatMul", "float32[3,4,16]", (16, 8), {}, (12, 8, 16)),
        ("MatMul", "float32[16]", (16, 8), {}, (1, 8, 16)),
        ("Gemm", "float32[5,16]", (8, 16), {"transB": 1}, (5, 8, 16)),
        ("MatMul", "float32[N,16]", (16, 8), {}, (USUAL, 8, 16)),
    ],
)
def test_products(
    op: str, x: str, weights: tuple[int, ...], attrs: dict[str, int], shape: tuple[int, int, int]
) -> None:
    rows, columns, inner = shape
    found = work(op, x, weights, **attrs)
    assert found == LayerWork(ProductShape(*shape), 1, rows * inner, columns * inner)
    assert found.in_bytes().shape == ProductShape(*shape, "uint8", "int8")


@pytest.mark.parametrize(
    ("op", "x", "weights", "attrs"),
    [
        ("MatMul", "float64[5,16]", (16, 8), {}),
        ("MatMul", "float32[2,5,16]", (2, 16, 8), {}),
        ("Gemm", "float32[16,5]", (16, 8), {"transA": 1}),
        ("ConvTranspose", "float32[1,8,5,5]", (8, 4, 3, 3), {}),
        ("Add", "float32[5,16]", (5, 16), {}),
    ],
)
def test_other_nodes_are_not_known(
    op: str, x: str, weights: tuple[int, ...], attrs: dict[str, int]
) -> None:
    assert work(op, x, weights, **attrs) is None


def test_the_result_of_a_layer() -> None:
    conv = work("Conv", "float32[2,8,20,30]", (12, 4, 3, 3), group=2, strides=(2, 1))
    product = work("MatMul", "float32[3,4,16]", (16, 8))
    assert conv is not None and conv.written == 2 * 12 * 9 * 28
    assert product is not None and product.written == 12 * 8
