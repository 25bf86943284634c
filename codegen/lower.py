"""Graph -> program: kernels called in topological order, memory planned, control flow as blocks.

Each node becomes a kernel call, a view of its input's memory, a call of a host function, or blocks
of instructions (If, Loop, Scan). The parts: :mod:`.program_builder` writes instructions,
:mod:`.dim_slots` learns sizes, :mod:`.kernel_calls` names and calls kernels,
:mod:`.lowering_state` keeps the values of one graph, and :mod:`.control` lowers If, Loop and Scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ..contract import HOST
from ..errors import GraphkilnError
from ..ir.dims import symbol_name
from ..ir.graph import Graph, Node, Value
from ..ir.registry import has_trait
from ..ir.traits import Trait
from ..ir.types import TensorType, tensor
from ..targets.base import Target, targets_of
from ..targets.generic.region import fresh_symbols
from ..targets.generic.registry import sizes_of
from .checks import size_of_values
from .classify import is_host, is_view, used_values, view_root
from .control import lower_control
from .dim_slots import DimKernel, DimSlots
from .errors import CodegenError
from .kernel_calls import KernelCalls
from .kernels import KernelSpec, computed_sizes, kernel_spec
from .liveness import Liveness
from .loop_code import LoopCode
from .lowering_state import LoweringState
from .program import (
    AllocStorage,
    BindSizes,
    Copy,
    If,
    Kill,
    LoadInput,
    MakeTuple,
    Operand,
    Program,
    Reg,
    View,
)
from .program_builder import ProgramBuilder
from .scalar_calls import copied, dim_list
from .support import dim_attributes, host_name


@dataclass
class Lowered:
    """Everything that :mod:`.build` and the artifact need of a lowered graph.

    ``kernels`` are the distinct kernels by symbol name, ``dim_kernels`` those that compute run-time
    dims, and ``weights`` the constants in the order of ``LoadWeight``.
    """

    program: Program
    kernels: dict[str, KernelSpec]
    dim_kernels: list[DimKernel]
    weights: list[tuple[str, np.ndarray]]
    calls: dict[str, list[KernelSpec]] = field(default_factory=dict)
    """By kernel, the spec of each of its calls in program order, which names the calling node."""
    weight_spaces: dict[int, str] = field(default_factory=dict)
    """The memory spaces of weights that are not in the host's."""
    loops: dict[str, LoopCode] = field(default_factory=dict)
    """The loops that have functions of their own, by name."""

    def kernels_of(self, device: str) -> dict[str, KernelSpec]:
        """The kernels that run on a device."""
        return {name: spec for name, spec in self.kernels.items() if spec.device == device}

    @property
    def devices(self) -> list[str]:
        """The devices beside the host that run any."""
        return sorted({spec.device for spec in self.kernels.values()} - {HOST})


def lower_graph(graph: Graph, target: Target, version: str) -> Lowered:
    """The program of a graph whose values all have types, and whose nodes have devices.

    Raises :class:`CodegenError` for a node whose output size no rule computes, and for types
    that cannot live at run time.
    """
    builder = ProgramBuilder()
    dims = DimSlots(builder)
    targets = targets_of(target)
    kernels = KernelCalls(builder, dims, targets, version)

    def space(node: Node) -> str:
        return targets[node.device].space if node.device else HOST

    live = Liveness(graph, not target.keeps_apart, space)
    state = LoweringState(graph, builder, dims, kernels, live, space)
    # Native code keeps temporaries in one block.
    state.loops = None if target.host.keeps_apart else {}
    dims.collect(graph)
    _lower_model(state)
    return Lowered(
        builder.program, kernels.kernels, dims.kernels, builder.weights, kernels.calls,
        builder.weight_spaces, state.loops or {},
    )  # fmt: skip


def _lower_model(state: LoweringState) -> None:
    """The whole program: inputs, the arena, all operations, and the results."""
    graph, builder = state.graph, state.builder
    state.dims.checks.enter(graph)
    builder.program.inputs = len(graph.inputs)
    for i, v in enumerate(graph.inputs):
        state.registers[v] = builder.new_reg()
        builder.emit(LoadInput(state.registers[v], i))
    state.dims.bind_types([(state.registers[v], v) for v in graph.inputs])
    state.dims.symbols_bound(set())
    for space, size in state.live.arenas.items():
        if size:
            arena = state.arenas[space] = builder.new_reg()
            builder.use_space(space)
            builder.emit(AllocStorage(arena, size, space))
            builder.program.arena_bytes += size
    for node in state.live.order:
        _lower_node(state, node)
    results = [_result(state, v) for v in graph.outputs]
    builder.program.result = builder.new_reg()
    builder.emit(MakeTuple(builder.program.result, tuple(results)))


def _inline(outer: LoweringState, body: Graph, inputs: Sequence[Reg]) -> list[Reg]:
    """Emit the operations of a body; returns the registers of its outputs."""
    state = outer.inner(body, inputs)
    state.dims.checks.enter(body)
    state.dims.symbols_bound(set())
    for node in state.live.order:
        _lower_node(state, node)
    state.dims.checks.leave()
    return state.regs(body.outputs)


def _result(state: LoweringState, value: Value) -> Reg:
    """A register for a graph result; inputs and constants are copied, never handed out."""
    root = view_root(state.graph, value)
    source = state.reg(value)
    if root.node.key not in ("Input", "Constant") or not isinstance(value.type, TensorType):
        return source
    return source if value.dtype == "string" else copied(state.kernels, value.type, source)


def _lower_node(state: LoweringState, node: Node) -> None:
    try:
        if has_trait(node, Trait.EFFECT):
            pass  # conditions on sizes are checked where the sizes become known: see Checks
        elif has_trait(node, Trait.CONTROL_FLOW):
            lower_control(state, node, partial(_inline, state))
        elif is_host(state.graph, node):
            _host(state, node)
        elif is_view(state.graph, node):
            _view(state, node)
        else:
            _kernel(state, node)
    except CodegenError as e:
        e.locate(node)
        raise
    except GraphkilnError as e:  # such as an unknown rank
        raise CodegenError(e.reason, at=node) from e
    for v in state.live.dead_after(node):
        if v in state.registers and v.node.key != "Constant":
            state.builder.emit(Kill(state.registers[v]))
    for reg in state.copies_dead_after(node):
        state.builder.emit(Kill(reg))


def _kernel(state: LoweringState, node: Node) -> None:
    """Call the node's kernel; its results lie in the arena where they were planned there."""
    spec = kernel_spec(state.graph, node)
    sources = state.graph.inputs_of(node)
    space = state.space(node)
    inputs = state.regs((sources[i] for i in spec.arguments), space)
    _sizes(state, node)
    outputs = []
    for v in used_values(state.graph, node):
        offset, arena = state.live.offset(v), state.arenas.get(space)
        if offset is not None and arena is not None:
            reg = state.builder.new_reg()
            state.kernels.place(reg, arena, offset, v.tensor_type)
        else:
            reg = state.kernels.allocate(v.tensor_type, space)
        state.put(v, reg, space)
        outputs.append(reg)
    if not state.live.is_in_place(node):
        state.kernels.call(spec, inputs, outputs)


def _sizes(state: LoweringState, node: Node) -> None:
    """Compute the output dims that depend on the node's data, by a kernel that runs first."""
    dims, sources = state.dims, state.graph.inputs_of(node)
    types = [None if v is None else v.type for v in sources]
    fresh = fresh_symbols([o.type for o in node.outputs], types)
    unbound = {s for s in fresh if s not in dims.bound}
    if not unbound:
        return
    if sizes_of(node.key) is None:
        raise CodegenError(
            "its output size depends on data and no rule computes it"
            f" ({', '.join(sorted(unbound))})", at=node,
        )  # fmt: skip
    spec = kernel_spec(state.graph, node, "sizes")
    space = state.space(node)
    inputs = state.regs((sources[i] for i in spec.arguments), space)
    computed = [symbol_name(d) for d in computed_sizes(state.graph, node)]
    t = tensor("int64", len(computed))
    sizes = state.kernels.allocate(t, space)
    state.kernels.call(spec, inputs, [sizes])
    if space != HOST:
        sizes = state.kernels.copy_to(HOST, sizes, t)
    slots = tuple(dims.of_symbol(s) if s in unbound else None for s in computed)
    state.builder.emit(BindSizes(sizes, slots))
    for s in sorted(unbound):
        for check in size_of_values(node, s):
            dims.checks.add(check)
    dims.symbols_bound(unbound)


def _view(state: LoweringState, node: Node) -> None:
    """The node's result is its input's memory, perhaps under another shape."""
    source = state.graph.input(node, 0)
    assert source is not None
    reg, out = state.builder.new_reg(), node.out()
    space = state.spaces.get(source, HOST)
    held = state.reg(source, space)
    if node.key == "kiln.Require":
        _check(state, node)
    if isinstance(out.type, TensorType) and out.type.dtype.name != "string":
        _sizes(state, node)
        same = isinstance(source.type, TensorType) and source.type.shape == out.type.shape
        copy_or_view = Copy(reg, held) if same else View(reg, held, state.dims.shape(out.type))
        state.builder.emit(copy_or_view)
    else:
        state.builder.emit(Copy(reg, held))
    state.put(out, reg, space)


def _check(state: LoweringState, node: Node) -> None:
    """Fail with the node's message unless its condition holds."""
    _, condition = state.graph.required_inputs(node)
    test = state.reg(condition)
    with state.builder.nested() as failure:
        state.builder.call_host("Refuse", {"message": node.attrs["message"]}, [], 0)
    state.builder.emit(If(test, (), tuple(failure)))


def _host(state: LoweringState, node: Node) -> None:
    """Call the host function of the runtime that computes the node."""
    inputs = state.graph.inputs_of(node)
    arguments: list[Operand | None] = [None if v is None else state.reg(v) for v in inputs]
    sizes = dim_attributes(node)
    arguments += [dim_list(state.kernels, node.attrs[name]) for name in sizes]
    count = len(node.outputs)
    attrs = {k: v for k, v in node.attrs.items() if k not in sizes}
    attrs["results"] = count
    types = [v.type if v is not None else None for v in inputs]
    attrs["types"] = tuple(t.dtype.name if isinstance(t, TensorType) else "" for t in types)
    state.define(node, state.builder.call_host(host_name(node), attrs, arguments, count))


__all__ = ["Lowered", "lower_graph"]
