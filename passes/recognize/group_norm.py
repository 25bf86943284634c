"""Group normalisation that is written as an instance norm of a reshaped tensor.

    GroupNormalization(x, G) = Reshape(InstanceNormalization(Reshape(x, [N, G, rest])), shape of x)

then a scale and a bias by channel. Source: Wu and He, "Group Normalization"; ONNX
GroupNormalization (opset 21).
"""

from __future__ import annotations

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Value
from ...ir.types import to_numpy_dtype
from ..claims import NORM, rounds
from ..pattern import Const, Match, Op, Rule, Var
from ..queries import splat

_X = Var("x")
_CORE = Op(
    "kiln.Reshape",
    Op(
        "InstanceNormalization",
        Op("kiln.Reshape", _X, name="split"),
        Const(value=1.0),
        Const(value=0.0),
        name="norm",
    ),
)
_NORM = Op("GroupNormalization", _X, Const("scale"), Const("bias"), name="norm")


def _groups(m: Match) -> str | None:
    x, split = m["x"], m.node("split").out()
    if m.root.out().type != x.type or x.rank < 3 or not isinstance(x.shape[1], int):
        return "the result has another shape than the input"
    if split.rank != 3 or split.shape[0] != x.shape[0] or not isinstance(split.shape[1], int):
        return "it does not split channels into groups"
    return "groups do not divide the channels" if x.shape[1] % split.shape[1] else None


def _core(m: Match, r: Editor) -> Value:
    x = m["x"]
    kind = to_numpy_dtype(x.dtype)
    scale, bias = (r.constant(np.full(x.shape[1], n, kind)) for n in (1, 0))
    groups = m.node("split").out().shape[1]
    epsilon = m.attr("norm", "epsilon")
    return r.op("GroupNormalization", x, scale, bias, num_groups=groups, epsilon=epsilon)


# ---- scale and bias ------------------------------------------------------------------------------


def _per_channel(m: Match) -> np.ndarray | None:
    """The constant as one number for each channel."""
    array, x = m["c"].constant, m["x"]
    channels = x.shape[1]
    assert array is not None
    shape = (1,) * (x.rank - array.ndim) + array.shape
    if len(shape) != x.rank or any(d != 1 for a, d in enumerate(shape) if a != 1):
        return None
    if not isinstance(channels, int) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(array.reshape(-1), (channels,))


def _applies(m: Match) -> str | None:
    if splat(m["bias"]) != 0 or m.root.op == "Mul" and splat(m["scale"]) != 1:
        return "it has parameters already"
    return "the constant varies within a channel" if _per_channel(m) is None else None


def _affine(m: Match, r: Editor) -> Value:
    array = _per_channel(m)
    assert array is not None
    c = r.constant(np.ascontiguousarray(array), m["c"].name)
    scale, bias = (c, m["bias"]) if m.root.op == "Mul" else (m["scale"], c)
    attrs = dict(m.node("norm").attrs)
    return r.node("GroupNormalization", [m["x"], scale, bias], attrs).out()


RULES = (
    Rule(
        "group-norm",
        _CORE,
        _core,
        _groups,
        claim=rounds("reshape(instancenorm(reshape(x))) = groupnorm(x)", NORM),
    ),
    Rule(
        "group-norm-affine",
        Op("Mul|Add", _NORM, Const("c")),
        _affine,
        _applies,
        claim=rounds("groupnorm(x) * c + d = groupnorm(x, c, d)", NORM),
    ),
)
