"""Control flow: If, Loop and Scan with captured values, nested, and sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from ..net import Net, Unfit, Value, element
from . import Step, grow
from .bodies import depth, graph, inner, made, result
from .elementwise import binary, clip, compare, unary, where
from .shapes import concat, reduce, slices, transpose
from .weights import sized

SIMPLE: list[Step] = [unary, unary, binary, binary, binary, clip, where, compare]
MOVING: list[Step] = [concat, reduce, slices, transpose]


def tensor(v: Value) -> bool:
    return v.is_float and v.array.size > 0


def number(net: Net, v: Value, kind: Any) -> Value:
    return net.constant(kind, v.dtype)


def given(net: Net, dtype: Any, dims: list[int | str], low: float = 0, high: float = 1) -> Value:
    """A new input of the model; bodies have none."""
    if depth(net):
        raise Unfit("a body")
    return net.input(dtype, dims, low, high)


def condition(net: Net) -> Value:
    """One truth value: known, an input, or computed from sizes or numbers."""
    kind = net.choose(("constant", "input", "value", "value", "size"))
    if kind == "constant":
        return net.constant(net.chance(0.5), np.bool_)
    if kind == "input":
        found = [v for v in net.values if v.dtype == np.bool_ and v.shape in ((), (1,))]
        return net.choose(found) if found else given(net, np.bool_, net.choose(([], [1])))
    v = net.pick(tensor)
    if kind == "size":
        size = net.op("Size", v)
        return net.op("Greater", size, net.constant(net.between(1, 20), np.int64))
    total = net.op("ReduceSum", v, keepdims=0)
    return net.op(net.choose(("Greater", "Less")), total, number(net, v, 0))


def branches(net: Net) -> None:
    """If, whose branches give as many values of the same types and ranks."""
    truth = condition(net)
    count = net.choose((1, 1, 2))
    bodies, results = [], []
    for tag in ("t", "e"):
        body, _ = inner(net, tag)
        grow(body, [*STEPS, *MOVING], body.between(1, 3))
        bodies.append(body)
        results.append(made(body))
    chosen: list[list[Value]] = [[], []]
    for _ in range(count):
        a = net.choose(results[0])
        fits = [b for b in results[1] if b.dtype == a.dtype and b.rank == a.rank]
        chosen[0].append(a)
        default = bodies[1].constant(a.array)
        chosen[1].append(net.choose(fits) if fits else bodies[1].op("Identity", default))
    both = [graph(b, n, [], v) for b, n, v in zip(bodies, ("then", "else"), chosen, strict=True)]
    net.ops("If", count, truth, then_branch=both[0], else_branch=both[1])


def trip_count(net: Net) -> Value | None:
    kind = net.choose(("constant", "constant", "input", "input", "size", "none"))
    if kind == "constant":
        return net.constant(net.choose((0, 1, 2, 3, 4)), np.int64)
    if kind == "input":
        return given(net, np.int64, [], 0, 4)
    if kind == "size":
        v = net.pick(lambda v: v.rank > 0 and v.shape[0] <= 8)
        return net.op("Gather", net.op("Shape", v), net.constant(0, np.int64))
    return None


def goes_on(body: Net, turn: Value, truth: Value, limited: bool) -> Value:
    """The condition for another turn; without a trip count the number of turns decides."""
    if not limited or body.chance(0.3):
        return body.op("Less", turn, body.constant(net_turns(body), np.int64))
    if body.chance(0.3):
        v = body.pick(tensor)
        total = body.op("ReduceSum", v, keepdims=0)
        return body.op("Less", total, number(body, v, 5))
    return body.op("Identity", truth)


def net_turns(body: Net) -> int:
    return body.between(0, 3)


def loop(net: Net) -> None:
    """Loop with one or two carried values and up to two outputs of all turns."""
    turns = trip_count(net)
    start = None
    if turns is None or net.chance(0.3):
        start = net.constant(True, np.bool_) if net.chance(0.7) else condition(net)
        if start.rank:
            start = net.op("Squeeze", start)
    carried = [net.pick(tensor) for _ in range(net.between(1, 2))]
    first = [np.array(0), np.array(True), *(v.array for v in carried)]
    body, parameters = inner(net, "l", first)
    turn, truth, states = parameters[0], parameters[1], parameters[2:]
    grow(body, STEPS, body.between(1, 3))
    again = goes_on(body, turn, truth, turns is not None)
    outputs = [again, *(result(body, s) for s in states)]
    if net.chance(0.08) and states[0].rank:
        outputs[1] = body.op("Concat", states[0], states[0], axis=0)
    for _ in range(net.between(0, 2)):
        outputs.append(body.choose(made(body)))
    found = graph(body, "turn", parameters, outputs)
    net.ops("Loop", len(outputs) - 1, turns, start, *carried, body=found)


def scan(net: Net) -> None:
    """Scan along any axis and in both directions, with up to two states."""
    v = net.pick(lambda v: tensor(v) and v.rank > 0)
    axis = net.between(0, v.rank - 1)
    others = [
        w for w in net.values
        if w.rank > 0 and tensor(w) and w.shape[0] == v.shape[axis] and w.name != v.name
    ]  # fmt: skip
    scanned, axes = [v], [axis]
    if others and net.chance(0.4):
        scanned, axes = [v, net.choose(others)], [axis, 0]
    states = [net.pick(tensor) for _ in range(net.between(0, 2))]
    slices_ = [np.take(w.array, 0, a) for w, a in zip(scanned, axes, strict=True)]
    body, parameters = inner(net, "s", [s.array for s in states] + slices_)
    grow(body, STEPS, body.between(1, 3))
    outputs = [result(body, s) for s in parameters[: len(states)]]
    ends = [body.choose(made(body)) for _ in range(net.between(0 if states else 1, 2))]
    more: dict[str, Any] = {}
    if any(axes) or net.chance(0.3):
        more["scan_input_axes"] = axes
    if net.chance(0.4):
        more["scan_input_directions"] = [net.between(0, 1) for _ in scanned]
    if net.chance(0.4) and ends:
        more["scan_output_directions"] = [net.between(0, 1) for _ in ends]
    if net.chance(0.3) and ends:
        more["scan_output_axes"] = [net.between(0, e.rank) for e in ends]
    found = graph(body, "step", parameters, [*outputs, *ends])
    net.ops("Scan", len(states) + len(ends), *states, *scanned, body=found,
            num_scan_inputs=len(scanned), **more)  # fmt: skip


def taken_apart(net: Net) -> None:
    """A tensor as a sequence of parts, one of which is taken, or all are joined."""
    v = net.pick(lambda v: v.array.size > 0 and v.rank > 0 and v.dtype != np.bool_)
    axis = net.between(0, v.rank - 1)
    parts, end = net.name(), net.name(1)
    splits = [v.name]
    more: dict[str, Any] = {"axis": axis}
    kind = net.choose(("ones", "even", "sizes"))
    if kind == "ones":
        more["keepdims"] = net.between(0, 1)
    elif kind == "even":
        splits.append(net.constant(net.between(1, 3), np.int64).name)
    else:
        at = net.between(0, v.shape[axis])
        splits.append(net.ints(at, v.shape[axis] - at).name)
    apart = helper.make_node("SplitToSequence", splits, [parts], name=f"{parts}s", **more)
    how = net.choose(("at", "at", "join", "length"))
    if how == "at":
        place = net.constant(net.choose((0, -1)), np.int64)
        last = helper.make_node("SequenceAt", [parts, place.name], [end], name=f"{end}s")
    elif how == "length":
        last = helper.make_node("SequenceLength", [parts], [end], name=f"{end}s")
    else:
        stacked = more.get("keepdims") == 0 or net.chance(0.3)
        last = helper.make_node("ConcatFromSequence", [parts], [end], name=f"{end}s",
                                axis=axis, new_axis=int(stacked))  # fmt: skip
    net.add([apart, last], [end])


def put_together(net: Net) -> None:
    """A sequence that is changed, then joined or asked."""
    v = net.pick(lambda v: v.array.size > 0)
    like = [w for w in net.values if w.dtype == v.dtype and w.shape == v.shape]
    items = [v, *(net.choose(like) for _ in range(net.between(0, 2)))]
    names = [net.name(i) for i in range(3)]
    first = helper.make_node("SequenceConstruct", [i.name for i in items], names[:1],
                             name=f"{names[0]}s")  # fmt: skip
    place = net.constant(net.choose((0, -1)), np.int64).name
    if len(items) > 1 and net.chance(0.4):
        changed = helper.make_node("SequenceErase", [names[0], place], names[1:2],
                                   name=f"{names[1]}s")  # fmt: skip
    else:
        where_ = [place] if net.chance(0.5) else []
        changed = helper.make_node("SequenceInsert", [names[0], net.choose(like).name, *where_],
                                   names[1:2], name=f"{names[1]}s")  # fmt: skip
    if net.chance(0.3):
        last = helper.make_node("SequenceAt", [names[1], place], names[2:], name=f"{names[2]}s")
    else:
        stacked = v.rank == 0 or net.chance(0.5)
        last = helper.make_node("ConcatFromSequence", [names[1]], names[2:], name=f"{names[2]}s",
                                axis=0, new_axis=int(stacked))  # fmt: skip
    net.add([first, changed, last], names[2:])


def collected(net: Net) -> None:
    """A loop that inserts into a sequence, as exporters of Python lists write it."""
    v = net.pick(lambda v: tensor(v) and v.rank > 0)
    body, (turn, truth, state) = inner(net, "q", [np.array(0), np.array(True), v.array])
    grow(body, SIMPLE, body.between(1, 2))
    item = result(body, state)
    again = body.op("Identity", truth)
    before, after = f"{body.prefix}old", f"{body.prefix}new"
    body.nodes.append(helper.make_node("SequenceInsert", [before, item.name], [after]))
    found = graph(body, "turn", [turn, truth, state], [again, item], [after])
    kind = element(v.dtype)
    found.input.append(helper.make_tensor_sequence_value_info(before, kind, None))
    found.output.append(helper.make_tensor_sequence_value_info(after, kind, None))
    turns = net.constant(net.between(1, 3), np.int64)
    names = [net.name(i) for i in range(4)]
    net.add([
        helper.make_node("SequenceEmpty", [], names[:1], name=f"{names[0]}s", dtype=kind),
        helper.make_node("Loop", [turns.name, "", v.name, names[0]], names[1:3],
                         name=f"{names[1]}s", body=found),
        helper.make_node("ConcatFromSequence", [names[2]], names[3:], name=f"{names[3]}s",
                         axis=0, new_axis=net.between(0, 1)),
    ], [names[1], names[3]])  # fmt: skip


def optional(net: Net) -> None:
    v = net.pick(tensor)
    if net.chance(0.4):
        net.op("OptionalHasElement", v)
        return
    names = [net.name(i) for i in range(2)]
    net.add([
        helper.make_node("Optional", [v.name], names[:1], name=f"{names[0]}s"),
        helper.make_node("OptionalGetElement", names[:1], names[1:], name=f"{names[1]}s"),
    ], names[1:])  # fmt: skip


STEPS: list[Step] = [*SIMPLE, branches, loop, scan]
OUTER: list[Step] = [
    branches, branches, branches, loop, loop, loop, scan, scan, taken_apart, put_together,
    collected, optional, unary, binary, concat, reduce,
]  # fmt: skip


def control(net: Net) -> None:
    """Small tensors of open dims."""
    dtype = net.choose((np.float32,) * 10 + (np.float64, np.float16))
    rank = net.between(1, 3)
    full = [sized(net, "NMK"[a], 1, 4, 0.4) for a in range(rank)]
    net.input(dtype, full)
    if net.chance(0.6):
        net.input(dtype, full if net.chance(0.6) else full[1:])
    grow(net, [branches, loop, scan, taken_apart, put_together, collected], 1)
    grow(net, OUTER, net.between(1, 3))


FAMILIES = {"control": control}

__all__ = ["FAMILIES"]
