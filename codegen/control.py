"""If, Loop and Scan as blocks of the program.

Bodies are inlined: they use registers and slots of the same program, and there are no calls. The
values that a loop carries stay in the same registers, which each iteration overwrites.

A loop whose shapes do not change is a function of its own beside (:mod:`.loop_program`), which the
program calls; its blocks then run only where that gives up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from ..ir.dims import Dim, SymExpr, free_symbols, is_static, symbol_name
from ..ir.graph import Graph, Node, Value
from ..ir.registry import attribute
from ..ir.types import TensorType, tensor
from .classify import is_opaque, is_view
from .loop_calls import call_loop
from .loop_program import LoopForm, Scanned
from .lowering_state import LoweringState
from .program import Copy, If, Instruction, Loop, Reg, StepLoop, View
from .scalar_calls import (
    constant_scalar,
    copied,
    difference,
    dim_list,
    dim_scalar,
    element,
)
from .straight_line import Foreign

_MOST = (1 << 63) - 1

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
    changed = [(t, s) for t, s in zip(targets, sources, strict=True) if t != s]
    clashes = {t for t, _ in changed} & {s for _, s in changed}
    staged = []
    for t, s in changed:
        if s in clashes:
            temporary = state.builder.new_reg()
            state.builder.emit(Copy(temporary, s))
            s = temporary
        staged.append((t, s))
    for t, s in staged:
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
    count = int(attribute(node, "num_carried") or 0)
    limit_value = inputs[0] if inputs else None
    start_value = inputs[1] if len(inputs) > 1 else None
    initial = state.regs(inputs[2 : 2 + count])
    captured = state.regs(inputs[2 + count :])
    limit = None if limit_value is None else _as_scalar(state, limit_value)
    start = None if start_value is None else _as_scalar(state, start_value)
    carried = [state.builder.new_reg() for _ in range(count)]
    condition = state.builder.new_reg()
    known = frozenset(state.dims.bound)
    with state.builder.nested() as whole:
        for target, source in zip(carried, initial, strict=True):
            state.builder.emit(Copy(target, source))
        first = constant_scalar(state.kernels, True) if start is None else start
        state.builder.emit(Copy(condition, first))
        lists = _new_lists(state, len(body.outputs) - 1 - count)
        counter, step = _counter(state, limit, condition)
        with _block(state) as block:
            iteration = _number(state, body, counter)
            before = len(block)
            registers = [iteration, condition, *carried, *captured]
            _bind_carried(state, body, registers)
            results = inline(body, registers)
            inner = tuple(block[before:])
            _append(state, lists, results[1 + count :])
            _move(state, [condition, *carried], results[: 1 + count])
            if body.outputs[0].rank != 0:
                state.builder.emit(View(condition, condition, ()))
        state.builder.emit(Loop((step,), step.test, tuple(block)))
        scans = [
            _stack(state, held, node.outputs[count + i].type, 0, False, known)
            for i, held in enumerate(lists)
        ]

    may_end = not (body.outputs[0] == body.inputs[1] or _is_true(body.outputs[0]))

    def form() -> LoopForm:
        stacked = [
            _stacked(r, part, v, 0, False, known)
            for r, part, v in zip(
                results[1 + count :], body.outputs[1 + count :], node.values[count:], strict=True
            )
        ]
        trips = None if limit_value is None else limit_value.constant
        return LoopForm(
            inner, limit if trips is None else int(trips.reshape(-1)[0]),
            None if _is_true(start_value) else start, carried, initial, results[1 : 1 + count],
            _settled(body.inputs[2 : 2 + count], known),
            list(zip(captured, _settled(body.inputs[2 + count :], known), strict=True)),
            stacked, _rows(node.values[count:], [0] * len(stacked), known),
            iteration=iteration, condition=condition, going=results[0] if may_end else None,
        )  # fmt: skip

    _finish(state, node, form, whole, [*carried, *scans])


def _is_true(value: Value | None) -> bool:
    """Is a condition always true?"""
    array = None if value is None else value.constant
    return array is not None and bool(array.reshape(-1)[0])


def _finish(
    state: LoweringState, node: Node, form: Callable[[], LoopForm], whole: Sequence[Instruction],
    results: Sequence[Reg],
) -> None:  # fmt: skip
    """Emit a loop as a call of a function, or else as the block ``whole``."""
    found = call_loop(state, form, whole, results)
    if found is None:
        for instruction in whole:
            state.builder.emit(instruction)
    state.define(node, results if found is None else found)


def _settled(values: Sequence[Value], known: frozenset[str]) -> list[TensorType]:
    """The types of values; raises :class:`.Foreign` unless all of their sizes are ``known``."""
    types = []
    for v in values:
        t = v.type
        if not isinstance(t, TensorType) or t.shape is None or t.dtype.name == "string":
            raise Foreign("a value that is no tensor of numbers")
        if not frozenset().union(*map(free_symbols, t.dims)) <= known:
            raise Foreign("sizes that the loop tells")
        types.append(t)
    return types


def _stacked(
    reg: Reg, part: Value, whole: Value, axis: int, backwards: bool, known: frozenset[str]
) -> Scanned:
    """What a loop stacks; the size of the whole may not be known."""
    (part_type,) = _settled([part], known)
    return Scanned(reg, part_type, whole.tensor_type, axis, backwards)


def _rows(wholes: Sequence[Value], axes: Sequence[int], known: frozenset[str]) -> Dim | None:
    """How many parts are stacked, if that is ``known``."""
    rows = {v.shape[axis] for v, axis in zip(wholes, axes, strict=True)}
    one = rows.pop() if len(rows) == 1 else None
    return one if one is not None and free_symbols(one) <= known else None


def _counter(state: LoweringState, limit: Reg | None, condition: Reg) -> tuple[Reg, StepLoop]:
    """The number of the iteration, in memory that each overwrites, and what begins another one."""
    counter = constant_scalar(state.kernels, -1)
    if limit is None:
        limit = constant_scalar(state.kernels, _MOST)
    test = state.kernels.allocate(tensor("bool"))
    return counter, StepLoop(counter, limit, condition, test)


def _number(state: LoweringState, body: Graph, counter: Reg) -> Reg:
    """The number of the iteration for the body: a copy, where that may keep it."""
    if _is_only_read(body, body.inputs[0]):
        return counter
    return copied(state.kernels, tensor("int64"), counter)


def _is_only_read(body: Graph, value: Value) -> bool:
    """Do only kernels read a value, so that nothing refers to its memory after them?"""
    if any(v == value for v in body.outputs):
        return False
    readers = [node for node, _ in body.uses(value)]
    return all(
        _is_only_read(body, node.out()) if is_view(body, node) else not is_opaque(body, node)
        for node in readers
    )


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
    count = int(attribute(node, "num_carried") or 0)
    scan_count = int(attribute(node, "num_scan_inputs") or 0)
    scans = inputs[count : count + scan_count]
    given = _list(node, "scan_input_axes", scan_count)
    axes = [a % v.rank for a, v in zip(given, scans, strict=True)]
    backwards = list(map(bool, _list(node, "scan_input_directions", scan_count)))
    initial, scan_regs = state.regs(inputs[:count]), state.regs(scans)
    captured = state.regs(inputs[count + scan_count :])
    length = scans[0].shape[axes[0]]
    carried = [state.builder.new_reg() for _ in range(count)]
    stacks = list(zip(body.outputs[count:], node.values[count:], strict=True))
    out_axes = [
        a % v.rank
        for a, (_, v) in zip(_list(node, "scan_output_axes", len(stacks)), stacks, strict=True)
    ]
    out_backwards = list(map(bool, _list(node, "scan_output_directions", len(stacks))))
    with state.builder.nested() as whole:
        for target, source in zip(carried, initial, strict=True):
            state.builder.emit(Copy(target, source))
        limit = dim_scalar(state.kernels, length)
        lists = _new_lists(state, len(stacks))
        iteration, step = _counter(state, limit, constant_scalar(state.kernels, True))
        with _block(state) as block:
            slices = [
                _slice(state, r, v, axis, iteration, length, back)
                for r, v, axis, back in zip(scan_regs, scans, axes, backwards, strict=True)
            ]
            before = len(block)
            registers = [*carried, *slices, *captured]
            _bind_carried(state, body, registers)
            results = inline(body, registers)
            inner = tuple(block[before:])
            _append(state, lists, results[count:])
            _move(state, carried, results[:count])
        state.builder.emit(Loop((step,), step.test, tuple(block)))
        stacked = [
            _stack(state, held, v.type, axis, back, known)
            for held, (_, v), axis, back in zip(lists, stacks, out_axes, out_backwards, strict=True)
        ]

    def form() -> LoopForm:
        parts = _settled(body.inputs[count : count + scan_count], known)
        return LoopForm(
            inner, length, None, carried, initial, results[:count],
            _settled(body.inputs[:count], known),
            list(zip(captured, _settled(body.inputs[count + scan_count :], known), strict=True)),
            [_stacked(r, part, v, axis, back, known)
             for r, (part, v), axis, back in zip(
                results[count:], stacks, out_axes, out_backwards, strict=True)],
            _rows([v for _, v in stacks], out_axes, known),
            [Scanned(*cut) for cut in zip(
                slices, parts, _settled(scans, known), axes, backwards, scan_regs, strict=True)],
        )  # fmt: skip

    _finish(state, node, form, whole, [*carried, *stacked])


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
