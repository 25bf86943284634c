"""Decomposition: ops for which there is no kernel of their own become simpler ones.

Sum, Mean, Max, Min of n operands  = a chain of binary operations
Split = a slice for each part, which can be fused with its readers
BatchNormalization, run-time parameters = scale * (x - mean) / sqrt(var + epsilon) + bias
com.microsoft.FastGelu, BiasGelu, Gelu, QuickGelu = Add, Gelu, Swish
com.microsoft.FusedConv, FusedGemm = Conv, Gemm, Add and an activation

The target is asked first (``wants``): ops that it has a kernel for stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce

from ..ir.dims import Dim
from ..ir.edit import Editor
from ..ir.graph import Graph, Value
from ..ir.ops.fused_activation import activation_parameters
from ..ir.registry import attribute
from .base import Pass, PassContext, register_pass
from .claims import ACTIVATION, SUMS, Family, moved, proved, rounds
from .pattern import Match, Op, Rule, exact_rules, rewrite
from .queries import input_symbols, symbols_bound


def _operands(m: Match) -> list[Value]:
    return m.graph.required_inputs(m.root)


_TOTAL = Op("Sum|Mean", rest=True)


def _adds(m: Match) -> bool:
    return m.root.key in _TOTAL.keys


def _several(m: Match) -> str | None:
    least = 2 if _adds(m) else 3
    return None if len(_operands(m)) >= least else "it is binary"


def _rounds_between(m: Match) -> bool:
    """Would a chain round after each sum, while one kernel keeps the total in a wider float?"""
    t = m.root.out().tensor_type.dtype
    return _adds(m) and t.is_float and t.bits < 32


def _keeping_totals(m: Match) -> str | None:
    return "each sum would round" if _rounds_between(m) else _several(m)


def _rounding_totals(m: Match) -> str | None:
    return _several(m) if _rounds_between(m) else "nothing is rounded in between"


def _chain(m: Match, r: Editor) -> Value:
    operands = _operands(m)
    op = "Add" if _adds(m) else m.root.op
    total = reduce(lambda a, b: r.op(op, a, b), operands)
    if m.root.op != "Mean":
        return total
    return r.op("Div", total, r.scalar(len(operands), total))


# ---- split ---------------------------------------------------------------------------------------


def _sizes_known(m: Match) -> str | None:
    x = _operands(m)[0]
    bound = input_symbols(m.graph)
    parts = [v.shape for v in m.root.values]
    if all(symbols_bound(shape, bound, [x]) for shape in parts):
        return None
    return "the sizes of its parts are only known at run time"


def _slices(m: Match, r: Editor) -> list[Value | None]:
    x = _operands(m)[0]
    axis = int(attribute(m.root, "axis")) % x.rank
    start: Dim = 0
    cuts: list[Value | None] = []
    for part in m.root.values:
        starts: list[Dim] = [0] * x.rank
        starts[axis] = start
        start = start + part.shape[axis]
        attrs = {"starts": tuple(starts), "steps": (1,) * x.rank, "shape": part.shape}
        cuts.append(r.op("kiln.Slice", x, **attrs) if m.graph.uses(part) else None)
    return cuts


# ---- batch norm ----------------------------------------------------------------------------------


def _at_inference(m: Match) -> str | None:
    if all(v.is_constant for v in _operands(m)[1:]):
        return "constant parameters are folded"
    return "it is in training mode" if attribute(m.root, "training_mode") else None


def _normalised(m: Match, r: Editor) -> Value:
    x, *parameters = _operands(m)
    channels = (*x.shape[1:2], *(1,) * (x.rank - 2))
    scale, bias, mean, var = (
        r.op("kiln.Reshape", _like(r, p, x), shape=channels) for p in parameters
    )
    shifted = r.op("Add", var, r.scalar(attribute(m.root, "epsilon"), var))
    factor = r.op("Div", scale, r.op("Sqrt", shifted))
    return r.op("Add", r.op("Mul", r.op("Sub", x, mean), factor), bias)


def _like(r: Editor, value: Value, x: Value) -> Value:
    return value if value.dtype == x.dtype else r.op("CastLike", value, x)


# ---- com.microsoft -------------------------------------------------------------------------------


def _gelu(m: Match, r: Editor) -> Value:
    x, *bias = _operands(m)
    value = r.op("Add", x, bias[0]) if bias else x
    approximate = "tanh" if m.root.op == "FastGelu" else "none"
    return r.op("Gelu", value, approximate=approximate)


def _quick_gelu(m: Match, r: Editor) -> Value:
    return r.op("Swish", _operands(m)[0], alpha=float(attribute(m.root, "alpha")))


_ACTIVATIONS = {
    "Relu": (), "Tanh": (), "Sigmoid": (), "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
}  # fmt: skip


def _known_activation(m: Match) -> str | None:
    name = attribute(m.root, "activation") or ""
    return None if name in (*_ACTIVATIONS, "Clip", "") else f"activation {name} is not known"


def _activated(m: Match, r: Editor, x: Value) -> Value:
    name = attribute(m.root, "activation") or ""
    if not name:
        return x
    numbers = activation_parameters(partial(attribute, m.root))
    if name == "Clip":
        low, high = (r.scalar(v, x) for v in numbers)
        return r.op("Clip", x, low, high)
    return r.op(name, x, **dict(zip(_ACTIVATIONS[name], numbers, strict=False)))


def _conv(m: Match, r: Editor) -> Value:
    inputs = m.graph.inputs_of(m.root)
    attrs = {k: v for k, v in m.root.attrs.items() if not k.startswith("activation")}
    value = r.node("Conv", inputs[:3], attrs).out()
    if len(inputs) > 3 and inputs[3] is not None:
        value = r.op("Add", value, inputs[3])
    return _activated(m, r, value)


def _gemm(m: Match, r: Editor) -> Value:
    attrs = {k: v for k, v in m.root.attrs.items() if not k.startswith("activation")}
    return _activated(m, r, r.node("Gemm", m.graph.inputs_of(m.root), attrs).out())


RULES = (
    Rule(
        "split",
        Op("Split", rest=True),
        _slices,
        _sizes_known,
        claim=moved("split(x) = a slice for each part"),
    ),
    Rule(
        "chain",
        Op("Sum|Mean|Max|Min", rest=True),
        _chain,
        _keeping_totals,
        claim=proved("sum, mean, max, min of n operands = binary ones in a row"),
    ),
    Rule(
        "chain-narrow",
        _TOTAL,
        _chain,
        _rounding_totals,
        claim=rounds(
            "sum, mean of n floats below 32 bits = binary sums in a row",
            "u of each partial sum and of the result",
            Family.ELEMENTWISE,
        ),
    ),
    Rule(
        "batch-norm",
        Op("BatchNormalization", rest=True),
        _normalised,
        _at_inference,
        claim=rounds(
            "batch norm = scale * (x - mean) / sqrt(var + e) + bias", "4 ulp of each term"
        ),
    ),
    Rule(
        "gelu",
        Op("com.microsoft.FastGelu|com.microsoft.BiasGelu|com.microsoft.Gelu", rest=True),
        _gelu,
        claim=rounds(
            "FastGelu, BiasGelu, Gelu of com.microsoft = Gelu(x + b)",
            ACTIVATION,
            Family.ELEMENTWISE,
        ),
    ),
    Rule(
        "quick-gelu",
        Op("com.microsoft.QuickGelu", rest=True),
        _quick_gelu,
        claim=rounds("QuickGelu(x) = Swish(x)", ACTIVATION, Family.ELEMENTWISE),
    ),
    Rule(
        "fused-conv",
        Op("com.microsoft.FusedConv", rest=True),
        _conv,
        _known_activation,
        claim=rounds("FusedConv(x) = activation(Conv(x) + z)", SUMS),
    ),
    Rule(
        "fused-gemm",
        Op("com.microsoft.FusedGemm", rest=True),
        _gemm,
        _known_activation,
        claim=rounds("FusedGemm(x) = activation(Gemm(x))", SUMS),
    ),
)


@register_pass
@dataclass(frozen=True)
class Decompose(Pass):
    """Decomposes ops that the target has no kernel for; with ``exact``, by exact rules only."""

    exact: bool = False

    name = "decompose"
    rules = RULES

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        def unwanted(rule: Rule) -> Rule:
            def when(m: Match) -> str | None:
                if context.hardware.wants(m.root.key):
                    return "the target has a kernel for it"
                return rule.when(m) if rule.when is not None else None

            return replace(rule, when=when)

        rules = exact_rules(RULES) if self.exact else RULES
        return rewrite(graph, [unwanted(r) for r in rules], context)
