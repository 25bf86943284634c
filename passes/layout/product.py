"""Matrix products by packed weights."""

from __future__ import annotations

import numpy as np

from ...ir.choices import ProductShape
from ...ir.graph import Node, Value
from ...ir.packing import pack_matmul_weight
from ...ir.registry import attribute
from .planner import Planner
from .split import PackedWeights, listed_weights
from .weights import Weights, find_weights


def product(p: Planner, node: Node) -> None:
    """``MatMul`` and ``Gemm`` of float32 by constant weights, or by weights stored in 8 bits."""
    x, w, *rest = p.graph.inputs_of(node)
    bias = rest[0] if rest else None
    if x is None or w is None or x.dtype != "float32" or x.rank < 2:
        return p.keep(node, "packed kernels take matrices of float32")
    weights = find_weights(p.graph, w)
    if weights is None or weights.array.ndim != 2:
        return p.keep(node, "its second operand is no constant matrix")
    alpha, beta = 1.0, 1.0
    if node.key == "Gemm":
        if attribute(node, "transA"):
            return p.keep(node, "its first operand is transposed")
        alpha, beta = float(attribute(node, "alpha")), float(attribute(node, "beta"))
        weights = weights.transposed() if attribute(node, "transB") else weights
    columns = weights.array.shape[1]
    scale = _scale(weights, columns)
    if scale is None or not _fits_columns(bias, columns):
        return p.keep(node, "its scales or its bias are not constants for each column, or for all")
    factor = scale * np.float32(alpha)
    scaled = weights.scaled(factor) if weights.array.dtype == np.float32 else None
    if scaled is not None:
        weights, factor = scaled, np.ones((), np.float32)
    row = None
    if bias is not None and bias.constant is not None:
        row = np.broadcast_to(bias.constant.reshape(-1), (columns,)) * np.float32(beta)
    packed = pack_weights(p, x, weights)
    kind = "listed" if packed.listed else "matmuls"
    p.replace(node, _multiply(p, node, x, weights, packed, factor, row), kind)
    if w.node.key == "Transpose" and not packed.listed:
        whole = p.constant(packed.key, packed.array, f"{weights.name}_packed")
        _share_with_gathers(p, w.node, weights, whole)


def _scale(weights: Weights, columns: int) -> np.ndarray | None:
    """The factor of each column, or of all; None where the factors are of another kind."""
    scale = weights.scale
    if scale.size == 1:
        return scale.reshape(())
    return scale.reshape(-1) if scale.shape[-1] == columns == scale.size else None


def _fits_columns(bias: Value | None, columns: int) -> bool:
    """Is the bias a constant number, or one for each column?"""
    if bias is None:
        return True
    array = bias.constant
    if array is None or array.size not in (1, columns):
        return False
    return array.shape[-1:] == (array.size,)


def _multiply(
    p: Planner, node: Node, x: Value, weights: Weights, packed: PackedWeights, factor: np.ndarray,
    bias: np.ndarray | None,
) -> Value:  # fmt: skip
    """``x @ weights * factor + bias``; where the factor is 1 the kernel adds the bias."""
    plain = bool(np.all(factor == 1))
    x = with_depth(p, x, weights.array.shape[0])
    start: list[Value] = []
    if plain and bias is not None:
        start.append(p.constant((node, "bias"), bias, f"{node.out().name}_bias"))
    operands = packed.operands(p, f"{weights.name}_packed", start)
    columns = {"columns": weights.array.shape[1]}
    result = p.add("MatMulPacked", [x, *operands], columns, like=node)
    if plain:
        return result
    scale = p.constant((weights.key, "scale", factor.tobytes()), factor, "scale")
    result = p.add("Mul", [result, scale], domain="", like=node)
    if bias is not None:
        row = p.constant((node, "bias"), bias, f"{node.out().name}_bias")
        result = p.add("Add", [result, row], domain="", like=node)
    return result


def with_depth(p: Planner, x: Value, depth: int) -> Value:
    """``x`` with ``depth`` as its last dim.

    Where that is a symbol, a check of the run ensures that it has this value, so a view may say so.
    """
    if x.shape[-1] == depth:
        return x
    return p.add("Reshape", [x], {"shape": (*x.shape[:-1], depth)})


def pack_weights(p: Planner, x: Value, weights: Weights, depth: int = 1) -> PackedWeights:
    """``weights`` packed for a product with ``x``, in tiles that the target chooses.

    ``depth`` is the number of neighbours that a dot product of bytes takes, 1 for floats.
    """
    rows = 1
    for d in x.shape[:-1]:
        rows = rows * d if isinstance(d, int) and rows else 0
    columns = weights.array.shape[1]
    inner, kinds = weights.array.shape[0], (str(x.dtype), str(weights.array.dtype))
    shape = ProductShape(rows or None, columns, inner, *kinds)

    def pack(tile: int) -> PackedWeights:
        array = pack_matmul_weight(weights.array, tile, depth)
        return PackedWeights((*weights.key, "matmul", tile, depth), array, depth)

    listed = listed_weights(p, weights.array, shape, pack)
    return listed or pack(p.layouts.choose(shape).columns)


def _share_with_gathers(p: Planner, transpose: Node, weights: Weights, packed: Value) -> None:
    """Let Gather take rows of a matrix [V, K] out of its packed transpose [Vt, K, t].

    Language models use one table for the embedding and for the last layer, and so it is stored
    once. The weights must be exactly the transpose of the table, without a scale; both may be
    widened where they are read.
    """
    table = p.graph.required_inputs(transpose)[0]
    if table.node.key == "Cast":
        table = p.graph.required_inputs(table.node)[0]
    if table.constant is None or packed.dtype != table.dtype or weights.key != (table, "T"):
        return
    gathers = [
        n for n, i in p.graph.uses(table)
        if i == 0 and n.key == "Gather" and int(attribute(n, "axis")) % 2 == 0
    ]  # fmt: skip
    if not gathers:
        return
    blocked = p.add("Reshape", [packed], {"shape": (1, *packed.shape)})
    plain = p.add("UnpackChannels", [blocked], {"channels": table.shape[0]})
    for node in gathers:
        indices = p.graph.required_inputs(node)[1]
        rows = p.add("Gather", [plain, indices], {"axis": 1}, domain="", like=node)
        p.replace(node, p.add("Reshape", [rows], {"shape": node.out().shape}), "gathers")
