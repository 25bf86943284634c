"""Bytes that are floats rounded to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from .builder import TensorExpr
from .numeric import integer_range

Expr = Any


@dataclass(eq=False, kw_only=True)
class Rounded(TensorExpr):
    """``saturate(round(steps) + zero)``: a kernel may round and saturate many elements at once.

    ``steps`` is a function of the indices; ``zero``, an int32, is the same for all elements.
    """

    steps: Callable[[tuple[Expr, ...]], Expr]
    zero: Callable[[], Expr]

    def centered(self, at: tuple[Expr, ...]) -> Expr:
        """The element less the zero point, as a whole float32: in registers that takes neither
        narrowing nor widening.
        """
        shift = self.zero()
        low, high = (
            tirx.Cast("float32", tirx.const(v, "int32") - shift) for v in integer_range(self.dtype)
        )
        return tirx.nearbyint(tirx.min(tirx.max(self.steps(at), low), high))
