"""Bounds checks: after this lowering pass a kernel accesses no memory outside of its buffers.

The pass puts assertions before every statement: each index that it loads from or stores to is
within the buffer that owns the memory. The first assertion that fails ends the kernel, before the
access, with an error that names the kernel and the buffer. Checks are where the code evaluates a
load: in a branch of ``if_then_else`` they are behind its condition, but those of ``Select``,
``and`` and ``or`` are unconditional, as all operands of these are evaluated.

The pass does not check whether a tensor that is passed in has as much memory as its shape says, nor
what functions of the C library access. Prefetches are left alone, since they never fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import tvm
import tvm_ffi
from tvm import tirx

from .extents import as_int, index, product
from .numeric import cast, dtype_of

Expr = Any
Stmt = Any

OUTSIDE = "outside of its buffer"
"""Part of the message of every check that fails."""

_KIND = "IndexError"
_CONDITIONAL = "prim.if_then_else"
_ADDRESS = "tirx.address_of"
_KERNEL = "compute_scope"
_OWNER = "tirx.buffer_data"


def check_bounds(module: Any) -> Any:
    """The ``IRModule`` with checks in each function.

    Its buffers must be flat already: a load or store has one index, which may be a vector.
    """
    functions = {var: _checked(f) for var, f in module.functions.items()}
    return tvm.IRModule(functions, attrs=module.attrs)


def drop_argument_checks(module: Any) -> Any:
    """The ``IRModule`` of packed functions without TVM's own checks of arguments.

    Those demand the exact shapes of the buffers in a kernel. But callers pass memory under any
    shape with as many elements: the merged dims of a kernel need not be those of a value.
    """
    functions = {var: f.with_body(_without_checks(f.body)) for var, f in module.functions.items()}
    return tvm.IRModule(functions, attrs=module.attrs)


def _without_checks(s: Stmt) -> Stmt:
    """A statement without the assertions that TVM put around the kernel's own code."""
    match s:
        case tirx.SeqStmt():
            return tirx.SeqStmt([_without_checks(inner) for inner in s.seq])
        case tirx.AttrStmt(attr_key=key) if key != _KERNEL:
            return tirx.AttrStmt(s.node, key, s.value, _without_checks(s.body))
        case tirx.IfThenElse():
            then, other = _without_checks(s.then_case), s.else_case
            other = None if other is None else _without_checks(other)
            return tirx.IfThenElse(s.condition, then, other)
        case tirx.AssertStmt():
            return _sequence([])
    return s


def _checked(function: Any) -> Any:
    memory = {p: _Memory.of(p) for p in function.params if isinstance(p.ty, tirx.BufferType)}
    pass_ = _BoundsChecks(str(function.attrs["global_symbol"]), memory)
    return function.with_body(pass_.statement(function.body, frozenset()))


@dataclass(frozen=True, eq=False)
class _Memory:
    """The memory of the buffer ``name``: ``count`` elements from ``first`` on."""

    name: str
    first: Expr
    count: Expr

    @classmethod
    def of(cls, buffer: Any) -> _Memory:
        first, count = buffer.elem_offset, product(buffer.shape)
        return cls(str(buffer.name), *(index(_plain(e)) for e in (first, count)))


_Known: TypeAlias = "frozenset[tuple[_Memory, tvm_ffi.StructuralKey]]"
"""Buffers and indices that earlier statements have checked already."""


class _BoundsChecks:
    """Rewrites the statements of one function."""

    def __init__(self, kernel: str, memory: Mapping[Any, _Memory]) -> None:
        self._kernel = kernel
        self._memory = dict(memory)

    # ---- statements --------------------------------------------------------------------------

    def statement(self, s: Stmt, known: _Known) -> Stmt:
        """The statement, after its checks."""
        return _sequence(self._with_checks(s, known)[0])

    def _with_checks(self, s: Stmt, known: _Known) -> tuple[list[Stmt], _Known]:
        """The statement after its checks, as a list, and the checks that later ones may rely on."""
        match s:
            case tirx.SeqStmt():
                out: list[Stmt] = []
                for inner in s.seq:
                    statements, known = self._with_checks(inner, known)
                    out += statements
                return out, known
            case tirx.While():
                return self._while(s, known), known
            case tirx.For():
                checks, known = self._checks([s.min, s.extent], known)
                body = self.statement(s.body, known)
                # A parallel loop becomes serial, because TVM drops the error of a task of a
                # parallel one.
                kind = tirx.ForKind.SERIAL if s.kind == tirx.ForKind.PARALLEL else s.kind
                loop = tirx.For(
                    s.loop_var, s.min, s.extent, kind, body, s.thread_binding, s.annotations,
                    s.step, s.span,
                )  # fmt: skip
                return [*checks, loop], known
            case tirx.IfThenElse():
                checks, known = self._checks([s.condition], known)
                then = self.statement(s.then_case, known)
                other = None if s.else_case is None else self.statement(s.else_case, known)
                return [*checks, tirx.IfThenElse(s.condition, then, other)], known
            case tirx.AttrStmt():
                checks, known = self._checks([s.value], known)
                body = self.statement(s.body, known)
                return [*checks, tirx.AttrStmt(s.node, s.attr_key, s.value, body)], known
        checks, known = self._checks(self._operands(s), known)
        return [*checks, s], known

    def _while(self, s: Stmt, known: _Known) -> list[Stmt]:
        """The condition is evaluated before each iteration, so it is checked there too."""
        checks, _ = self._checks([s.condition], frozenset())
        body = _sequence([self.statement(s.body, known), *checks])
        return [*checks, tirx.While(s.condition, body)]

    def _operands(self, s: Stmt) -> list[Expr]:
        """What a statement without a body evaluates; a store counts as an access, too."""
        match s:
            case tirx.BufferStore():
                return [s.value, _Access(s.buffer, s.indices, "writes")]
            case tirx.AllocBuffer():
                self._memory[s.buffer] = _Memory.of(s.buffer)
                return list(s.buffer.shape)
            case tirx.DeclBuffer():
                self._memory[s.buffer] = self._declared(s)
                return []
            case tirx.Bind() | tirx.Evaluate() | tirx.Return():
                return [s.value]
            case tirx.AssertStmt():
                return [s.condition]
        raise TypeError(f"bounds checks do not know the statement {type(s).__name__}")

    # ---- expressions -------------------------------------------------------------------------

    def _checks(self, operands: list[Expr], known: _Known) -> tuple[list[Stmt], _Known]:
        """Assertions for expressions, in the order in which they are evaluated."""
        out: list[Stmt] = []
        for e in operands:
            if not isinstance(e, _Access) and not _loads(e):
                continue
            statements, known = self._expression(e, known)
            out += statements
        return out, known

    def _expression(self, e: Any, known: _Known) -> tuple[list[Stmt], _Known]:
        """Checks for the loads in an expression."""
        if isinstance(e, tvm.ir.TensorLoad):
            e = _Access(e.source, e.indices, "reads")
        if isinstance(e, _Access):
            return self._access(e, known)
        if _calls(e, _ADDRESS):
            (place,) = e.args
            return self._checks(list(getattr(place, "indices", ())), known)
        if _calls(e, _CONDITIONAL):
            return self._conditional(e, known)
        if isinstance(e, tirx.Let) and _loads(e.body):
            raise TypeError("bounds checks do not know loads by a variable of an expression")
        return self._checks(_children(e), known)

    def _conditional(self, e: Any, known: _Known) -> tuple[list[Stmt], _Known]:
        """Checks for ``if_then_else``; those of a branch only run if the branch is taken."""
        condition, yes, no = e.args
        checks, known = self._expression(condition, known)
        sides = [self._expression(side, known)[0] for side in (yes, no)]
        if any(sides):
            then, other = (_sequence(side) for side in sides)
            checks = [*checks, tirx.IfThenElse(condition, then, other if sides[1] else None)]
        return checks, known

    def _access(self, a: _Access, known: _Known) -> tuple[list[Stmt], _Known]:
        """Checks for one access, unless the same was checked before."""
        (at,) = a.indices
        checks, known = self._expression(at, known)
        memory = self._memory[a.buffer]
        key = (memory, tvm_ffi.StructuralKey(at))  # type: ignore[call-arg]
        if key in known:
            return checks, known
        for lane in _extremes(at):
            inside = _inside(lane, memory)
            if inside is not None:
                told = f"kernel {self._kernel!r} {a.verb} {OUTSIDE} {memory.name!r}"
                parts = [tvm.ir.StringImm(told)]
                # TVM's Python constructor swaps its first two arguments.
                checks.append(tirx.AssertStmt(inside, tvm.ir.StringImm(_KIND), parts))
        # An index that is read from memory may be another one next time, so it is not remembered.
        return checks, known if _loads(at) else known | {key}

    def _declared(self, s: Stmt) -> _Memory:
        """The memory behind a declared buffer: that of the buffer it is a view of, or of an
        address.
        """
        owner = s.data.args[0] if _calls(s.data, _OWNER) else s.buffer
        return self._memory.get(owner) or _Memory.of(s.buffer)


@dataclass(frozen=True)
class _Access:
    buffer: Any
    indices: Any
    verb: str


def _inside(at: Expr, memory: _Memory) -> Expr | None:
    """The condition that an index is within the memory; None where it always is."""
    place, count = as_int(at), as_int(memory.count)
    if place is not None and as_int(memory.first) == 0:
        if place < 0:
            return _NEVER
        if count is None:
            return tirx.LT(index(place), memory.count)
        return None if place < count else _NEVER
    # As an unsigned number, an index below the first one is far above the last.
    distance = cast(cast(at, "int64") - memory.first, "uint64")
    return tirx.LT(distance, cast(memory.count, "uint64"))


_NEVER = tirx.const(False, "bool")


def _plain(e: Expr) -> Any:
    """The int of a constant expression; others as they are."""
    known = as_int(e)
    return e if known is None else known


def _extremes(at: Expr) -> Iterator[Expr]:
    """The scalars between which all lanes of an index are."""
    lanes = int(tvm.DataType(dtype_of(at)).lanes)
    if lanes == 1:
        yield at
    elif isinstance(at, tirx.Broadcast):
        yield at.value
    elif isinstance(at, tirx.Ramp):
        last = at.base + at.stride * tirx.const(lanes - 1, dtype_of(at.stride))
        yield at.base
        yield last
    else:
        for lane in range(lanes):
            yield tirx.Shuffle([at], [tirx.const(lane, "int32")])


def _calls(e: Any, name: str) -> bool:
    return isinstance(e, tvm.ir.Call) and getattr(e.op, "name", None) == name


_FIELDS = (
    "a", "b", "value", "condition", "true_value", "false_value", "base", "stride", "args",
    "vectors",
)  # fmt: skip


def _children(e: Any) -> list[Expr]:
    """The operands of an expression that are evaluated with it."""
    out: list[Expr] = []
    for name in _FIELDS:
        child = getattr(e, name, None)
        if isinstance(child, tvm.ir.Expr):
            out.append(child)
        elif isinstance(child, tvm_ffi.Array):
            out += [c for c in child if isinstance(c, tvm.ir.Expr)]
    return out


def _loads(e: Expr) -> bool:
    def stop(_load: Any) -> Any:
        return tvm_ffi.VisitInterrupt(True)

    return tvm_ffi.structural_walk(e, [(tvm.ir.TensorLoad, stop)]) is not None


def _sequence(statements: list[Stmt]) -> Stmt:
    if not statements:
        return tirx.Evaluate(tirx.const(0, "int32"))
    return statements[0] if len(statements) == 1 else tirx.SeqStmt(statements)


__all__ = ["OUTSIDE", "check_bounds", "drop_argument_checks"]
