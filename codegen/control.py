"""If, Loop and Scan as blocks of the program.

Bodies are inlined: they use registers and slots of the same program, and there are no calls. The
values that a loop carries stay in the same registers, which each iteration overwrites.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from ..ir.dims import Dim, SymExpr, free_symbols, is_static, symbol_name
from ..ir.graph import Graph, Node, Value
from ..ir.registry import attribute
from ..ir.types import TensorType
from .frame import Frame
from .program import Copy, If, Instruction, Loop, Reg, View
from .scalar_calls import (
    both,
    constant_scalar,
    difference,
    dim_list,
    dim_scalar,
    element,
    less,
    plus_one,
)

Inline: TypeAlias = "Callable[[Graph, Sequence[Reg]], list[Reg]]"
"""Emits a body whose inputs are in registers; returns the registers of its outputs."""


def lower_control(frame: Frame, node: Node, inline: Inline) -> None:
    """Emit the instructions of an If, Loop or Scan node."""
    CONTROL[node.key](frame, node, inline)


def _body(node: Node, name: str = "body") -> Graph:
    body = node.attrs[name]
    assert isinstance(body, Graph)
    return body


def _move(frame: Frame, targets: Sequence[Reg], sources: Sequence[Reg]) -> None:
    """Assign all at once: a register that is both a target and a source is copied first."""
    clashes = set(targets) & set(sources)
    staged = []
    for s in sources:
        if s in clashes:
            temporary = frame.builder.new_reg()
            frame.builder.emit(Copy(temporary, s))
            s = temporary
        staged.append(s)
    for t, s in zip(targets, staged, strict=True):
        if t != s:
            frame.builder.emit(Copy(t, s))


def _lower_if(frame: Frame, node: Node, inline: Inline) -> None:
    """Both blocks leave their results in the same registers."""
    condition, *captured = frame.graph.required_inputs(node)
    test = frame.reg(condition)
    registers = frame.regs(captured)
    results = [frame.builder.new_reg() for _ in node.outputs]
    blocks = []
    for name in ("then_branch", "else_branch"):
        with frame.builder.nested() as block:
            _move(frame, results, inline(_body(node, name), registers))
        blocks.append(tuple(block))
    frame.builder.emit(If(test, *blocks))
    frame.define(node, results)


def _as_scalar(frame: Frame, value: Value) -> Reg:
    """A trip count or condition as a rank-0 tensor (models also pass shape [1])."""
    reg = frame.reg(value)
    if value.rank == 0:
        return reg
    out = frame.builder.new_reg()
    frame.builder.emit(View(out, reg, ()))
    return out


def _bind_carried(frame: Frame, body: Graph, registers: Sequence[Reg]) -> None:
    """Read the sizes of the body's inputs again at the start of each iteration."""
    own = _own_symbols(frame, body)
    values = [
        (r, v)
        for r, v in zip(registers, body.inputs, strict=True)
        if isinstance(v.type, TensorType) and v.type.shape is not None and _mentions(v.type, own)
    ]
    frame.dims.bind_types(values, again=True)


def _own_symbols(frame: Frame, body: Graph) -> set[str]:
    """Symbols that the types of the body's inputs introduce: they may differ by iteration."""
    outer = frame.dims.bound
    return {
        name
        for v in body.inputs
        if isinstance(v.type, TensorType)
        for d in v.type.shape or ()
        if (name := symbol_name(d)) is not None and name not in outer
    }


def _mentions(t: TensorType, names: set[str]) -> bool:
    return any(symbol_name(d) in names for d in t.dims)


def _lower_loop(frame: Frame, node: Node, inline: Inline) -> None:
    """Emit ``while iteration < limit and condition: body``, and stack what the iterations scan."""
    inputs = frame.graph.inputs_of(node)
    body = _body(node)
    known = frozenset(frame.dims.bound)
    carried_count = int(attribute(node, "num_carried") or 0)
    limit_value = inputs[0] if inputs else None
    start_value = inputs[1] if len(inputs) > 1 else None
    carried = [frame.builder.new_reg() for _ in range(carried_count)]
    initial = frame.regs(inputs[2 : 2 + carried_count])
    captured = frame.regs(inputs[2 + carried_count :])
    for target, source in zip(carried, initial, strict=True):
        frame.builder.emit(Copy(target, source))
    limit = None if limit_value is None else _as_scalar(frame, limit_value)
    iteration = frame.builder.new_reg()
    frame.builder.emit(Copy(iteration, constant_scalar(frame.kernels, 0)))
    condition = frame.builder.new_reg()
    start = (
        constant_scalar(frame.kernels, True)
        if start_value is None
        else _as_scalar(frame, start_value)
    )
    frame.builder.emit(Copy(condition, start))
    lists = _new_lists(frame, len(body.outputs) - 1 - carried_count)
    test_block, test = _loop_test(frame, iteration, limit, condition)
    with frame.builder.nested() as block:
        registers = [iteration, condition, *carried, *captured]
        _bind_carried(frame, body, registers)
        results = inline(body, registers)
        _append(frame, lists, results[1 + carried_count :])
        _move(frame, [condition, *carried], results[: 1 + carried_count])
        if body.outputs[0].rank != 0:
            frame.builder.emit(View(condition, condition, ()))
        frame.builder.emit(Copy(iteration, plus_one(frame.kernels, iteration)))
    frame.builder.emit(Loop(test_block, test, tuple(block)))
    scans = [
        _stack(frame, held, node.outputs[carried_count + i].type, 0, False, known)
        for i, held in enumerate(lists)
    ]
    frame.define(node, [*carried, *scans])


def _loop_test(
    frame: Frame, iteration: Reg, limit: Reg | None, condition: Reg
) -> tuple[tuple[Instruction, ...], Reg]:
    """The block that decides on another iteration, and the register of its answer."""
    with frame.builder.nested() as block:
        if limit is None:
            test = condition
        else:
            test = both(frame.kernels, less(frame.kernels, iteration, limit), condition)
    return tuple(block), test


def _new_lists(frame: Frame, count: int) -> list[Reg]:
    return [frame.builder.call_host("ListNew", {}, [], 1)[0] for _ in range(count)]


def _append(frame: Frame, lists: Sequence[Reg], values: Sequence[Reg]) -> None:
    for held, value in zip(lists, values, strict=True):
        (out,) = frame.builder.call_host("ListAppend", {}, [held, value], 1)
        frame.builder.emit(Copy(held, out))


def _stack(
    frame: Frame, held: Reg, t: object, axis: int, reverse: bool, known: frozenset[str]
) -> Reg:
    """Stack what all iterations gave along a new axis.

    ``known`` are the symbols that have values before the loop. Without iterations the result is
    empty: the new axis has size 0, other axes have the sizes of its type, or 0 for sizes that only
    an iteration would have told.
    """
    assert isinstance(t, TensorType)
    sizes = [d if not isinstance(d, SymExpr) or free_symbols(d) <= known else 0 for d in t.dims]
    sizes[axis] = 0
    attributes = {"dtype": t.dtype.name, "axis": axis, "reverse": reverse}
    if all(is_static(d) for d in sizes):
        attributes["empty_shape"] = [int(d) for d in sizes]
        return frame.builder.call_host("StackSequence", attributes, [held], 1)[0]
    shape = dim_list(frame.kernels, tuple(sizes))
    return frame.builder.call_host("StackSequence", attributes, [held, shape], 1)[0]


def _lower_scan(frame: Frame, node: Node, inline: Inline) -> None:
    """A loop over the length of the scanned inputs, of which the body gets one element each."""
    inputs = frame.graph.required_inputs(node)
    body = _body(node)
    known = frozenset(frame.dims.bound)
    carried_count = int(attribute(node, "num_carried") or 0)
    scan_count = int(attribute(node, "num_scan_inputs") or 0)
    scans = inputs[carried_count : carried_count + scan_count]
    given = _list(node, "scan_input_axes", scan_count)
    axes = [a % v.rank for a, v in zip(given, scans, strict=True)]
    backwards = _list(node, "scan_input_directions", scan_count)
    carried = [frame.builder.new_reg() for _ in range(carried_count)]
    for target, source in zip(carried, frame.regs(inputs[:carried_count]), strict=True):
        frame.builder.emit(Copy(target, source))
    scan_regs = frame.regs(scans)
    captured = frame.regs(inputs[carried_count + scan_count :])
    length = scans[0].shape[axes[0]]
    limit = dim_scalar(frame.kernels, length)
    iteration = frame.builder.new_reg()
    frame.builder.emit(Copy(iteration, constant_scalar(frame.kernels, 0)))
    lists = _new_lists(frame, len(body.outputs) - carried_count)
    with frame.builder.nested() as test_block:
        test = less(frame.kernels, iteration, limit)
    with frame.builder.nested() as block:
        slices = [
            _slice(frame, r, v, axis, iteration, length, bool(back))
            for r, v, axis, back in zip(scan_regs, scans, axes, backwards, strict=True)
        ]
        registers = [*carried, *slices, *captured]
        _bind_carried(frame, body, registers)
        results = inline(body, registers)
        _append(frame, lists, results[carried_count:])
        _move(frame, carried, results[:carried_count])
        frame.builder.emit(Copy(iteration, plus_one(frame.kernels, iteration)))
    frame.builder.emit(Loop(tuple(test_block), test, tuple(block)))
    out_axes = _list(node, "scan_output_axes", len(lists))
    out_backwards = _list(node, "scan_output_directions", len(lists))
    stacked = []
    for i, held in enumerate(lists):
        t = node.outputs[carried_count + i].type
        assert isinstance(t, TensorType)
        axis = out_axes[i] % t.rank
        stacked.append(_stack(frame, held, t, axis, bool(out_backwards[i]), known))
    frame.define(node, [*carried, *stacked])


def _list(node: Node, name: str, count: int) -> list[int]:
    given = attribute(node, name)
    return [int(v) for v in given] if given else [0] * count


def _slice(
    frame: Frame, reg: Reg, value: Value, axis: int, iteration: Reg, length: Dim, back: bool
) -> Reg:
    """Element ``iteration`` (or, backwards, ``length - 1 - iteration``) of a scanned input."""
    at = iteration
    if back:
        at = difference(frame.kernels, dim_scalar(frame.kernels, length - 1), iteration)
    return element(frame.kernels, value.tensor_type, axis, reg, at)


CONTROL: dict[str, Callable[[Frame, Node, Inline], None]] = {
    "If": _lower_if,
    "Loop": _lower_loop,
    "Scan": _lower_scan,
}
"""By op key, the function that emits a node's instructions."""

__all__ = ["CONTROL", "lower_control"]
