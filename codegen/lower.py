"""Graph -> program: kernels called in topological order, memory planned, control flow as blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import GraphkilnError
from ..ir.conditions import Condition
from ..ir.dims import Dim, SymExpr, free_symbols, is_static, sym, symbol_name
from ..ir.graph import Graph, Node, Value
from ..ir.registry import has_trait
from ..ir.types import DTYPES, TensorType
from ..targets.base import Target
from .attributes import attributes_json
from .checks import Check, Checks, size_of_values
from .classify import is_host, is_view, used_values, view_root
from .kernels import KernelSpec, computed_sizes, dim_atoms, kernel_spec, storage_array
from .liveness import Liveness
from .program import (
    AllocStorage,
    BindShape,
    BindSizes,
    Call,
    CallHost,
    CheckSizes,
    ComputeDims,
    Copy,
    DimSlot,
    GetItem,
    If,
    Imm,
    Instruction,
    Kill,
    LoadInput,
    LoadWeight,
    MakeTensor,
    MakeTuple,
    Operand,
    Program,
    ReadDim,
    Reg,
    Slot,
    View,
)
from .storage import storage_bytes, storage_name
from .support import dim_attributes, host_name

INT64 = DTYPES["int64"]


class CodegenError(GraphkilnError):
    """A node cannot be compiled; the message names it and says why."""


@dataclass(frozen=True)
class Verdict:
    """Conditions on sizes, and the slots that take the result; see :class:`.CheckSizes`."""

    slot: int
    a: int
    b: int
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class DimKernel:
    """Derived dims of one binding point: slot <- expression, given the slots of symbols.

    ``verdict`` are conditions that can be decided at this point.
    """

    name: str
    targets: tuple[tuple[int, SymExpr], ...]
    symbols: tuple[tuple[str, int], ...]
    verdict: Verdict | None = None


@dataclass
class Lowered:
    """Everything that :mod:`.build` and the artifact need of a lowered graph."""

    program: Program
    kernels: dict[str, KernelSpec]
    dim_kernels: list[DimKernel]
    weights: list[tuple[str, np.ndarray]]
    calls: dict[str, list[str]] = field(default_factory=dict)
    """The node behind each call of a kernel, in order; empty names for what none stands for."""


def lower_graph(graph: Graph, target: Target, version: str) -> Lowered:
    """The program of a graph whose values all have types.

    Raises :class:`CodegenError` for a node whose output size no rule computes, and for types
    that cannot live at run time.
    """
    return _Lowering(target, version).run(graph)


@dataclass
class _Frame:
    """Values of one graph (the model, or a body inlined into it)."""

    graph: Graph
    env: dict[Value, Reg] = field(default_factory=dict)


class _Lowering:
    def __init__(self, target: Target, version: str) -> None:
        self.target = target
        self.version = version
        self.program = Program()
        self.block: list[Instruction] = self.program.body
        self.kernels: dict[str, KernelSpec] = {}
        self.calls: dict[str, list[str]] = {}
        self.dim_kernels: list[DimKernel] = []
        self.weights: list[tuple[str, np.ndarray]] = []
        self.weight_index: dict[int, int] = {}
        self.slots: dict[Dim, int] = {}
        self.slot_count = 0
        self.checks = Checks()
        self.bound: set[str] = set()
        self.dim_regs: dict[Dim, Reg] = {}
        self.pending: dict[str, list[SymExpr]] = {}

    # ---- whole graph -------------------------------------------------------------------------

    def run(self, graph: Graph) -> Lowered:
        self._collect_dims(graph)
        self.checks.enter(graph)
        self.program.inputs = len(graph.inputs)
        frame = _Frame(graph)
        for i, v in enumerate(graph.inputs):
            reg = self.new_reg()
            self.emit(LoadInput(reg, i))
            frame.env[v] = reg
        self.bind_types([(frame.env[v], v) for v in graph.inputs])
        self.symbols_bound(set())
        live = Liveness(graph, planned=not self.target.keeps_apart)
        arena = self.new_reg() if live.arena_bytes else None
        if arena is not None:
            self.emit(AllocStorage(arena, live.arena_bytes))
            self.program.arena_bytes = live.arena_bytes
        for node in live.order:
            self.lower_node(frame, node, live, arena)
        results = [self.result_reg(frame, v) for v in graph.outputs]
        self.program.result = self.new_reg()
        self.emit(MakeTuple(self.program.result, tuple(results)))
        self.program.slots = self.slot_count
        return Lowered(self.program, self.kernels, self.dim_kernels, self.weights, self.calls)

    def lower_body(self, frame: _Frame) -> None:
        """The operations of a body whose inputs are in ``frame.env``."""
        self.checks.enter(frame.graph)
        self.symbols_bound(set())
        live = Liveness(frame.graph, planned=False)
        for node in live.order:
            self.lower_node(frame, node, live, None)
        self.checks.leave()

    def result_reg(self, frame: _Frame, value: Value) -> Reg:
        """A register for a graph result; inputs and constants are copied, never handed out."""
        root = view_root(frame.graph, value)
        if root.node.op not in ("Input", "Constant") or not isinstance(value.type, TensorType):
            return self.reg(frame, value)
        if value.dtype == "string":
            return self.reg(frame, value)
        copy = Graph("kernel")
        inner = copy.add_input("in", value.type)
        node = copy.add_node("Identity", [inner], types=[value.type])
        copy.set_outputs(list(node.values))
        return self.run_small(copy, [self.reg(frame, value)])[0]

    # ---- helpers -----------------------------------------------------------------------------

    def emit(self, instruction: Instruction) -> None:
        self.block.append(instruction)

    def new_reg(self) -> Reg:
        self.program.registers += 1
        return Reg(self.program.registers)

    @contextmanager
    def nested(self) -> Iterator[list[Instruction]]:
        """Instructions emitted inside go to a block of their own."""
        outer, self.block = self.block, []
        held = dict(self.dim_regs)
        yield self.block
        self.block = outer
        # What a block reads may not have run, and what it binds makes older readings stale.
        self.dim_regs = {d: r for d, r in held.items() if self.dim_regs.get(d) == r}

    def reg(self, frame: _Frame, value: Value) -> Reg:
        """The register of a value; constants are loaded on first use in a block."""
        found = frame.env.get(value)
        if found is not None:
            return found
        array = value.constant
        if array is None:
            raise CodegenError(f"value {value.name!r} is used before it is computed")
        reg = self.new_reg()
        if value.dtype == "string":
            self._string_constant(reg, array)
        else:
            self.emit(LoadWeight(reg, self._weight(value.name, array)))
        if self.block is self.program.body:
            frame.env[value] = reg
        return reg

    def _string_constant(self, reg: Reg, array: np.ndarray) -> None:
        self.program.host_functions.add("Constant")
        holder = self.new_reg()
        self.emit(CallHost(holder, "Constant", attributes_json({"value": array}), ()))
        self.emit(GetItem(reg, holder, 0))

    def _weight(self, name: str, array: np.ndarray) -> int:
        index = self.weight_index.get(id(array))
        if index is None:
            index = self.weight_index[id(array)] = len(self.weights)
            self.weights.append((name, storage_array(array)))
        return index

    # ---- dims --------------------------------------------------------------------------------

    def _collect_dims(self, graph: Graph) -> None:
        """Give every symbolic dim and byte size in the graph and its bodies a slot."""
        for node in graph.topological_all():
            for out in node.outputs:
                if isinstance(out.type, TensorType) and out.type.shape is not None:
                    for d in (*out.type.shape, size_of(out.type)):
                        self._slot_for(d)
            for d in sorted(dim_atoms(graph, node), key=str):
                self._slot_for(d)
            for _, body in graph.bodies(node):
                if node.key != "kiln.Region":
                    self._collect_dims(body)

    def _slot_for(self, d: Dim) -> None:
        if is_static(d) or d in self.slots:
            return
        self.slots[d] = self.new_slot()
        for s in sorted(free_symbols(d)):
            if sym(s) != d:
                self._slot_for(sym(s))
                self.pending.setdefault(s, []).append(d)  # type: ignore[arg-type]

    def new_slot(self) -> int:
        self.slot_count += 1
        return self.slot_count - 1

    def slot(self, d: Dim) -> DimSlot:
        if isinstance(d, SymExpr):
            missing = free_symbols(d) - self.bound
            if missing:
                raise CodegenError(f"the size {d} is needed before {min(missing)} is known")
            return Slot(self.slots[d])
        return int(d)

    def shape(self, t: TensorType) -> tuple[DimSlot, ...]:
        return tuple(self.slot(d) for d in t.dims)

    def dim_reg(self, d: Dim) -> Operand:
        """A run-time dim as a kernel's int64 argument."""
        slot = self.slot(d)
        if isinstance(slot, int):
            return Imm(slot)
        found = self.dim_regs.get(d)
        if found is None:
            found = self.dim_regs[d] = self.new_reg()
            self.emit(ReadDim(found, slot))
        return found

    def bind_types(self, values: Sequence[tuple[Reg, Value]], again: bool = False) -> None:
        """Learn the symbols that the values' types introduce from the tensors in the registers.

        ``again``: the symbols may be bound already (a loop's next turn).
        """
        fresh: set[str] = set()
        for reg, v in values:
            t = v.type
            if not isinstance(t, TensorType) or t.shape is None:
                continue
            dims: list[DimSlot | None] = []
            for d in t.shape:
                name = symbol_name(d)
                if name is None or (name in self.bound and not again) or name in fresh:
                    dims.append(None)
                else:
                    fresh.add(name)
                    dims.append(Slot(self.slots[d]))
            if any(d is not None for d in dims):
                if t.dtype.name == "string":
                    (reg,) = self.call_host("Extent", {}, [reg], 1)
                self.emit(BindShape(reg, tuple(dims), repr(v.name)))
        self.symbols_bound(fresh)

    def symbols_bound(self, fresh: set[str]) -> None:
        """Symbols just got their values: read them, and compute what follows from them."""
        self.bound |= fresh
        self.dim_regs = {d: r for d, r in self.dim_regs.items() if not free_symbols(d) & fresh}
        ready = [
            d
            for d in dict.fromkeys(e for s in sorted(fresh) for e in self.pending.get(s, []))
            if free_symbols(d) <= self.bound
        ]
        checks = self.checks.take(self.bound)
        if ready or checks:
            self._compute_dims(ready, checks)

    def _compute_dims(self, ready: list[SymExpr], checks: list[Check]) -> None:
        """A kernel for derived dims and for conditions, and what follows from its verdict."""
        verdict = None
        if checks:
            slot, a, b = (self.new_slot() for _ in range(3))
            verdict = Verdict(slot, a, b, tuple(c.condition for c in checks))
        symbols = [free_symbols(d) for d in ready] + [c.condition.symbols for c in checks]
        needed = sorted(frozenset().union(*symbols))
        for s in needed:
            self._slot_for(sym(s))
        kernel = DimKernel(
            f"dims_{len(self.dim_kernels)}",
            tuple((self.slots[d], d) for d in ready),
            tuple((s, self.slots[sym(s)]) for s in needed),
            verdict,
        )
        self.dim_kernels.append(kernel)
        self.emit(ComputeDims(kernel.name))
        if verdict is not None:
            self.program.host_functions.add("RefuseSizes")
            told = tuple(c.told for c in checks)
            self.emit(CheckSizes(Slot(verdict.slot), Slot(verdict.a), Slot(verdict.b), told))

    # ---- memory ------------------------------------------------------------------------------

    def allocate(self, t: TensorType) -> Reg:
        """A tensor with storage of its own, released when nobody holds it."""
        storage, reg = self.new_reg(), self.new_reg()
        size = size_of(t)
        room = size if isinstance(size, int) else self.slot(size)
        self.emit(AllocStorage(storage, room))
        self.emit(MakeTensor(reg, storage, 0, self.shape(t), storage_name(t.dtype.name)))
        self.emit(Kill(storage))
        return reg

    def call_kernel(self, spec: KernelSpec, inputs: Sequence[Reg], outputs: Sequence[Reg]) -> None:
        name = spec.name(self.target.spec, self.version)
        self.kernels.setdefault(name, spec)
        self.calls.setdefault(name, []).append(spec.node)
        dims = [self.dim_reg(d) for d in spec.dims]
        self.emit(Call(name, (*inputs, *outputs, *dims)))

    def run_small(self, graph: Graph, inputs: Sequence[Reg]) -> list[Reg]:
        """Call a kernel made from a helper graph of one op; its inputs are in registers."""
        (node,) = graph.nodes
        spec = replace(kernel_spec(graph, node), node="")
        outputs = [self.allocate(v.tensor_type) for v in graph.outputs]
        self.call_kernel(spec, inputs, outputs)
        return outputs

    # ---- nodes -------------------------------------------------------------------------------

    def lower_node(self, frame: _Frame, node: Node, live: Liveness, arena: Reg | None) -> None:
        from .control import lower_control

        try:
            if has_trait(node, "effect"):
                pass  # see Checks
            elif has_trait(node, "control_flow"):
                lower_control(self, frame, node)
            elif is_host(frame.graph, node):
                self._host(frame, node)
            elif is_view(frame.graph, node):
                self._view(frame, node)
            else:
                self._kernel(frame, node, live, arena)
        except CodegenError as e:
            if "node " in str(e):
                raise
            raise CodegenError(f"node {node.name!r} ({node.key}): {e}") from e
        for v in live.dead_after(node):
            if v in frame.env and v.node.op != "Constant":
                self.emit(Kill(frame.env[v]))

    def _kernel(self, frame: _Frame, node: Node, live: Liveness, arena: Reg | None) -> None:
        spec = kernel_spec(frame.graph, node)
        sources = frame.graph.inputs_of(node)
        inputs = [self.reg(frame, v) for i in spec.arguments if (v := sources[i]) is not None]
        self._sizes(frame, node)
        outputs = []
        for v in used_values(frame.graph, node):
            t = v.tensor_type
            offset = live.offset(v)
            if offset is not None and arena is not None:
                reg = self.new_reg()
                self.emit(MakeTensor(reg, arena, offset, self.shape(t), storage_name(v.dtype)))
            else:
                reg = self.allocate(t)
            frame.env[v] = reg
            outputs.append(reg)
        if not live.is_joined(node):
            self.call_kernel(spec, inputs, outputs)

    def _sizes(self, frame: _Frame, node: Node) -> None:
        """Compute the output dims that only the node's data tells."""
        from ..targets.generic.region import fresh_symbols
        from ..targets.generic.registry import sizes_of

        sources = frame.graph.inputs_of(node)
        types = [None if v is None else v.type for v in sources]
        fresh = fresh_symbols([o.type for o in node.outputs], types)
        unbound = {s for s in fresh if s not in self.bound}
        if not unbound:
            return
        if sizes_of(node.key) is None:
            raise CodegenError(
                f"node {node.name!r} ({node.key}): its output size depends on data"
                f" and no rule computes it ({', '.join(sorted(unbound))})"
            )
        spec = kernel_spec(frame.graph, node, "sizes")
        inputs = [self.reg(frame, v) for i in spec.arguments if (v := sources[i]) is not None]
        computed = [symbol_name(d) for d in computed_sizes(frame.graph, node)]
        sizes = self.allocate(TensorType(INT64, (len(computed),)))
        self.call_kernel(spec, inputs, [sizes])
        slots = tuple(None if s not in unbound else Slot(self.slots[sym(s)]) for s in computed)
        self.emit(BindSizes(sizes, slots))
        for s in sorted(unbound):
            for check in size_of_values(node, s):
                self.checks.add(check)
        self.symbols_bound(unbound)

    def _view(self, frame: _Frame, node: Node) -> None:
        source = frame.graph.input(node, 0)
        assert source is not None
        reg = self.new_reg()
        out = node.out()
        held = self.reg(frame, source)
        if node.key == "kiln.Require":
            self._check(frame, node)
        if isinstance(out.type, TensorType) and out.type.dtype.name != "string":
            self._sizes(frame, node)
            same = isinstance(source.type, TensorType) and source.type.shape == out.type.shape
            self.emit(Copy(reg, held) if same else View(reg, held, self.shape(out.type)))
        else:
            self.emit(Copy(reg, held))
        frame.env[out] = reg

    def _check(self, frame: _Frame, node: Node) -> None:
        """Fail with the node's message unless its condition holds."""
        _, condition = frame.graph.required_inputs(node)
        test = self.reg(frame, condition)
        with self.nested() as failure:
            self.call_host("Refuse", {"message": node.attrs["message"]}, [], 0)
        self.emit(If(test, (), tuple(failure)))

    def _host(self, frame: _Frame, node: Node) -> None:
        from .control import dim_list

        arguments: list[Operand | None] = [
            None if v is None else self.reg(frame, v) for v in frame.graph.inputs_of(node)
        ]
        sizes = dim_attributes(node)
        arguments += [dim_list(self, node.attrs[name]) for name in sizes]
        count = len(node.outputs)
        attrs = {k: v for k, v in node.attrs.items() if k not in sizes}
        attrs["results"] = count
        types = [v.type if v is not None else None for v in frame.graph.inputs_of(node)]
        attrs["types"] = tuple(t.dtype.name if isinstance(t, TensorType) else "" for t in types)
        results = self.call_host(host_name(node), attrs, arguments, count)
        for v, reg in zip(node.values, results, strict=True):
            frame.env[v] = reg
        self.bind_types([(frame.env[v], v) for v in node.values])

    def call_host(
        self, op: str, attributes: object, arguments: Sequence[Operand | None], count: int
    ) -> list[Reg]:
        """Call a host function of the runtime; returns registers of its results."""
        self.program.host_functions.add(op)
        holder = self.new_reg()
        self.emit(CallHost(holder, op, attributes_json(attributes), tuple(arguments)))
        results = [self.new_reg() for _ in range(count)]
        for i, reg in enumerate(results):
            self.emit(GetItem(reg, holder, i))
        self.emit(Kill(holder))
        return results


def size_of(t: TensorType) -> Dim:
    """Bytes of a tensor in memory."""
    return t.numel * storage_bytes(t.dtype.name)


__all__ = ["CodegenError", "DimKernel", "Lowered", "lower_graph"]
