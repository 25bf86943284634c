"""Graph -> program: kernels called in topological order, memory planned, control flow as blocks.

Each node becomes a kernel call, a view of its input's memory, a call of a host function, or blocks
of instructions (If, Loop, Scan). The parts: :mod:`.program_builder` writes instructions,
:mod:`.dim_slots` learns sizes, :mod:`.kernel_calls` names and calls kernels, :mod:`.frame` keeps
the values of one graph, and :mod:`.control` lowers If, Loop and Scan.
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
from .frame import Frame
from .kernel_calls import KernelCalls
from .kernels import KernelSpec, computed_sizes, kernel_spec
from .liveness import Liveness
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
    frame = Frame(graph, builder, dims, kernels, live, space)
    dims.collect(graph)
    _lower_model(frame)
    return Lowered(
        builder.program, kernels.kernels, dims.kernels, builder.weights, kernels.calls,
        builder.weight_spaces,
    )  # fmt: skip


def _lower_model(frame: Frame) -> None:
    """The whole program: inputs, the arena, all operations, and the results."""
    graph, builder = frame.graph, frame.builder
    frame.dims.checks.enter(graph)
    builder.program.inputs = len(graph.inputs)
    for i, v in enumerate(graph.inputs):
        frame.registers[v] = builder.new_reg()
        builder.emit(LoadInput(frame.registers[v], i))
    frame.dims.bind_types([(frame.registers[v], v) for v in graph.inputs])
    frame.dims.symbols_bound(set())
    for space, size in frame.live.arenas.items():
        if size:
            arena = frame.arenas[space] = builder.new_reg()
            builder.use_space(space)
            builder.emit(AllocStorage(arena, size, space))
            builder.program.arena_bytes += size
    for node in frame.live.order:
        _lower_node(frame, node)
    results = [_result(frame, v) for v in graph.outputs]
    builder.program.result = builder.new_reg()
    builder.emit(MakeTuple(builder.program.result, tuple(results)))


def _inline(outer: Frame, body: Graph, inputs: Sequence[Reg]) -> list[Reg]:
    """Emit the operations of a body; returns the registers of its outputs."""
    frame = outer.inner(body, inputs)
    frame.dims.checks.enter(body)
    frame.dims.symbols_bound(set())
    for node in frame.live.order:
        _lower_node(frame, node)
    frame.dims.checks.leave()
    return frame.regs(body.outputs)


def _result(frame: Frame, value: Value) -> Reg:
    """A register for a graph result; inputs and constants are copied, never handed out."""
    root = view_root(frame.graph, value)
    source = frame.reg(value)
    if root.node.key not in ("Input", "Constant") or not isinstance(value.type, TensorType):
        return source
    return source if value.dtype == "string" else copied(frame.kernels, value.type, source)


def _lower_node(frame: Frame, node: Node) -> None:
    try:
        if has_trait(node, Trait.EFFECT):
            pass  # conditions on sizes are checked where the sizes become known: see Checks
        elif has_trait(node, Trait.CONTROL_FLOW):
            lower_control(frame, node, partial(_inline, frame))
        elif is_host(frame.graph, node):
            _host(frame, node)
        elif is_view(frame.graph, node):
            _view(frame, node)
        else:
            _kernel(frame, node)
    except CodegenError as e:
        e.locate(node)
        raise
    except GraphkilnError as e:  # such as an unknown rank
        raise CodegenError(e.reason, at=node) from e
    for v in frame.live.dead_after(node):
        if v in frame.registers and v.node.key != "Constant":
            frame.builder.emit(Kill(frame.registers[v]))
    for reg in frame.copies_dead_after(node):
        frame.builder.emit(Kill(reg))


def _kernel(frame: Frame, node: Node) -> None:
    """Call the node's kernel; its results lie in the arena where they were planned there."""
    spec = kernel_spec(frame.graph, node)
    sources = frame.graph.inputs_of(node)
    space = frame.space(node)
    inputs = frame.regs((sources[i] for i in spec.arguments), space)
    _sizes(frame, node)
    outputs = []
    for v in used_values(frame.graph, node):
        offset, arena = frame.live.offset(v), frame.arenas.get(space)
        if offset is not None and arena is not None:
            reg = frame.builder.new_reg()
            frame.kernels.place(reg, arena, offset, v.tensor_type)
        else:
            reg = frame.kernels.allocate(v.tensor_type, space)
        frame.put(v, reg, space)
        outputs.append(reg)
    if not frame.live.is_in_place(node):
        frame.kernels.call(spec, inputs, outputs)


def _sizes(frame: Frame, node: Node) -> None:
    """Compute the output dims that depend on the node's data, by a kernel that runs first."""
    dims, sources = frame.dims, frame.graph.inputs_of(node)
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
    spec = kernel_spec(frame.graph, node, "sizes")
    space = frame.space(node)
    inputs = frame.regs((sources[i] for i in spec.arguments), space)
    computed = [symbol_name(d) for d in computed_sizes(frame.graph, node)]
    t = tensor("int64", len(computed))
    sizes = frame.kernels.allocate(t, space)
    frame.kernels.call(spec, inputs, [sizes])
    if space != HOST:
        sizes = frame.kernels.copy_to(HOST, sizes, t)
    slots = tuple(dims.of_symbol(s) if s in unbound else None for s in computed)
    frame.builder.emit(BindSizes(sizes, slots))
    for s in sorted(unbound):
        for check in size_of_values(node, s):
            dims.checks.add(check)
    dims.symbols_bound(unbound)


def _view(frame: Frame, node: Node) -> None:
    """The node's result is its input's memory, perhaps under another shape."""
    source = frame.graph.input(node, 0)
    assert source is not None
    reg, out = frame.builder.new_reg(), node.out()
    space = frame.spaces.get(source, HOST)
    held = frame.reg(source, space)
    if node.key == "kiln.Require":
        _check(frame, node)
    if isinstance(out.type, TensorType) and out.type.dtype.name != "string":
        _sizes(frame, node)
        same = isinstance(source.type, TensorType) and source.type.shape == out.type.shape
        copy_or_view = Copy(reg, held) if same else View(reg, held, frame.dims.shape(out.type))
        frame.builder.emit(copy_or_view)
    else:
        frame.builder.emit(Copy(reg, held))
    frame.put(out, reg, space)


def _check(frame: Frame, node: Node) -> None:
    """Fail with the node's message unless its condition holds."""
    _, condition = frame.graph.required_inputs(node)
    test = frame.reg(condition)
    with frame.builder.nested() as failure:
        frame.builder.call_host("Refuse", {"message": node.attrs["message"]}, [], 0)
    frame.builder.emit(If(test, (), tuple(failure)))


def _host(frame: Frame, node: Node) -> None:
    """Call the host function of the runtime that computes the node."""
    inputs = frame.graph.inputs_of(node)
    arguments: list[Operand | None] = [None if v is None else frame.reg(v) for v in inputs]
    sizes = dim_attributes(node)
    arguments += [dim_list(frame.kernels, node.attrs[name]) for name in sizes]
    count = len(node.outputs)
    attrs = {k: v for k, v in node.attrs.items() if k not in sizes}
    attrs["results"] = count
    types = [v.type if v is not None else None for v in inputs]
    attrs["types"] = tuple(t.dtype.name if isinstance(t, TensorType) else "" for t in types)
    frame.define(node, frame.builder.call_host(host_name(node), attrs, arguments, count))


__all__ = ["Lowered", "lower_graph"]
