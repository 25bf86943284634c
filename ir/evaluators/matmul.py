"""Matrix products: exact for integers, accumulated in float32 for narrower floats."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import Node
from ..registry import attribute
from .arithmetic import centred, compute_dtype, requantize


def matmul(node: Node, inputs: list[Any]) -> list[Any]:
    """``MatMul``: numpy.matmul's shapes."""
    a, b = inputs
    work = compute_dtype(a.dtype)
    out = product(a.astype(work, copy=False), b.astype(work, copy=False))
    return [out.astype(a.dtype, copy=False)]


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``numpy.matmul``; a batch times one matrix is one product instead of one an entry."""
    if a.ndim > 2 and b.ndim == 2 and a.size and a.shape[-1] == b.shape[0]:
        rows: np.ndarray = a.reshape(-1, a.shape[-1]) @ b
        return rows.reshape(*a.shape[:-1], b.shape[1])
    return np.asarray(np.matmul(a, b))


def gemm(node: Node, inputs: list[Any]) -> list[Any]:
    """``Gemm``: ``alpha * A' @ B' + beta * C``."""
    a, b, c = [*inputs, None][:3]
    dtype = a.dtype
    work = compute_dtype(dtype)
    a, b = (v.astype(work, copy=False) for v in (a, b))
    a = a.T if attribute(node, "transA") else a
    b = b.T if attribute(node, "transB") else b
    out = a @ b
    out = _scaled(out, attribute(node, "alpha"))
    if c is not None:
        out = out + _scaled(c.astype(work, copy=False), attribute(node, "beta"))
    return [out.astype(dtype, copy=False)]


def _scaled(x: np.ndarray, factor: float | None) -> np.ndarray:
    return x if factor is None or factor == 1.0 else x * x.dtype.type(factor)


def matmul_integer(node: Node, inputs: list[Any]) -> list[Any]:
    """``MatMulInteger``: exact, since float64 holds every sum of products of bytes."""
    a, b, a_zero, b_zero = [*inputs, None, None][:4]
    out = product(centred(a, _rows(a, a_zero), None), centred(b, b_zero, -1))
    return [out.astype(np.int32)]


def qlinear_matmul(node: Node, inputs: list[Any]) -> list[Any]:
    """``QLinearMatMul``: the integer product, scaled and rounded to y's type."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = inputs
    out = product(centred(a, _rows(a, a_zero), None), centred(b, b_zero, -1))
    scale = _rows(a, a_scale) * b_scale / y_scale
    return [requantize(out, scale, y_zero, a.dtype)]


def _rows(a: np.ndarray, parameter: Any) -> Any:
    """A parameter for each row of ``a``, as a column; others as they are."""
    if parameter is not None and parameter.ndim == 1 and parameter.size > 1 and a.ndim > 1:
        return parameter[:, None]
    return parameter
