"""Blocked layouts: convolutions and matmuls get packed weights, activations between them blocks.

Values of convolutional parts live as ``[N, C/b, *S, b]`` for as long as every op can work on that:
elementwise ops, pools, concatenations of whole blocks. Where something else reads such a value one
``kiln.UnpackChannels`` gives it back its plain form, and ``kiln.PackChannels`` blocks what comes
from outside. Channels past the logical count, in the last block, hold finite numbers that meet
zero weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..ir.dims import Dim, is_static
from ..ir.graph import Attr, Graph, Node, Value
from ..ir.infer import Known, infer_node
from ..ir.packing import (
    pack_channels,
    pack_conv_weight,
    pack_depthwise_weight,
    pack_matmul_weight,
)
from ..ir.registry import attribute, has_trait
from ..ir.types import TensorType
from ..ir.windows import conv_window, pool_window
from .base import Pass, PassContext, register_pass
from .target import Layouts

# Elementwise ops that make something infinite of a zero: not where blocks are padded.
_UNSAFE_ON_ZERO = frozenset({"Div", "Log", "Reciprocal", "Pow", "Mod", "Acosh", "Tan"})


@register_pass
@dataclass(frozen=True)
class Layout(Pass):
    """Chooses blocked layouts where the target has kernels for them; see the file's text."""

    name = "layout"

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        layouts = context.target.layouts
        if layouts is None:
            return {}
        return _Planner(graph, layouts, context.known(graph)).run()


class _Planner:
    def __init__(self, graph: Graph, layouts: Layouts, known: Known) -> None:
        self.graph = graph
        self.layouts = layouts
        self.block = layouts.block
        self.known = dict(known)
        self.blocked: dict[Value, Value] = {}
        self.converted: set[Node] = set()
        self.packed: dict[tuple[object, ...], Value] = {}
        self.counts: Counter[str] = Counter()

    def run(self) -> Mapping[str, int]:
        for node in self.graph.topological():
            if all(isinstance(v.type, TensorType) for v in node.values):
                self.visit(node)
        self.unpack_rest()
        for node in self.converted:
            self.graph.prune([node])
        self.graph.prune()
        return self.counts

    def visit(self, node: Node) -> None:
        if node.key == "Conv":
            self.convolution(node)
        elif node.key in ("MatMul", "Gemm"):
            self.product(node)
        elif node.key in ("MaxPool", "AveragePool"):
            self.pool(node)
        elif node.key in ("GlobalAveragePool", "GlobalMaxPool"):
            self.global_pool(node)
        elif node.key == "ReduceMean":
            self.reduce_mean(node)
        elif node.key == "Concat":
            self.concat(node)
        elif node.key == "kiln.Reshape":
            self.reshape(node)
        elif has_trait(node, "elementwise"):
            self.elementwise(node)

    # ---- building ----------------------------------------------------------------------------

    def add(
        self, op: str, inputs: Sequence[Value | None], attrs: Mapping[str, Attr] | None = None,
        *, domain: str = "kiln", like: Node | None = None, count: int = 1,
    ) -> Value:  # fmt: skip
        name = like.outputs[0].name if like is not None else op.lower()
        node = self.graph.add_node(op, inputs, attrs, outputs=[name] * count, domain=domain)
        infer_node(self.graph, node, self.known)
        return node.out()

    def constant(self, key: tuple[object, ...], array: np.ndarray, name: str) -> Value:
        if key not in self.packed:
            value = self.graph.add_constant(array, name)
            infer_node(self.graph, value.node, self.known)
            self.packed[key] = value
        return self.packed[key]

    def convert(self, node: Node, result: Value, kind: str) -> None:
        """``result`` is the blocked form of the node's first output."""
        self.blocked[node.out()] = result
        self.converted.add(node)
        self.counts[kind] += 1

    def replace(self, node: Node, result: Value, kind: str) -> None:
        """``result`` is the node's first output as it was."""
        self.graph.replace_uses(node.out(), result)
        self.converted.add(node)
        self.counts[kind] += 1

    def as_blocked(self, value: Value) -> Value:
        """The blocked form of a value; packed here where there is none yet."""
        found = self.blocked.get(value)
        if found is None:
            found = self.add("PackChannels", [value], {"block": self.block})
            self.blocked[value] = found
            self.counts["packs"] += 1
        return found

    def unpack_rest(self) -> None:
        """Give plain readers of blocked values the plain form."""
        for plain, blocked in list(self.blocked.items()):
            if plain.node not in self.converted:
                continue
            readers = {n for n, _ in self.graph.uses(plain)} - self.converted
            if readers:
                shape = plain.shape
                if self.is_flat(plain):
                    result = self.add("Reshape", [blocked], {"shape": shape})
                else:
                    result = self.add("UnpackChannels", [blocked], {"channels": shape[1]})
                    self.counts["unpacks"] += 1
                self.graph.replace_uses(plain, result, readers)

    def is_flat(self, value: Value) -> bool:
        """Is the blocked form the same memory as the plain one (one position, whole blocks)?"""
        _, channels, *spatial = value.shape
        return all(d == 1 for d in spatial) and _whole(channels, self.block)

    # ---- convolution -------------------------------------------------------------------------

    def convolution(self, node: Node) -> None:
        x, w, *rest = self.graph.inputs_of(node)
        bias = rest[0] if rest else None
        if x is None or w is None or w.constant is None or x.dtype != "float32":
            return
        if x.rank not in (3, 4) or (bias is not None and bias.constant is None):
            return
        if not is_static(x.shape[1]):
            return
        group = int(attribute(node, "group"))
        channels, out = int(x.shape[1]), w.constant.shape[0]
        window = conv_window(node, x.shape[2:], w.shape[2:])
        if not all(is_static(d) for d in (*window.begin, *window.end)):
            return
        attrs: dict[str, Attr] = {
            "kernel_shape": window.kernel, "strides": window.strides,
            "dilations": window.dilations, "pads": (*window.begin, *window.end),
            "in_channels": channels, "out_channels": out, "block": self.block,
        }  # fmt: skip
        if group == channels == out and group > 1:
            weight = pack_depthwise_weight(w.constant, self.block)
            result = self.emit_conv(node, "DepthwiseBlocked", x, w, weight, bias, attrs)
            self.convert(node, result, "depthwise")
            return
        tile = self.conv_tile(node, channels // group, out // group, group)
        if tile is None:
            return
        attrs["group"] = group
        in_block = 1 if channels < self.block and x not in self.blocked else self.block
        weight = pack_conv_weight(w.constant, group, in_block, tile)
        result = self.emit_conv(node, "ConvBlocked", x, w, weight, bias, attrs, in_block, tile)
        self.convert(node, result, "convolutions")

    def conv_tile(self, node: Node, channels: int, out: int, group: int) -> int | None:
        """Output channels of a register tile; None where groups do not fall on blocks."""
        if group > 1 and (channels % self.block or out % self.block):
            return None
        *_, width = node.out().shape
        tile = self.layouts.conv_tile(out, width if isinstance(width, int) else None)
        while group > 1 and out % tile:
            tile -= self.block
        return tile

    def emit_conv(
        self, node: Node, op: str, x: Value, w: Value, weight: np.ndarray, bias: Value | None,
        attrs: dict[str, Attr], in_block: int = 0, tile: int = 0,
    ) -> Value:  # fmt: skip
        if in_block == 1:
            source = self.add("Reshape", [x], {"shape": (*x.shape, 1)})
        else:
            source = self.as_blocked(x)
        inputs = [source, self.constant((w, op, in_block, tile), weight, f"{w.name}_packed")]
        if bias is not None and bias.constant is not None:
            blocks = weight.shape[0]
            if op == "ConvBlocked":
                blocks = weight.shape[0] * weight.shape[1] * (tile // self.block)
            packed = np.zeros((blocks * self.block,), bias.constant.dtype)
            packed[: bias.constant.size] = bias.constant
            spatial = (1,) * (x.rank - 2)
            shaped = packed.reshape(blocks, *spatial, self.block)
            inputs.append(self.constant((bias, blocks), shaped, f"{bias.name}_packed"))
        return self.add(op, inputs, attrs, like=node)

    # ---- matmul ------------------------------------------------------------------------------

    def product(self, node: Node) -> None:
        x, w, *rest = self.graph.inputs_of(node)
        bias = rest[0] if rest else None
        if x is None or w is None or w.constant is None or w.constant.ndim != 2:
            return
        if x.dtype != "float32" or x.rank < 2:
            return
        weight, alpha, beta = w.constant, 1.0, 1.0
        if node.key == "Gemm":
            if attribute(node, "transA"):
                return
            alpha, beta = float(attribute(node, "alpha")), float(attribute(node, "beta"))
            weight = weight.T if attribute(node, "transB") else weight
        columns = weight.shape[1]
        if bias is not None:
            array = bias.constant
            if array is None or array.size not in (1, columns) or array.shape[-1:] != (array.size,):
                return
        rows = 1
        for d in x.shape[:-1]:
            rows = rows * d if isinstance(d, int) and rows else 0
        tile = self.layouts.matmul_tile(rows or None, columns)
        key = (w, "matmul", tile, alpha, bool(node.attrs.get("transB")))
        scaled = weight if alpha == 1.0 else weight * np.float32(alpha)
        inputs = [x, self.constant(key, pack_matmul_weight(scaled, tile), f"{w.name}_packed")]
        if bias is not None and bias.constant is not None:
            row = np.broadcast_to(bias.constant.reshape(-1), (columns,)) * np.float32(beta)
            inputs.append(self.constant((bias, "row", columns, beta), row, f"{bias.name}_row"))
        result = self.add("MatMulPacked", inputs, {"columns": columns}, like=node)
        self.replace(node, result, "matmuls")

    # ---- pools -------------------------------------------------------------------------------

    def pool(self, node: Node) -> None:
        x = self.graph.input(node, 0)
        unused = all(not self.graph.uses(v) for v in node.values[1:])
        if x is None or x not in self.blocked or not unused:
            return
        window = pool_window(node, x.shape[2:])
        if not all(is_static(d) for d in (*window.begin, *window.end)):
            return
        attrs: dict[str, Attr] = {
            "mode": "max" if node.op == "MaxPool" else "average",
            "kernel_shape": window.kernel, "strides": window.strides,
            "dilations": window.dilations, "pads": (*window.begin, *window.end),
            "ceil_mode": int(attribute(node, "ceil_mode") or 0),
            "count_include_pad": int(attribute(node, "count_include_pad") or 0),
        }  # fmt: skip
        result = self.add("PoolBlocked", [self.blocked[x]], attrs, like=node)
        self.convert(node, result, "pools")

    def global_pool(self, node: Node) -> None:
        x = self.graph.input(node, 0)
        if x is not None and x in self.blocked:
            op = "ReduceMean" if node.op == "GlobalAveragePool" else "ReduceMax"
            self.convert(node, self.reduce_spatial(op, x, node), "pools")

    def reduce_mean(self, node: Node) -> None:
        """ReduceMean over all spatial dims."""
        x, axes = self.graph.input(node, 0), self.graph.input(node, 1)
        if x is None or x not in self.blocked or axes is None or axes.constant is None:
            return
        if sorted(int(a) % x.rank for a in axes.constant.reshape(-1)) != list(range(2, x.rank)):
            return
        result = self.reduce_spatial("ReduceMean", x, node)
        if attribute(node, "keepdims"):
            self.convert(node, result, "pools")
        elif _whole(x.shape[1], self.block):
            flat = self.add("Reshape", [result], {"shape": x.shape[:2]}, like=node)
            self.replace(node, flat, "pools")
        else:
            channels = {"channels": x.shape[1]}
            plain = self.add("UnpackChannels", [result], channels)
            flat = self.add("Reshape", [plain], {"shape": x.shape[:2]}, like=node)
            self.replace(node, flat, "pools")

    def reduce_spatial(self, op: str, x: Value, like: Node) -> Value:
        axes = np.arange(2, x.rank, dtype=np.int64)
        inputs = [self.blocked[x], self.constant(("axes", x.rank), axes, "axes")]
        return self.add(op, inputs, {"keepdims": 1}, domain="", like=like)

    # ---- ops that work on any layout ---------------------------------------------------------

    def concat(self, node: Node) -> None:
        values = self.graph.required_inputs(node)
        first = values[0]
        if first.rank < 3 or int(attribute(node, "axis")) % first.rank != 1:
            return
        if not all(v in self.blocked and _whole(v.shape[1], self.block) for v in values):
            return
        inputs = [self.blocked[v] for v in values]
        result = self.add("Concat", inputs, {"axis": 1}, domain="", like=node)
        self.convert(node, result, "concats")

    def reshape(self, node: Node) -> None:
        """Flattening a single position of whole blocks."""
        x = self.graph.input(node, 0)
        if x is not None and x in self.blocked and x.rank >= 3 and self.is_flat(x):
            shape = node.attrs["shape"]
            result = self.add("Reshape", [self.blocked[x]], {"shape": shape}, like=node)
            self.replace(node, result, "reshapes")

    def elementwise(self, node: Node) -> None:
        values = self.graph.inputs_of(node)
        out = node.out()
        if len(node.outputs) != 1 or out.rank < 3 or any(v is None for v in values):
            return
        held = [v for v in values if v is not None]
        full = [v for v in held if v in self.blocked and v.shape == out.shape]
        if not full:
            return
        if not _whole(out.shape[1], self.block) and node.op in _UNSAFE_ON_ZERO:
            return
        inputs = [self.operand(v, out) for v in held]
        if any(i is None for i in inputs):
            return
        result = self.add(node.op, inputs, node.attrs, domain=node.domain, like=node)
        self.convert(node, result, "elementwise")

    def operand(self, value: Value, out: Value) -> Value | None:
        """A value as an operand beside blocked ones; None where that does not work."""
        if value in self.blocked:
            return self.blocked[value]
        if value.tensor_type.numel == 1:
            if value.rank == 0:
                return value
            return self.add("Reshape", [value], {"shape": ()})
        shape = (1,) * (out.rank - value.rank) + tuple(value.shape)
        if shape[1] != out.shape[1]:
            return None
        if value.constant is not None:
            array = value.constant.reshape(shape)
            packed = pack_channels(array, self.block)
            return self.constant((value, "channels", out.rank), packed, f"{value.name}_packed")
        if value.rank != out.rank:
            return None
        return self.as_blocked(value)


def _whole(channels: Dim, block: int) -> bool:
    return isinstance(channels, int) and channels % block == 0
