"""Floats below 32 bits that are float32 between operations, as fused kernels keep them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphkiln.ir.bindings import Bindings
from graphkiln.ir.control import CONTROL
from graphkiln.ir.graph import Graph, Node
from graphkiln.ir.interpreter import Interpreter
from graphkiln.ir.types import TensorType, to_numpy_dtype

_STORED = frozenset({*CONTROL, "BitCast", "CastLike", "QuantizeLinear", "DequantizeLinear"})
"""Ops whose floats have the types that they are declared with."""


@dataclass(frozen=True)
class _Kept:
    """A float32 array of what is declared as a narrower type."""

    array: np.ndarray
    dtype: np.dtype[Any]


def stored(value: Any) -> Any:
    """A value in its declared type."""
    return value.array.astype(value.dtype) if isinstance(value, _Kept) else value


def keep_excess(interpreter: Interpreter) -> None:
    """Narrow results of an op are not rounded before another op takes them.

    What :meth:`Interpreter.run` returns may then have to be :func:`stored`.
    """
    engine = interpreter._engine
    strictly, body = engine.run_node, engine._run_body

    def run_node(
        node: Node, inputs: list[Any], bindings: Bindings, *, symbolic: bool | None = None
    ) -> list[Any]:
        narrow = any(isinstance(x, _Kept) or _is_narrow(x) for x in inputs)
        if narrow and node.key not in _STORED:
            try:
                wide = [_widened(x) for x in inputs]
                results = strictly(node, wide, bindings, symbolic=symbolic)
                return [_kept(r, out.type) for r, out in zip(results, node.outputs, strict=True)]
            except Exception:  # an op that wants its types
                pass
        return strictly(node, [stored(x) for x in inputs], bindings, symbolic=symbolic)

    def run_body(graph: Graph, inputs: list[Any], bindings: Bindings) -> list[Any]:
        return [stored(x) for x in body(graph, inputs, bindings)]

    engine.run_node = run_node  # type: ignore[method-assign]
    engine._run_body = run_body  # type: ignore[method-assign]


def _is_narrow(value: Any) -> bool:
    if not isinstance(value, np.ndarray):
        return False
    return value.dtype.itemsize == 2 and value.dtype.name in ("float16", "bfloat16")


def _widened(value: Any) -> Any:
    if isinstance(value, _Kept):
        return value.array
    return value.astype(np.float32) if _is_narrow(value) else value


def _kept(result: Any, declared: Any) -> Any:
    if not isinstance(declared, TensorType) or not isinstance(result, np.ndarray):
        return result
    dtype = to_numpy_dtype(declared.dtype)
    if result.dtype == dtype:
        return result
    if result.dtype != np.float32 or not _is_narrow(np.empty(0, dtype)):
        raise TypeError(f"{result.dtype} for {declared}")
    return _Kept(result, dtype)


__all__ = ["keep_excess", "stored"]
