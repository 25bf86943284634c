"""A statement builder for TensorIR functions.

Kernels are written as plain Python that emits loops and stores in order::

    b = Builder(CpuLoops(threads=2))
    x = b.argument("x", (n, 64), "float32")
    y = b.argument("y", (n,), "float32")
    with b.loop(n, "parallel") as i:
        acc = b.scalar("float32", 0.0)
        with b.loop(64) as j:
            acc.set(acc.get() + x[i, j])
        y.store((i,), acc.get())
    function = b.finish("row_sum")

All index arithmetic is int64; TVM narrows it where that is safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from ...ir.dims import Dim, SymExpr
from .dim_expr import dim_expr
from .extents import as_int, flatten_index, index, product
from .numeric import cast, compute_dtype, decode, dtype_of, encode, storage_dtype
from .small_floats import CODECS
from .vectorize import vectorizes

Expr = Any
Index = Sequence[Any]

_KINDS = {
    "serial": tirx.ForKind.SERIAL,
    "parallel": tirx.ForKind.PARALLEL,
    "vectorized": tirx.ForKind.VECTORIZED,
    "unrolled": tirx.ForKind.UNROLLED,
}


@dataclass(eq=False)
class TensorExpr:
    """A tensor as a function from indices to a scalar expression.

    ``dtype`` is the IR element type; loads give values in its compute type. ``shape`` holds ints
    and int64 expressions. ``cost`` estimates the scalar operations of a load (0: it only reads
    memory). Indices must be in bounds even where a condition guards the load, because it may be
    hoisted out of that.
    """

    dtype: str
    shape: tuple[Any, ...]
    load: Callable[[tuple[Expr, ...]], Expr]
    cost: int = 0

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def compute_dtype(self) -> str:
        """The TVM dtype that elements are computed in: float32 for float16, say."""
        return compute_dtype(self.dtype)

    def __getitem__(self, indices: Any) -> Expr:
        """The element at ``indices`` (ints or expressions), in the compute dtype."""
        items = indices if isinstance(indices, tuple) else (indices,)
        if len(items) != len(self.shape):
            raise ValueError(f"{len(items)} indices into a tensor of rank {len(self.shape)}")
        return self.load(tuple(index(i) for i in items))

    def at(self, *indices: Any) -> Expr:
        """``self[indices]``, which can unpack sequences: ``x.at(*lead, k)``."""
        return self[indices]


@dataclass(eq=False)
class BufferTensor(TensorExpr):
    """A tensor in memory that can be stored to: row-major, from element ``first`` of ``buffer`` on.

    Buffers have one axis: TVM would make flat indices of others, by a search for the simplest form
    that takes longer than all its other passes.
    """

    buffer: Any = None
    builder: Any = None
    first: Any = 0

    def store(self, indices: Index, value: Expr) -> None:
        """Emit a store of a compute-type value (rounded to the element type)."""
        value = cast(value, self.compute_dtype)
        if self.dtype in CODECS:  # a codec reads its operand several times
            value = self.builder.let(value)
        self.store_raw([index(i) for i in indices], encode(value, self.dtype))

    def store_raw(self, indices: Index, value: Expr) -> None:
        """Emit a store of a value that is in the storage dtype already (may be a vector)."""
        self.builder.emit(tirx.BufferStore(self.buffer, value, [self.place(indices)]))

    def store_run(self, indices: Index, value: Expr) -> None:
        """Emit a store of a vector to the elements that follow each other from ``indices`` on."""
        lanes = tvm.DataType(dtype_of(value)).lanes
        ramp = tirx.Ramp(self.place(indices), index(1), lanes)
        self.builder.emit(tirx.BufferStore(self.buffer, value, [ramp]))

    def load_raw(self, indices: Index) -> Expr:
        """The stored bits at ``indices`` (a Ramp as last index gives a vector)."""
        return tirx.BufferLoad(self.buffer, [self.place(indices)])

    def load_values(self, indices: Index) -> Expr:
        """The compute-type values at ``indices`` (a Ramp as last index gives a vector)."""
        return decode(self.load_raw(indices), self.dtype)

    def place(self, indices: Index) -> Expr:
        """The index into ``buffer`` of the element at ``indices``; a Ramp if the last one is."""
        own = list(indices)[: self.rank]
        if own and isinstance(own[-1], tirx.Ramp):
            ramp = own.pop()
            return tirx.Ramp(self._flat([*own, ramp.base]), ramp.stride, ramp.lanes)
        return self._flat(own)

    def _flat(self, indices: Index) -> Expr:
        flat = flatten_index(indices, self.shape)
        return flat if as_int(self.first) == 0 else self.first + flat

    def part(self, first: Any, shape: Sequence[Any]) -> BufferTensor:
        """The elements of this memory from flat index ``first`` on, as a tensor of ``shape``."""
        return in_memory(self.dtype, shape, self.buffer, self.builder, first)


def in_memory(
    dtype: str, shape: Sequence[Any], buffer: Any, builder: Builder, first: Any = 0
) -> BufferTensor:
    """The tensor of IR element type ``dtype`` that begins at flat index ``first`` of a buffer."""

    def load(at: tuple[Expr, ...]) -> Expr:
        return decode(out.load_raw(at), dtype)

    out = BufferTensor(dtype, tuple(shape), load, 0, buffer, builder, first)
    return out


@dataclass
class Scalar:
    """A mutable local variable."""

    builder: Builder
    buffer: Any
    dtype: str

    def get(self) -> Expr:
        return tirx.BufferLoad(self.buffer, [index(0)])

    def set(self, value: Expr) -> None:
        self.builder.emit(tirx.BufferStore(self.buffer, cast(value, self.dtype), [index(0)]))


@dataclass
class _Scope:
    statements: list[Any] = field(default_factory=list)
    bound: dict[Any, list[tuple[tuple[Expr, ...], Expr]]] = field(default_factory=dict)


class Builder:
    """Collects the statements of one kernel; see the example at the top of the module.

    ``loops`` decides how :meth:`nest` maps an iteration space to the hardware.
    """

    def __init__(self, loops: LoopStrategy) -> None:
        self.loops = loops
        self._scopes: list[_Scope] = [_Scope()]
        self._params: list[Any] = []
        self._symbols: dict[str, Any] = {}
        self._count = 0
        self._nests = 0
        self._registers: set[str] = set()
        # Names of bound indices that choose between values (see is_counted).
        self._chosen: set[str] = set()
        # Extent, variable and enclosing scope of the current vector loop, if any.
        self._lane: tuple[Any, Expr, int] | None = None

    # ---- parameters --------------------------------------------------------------------------

    def dim(self, d: Dim) -> Any:
        """A dim as an int or an int64 expression over this kernel's symbol parameters."""
        if isinstance(d, SymExpr):
            return dim_expr(d, self.symbol)
        return int(d)

    def symbol(self, name: str) -> Expr:
        """The int64 scalar parameter for a symbol (created on first use)."""
        if name not in self._symbols:
            self._symbols[name] = tirx.Var(name, "int64")
        return self._symbols[name]

    @property
    def symbols(self) -> list[str]:
        """Names of the symbol parameters, in the order :meth:`finish` appends them."""
        return list(self._symbols)

    def argument(self, name: str, shape: Sequence[Any], dtype: str) -> BufferTensor:
        """A tensor parameter of IR element type ``dtype``."""
        stored, where = storage_dtype(dtype), tirx.Var(f"{name}_offset", "int64")
        buffer = tirx.decl_buffer(
            [index(product(shape))], stored, name, elem_offset=where, offset_factor=1,
            data_alignment=max(1, tvm.DataType(stored).bits // 8), layout=None,
        )  # fmt: skip
        self._params.append(buffer)
        return in_memory(dtype, shape, buffer, self, where)

    def ahead(self, tensor: BufferTensor) -> BufferTensor:
        """A tensor of one element, which is read here where loops have code in front of them.

        Their tasks then share a register. Integers that may be indices are read where they are
        used, as what is bound to a variable counts as computed from sizes.
        """
        wide = dtype_of(tensor.at(*(0,) * tensor.rank)) in ("int64", "uint64", "bool")
        if not self.loops.has_prologue or wide:
            return tensor
        value = tensor.at(*(0,) * tensor.rank)
        var = tirx.Var(self._name("scalar"), dtype_of(value))
        self.emit(tirx.Bind(var, value))
        return replace(tensor, load=lambda _at: var)

    def finish(self, name: str) -> tirx.PrimFunc:
        """The function: tensor parameters in order of declaration, then symbols."""
        params = [*self._params, *self._symbols.values()]
        attrs = {"global_symbol": name, "tirx.noalias": True}
        return tirx.PrimFunc(params, self._close()).with_attr(attrs)

    # ---- memory ------------------------------------------------------------------------------

    def workspace(self, shape: Sequence[Any], dtype: str, name: str = "tmp") -> BufferTensor:
        """Temporary memory of this scope (heap, from the runtime's pool).

        Within a nest whose tasks cannot allocate, it is an array of the task's own.
        """
        own = self.in_nest and not self.loops.task_memory
        return self._allocate(shape, dtype, name, self.loops.local_scope if own else "global")

    def local(self, shape: Sequence[int], dtype: str, name: str = "acc") -> BufferTensor:
        """A small constant-size array on the stack or in registers."""
        return self._allocate(shape, dtype, name, self.loops.local_scope)

    def scalar(self, dtype: str, value: Any = None) -> Scalar:
        """A mutable scalar of TVM dtype ``dtype``."""
        buffer = self._array(1, dtype, "s", self.loops.local_scope)
        self.emit(tirx.AllocBuffer(buffer))
        out = Scalar(self, buffer, dtype)
        if value is not None:
            out.set(tirx.const(value, dtype) if isinstance(value, int | float) else value)
        return out

    def view(self, tensor: BufferTensor, shape: Sequence[Any]) -> BufferTensor:
        """The same memory under another shape with as many elements."""
        return tensor.part(tensor.first, shape)

    def memory_at(self, address: Expr, shape: Sequence[Any], dtype: str) -> BufferTensor:
        """The tensor that lies at an address, given as an int64."""
        stored = storage_dtype(dtype)
        kind = tvm.ir.PointerType(tvm.ir.PrimType(stored))
        data = tirx.Var(self._name("at"), kind)
        self.emit(tirx.Bind(data, tirx.reinterpret(kind, address)))
        buffer = self._array(product(shape), stored, "there", data=data)
        self.emit(tirx.DeclBuffer(buffer, data=data))
        return in_memory(dtype, shape, buffer, self)

    def _allocate(self, shape: Sequence[Any], dtype: str, name: str, scope: str) -> BufferTensor:
        buffer = self._array(product(shape), storage_dtype(dtype), name, scope)
        self.emit(tirx.AllocBuffer(buffer))
        return in_memory(dtype, shape, buffer, self)

    def _array(
        self, extent: Any, stored: str, hint: str, scope: str = "global", data: Any = None
    ) -> Any:
        """A new buffer of TVM dtype ``stored`` with one axis.

        Its layout is left out, as nothing reads it and TVM's Python code takes long to make it.
        """
        name = self._name(hint)
        return tirx.decl_buffer([index(extent)], stored, name, data, scope=scope, layout=None)

    def _name(self, hint: str) -> str:
        self._count += 1
        return f"{hint}{self._count}"

    # ---- statements --------------------------------------------------------------------------

    def emit(self, statement: Any) -> None:
        """Add a TensorIR statement to the current scope."""
        self._scopes[-1].statements.append(statement)

    def evaluate(self, call: Expr) -> None:
        """Emit a call for its effect."""
        self.emit(tirx.Evaluate(call))

    def let(self, value: Expr, hint: str = "v") -> Expr:
        """Compute a value once in the current scope; returns what stands for it.

        Index arithmetic becomes a variable, which TVM can reason about. Other scalars go through
        a register: TVM's analyzer expands variables, which takes exponential time on chains.
        """
        if isinstance(value, tirx.Var | tirx.IntImm | tirx.FloatImm):
            return value
        dtype = dtype_of(value)
        if dtype == "bool" and self._lane is not None:  # TVM has no vectors of bool in memory
            return value
        if dtype not in ("int64", "bool") and "x" not in dtype:
            return self._register(value, dtype, hint)
        var = tirx.Var(self._name(hint), dtype)
        if not self.is_counted(value):
            self._chosen.add(var.name)
        self.emit(tirx.Bind(var, value))
        return var

    def is_counted(self, value: Expr) -> bool:
        """Is an index computed from loop variables and sizes, by sums, products and quotients?

        Other indices are the results of a choice (``Select``, ``min``, ``max``), or were read from
        memory.
        """

        def stop(_: Any) -> Any:
            return tvm_ffi.VisitInterrupt(True)

        def look(var: Any) -> Any:
            return stop(var) if var.name in self._chosen else None

        choices = (tirx.Select, tirx.Min, tirx.Max, tvm.ir.TensorLoad)
        walks = [*((kind, stop) for kind in choices), (tirx.Var, look)]
        return tvm_ffi.structural_walk(value, walks) is None

    def nearest(self, value: Expr) -> Expr:
        """A float, which fits, as the nearest int32, halves to even."""
        return self.loops.nearest(value)

    def element(self, value: Expr, hint: str = "v") -> Expr:
        """:meth:`let` for an element of a tensor: int64 is stored in memory, as it is no index."""
        if dtype_of(value) == "int64" and not isinstance(value, tirx.Var | tirx.IntImm):
            return self._register(value, "int64", hint)
        return self.let(value, hint)

    def _register(self, value: Expr, dtype: str, hint: str) -> Expr:
        """``value``, stored once in a local variable, of which LLVM makes a register."""
        if isinstance(value, tvm.ir.TensorLoad) and str(value.source.name) in self._registers:
            return value
        extent, where, home = self._lane or (1, index(0), -1)
        scope = self.loops.local_scope
        buffer = self._array(extent, dtype, hint, scope)
        self._scopes[home].statements.append(tirx.AllocBuffer(buffer))
        self.emit(tirx.BufferStore(buffer, value, [where]))
        self._registers.add(buffer.name)
        return tirx.BufferLoad(buffer, [where])

    def opaque(self, value: Expr) -> Expr:
        """An index that the simplifier does not look into, as it is stored in a local variable.

        TVM's simplifier substitutes bound variables. With unknown extents it then spends
        exponential time on recombining quotients and remainders. LLVM makes a register of the
        variable.
        """
        if as_int(value) is not None:
            return value
        held = self.scalar("int64")
        held.set(value)
        return held.get()

    @contextmanager
    def loop(self, extent: Any, kind: str = "serial", name: str = "i") -> Iterator[Expr]:
        """``for i in range(extent)``; ``kind`` is serial, parallel, vectorized or unrolled."""
        if as_int(extent) == 1 and kind != "parallel":
            self._scopes.append(_Scope())
            yield index(0)
            self._splice()
            return
        var = tirx.Var(self._name(name), "int64")
        lane = (extent, var, len(self._scopes) - 1) if kind == "vectorized" else self._lane
        outer, self._lane = self._lane, lane
        self._scopes.append(_Scope())
        yield var
        body = self._close()
        self._lane = outer
        self.emit(tirx.For(var, index(0), index(extent), _KINDS[kind], body))

    @contextmanager
    def grid(self, *extents: Any, kind: str = "serial") -> Iterator[tuple[Expr, ...]]:
        """Nested loops; yields the tuple of loop variables."""
        managers = [self.loop(e, kind) for e in extents]
        variables = tuple(m.__enter__() for m in managers)
        yield variables
        for m in reversed(managers):
            m.__exit__(None, None, None)

    @contextmanager
    def lanes(self, extent: Any) -> Iterator[Expr]:
        """A loop over independent elements that belong in one vector register.

        It is serial where the strategy has no vectors or TVM cannot vectorise the body.
        """
        with self.loop(extent, self.loops.lane_kind, "l") as lane:
            yield lane
        *_, loop = self._scopes[-1].statements or [None]
        vector = isinstance(loop, tirx.For) and loop.kind == tirx.ForKind.VECTORIZED
        if vector and not vectorizes(loop):
            self._scopes[-1].statements[-1] = tirx.For(
                loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body
            )

    @contextmanager
    def when(self, condition: Expr | None) -> Iterator[None]:
        """``if condition:``; None is always true."""
        if condition is None:
            yield
            return
        self._scopes.append(_Scope())
        yield
        self.emit(tirx.IfThenElse(condition, self._close(), None))

    @contextmanager
    def otherwise(self) -> Iterator[None]:
        """``else:`` of the :meth:`when` that was emitted last."""
        chosen = self._scopes[-1].statements.pop()
        assert isinstance(chosen, tirx.IfThenElse)
        self._scopes.append(_Scope())
        yield
        self.emit(tirx.IfThenElse(chosen.condition, chosen.then_case, self._close()))

    def leave(self) -> None:
        """``return``: nothing after this runs."""
        self.emit(tirx.Return(tirx.const(0, "int32")))

    @contextmanager
    def while_(self, condition: Expr) -> Iterator[None]:
        """``while condition:`` (the condition reads mutable scalars or buffers)."""
        self._scopes.append(_Scope())
        yield
        self.emit(tirx.While(condition, self._close()))

    def _close(self) -> Any:
        statements = self._scopes.pop().statements if len(self._scopes) > 1 else self._root()
        if not statements:
            return tirx.Evaluate(tirx.const(0, "int32"))
        return statements[0] if len(statements) == 1 else tirx.SeqStmt(statements)

    def _root(self) -> list[Any]:
        return self._scopes[0].statements

    def _splice(self) -> None:
        inner = self._scopes.pop()
        self._scopes[-1].statements.extend(inner.statements)

    # ---- tensors -----------------------------------------------------------------------------

    def nest(self, shape: Sequence[Any], body: Callable[[tuple[Expr, ...]], None], cost: int = 1,
             sequential_last: bool = False) -> None:  # fmt: skip
        """Run ``body(indices)`` for every index of ``shape``, in any order, in parallel.

        ``cost`` estimates the scalar operations of one body: where all of them are little work,
        they run on one thread. ``sequential_last``: the body has loops of its own, so the last dim
        need not stay whole as a loop to vectorise; it may become tasks.
        """

        def inner(at: tuple[Expr, ...]) -> None:
            self._nests += 1
            body(at)
            self._nests -= 1

        self.loops.nest(self, tuple(shape), inner, cost, sequential_last)

    @property
    def in_nest(self) -> bool:
        """Is code being emitted for the body of a nest?"""
        return self._nests > 0

    @contextmanager
    def thread(self, axis: str, extent: Expr) -> Iterator[Expr]:
        """A loop bound to a hardware axis such as ``blockIdx.x``."""
        var = tirx.Var(self._name("t"), "int32")
        self._scopes.append(_Scope())
        yield cast(var, "int64")
        body = self._close()
        extent = cast(extent, "int32")
        domain = tvm.ir.Range.from_min_extent(tirx.const(0, "int32"), extent)
        bound = tirx.IterVar(domain, var, tirx.IterVar.ThreadIndex, axis)
        zero = tirx.const(0, "int32")
        self.emit(tirx.For(var, zero, extent, tirx.ForKind.THREAD_BINDING, body, bound))

    def fill(self, out: BufferTensor, value: TensorExpr) -> None:
        """Store every element of ``value`` into ``out`` (same shape)."""
        self.nest(out.shape, lambda at: out.store(at, value[at]), cost=1 + value.cost)

    def materialize(self, value: TensorExpr) -> BufferTensor:
        """``value`` in memory: itself if it is there, else computed into workspace."""
        if isinstance(value, BufferTensor):
            return value
        out = self.workspace(value.shape, value.dtype)
        self.fill(out, value)
        return out

    def shared(self, value: TensorExpr) -> TensorExpr:
        """A view of ``value`` that computes an element once in a scope, even if read repeatedly."""
        if isinstance(value, BufferTensor):
            return value
        key = object()

        def load(at: tuple[Expr, ...]) -> Expr:
            for scope in reversed(self._scopes):
                for indices, found in scope.bound.get(key, ()):
                    pairs = zip(at, indices, strict=True)
                    if all(tvm_ffi.structural_equal(a, c) for a, c in pairs):
                        return found
            result = self.let(value.load(at))
            self._scopes[-1].bound.setdefault(key, []).append((at, result))
            return result

        return TensorExpr(value.dtype, value.shape, load, 0)


class LoopStrategy:
    """Maps iteration spaces to hardware loops; targets subclass it.

    ``lane_kind`` is the kind of loop that :meth:`Builder.lanes` opens, ``vector_bytes`` the width
    of a vector register (0 where there is none). ``task_memory`` says whether the body of a nest
    may allocate workspace of any size. ``threads`` is the number of threads to keep busy, and
    ``tasks`` the number of tasks that do so even if some take longer than others.
    """

    lane_kind = "serial"
    task_memory = False
    vector_bytes = 0
    threads = 1
    tasks = 1

    has_prologue = False
    """Does code in front of the loops run where they do?"""

    local_scope = "local"
    """The memory scope of small arrays private to a thread."""

    def nest(
        self, b: Builder, shape: tuple[Any, ...], body: Callable[[tuple[Expr, ...]], None],
        cost: int, sequential_last: bool,
    ) -> None:  # fmt: skip
        """Emit loops over ``shape`` around ``body``; the arguments are those of
        :meth:`Builder.nest`. Every subclass defines it.
        """
        raise TypeError("a LoopStrategy must define nest")

    @property
    def busy(self) -> int:
        """The number of tasks of equal length that keep the threads busy."""
        return 4 * self.threads

    def nearest(self, value: Expr) -> Expr:
        """A float, which fits, as the nearest int32, halves to even."""
        return tirx.Cast("int32", tirx.nearbyint(value))

    def fills_vectors(self, extent: Any) -> bool:
        """Is a row of ``extent`` float32 elements one or two whole vector registers?"""
        known = as_int(extent)
        return self.vector_bytes > 0 and known in (self.vector_bytes // 4, self.vector_bytes // 2)
