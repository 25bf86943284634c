"""What TVM's code generation for CUDA cannot express, in other words."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from tvm import tirx

from ..generic.constants import literal
from ..tir.numeric import dtype_of


@cache
def register_rules() -> None:
    """Make them known to TVM, once."""
    tirx.register_intrin_lowering("tirx.reinterpret", target="cuda", f=_constant, level=99)


def _constant(call: Any) -> Any:
    """The bits of a constant as one of another type: an infinity is written as an integer's.

    TVM takes the address of what it reinterprets, and a constant of C++ has none.
    """
    (value,) = call.args
    if not isinstance(value, tirx.IntImm | tirx.FloatImm):
        return call
    given, wanted = np.dtype(dtype_of(value)), np.dtype(dtype_of(call))
    number = value.value
    if given.kind in "iu":
        number = int(number) % 2 ** (8 * given.itemsize)
        given = np.dtype(f"uint{8 * given.itemsize}")
    found = np.array(number, given).view(wanted)[()]
    if wanted.kind == "f":
        return tirx.const(float(found), wanted.name)
    return literal(found, wanted.name)


__all__ = ["register_rules"]
