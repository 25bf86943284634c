"""What TVM's code generation for CUDA cannot express, in other words."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from tvm import tirx

from ..tir.numeric import dtype_of

_BITS = {"float16": np.uint16, "float32": np.uint32, "float64": np.uint64}


@cache
def register_rules() -> None:
    """Make them known to TVM, once."""
    tirx.register_intrin_lowering("tirx.reinterpret", target="cuda", f=_float_of_bits, level=99)


def _float_of_bits(call: Any) -> Any:
    """A float that is given by its bits, such as an infinity, as a constant.

    TVM takes the address of the bits, and a constant of C++ has none.
    """
    (bits,) = call.args
    dtype = dtype_of(call)
    kind = _BITS.get(dtype)
    if kind is None or not isinstance(bits, tirx.IntImm):
        return call
    value = np.array(int(bits.value) % 2 ** (8 * np.dtype(kind).itemsize), kind)
    return tirx.const(float(value.view(dtype)), dtype)


__all__ = ["register_rules"]
