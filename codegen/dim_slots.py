"""Run-time dims: a slot for each, which is bound from a tensor or computed, and checked.

A symbol is bound where a tensor shows its value: the shape of an input, or the result of a kernel
that computes sizes. At that point a small *dim kernel* computes all expressions whose symbols are
bound by now, such as ``2*N+1``, and decides the conditions on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..contract import DIM_KERNELS
from ..ir.conditions import Condition
from ..ir.dims import Dim, SymExpr, free_symbols, is_static, sym, symbol_name
from ..ir.graph import Graph, Value
from ..ir.storage import storage_bytes
from ..ir.types import TensorType
from .checks import Check, Checks
from .errors import CodegenError
from .kernels import dim_atoms
from .program import BindShape, CheckSizes, ComputeDims, DimSlot, Imm, Operand, Reg, Slot
from .program_builder import ProgramBuilder


@dataclass(frozen=True)
class Verdict:
    """Conditions that a dim kernel decides, and the slots for the result; see
    :class:`.CheckSizes`.
    """

    slot: int
    a: int
    b: int
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class DimKernel:
    """What is computed where symbols become bound: ``targets`` are (slot, expression) pairs.

    ``symbols`` says in which slots the symbols of the expressions are, and ``verdict`` holds the
    conditions that can be decided at this point.
    """

    name: str
    targets: tuple[tuple[int, Dim], ...]
    symbols: tuple[tuple[str, int], ...]
    verdict: Verdict | None = None


class DimSlots:
    """Which slot holds each dim, and which symbols are ``bound``, that is, have a value by now."""

    def __init__(self, builder: ProgramBuilder) -> None:
        self.checks = Checks()
        self.kernels: list[DimKernel] = []
        self.bound: set[str] = set()
        self._builder = builder
        self._slots: dict[Dim, int] = {}
        self._waiting: dict[str, list[SymExpr]] = {}

    # ---- slots ---------------------------------------------------------------------------------

    def collect(self, graph: Graph) -> None:
        """Give every symbolic dim and byte size in the graph and its bodies a slot."""
        for part in graph.walk(regions=False):
            for node in part.topological_all():
                for out in node.outputs:
                    if isinstance(out.type, TensorType) and out.type.shape is not None:
                        for d in (*out.type.shape, size_of(out.type)):
                            self._add(d)
                for d in sorted(dim_atoms(part, node), key=str):
                    self._add(d)

    def _add(self, d: Dim) -> None:
        if is_static(d) or d in self._slots:
            return
        self._slots[d] = self._new_slot()
        for s in sorted(free_symbols(d)):
            if sym(s) != d:
                self._add(sym(s))
                self._waiting.setdefault(s, []).append(d)  # type: ignore[arg-type]

    def _new_slot(self) -> int:
        self._builder.program.slots += 1
        return self._builder.program.slots - 1

    def new_slot(self) -> Slot:
        """A slot for a number that is no dim of the graph."""
        return Slot(self._new_slot())

    def compute(self, targets: Mapping[Slot, Dim], given: Mapping[str, Slot]) -> None:
        """Compute slots from dims, all at once.

        Their symbols are ``given``, or bound ones of the graph.
        """
        needed = sorted(frozenset().union(*(free_symbols(d) for d in targets.values())))
        self._emit_kernel(
            tuple((slot.index, d) for slot, d in targets.items()),
            tuple((s, given[s].index if s in given else self._slots[sym(s)]) for s in needed),
        )

    def of(self, d: Dim) -> DimSlot:
        """The slot of a dim, or its value if static.

        Raises :class:`CodegenError` where one of its symbols is not bound yet.
        """
        if isinstance(d, SymExpr):
            missing = free_symbols(d) - self.bound
            if missing:
                raise CodegenError(f"the size {d} is needed before {min(missing)} is known")
            return Slot(self._slots[d])
        return int(d)

    def of_symbol(self, name: str) -> Slot:
        """The slot that takes a symbol's value."""
        return Slot(self._slots[sym(name)])

    def shape(self, t: TensorType) -> tuple[DimSlot, ...]:
        """The dims of a tensor as ints and slots; raises :class:`CodegenError` as :meth:`of`."""
        return tuple(self.of(d) for d in t.dims)

    def argument(self, d: Dim) -> Operand:
        """A dim as a kernel's int64 argument."""
        slot = self.of(d)
        return Imm(slot) if isinstance(slot, int) else self._builder.dim(d, slot)

    # ---- binding -------------------------------------------------------------------------------

    def bind_types(self, values: Sequence[tuple[Reg, Value]], again: bool = False) -> None:
        """Bind the symbols that stand alone in the values' types, from the tensors in registers.

        A value of type ``float32[N,4]`` binds ``N`` unless it is bound. With ``again`` it is bound
        anew even then: in the next iteration of a loop.
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
                    dims.append(Slot(self._slots[d]))
            if any(d is not None for d in dims):
                if t.dtype.name == "string":
                    (reg,) = self._builder.call_host("Extent", {}, [reg], 1)
                self._builder.emit(BindShape(reg, tuple(dims), repr(v.name)))
        self.symbols_bound(fresh)

    def symbols_bound(self, fresh: set[str]) -> None:
        """Symbols are bound now: compute the expressions and checks that waited for them."""
        self.bound |= fresh
        self._builder.forget_dims(fresh)
        ready = [
            d
            for d in dict.fromkeys(e for s in sorted(fresh) for e in self._waiting.get(s, []))
            if free_symbols(d) <= self.bound
        ]
        checks = self.checks.take(self.bound)
        if ready or checks:
            self._compute(ready, checks)

    def _compute(self, ready: list[SymExpr], checks: list[Check]) -> None:
        """Call a dim kernel for these expressions and checks, and act on its verdict."""
        verdict = None
        if checks:
            slot, a, b = (self._new_slot() for _ in range(3))
            verdict = Verdict(slot, a, b, tuple(c.condition for c in checks))
        symbols = [free_symbols(d) for d in ready] + [c.condition.symbols for c in checks]
        needed = sorted(frozenset().union(*symbols))
        for s in needed:
            self._add(sym(s))
        self._emit_kernel(
            tuple((self._slots[d], d) for d in ready),
            tuple((s, self._slots[sym(s)]) for s in needed),
            verdict,
        )
        if verdict is not None:
            self._builder.program.host_functions.add("RefuseSizes")
            told = tuple(c.told for c in checks)
            slots = (Slot(verdict.slot), Slot(verdict.a), Slot(verdict.b))
            self._builder.emit(CheckSizes(*slots, told))

    def _emit_kernel(
        self, targets: tuple[tuple[int, Dim], ...], symbols: tuple[tuple[str, int], ...],
        verdict: Verdict | None = None,
    ) -> None:  # fmt: skip
        kernel = DimKernel(f"{DIM_KERNELS}{len(self.kernels)}", targets, symbols, verdict)
        self.kernels.append(kernel)
        self._builder.emit(ComputeDims(kernel.name))


def size_of(t: TensorType) -> Dim:
    """Bytes of a tensor in memory."""
    return t.numel * storage_bytes(t.dtype.name)


__all__ = ["DimKernel", "DimSlots", "Verdict", "size_of"]
