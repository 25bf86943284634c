"""Look-ups in tables of 256 bytes by permutations of vector registers.

LLVM turns a load at a vector of indices into a load for each lane. But a table of 256 bytes fits in
four registers of AVX-512, of which ``vpermi2b`` (AVX512_VBMI) picks 64 bytes from any two; the
highest bit of an index chooses between both pairs.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from .extents import as_int, index
from .numeric import dtype_of

Expr = Any

PERMUTES = "permutes_bytes"
"""An attribute of functions for processors that have the instruction."""

_SIZE = 256
_LANES = 64
_PERMUTE = "llvm.x86.avx512.vpermi2var.qi.512"


def permute_tables(module: Any) -> Any:
    """The ``IRModule`` with permutations for look-ups, in functions that ask for them.

    Loops must be vectorised already, and buffers flat.
    """
    functions = {var: _permuted(f) for var, f in module.functions.items()}
    return tvm.IRModule(functions, attrs=module.attrs)


def _permuted(function: Any) -> Any:
    if not function.attrs or PERMUTES not in function.attrs:
        return function
    body = tvm_ffi.structural_map(function.body, [(tvm.ir.TensorLoad, _looked_up)])
    return function.with_body(body)


def _looked_up(load: Any) -> Any:
    """The load, or permutations in its place."""
    lanes = _lanes(load)
    if lanes is None:
        return load
    table, (places,) = load.source, load.indices
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


def _lanes(load: Any) -> int | None:
    """How many bytes are looked up in a table; None for another load."""
    if len(load.indices) != 1 or isinstance(load.indices[0], tirx.Ramp | tirx.Broadcast):
        return None
    buffer = load.source
    if str(buffer.dtype) not in ("int8", "uint8") or [as_int(e) for e in buffer.shape] != [_SIZE]:
        return None
    lanes = tvm.DataType(dtype_of(load)).lanes
    return lanes if 1 < lanes <= _LANES else None
