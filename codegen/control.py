"""If, Loop and Scan as blocks of the program.

Bodies are inlined: they use registers and slots of the same program, and there are no calls. The
values that a loop carries stay in the same registers, which each iteration overwrites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from ..ir.dims import Dim, SymExpr, free_symbols, is_static, symbol_name
from ..ir.graph import Graph, Node, Value
from ..ir.registry import attribute
from ..ir.types import TensorType
from .lowering_state import LoweringState
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


def lower_control(state: LoweringState, node: Node, inline: Inline) -> None:
    """Emit the instructions of an If, Loop or Scan node."""
    CONTROL[node.key](state, node, inline)


@contextmanager
def _block(state: LoweringState) -> Iterator[list[Instruction]]:
    """A block for a body. Sizes that it learns are unknown behind it: it may not have run, and
    copies of a body, as unrolling makes them, have the same symbols.
    """
    known = set(state.dims.bound)
    with state.builder.nested() as block:
        yield block
    state.dims.bound = known


def _body(node: Node, name: str = "body") -> Graph:
    body = node.attrs[name]
    assert isinstance(body, Graph)
    return body


def _move(state: LoweringState, targets: Sequence[Reg], sources: Sequence[Reg]) -> None:
    """Assign all at once: a register that is both a target and a source is copied first."""
    clashes = set(targets) & set(sources)
    staged = []
    for s in sources:
        if s in clashes:
            temporary = state.builder.new_reg()
            state.builder.emit(Copy(temporary, s))
            s = temporary
        staged.append(s)
    for t, s in zip(targets, staged, strict=True):
        if t != s:
            state.builder.emit(Copy(t, s))


def _lower_if(state: LoweringState, node: Node, inline: Inline) -> None:
    """Both blocks leave their results in the same registers."""
    condition, *captured = state.graph.required_inputs(node)
    test = state.reg(condition)
    registers = state.regs(captured)
    results = [state.builder.new_reg() for _ in node.outputs]
    blocks = []
    for name in ("then_branch", "else_branch"):
        with _block(state) as block:
            _move(state, results, inline(_body(node, name), registers))
        blocks.append(tuple(block))
    state.builder.emit(If(test, *blocks))
    state.define(node, results)


def _as_scalar(state: LoweringState, value: Value) -> Reg:
    """A trip count or condition as a rank-0 tensor (models also pass shape [1])."""
    reg = state.reg(value)
    if value.rank == 0:
        return reg
    out = state.builder.new_reg()
    state.builder.emit(View(out, reg, ()))
    return out


def _bind_carried(state: LoweringState, body: Graph, registers: Sequence[Reg]) -> None:
    """Read the sizes of the body's inputs again at the start of each iteration."""
    own = _own_symbols(state, body)
    values = [
        (r, v)
        for r, v in zip(registers, body.inputs, strict=True)
        if isinstance(v.type, TensorType) and v.type.shape is not None and _mentions(v.type, own)
    ]
    state.dims.bind_types(values, again=True)


def _own_symbols(state: LoweringState, body: Graph) -> set[str]:
    """Symbols that the types of the body's inputs introduce: they may differ by iteration."""
    outer = state.dims.bound
    return {
        name
        for v in body.inputs
        if isinstance(v.type, TensorType)
        for d in v.type.shape or ()
        if (name := symbol_name(d)) is not None and name not in outer
    }


def _mentions(t: TensorType, names: set[str]) -> bool:
    return any(symbol_name(d) in names for d in t.dims)


def _lower_loop(state: LoweringState, node: Node, inline: Inline) -> None:
    """Emit ``while iteration < limit and condition: body``, and stack what the iterations scan."""
    inputs = state.graph.inputs_of(node)
    body = _body(node)
    known = frozenset(state.dims.bound)
    carried_count = int(attribute(node, "num_carried") or 0)
    limit_value = inputs[0] if inputs else None
    start_value = inputs[1] if len(inputs) > 1 else None
    carried = [state.builder.new_reg() for _ in range(carried_count)]
    initial = state.regs(inputs[2 : 2 + carried_count])
    captured = state.regs(inputs[2 + carried_count :])
    for target, source in zip(carried, initial, strict=True):
        state.builder.emit(Copy(target, source))
    limit = None if limit_value is None else _as_scalar(state, limit_value)
    iteration = state.builder.new_reg()
    state.builder.emit(Copy(iteration, constant_scalar(state.kernels, 0)))
    condition = state.builder.new_reg()
    start = (
        constant_scalar(state.kernels, True)
        if start_value is None
        else _as_scalar(state, start_value)
    )
    state.builder.emit(Copy(condition, start))
    lists = _new_lists(state, len(body.outputs) - 1 - carried_count)
    test_block, test = _loop_test(state, iteration, limit, condition)
    with _block(state) as block:
        registers = [iteration, condition, *carried, *captured]
        _bind_carried(state, body, registers)
        results = inline(body, registers)
        _append(state, lists, results[1 + carried_count :])
        _move(state, [condition, *carried], results[: 1 + carried_count])
        if body.outputs[0].rank != 0:
            state.builder.emit(View(condition, condition, ()))
        state.builder.emit(Copy(iteration, plus_one(state.kernels, iteration)))
    state.builder.emit(Loop(test_block, test, tuple(block)))
    scans = [
        _stack(state, held, node.outputs[carried_count + i].type, 0, False, known)
        for i, held in enumerate(lists)
    ]
    state.define(node, [*carried, *scans])


def _loop_test(
    state: LoweringState, iteration: Reg, limit: Reg | None, condition: Reg
) -> tuple[tuple[Instruction, ...], Reg]:
    """The block that decides on another iteration, and the register of its answer."""
    with state.builder.nested() as block:
        if limit is None:
            test = condition
        else:
            test = both(state.kernels, less(state.kernels, iteration, limit), condition)
    return tuple(block), test


def _new_lists(state: LoweringState, count: int) -> list[Reg]:
    return [state.builder.call_host("ListNew", {}, [], 1)[0] for _ in range(count)]


def _append(state: LoweringState, lists: Sequence[Reg], values: Sequence[Reg]) -> None:
    for held, value in zip(lists, values, strict=True):
        (out,) = state.builder.call_host("ListAppend", {}, [held, value], 1)
        state.builder.emit(Copy(held, out))


def _stack(
    state: LoweringState, held: Reg, t: object, axis: int, reverse: bool, known: frozenset[str]
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
        return state.builder.call_host("StackSequence", attributes, [held], 1)[0]
    shape = dim_list(state.kernels, tuple(sizes))
    return state.builder.call_host("StackSequence", attributes, [held, shape], 1)[0]


def _lower_scan(state: LoweringState, node: Node, inline: Inline) -> None:
    """A loop over the length of the scanned inputs, of which the body gets one element each."""
    inputs = state.graph.required_inputs(node)
    body = _body(node)
    known = frozenset(state.dims.bound)
    carried_count = int(attribute(node, "num_carried") or 0)
    scan_count = int(attribute(node, "num_scan_inputs") or 0)
    scans = inputs[carried_count : carried_count + scan_count]
    given = _list(node, "scan_input_axes", scan_count)
    axes = [a % v.rank for a, v in zip(given, scans, strict=True)]
    backwards = _list(node, "scan_input_directions", scan_count)
    carried = [state.builder.new_reg() for _ in range(carried_count)]
    for target, source in zip(carried, state.regs(inputs[:carried_count]), strict=True):
        state.builder.emit(Copy(target, source))
    scan_regs = state.regs(scans)
    captured = state.regs(inputs[carried_count + scan_count :])
    length = scans[0].shape[axes[0]]
    limit = dim_scalar(state.kernels, length)
    iteration = state.builder.new_reg()
    state.builder.emit(Copy(iteration, constant_scalar(state.kernels, 0)))
    lists = _new_lists(state, len(body.outputs) - carried_count)
    with state.builder.nested() as test_block:
        test = less(state.kernels, iteration, limit)
    with _block(state) as block:
        slices = [
            _slice(state, r, v, axis, iteration, length, bool(back))
            for r, v, axis, back in zip(scan_regs, scans, axes, backwards, strict=True)
        ]
        registers = [*carried, *slices, *captured]
        _bind_carried(state, body, registers)
        results = inline(body, registers)
        _append(state, lists, results[carried_count:])
        _move(state, carried, results[:carried_count])
        state.builder.emit(Copy(iteration, plus_one(state.kernels, iteration)))
    state.builder.emit(Loop(tuple(test_block), test, tuple(block)))
    out_axes = _list(node, "scan_output_axes", len(lists))
    out_backwards = _list(node, "scan_output_directions", len(lists))
    stacked = []
    for i, held in enumerate(lists):
        t = node.outputs[carried_count + i].type
        assert isinstance(t, TensorType)
        axis = out_axes[i] % t.rank
        stacked.append(_stack(state, held, t, axis, bool(out_backwards[i]), known))
    state.define(node, [*carried, *stacked])


def _list(node: Node, name: str, count: int) -> list[int]:
    given = attribute(node, name)
    return [int(v) for v in given] if given else [0] * count


def _slice(
    state: LoweringState, reg: Reg, value: Value, axis: int, iteration: Reg, length: Dim, back: bool
) -> Reg:
    """Element ``iteration`` (or, backwards, ``length - 1 - iteration``) of a scanned input."""
    at = iteration
    if back:
        at = difference(state.kernels, dim_scalar(state.kernels, length - 1), iteration)
    return element(state.kernels, value.tensor_type, axis, reg, at)


CONTROL: dict[str, Callable[[LoweringState, Node, Inline], None]] = {
    "If": _lower_if,
    "Loop": _lower_loop,
    "Scan": _lower_scan,
}
"""By op key, the function that emits a node's instructions."""

__all__ = ["CONTROL", "lower_control"]
