"""If, Loop and Scan as blocks of the program.

Bodies are inlined: their values live in the same registers' space, their symbols in the same
table of dims. A loop's carried values sit in fixed registers that each turn overwrites.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..ir.dims import Dim, SymExpr, free_symbols, is_static, symbol_name
from ..ir.graph import Attr, Graph, Node, Value
from ..ir.infer import infer_types
from ..ir.registry import attribute
from ..ir.types import TensorType, tensor
from .program import Copy, If, Instruction, Loop, Reg, View

if TYPE_CHECKING:
    from .lower import _Frame, _Lowering



def lower_control(lowering: _Lowering, frame: _Frame, node: Node) -> None:
    """Emit the instructions of an If, Loop or Scan node."""
    {"If": _lower_if, "Loop": _lower_loop, "Scan": _lower_scan}[node.op](lowering, frame, node)


def _body(node: Node, name: str = "body") -> Graph:
    body = node.attrs[name]
    assert isinstance(body, Graph)
    return body


def _enter(lowering: _Lowering, body: Graph, registers: Sequence[Reg]) -> list[Reg]:
    """Emit a body with its inputs in ``registers``; returns its results' registers."""
    from .lower import _Frame

    inner = _Frame(body, dict(zip(body.inputs, registers, strict=True)))
    lowering.lower_body(inner)
    return [lowering.reg(inner, v) for v in body.outputs]


def _move(lowering: _Lowering, targets: Sequence[Reg], sources: Sequence[Reg]) -> None:
    """Assign all at once: a source may be another's target."""
    clashes = set(targets) & set(sources)
    staged = []
    for s in sources:
        if s in clashes:
            temporary = lowering.new_reg()
            lowering.emit(Copy(temporary, s))
            s = temporary
        staged.append(s)
    for t, s in zip(targets, staged, strict=True):
        if t != s:
            lowering.emit(Copy(t, s))


def _captured(lowering: _Lowering, frame: _Frame, values: Sequence[Value | None]) -> list[Reg]:
    return [lowering.reg(frame, v) for v in values if v is not None]


def _define(lowering: _Lowering, frame: _Frame, node: Node, registers: Sequence[Reg]) -> None:
    for v, reg in zip(node.values, registers, strict=True):
        frame.env[v] = reg
    lowering.bind_types([(frame.env[v], v) for v in node.values])


def _lower_if(lowering: _Lowering, frame: _Frame, node: Node) -> None:
    condition, *captured = frame.graph.required_inputs(node)
    test = lowering.reg(frame, condition)
    registers = _captured(lowering, frame, captured)
    results = [lowering.new_reg() for _ in node.outputs]
    blocks = []
    for name in ("then_branch", "else_branch"):
        with lowering.nested() as block:
            _move(lowering, results, _enter(lowering, _body(node, name), registers))
        blocks.append(tuple(block))
    lowering.emit(If(test, *blocks))
    _define(lowering, frame, node, results)


def _small(op: str, inputs: Sequence[TensorType], attrs: dict[str, Attr] | None = None,
           domain: str = "", constants: Sequence[np.ndarray] = ()) -> Graph:  # fmt: skip
    """A graph of one op over tensors of the given types, constants last."""
    g = Graph("kernel")
    values = [g.add_input("in", t) for t in inputs]
    values += [g.add_constant(c, "c") for c in constants]
    node = g.add_node(op, values, attrs, domain=domain)
    g.set_outputs(list(node.values))
    infer_types(g)
    return g


_SCALAR_INT = tensor("int64")
_SCALAR_BOOL = tensor("bool")


def _constant_scalar(lowering: _Lowering, value: int | bool) -> Reg:
    """A register that holds a scalar int64 or bool tensor."""
    array = np.array(value, dtype=bool if isinstance(value, bool) else np.int64)
    g = Graph("kernel")
    node = g.add_node("Identity", [g.add_constant(array, "c")], types=[tensor(array.dtype.name)])
    g.set_outputs(list(node.values))
    return lowering.run_small(g, [])[0]


def _dim_scalar(lowering: _Lowering, d: Dim) -> Reg:
    """A register that holds a dim as a scalar int64 tensor."""
    if is_static(d):
        return _constant_scalar(lowering, int(d))
    g = _small("ShapeValue", [], {"dims": (d,), "shape": (), "dtype": "int64"}, "kiln")
    return lowering.run_small(g, [])[0]


def dim_list(lowering: _Lowering, dims: Attr) -> Reg:
    """A register that holds an attribute of dims as an int64 vector."""
    assert isinstance(dims, tuple)
    attrs: dict[str, Attr] = {"dims": dims, "shape": (len(dims),), "dtype": "int64"}
    return lowering.run_small(_small("ShapeValue", [], attrs, "kiln"), [])[0]


def _next_turn(lowering: _Lowering, turn: Reg) -> None:
    one = np.array(1, np.int64)
    g = _small("Add", [_SCALAR_INT], constants=[one])
    lowering.emit(Copy(turn, lowering.run_small(g, [turn])[0]))


def _less(lowering: _Lowering, turn: Reg, limit: Reg) -> Reg:
    return lowering.run_small(_small("Less", [_SCALAR_INT, _SCALAR_INT]), [turn, limit])[0]


def _as_scalar(lowering: _Lowering, frame: _Frame, value: Value) -> Reg:
    """A trip count or condition as a rank-0 tensor (models also pass shape [1])."""
    reg = lowering.reg(frame, value)
    if value.rank == 0:
        return reg

    out = lowering.new_reg()
    lowering.emit(View(out, reg, ()))
    return out


def _bind_carried(lowering: _Lowering, body: Graph, registers: Sequence[Reg]) -> None:
    """Learn the symbols of the body's inputs anew at the start of a turn."""
    own = _own_symbols(lowering, body)
    values = [
        (r, v)
        for r, v in zip(registers, body.inputs, strict=True)
        if isinstance(v.type, TensorType) and v.type.shape is not None and _mentions(v.type, own)
    ]
    lowering.bind_types(values, again=True)


def _own_symbols(lowering: _Lowering, body: Graph) -> set[str]:
    outer = lowering.bound
    return {
        name
        for v in body.inputs
        if isinstance(v.type, TensorType)
        for d in v.type.shape or ()
        if (name := symbol_name(d)) is not None and name not in outer
    }


def _mentions(t: TensorType, names: set[str]) -> bool:
    return any(symbol_name(d) in names for d in t.dims)


def _lower_loop(lowering: _Lowering, frame: _Frame, node: Node) -> None:
    inputs = frame.graph.inputs_of(node)
    body = _body(node)
    known = frozenset(lowering.bound)
    carried_count = int(attribute(node, "num_carried") or 0)
    limit_value = inputs[0] if inputs else None
    start_value = inputs[1] if len(inputs) > 1 else None
    carried = [lowering.new_reg() for _ in range(carried_count)]
    initial = _captured(lowering, frame, inputs[2 : 2 + carried_count])
    captured = _captured(lowering, frame, inputs[2 + carried_count :])
    for target, source in zip(carried, initial, strict=True):
        lowering.emit(Copy(target, source))
    limit = None if limit_value is None else _as_scalar(lowering, frame, limit_value)
    turn = lowering.new_reg()
    lowering.emit(Copy(turn, _constant_scalar(lowering, 0)))
    condition = lowering.new_reg()
    start = (
        _constant_scalar(lowering, True)
        if start_value is None
        else _as_scalar(lowering, frame, start_value)
    )
    lowering.emit(Copy(condition, start))
    lists = _new_lists(lowering, len(body.outputs) - 1 - carried_count)
    test_block, test = _loop_test(lowering, turn, limit, condition)
    with lowering.nested() as block:
        registers = [turn, condition, *carried, *captured]
        _bind_carried(lowering, body, registers)
        results = _enter(lowering, body, registers)
        _append(lowering, lists, results[1 + carried_count :])
        _move(lowering, [condition, *carried], results[: 1 + carried_count])
        body_condition = body.outputs[0]
        if body_condition.rank != 0:

            lowering.emit(View(condition, condition, ()))
        _next_turn(lowering, turn)
    lowering.emit(Loop(test_block, test, tuple(block)))
    scans = [
        _stack(lowering, held, node.outputs[carried_count + i].type, 0, False, known)
        for i, held in enumerate(lists)
    ]
    _define(lowering, frame, node, [*carried, *scans])


def _loop_test(
    lowering: _Lowering, turn: Reg, limit: Reg | None, condition: Reg
) -> tuple[tuple[Instruction, ...], Reg]:
    """The block that decides on another turn, and the register of its answer."""
    with lowering.nested() as block:
        if limit is None:
            test = condition
        else:
            within = _less(lowering, turn, limit)
            both = _small("And", [_SCALAR_BOOL, _SCALAR_BOOL])
            test = lowering.run_small(both, [within, condition])[0]
    return tuple(block), test


def _new_lists(lowering: _Lowering, count: int) -> list[Reg]:
    return [lowering.call_host("ListNew", {}, [], 1)[0] for _ in range(count)]


def _append(lowering: _Lowering, lists: Sequence[Reg], values: Sequence[Reg]) -> None:
    for held, value in zip(lists, values, strict=True):
        (out,) = lowering.call_host("ListAppend", {}, [held, value], 1)
        lowering.emit(Copy(held, out))


def _stack(
    lowering: _Lowering, held: Reg, t: object, axis: int, reverse: bool, known: frozenset[str]
) -> Reg:
    """What all turns gave along a new axis; ``known`` symbols have values without any turn.

    The result of no turns has the other sizes that its type says, 0 for those only a turn tells.
    """
    assert isinstance(t, TensorType)
    sizes = [d if not isinstance(d, SymExpr) or free_symbols(d) <= known else 0 for d in t.dims]
    sizes[axis] = 0
    attributes = {"dtype": t.dtype.name, "axis": axis, "reverse": reverse}
    if all(is_static(d) for d in sizes):
        attributes["empty_shape"] = [int(d) for d in sizes]
        return lowering.call_host("StackSequence", attributes, [held], 1)[0]
    given: dict[str, Attr] = {"dims": tuple(sizes), "shape": (len(sizes),), "dtype": "int64"}
    shape = lowering.run_small(_small("ShapeValue", [], given, "kiln"), [])
    return lowering.call_host("StackSequence", attributes, [held, *shape], 1)[0]


def _lower_scan(lowering: _Lowering, frame: _Frame, node: Node) -> None:
    inputs = frame.graph.required_inputs(node)
    body = _body(node)
    known = frozenset(lowering.bound)
    carried_count = int(attribute(node, "num_carried") or 0)
    scan_count = int(attribute(node, "num_scan_inputs") or 0)
    scans = inputs[carried_count : carried_count + scan_count]
    given = _list(node, "scan_input_axes", scan_count)
    axes = [a % v.rank for a, v in zip(given, scans, strict=True)]
    backwards = _list(node, "scan_input_directions", scan_count)
    carried = [lowering.new_reg() for _ in range(carried_count)]
    for target, source in zip(
        carried, _captured(lowering, frame, inputs[:carried_count]), strict=True
    ):
        lowering.emit(Copy(target, source))
    scan_regs = _captured(lowering, frame, scans)
    captured = _captured(lowering, frame, inputs[carried_count + scan_count :])
    length = scans[0].shape[axes[0]]
    limit = _dim_scalar(lowering, length)
    turn = lowering.new_reg()
    lowering.emit(Copy(turn, _constant_scalar(lowering, 0)))
    lists = _new_lists(lowering, len(body.outputs) - carried_count)
    with lowering.nested() as test_block:
        test = _less(lowering, turn, limit)
    with lowering.nested() as block:
        slices = [
            _slice(lowering, r, v, axis, turn, length, bool(back))
            for r, v, axis, back in zip(scan_regs, scans, axes, backwards, strict=True)
        ]
        registers = [*carried, *slices, *captured]
        _bind_carried(lowering, body, registers)
        results = _enter(lowering, body, registers)
        _append(lowering, lists, results[carried_count:])
        _move(lowering, carried, results[:carried_count])
        _next_turn(lowering, turn)
    lowering.emit(Loop(tuple(test_block), test, tuple(block)))
    out_axes = _list(node, "scan_output_axes", len(lists))
    out_backwards = _list(node, "scan_output_directions", len(lists))
    stacked = []
    for i, held in enumerate(lists):
        t = node.outputs[carried_count + i].type
        assert isinstance(t, TensorType)
        axis = out_axes[i] % t.rank
        stacked.append(_stack(lowering, held, t, axis, bool(out_backwards[i]), known))
    _define(lowering, frame, node, [*carried, *stacked])


def _list(node: Node, name: str, count: int) -> list[int]:
    given = attribute(node, name)
    return [int(v) for v in given] if given else [0] * count


def _slice(
    lowering: _Lowering, reg: Reg, value: Value, axis: int, turn: Reg, length: Dim, back: bool
) -> Reg:
    """Element ``turn`` (or, backwards, ``length - 1 - turn``) of a scanned input."""
    at = turn
    if back:
        last = _dim_scalar(lowering, length - 1)
        at = lowering.run_small(_small("Sub", [_SCALAR_INT, _SCALAR_INT]), [last, turn])[0]
    g = _small("Gather", [value.tensor_type, _SCALAR_INT], {"axis": axis})
    return lowering.run_small(g, [reg, at])[0]


__all__ = ["lower_control"]
