"""Look-ups of vectors in tables of 256 bytes.

A table of 256 bytes fits in four registers of AVX-512, of which ``vpermi2b`` (AVX512_VBMI) picks 64
bytes from any two; the highest bit of an index chooses between both pairs.

Elsewhere each byte is a load of its own. LLVM would compute the addresses in vectors of 64 bits and
move each to a general register; here eight indices are moved at once, and taken apart by shifts.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from .extents import as_int, index
from .numeric import dtype_of

Expr = Any

BYTE_TABLES = "byte_tables"
"""An attribute of functions whose look-ups are replaced, with one of the ways below."""
PERMUTED = "permuted"
SINGLE = "single"

_SIZE = 256
_LANES = 64
_WORD = 8
_PERMUTE = "llvm.x86.avx512.vpermi2var.qi.512"


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
    look_up = {PERMUTED: _by_permutation, SINGLE: _by_bytes}[str(way)]

    def replace(load: Any) -> Any:
        lanes = _looked_up(load)
        return load if lanes is None else look_up(load.source, load.indices[0], lanes)

    body = tvm_ffi.structural_map(function.body, [(tvm.ir.TensorLoad, replace)])
    return function.with_body(body)


def _by_bytes(table: Any, places: Expr, lanes: int) -> Expr:
    """A load for each byte; the indices come eight at a time, in a general register."""
    # What fills the last eight is of no use, and holds copies.
    copies = [tirx.Cast(f"uint8x{lanes}", places)] * max(2, -(-_WORD // lanes))
    found = []
    for first in range(0, lanes, _WORD):
        kept = [index(first + i) for i in range(_WORD)]
        word = tirx.reinterpret("uint64", tirx.Shuffle(copies, kept))
        for i in range(min(_WORD, lanes - first)):
            place = tirx.bitwise_and(
                tirx.shift_right(word, tirx.const(8 * i, "uint64")), tirx.const(255, "uint64")
            )
            found.append(tirx.BufferLoad(table, [tirx.Cast("int32", place)]))
    return tirx.Shuffle(found, [index(i) for i in range(lanes)])


def _by_permutation(table: Any, places: Expr, lanes: int) -> Expr:
    kind = str(table.dtype)
    wide = f"{kind}x{_LANES}"
    # Lanes beyond the last one are of no use, and hold copies.
    copies = [tirx.Cast(f"uint8x{lanes}", places)] * -(-_LANES // lanes)
    at = tirx.Shuffle(copies, [index(i) for i in range(_LANES)])
    parts = [tirx.BufferLoad(table, [tirx.Ramp(index(i), index(1), _LANES)])
             for i in range(0, _SIZE, _LANES)]  # fmt: skip
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
