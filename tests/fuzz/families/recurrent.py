"""RNN, GRU and LSTM: directions, activations, lengths, states, and what stands around them."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import numpy_helper

from ..net import Net, Value
from . import Step, grow
from .weights import dtype_of_layers, scale, sized, weights

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ACTIVATIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}
"""How many functions a direction has."""

_SIMPLE = ("Sigmoid", "Tanh", "Relu", "Softsign", "Softplus")
_SCALED = {
    "HardSigmoid": (0.2, 0.5), "Affine": (0.7, 0.1), "LeakyRelu": (0.1, 0.0), "Elu": (0.8, 0.0),
    "ScaledTanh": (0.9, 0.5), "ThresholdedRelu": (0.3, 0.0),
}  # fmt: skip


def series(v: Value) -> bool:
    """[sequence, batch, width] of floats."""
    return v.is_float and v.rank == 3 and v.array.size > 0 and v.shape[2] <= 24


def size_of(net: Net, v: Value, axis: int) -> Value:
    return net.op("Gather", net.op("Shape", v), net.ints(axis))


def batch_of(net: Net, x: Value) -> int | str:
    """The batch of a series as a dim of an input."""
    return "B" if net.sizes.get("B") == x.shape[1] else x.shape[1]


def lengths(net: Net, x: Value) -> Value | None:
    """How many steps each sequence has: known, or numbers of the run that the steps bound."""
    if net.chance(0.6):
        return None
    batch = batch_of(net, x)
    if net.chance(0.4) and not isinstance(batch, str):
        return net.random(np.int32, (batch,), 1, x.shape[0])
    given = net.input(np.int32, [batch], 1, 6)
    return net.op("Min", given, net.op("Cast", size_of(net, x, 0), to=6))


def state(net: Net, x: Value, directions: int, hidden: int) -> Value:
    """The first state: a constant, zeros of the batch's size, or an input."""
    batch = batch_of(net, x)
    kind = net.choose(("constant", "zeros", "input"))
    if kind == "input":
        return net.input(x.dtype, [directions, batch, hidden], -1, 1)
    if kind == "constant" and not isinstance(batch, str):
        return weights(net, x.dtype, (directions, batch, hidden))
    sizes = net.op("Concat", net.ints(directions), size_of(net, x, 1), net.ints(hidden), axis=0)
    zero = numpy_helper.from_array(np.full(1, net.choose((0, 0, 0.5)), x.dtype))
    return net.op("ConstantOfShape", sizes, value=zero)


def functions(net: Net, kind: str, directions: int) -> dict[str, Any]:
    """Mostly the usual activations; others with or without their factors."""
    if net.chance(0.6):
        return {}
    names = [
        net.choose((*_SIMPLE, *_SIMPLE, *_SCALED)) for _ in range(ACTIVATIONS[kind] * directions)
    ]
    found: dict[str, Any] = {"activations": names}
    factors = [_SCALED.get(n, (0.0, 0.0)) for n in names]
    if all(n in _SCALED for n in names):
        found["activation_alpha"] = [a for a, _ in factors]
        found["activation_beta"] = [b for _, b in factors]
    return found


def attributes(net: Net, kind: str) -> dict[str, Any]:
    direction = net.choose(("forward", "forward", "reverse", "bidirectional", "bidirectional"))
    found: dict[str, Any] = {"direction": direction} if direction != "forward" else {}
    found |= functions(net, kind, 2 if direction == "bidirectional" else 1)
    if net.chance(0.15):
        found["clip"] = net.choose((0.5, 3.0))
    if kind == "GRU" and net.chance(0.5):
        found["linear_before_reset"] = 1
    if kind == "LSTM" and net.chance(0.1):
        found["input_forget"] = 1
    return found


def cell(net: Net) -> None:
    """One recurrent operation, any of its inputs and outputs left out."""
    kind = net.choose(("LSTM", "LSTM", "GRU", "GRU", "RNN"))
    x = net.pick(lambda v: series(v) and v.array.size <= 1_024)
    more = attributes(net, kind)
    directions = 2 if more.get("direction") == "bidirectional" else 1
    hidden = net.choose((1, 2, 3, 4, 5, 8, 16, 17))
    gates, width = GATES[kind] * hidden, x.shape[2]
    w = weights(net, x.dtype, (directions, gates, width), width)
    r = weights(net, x.dtype, (directions, gates, hidden), hidden)
    b = weights(net, x.dtype, (directions, 2 * gates)) if net.chance(0.7) else None
    rest = [b, lengths(net, x), state(net, x, directions, hidden) if net.chance(0.4) else None]
    if kind == "LSTM":
        rest.append(state(net, x, directions, hidden) if net.chance(0.3) else None)
        if net.chance(0.15):
            rest.append(weights(net, x.dtype, (directions, 3 * hidden)))
    while rest and rest[-1] is None:
        rest.pop()
    turned = net.chance(0.05)
    if turned and len(rest) < 2:
        x, more["layout"] = net.op("Transpose", x, perm=[1, 0, 2]), 1
    present = net.choose(([True], [True, True], [False, True], [True, True]))
    if kind == "LSTM" and net.chance(0.5):
        present = [net.chance(0.7), net.chance(0.5), True]
    out = net.ops(kind, present, x, w, r, *rest, hidden_size=hidden, **more)
    if present[0] and "layout" not in more:
        joined(net, out[0])


def joined(net: Net, y: Value) -> None:
    """[sequence, directions, batch, hidden] as the series that the next layer takes."""
    if y.shape[1] == 1 and net.chance(0.7):
        net.op("Squeeze", y, net.ints(1))
        return
    turned = net.op("Transpose", y, perm=[0, 2, 1, 3])
    if net.chance(0.5):
        net.op("Reshape", turned, net.ints(0, 0, -1))
        return
    sizes = size_of(net, turned, 0), size_of(net, turned, 1)
    width = net.ints(y.shape[1] * y.shape[3])
    net.op("Reshape", turned, net.op("Concat", *sizes, width, axis=0))


def dense(net: Net) -> None:
    v = net.pick(lambda v: v.is_float and v.rank >= 2 and v.array.size > 0)
    width, outputs = v.shape[-1], net.between(1, 8)
    out = net.op("MatMul", v, weights(net, v.dtype, (width, outputs), width))
    net.op("Add", out, weights(net, v.dtype, (outputs,)))


def around(net: Net) -> None:
    """The last step, all steps turned, a sum of layers, a normalisation, an activation."""
    v = net.pick(series)
    kind = net.choose(("last", "turn", "reverse", "sum", "norm", "activation", "concat"))
    if kind == "last":
        net.op("Gather", v, net.constant(-1, np.int64), axis=0)
    elif kind == "turn":
        net.op("Transpose", net.op("Relu", net.op("Transpose", v, perm=[1, 0, 2])), perm=[1, 0, 2])
    elif kind == "reverse":
        net.op("Slice", v, net.ints(-1), net.ints(-(2**62)), net.ints(0), net.ints(-1))
    elif kind == "norm":
        width = v.shape[2:]
        net.op("LayerNormalization", v, scale(net, v.dtype, width), weights(net, v.dtype, width))
    elif kind == "activation":
        net.op(net.choose(("Tanh", "Relu", "Sigmoid")), v)
    else:
        like = [w for w in net.values if w.shape == v.shape and w.dtype == v.dtype]
        if kind == "sum":
            net.op("Add", v, net.choose(like))
        else:
            net.op("Concat", v, net.choose(like), axis=2)


STEPS: list[Step] = [cell, cell, cell, around, dense]


def recurrent(net: Net) -> None:
    """A series of open length and batch."""
    steps, batch = sized(net, "T", 1, 5, 0.5), sized(net, "B", 1, 3, 0.5)
    width = net.choose((1, 2, 3, 4, 8, 17))
    if net.chance(0.3):
        x = net.input(dtype_of_layers(net), [batch, steps, width])
        net.op("Transpose", x, perm=[1, 0, 2])
    else:
        net.input(dtype_of_layers(net), [steps, batch, width])
    grow(net, [cell], 1)
    grow(net, STEPS, net.between(0, 2))


FAMILIES = {"recurrent": recurrent}

__all__ = ["FAMILIES"]
