"""Group normalisation that is written as an instance norm of a reshaped tensor.

    GroupNormalization(x, G) = Reshape(InstanceNormalization(Reshape(x, [N, G, rest])), shape of x)

then a scale and a bias by channel. Source: Wu and He, "Group Normalization"; ONNX
GroupNormalization (opset 21).
"""

from __future__ import annotations

import numpy as np

from ...ir.graph import Value
from ...ir.types import to_numpy_dtype
from ..pattern import Const, Match, Op, Rule, Var
from ..rewriter import Rewriter

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
_SCALED = Op("Mul", _CORE, Const("scale"))


def _per_channel(m: Match, name: str) -> np.ndarray | None:
    """The constant as one number for each channel."""
    array, x = m[name].constant, m["x"]
    channels = x.shape[1]
    assert array is not None
    shape = (1,) * (x.rank - array.ndim) + array.shape
    if len(shape) != x.rank or any(d != 1 for a, d in enumerate(shape) if a != 1):
        return None
    if shape[1] not in (1, channels):
        return None
    return np.broadcast_to(array.reshape(-1), (int(channels),))


def _groups(m: Match) -> str | None:
    x, split = m["x"], m.node("split").out()
    if m.root.out().type != x.type or x.rank < 3 or not isinstance(x.shape[1], int):
        return "the result has another shape than the input"
    if split.rank != 3 or split.shape[0] != x.shape[0] or not isinstance(split.shape[1], int):
        return "it does not split channels into groups"
    if x.shape[1] % split.shape[1]:
        return "groups do not divide the channels"
    missing = [n for n in ("scale", "bias") if n in m.values and _per_channel(m, n) is None]
    return f"the {missing[0]} varies within a channel" if missing else None


def _build(m: Match, r: Rewriter) -> Value:
    x, channels = m["x"], int(m["x"].shape[1])
    kind = to_numpy_dtype(x.dtype)
    parameters = []
    for name, default in (("scale", 1), ("bias", 0)):
        array = _per_channel(m, name) if name in m.values else np.full(channels, default, kind)
        assert array is not None
        parameters.append(r.constant(np.ascontiguousarray(array, kind)))
    attrs = {
        "num_groups": m.node("split").out().shape[1],
        "epsilon": m.attr("norm", "epsilon"),
    }
    return r.node("GroupNormalization", [x, *parameters], attrs).out()


RULES = (
    Rule("group-norm", Op("Add", _SCALED, Const("bias")), _build, _groups),
    Rule("group-norm", _SCALED, _build, _groups),
    Rule("group-norm", _CORE, _build, _groups),
)
