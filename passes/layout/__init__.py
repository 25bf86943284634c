"""Blocked layouts: packed weights for convolutions and matmuls, blocked channels for activations.

The values between convolutions are laid out as ``[N, C/b, *S, b]`` (``b`` channels, a vector's
width, innermost: ``float32[1,64,56,56]`` becomes ``float32[1,4,56,56,16]`` where ``b`` is 16). They
stay so from op to op, as long as each can work on blocks: elementwise ops, pools, concatenations.
``kiln.PackChannels`` converts a plain value that a blocked op reads, and ``kiln.UnpackChannels``
converts back for an op that takes plain values only.

Where ``C`` is no multiple of ``b``, the last block is padded with channels that hold any finite
numbers: the weights that multiply them are zero, and a NaN or infinity there would spoil the sum.

The pass visits nodes in topological order and applies the rule of each op, in the files beside this
one. A rule decides from the op's operands whether the target has a kernel for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...ir.elementwise import is_elementwise
from ...ir.graph import Graph, Node
from ...ir.ops.reduce import REDUCTIONS
from ...ir.registry import has_trait
from ...ir.traits import Trait
from ...ir.types import TensorType
from ..base import Pass, PassContext, register_pass
from ..claims import SUMS, Family, exact, moved, rounds
from . import channels, conv, pointwise, pool, product, quantized, recurrent, transposed
from .planner import Planner

_RULES: dict[str, Callable[[Planner, Node], None]] = {
    "Conv": conv.convolution,
    "QLinearConv": quantized.convolution,
    "ConvInteger": quantized.integer_convolution,
    "ConvTranspose": transposed.transposed,
    "MatMul": product.product,
    "Gemm": product.product,
    "QLinearMatMul": quantized.product,
    "com.microsoft.QGemm": quantized.gemm,
    "MatMulInteger": quantized.integer_product,
    "MaxPool": pool.pool,
    "AveragePool": pool.pool,
    "GlobalAveragePool": pool.global_pool,
    "GlobalMaxPool": pool.global_pool,
    **dict.fromkeys(REDUCTIONS, pool.reduce),
    "ReduceMean": pool.reduce_mean,
    "RNN": recurrent.recurrent,
    "GRU": recurrent.recurrent,
    "LSTM": recurrent.recurrent,
    "Concat": channels.concat,
    "kiln.Slice": channels.slice_,
    "Resize": pointwise.resize,
    "kiln.Reshape": pointwise.reshape,
}

_AT_RUN_TIME = "its indices may be given at run time"
_ANY_ORDER = "a symmetric op depends on all elements of a tensor at once"
_WEIGHTED = "it may weigh the elements of a whole image"


@register_pass
@dataclass(frozen=True)
class Layout(Pass):
    """Chooses blocked layouts and packed weights where the target has kernels for them."""

    name = "layout"
    claims = {
        **{
            kind: rounds(f"{kind} = the same with packed operands", SUMS)
            for kind in ("depthwise", "transposed", "matmuls", "recurrent", "pools")
        },
        "convolutions": rounds("convolutions = the same with packed operands", SUMS),
        "listed": rounds(
            "sum_k w_k x_k = sum_{k: w_k is not 0} w_k x_k", f"{SUMS}, where all x_k are finite"
        ),
        "winograd": rounds(
            "conv3x3(x, W) = A (G W G^T * B^T x B) A^T", "(n + 4) 100 u of max |x| sum |W|"
        ),
        **{
            kind: rounds(f"{kind} = sums of integers * (sx * sw / sy)", "one step of the result")
            for kind in ("integer convolutions", "integer matmuls")
        },
        **{
            kind: moved(f"{kind} of x = {kind} of x in blocks")
            for kind in ("elementwise", "concats", "slices", "selections", "reshapes")
        },
        "gathers": exact("gathers of x = gathers of x in blocks", _AT_RUN_TIME, Family.MOVEMENT),
        "resizes": exact("resizes of x = resizes of x in blocks", _WEIGHTED, Family.MOVEMENT),
        "observers": exact("f(unpack(x)) = f(x)", _ANY_ORDER, Family.MOVEMENT),
        "packs": moved("unpack(pack(x)) = x"),
    }

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        layouts = context.hardware.layouts
        if layouts is None:
            return {}
        planner = Planner(context.editor(graph), layouts, context.explain)
        for node in graph.topological():
            if all(isinstance(v.type, TensorType) for v in node.values):
                planner.begin(node)
                rule = _RULES.get(node.key)
                if rule is not None:
                    rule(planner, node)
                elif has_trait(node, Trait.SYMMETRIC):
                    pointwise.symmetric(planner, node)
                elif is_elementwise(node, graph.inputs_of(node)):
                    pointwise.elementwise(planner, node)
        return planner.finish()


__all__ = ["Layout"]
