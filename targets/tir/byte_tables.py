"""Look-ups of vectors in tables of 256 bytes.

A table of 256 bytes fits in four registers of AVX-512, of which ``vpermi2b`` (AVX512_VBMI) picks 64
bytes from any two; the highest bit of an index chooses between both pairs.

``vpshufb`` of AVX2 picks from 16 bytes, and gives 0 where an index has its highest bit set. So 32
bytes are looked up in each sixteenth of the table, with indices that have that bit unless they
belong there, and the results are combined. For few bytes that takes longer than to load each.

Elsewhere each byte is a load of its own. LLVM would compute the addresses in vectors of 64 bits and
move each to a general register; here eight indices are moved at once, and taken apart by shifts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from .builder import BufferTensor, TensorExpr
from .extents import as_int, index
from .numeric import dtype_of

Expr = Any

BYTE_TABLES = "byte_tables"
"""An attribute of functions whose look-ups are replaced, with one of the ways below."""
PERMUTED = "permuted"
SHUFFLED = "shuffled"
SINGLE = "single"

_SIZE = 256
_LANES = 64
_WORD = 8
_PERMUTE = "llvm.x86.avx512.vpermi2var.qi.512"
_SHUFFLE = "llvm.x86.avx2.pshuf.b"
_SHUFFLED_LANES = 32
_FEWEST_SHUFFLED = 24
"""Bytes for which shuffles pay."""
_PART = 16


@dataclass(eq=False)
class LookUp(TensorExpr):
    """``table[x]``, where the bits of ``x`` are the index into 256 bytes."""

    x: TensorExpr | None = None
    table: BufferTensor | None = None

    def at_bytes(self, places: Expr) -> Expr:
        """The results for a vector of uint8."""
        assert self.table is not None
        lanes = tvm.DataType(dtype_of(places)).lanes
        first = tirx.Broadcast(index(self.table.first), lanes)
        return tirx.BufferLoad(self.table.buffer, [first + tirx.Cast(f"int64x{lanes}", places)])


def replace_look_ups(module: Any) -> Any:
    """The ``IRModule`` with better code for look-ups, in functions that ask for it.

    Loops must be vectorised already, and buffers flat.
    """
    functions = {var: _replaced(f) for var, f in module.functions.items()}
    return tvm.IRModule(functions, attrs=module.attrs)


def _replaced(function: Any) -> Any:
    way = function.attrs.get(BYTE_TABLES) if function.attrs else None
    if way is None:
        return function
    look_up = {PERMUTED: _by_permutation, SHUFFLED: _by_shuffles, SINGLE: _by_bytes}[str(way)]

    def replace(load: Any) -> Any:
        lanes = _looked_up(load)
        return load if lanes is None else look_up(_Table.of(load), lanes)

    body = tvm_ffi.structural_map(function.body, [(tvm.ir.TensorLoad, replace)])
    return function.with_body(body)


@dataclass(frozen=True)
class _Table:
    """256 bytes of ``buffer`` from ``first`` on, and the vector of places to look up there."""

    buffer: Any
    first: Expr
    places: Expr

    @classmethod
    def of(cls, load: Any) -> _Table:
        (at,) = load.indices
        if isinstance(at, tirx.Add):
            for one, other in ((at.a, at.b), (at.b, at.a)):
                if isinstance(one, tirx.Broadcast):
                    return cls(load.source, one.value, other)
        return cls(load.source, tirx.IntImm(dtype_of(at).partition("x")[0], 0), at)

    def load(self, place: Expr) -> Expr:
        """The byte at a place."""
        return tirx.BufferLoad(self.buffer, [self.first + place])

    def part(self, start: int, lanes: int) -> Expr:
        """Some bytes as they are."""
        first = self.first + tirx.IntImm(dtype_of(self.first), start)
        one = tirx.IntImm(dtype_of(self.first), 1)
        return tirx.BufferLoad(self.buffer, [tirx.Ramp(first, one, lanes)])

    def bytes_of(self, lanes: int, wanted: int) -> Expr:
        """The places as ``wanted`` bytes; what is beyond the ``lanes`` is of no use, and holds
        copies.
        """
        copies = [tirx.Cast(f"uint8x{lanes}", self.places)] * max(2, -(-wanted // lanes))
        return tirx.Shuffle(copies, [index(i) for i in range(wanted)])


def _by_bytes(table: _Table, lanes: int) -> Expr:
    """A load for each byte; the indices come eight at a time, in a general register."""
    # What fills the last eight is of no use, and holds copies.
    copies = [tirx.Cast(f"uint8x{lanes}", table.places)] * max(2, -(-_WORD // lanes))
    found = []
    for first in range(0, lanes, _WORD):
        kept = [index(first + i) for i in range(_WORD)]
        word = tirx.reinterpret("uint64", tirx.Shuffle(copies, kept))
        for i in range(min(_WORD, lanes - first)):
            place = tirx.bitwise_and(
                tirx.shift_right(word, tirx.const(8 * i, "uint64")), tirx.const(255, "uint64")
            )
            found.append(table.load(tirx.Cast(dtype_of(table.first), place)))
    return tirx.Shuffle(found, [index(i) for i in range(lanes)])


def _by_shuffles(table: _Table, lanes: int) -> Expr:
    whole = lanes % _SHUFFLED_LANES == 0
    if not whole and not _FEWEST_SHUFFLED <= lanes < _SHUFFLED_LANES:
        return _by_bytes(table, lanes)
    size = max(lanes, _SHUFFLED_LANES)
    at = table.bytes_of(lanes, size)
    registers = [
        _shuffled(table, tirx.Shuffle([at], [index(first + i) for i in range(_SHUFFLED_LANES)]))
        for first in range(0, size, _SHUFFLED_LANES)
    ]
    return tirx.Shuffle(registers, [index(i) for i in range(lanes)])


def _shuffled(table: _Table, at: Expr) -> Expr:
    """The look-ups of one register of bytes."""
    kind, found = f"uint8x{_SHUFFLED_LANES}", None
    for start in range(0, _SIZE, _PART):
        # The high four bits are 0 in this part only, where 0x70 leaves the highest one 0.
        inside = tirx.bitwise_xor(at, tirx.Broadcast(tirx.const(start, "uint8"), _SHUFFLED_LANES))
        beyond = tirx.Broadcast(tirx.const(0x70, "uint8"), _SHUFFLED_LANES)
        place = tirx.call_llvm_pure_intrin(kind, "llvm.uadd.sat", inside, beyond)
        sixteen = tirx.Shuffle([table.part(start, _PART)] * 2, [index(i) for i in range(2 * _PART)])
        given = [tirx.reinterpret(kind, sixteen), place]
        picked = tirx.call_llvm_pure_intrin(kind, _SHUFFLE, *given)
        found = picked if found is None else tirx.bitwise_or(found, picked)
    return tirx.reinterpret(f"{table.buffer.dtype}x{_SHUFFLED_LANES}", found)


def _by_permutation(table: _Table, lanes: int) -> Expr:
    wide = f"{table.buffer.dtype}x{_LANES}"
    at = table.bytes_of(lanes, _LANES)
    parts = [table.part(i, _LANES) for i in range(0, _SIZE, _LANES)]
    low, high = (
        tirx.call_llvm_pure_intrin(wide, _PERMUTE, first, tirx.reinterpret(wide, at), second)
        for first, second in (parts[:2], parts[2:])
    )
    is_low = at < tirx.Broadcast(tirx.const(_SIZE // 2, "uint8"), _LANES)
    return tirx.Shuffle([tirx.Select(is_low, low, high)], [index(i) for i in range(lanes)])


def _looked_up(load: Any) -> int | None:
    """How many bytes are looked up in a table; None for another load."""
    if len(load.indices) != 1 or isinstance(load.indices[0], tirx.Ramp | tirx.Broadcast):
        return None
    buffer = load.source
    if str(buffer.dtype) not in ("int8", "uint8") or [as_int(e) for e in buffer.shape] != [_SIZE]:
        return None
    lanes = tvm.DataType(dtype_of(load)).lanes
    return lanes if 1 < lanes <= _LANES else None
