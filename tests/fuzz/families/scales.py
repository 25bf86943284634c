"""Scales and zero points, and values that are quantized and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from onnx import helper

from ..net import Net, Value

BYTES = (np.uint8, np.int8)
KINDS: tuple[Any, ...] = (*BYTES, *BYTES, *BYTES, np.uint16, np.int16)
SHORT: tuple[Any, ...] = (ml_dtypes.int4, ml_dtypes.uint4)


def limits(dtype: Any) -> tuple[int, int]:
    info = ml_dtypes.iinfo(dtype)
    return int(info.min), int(info.max)


def steps(net: Net, shape: Sequence[int], about: float) -> np.ndarray:
    """Scales of about this size: any, powers of two, seldom far too small or too large."""
    found = about * net.rng.uniform(0.5, 2, tuple(shape))
    kind = net.choose(("any", "any", "any", "power", "power", "tiny", "large"))
    if kind == "power":
        found = 2.0 ** np.round(np.log2(found))
    elif kind == "tiny" and net.chance(0.4):
        found = found * net.choose((1e-3, 1e-20, 1e-37))
    elif kind == "large" and net.chance(0.4):
        found = found * net.choose((100.0, 1e6))
    return np.asarray(found)


def scale(net: Net, about: float, shape: Sequence[int] = (), dtype: Any = np.float32) -> Value:
    return net.constant(np.maximum(steps(net, shape, about), np.finfo(dtype).tiny), dtype)


def zero_point(net: Net, dtype: Any, shape: Sequence[int] = ()) -> Value:
    """0, the middle, or any number of the type, the ends too."""
    low, high = limits(dtype)
    kind = net.choose(("zero", "middle", "any", "end"))
    if kind == "any":
        found = net.rng.integers(low, high, tuple(shape), endpoint=True)
    else:
        number = {"zero": 0, "middle": (low + high + 1) // 2, "end": net.choose((low, high))}[kind]
        found = np.full(tuple(shape), number)
    return net.constant(np.asarray(found).astype(dtype))


def spread(v: Value, dtype: Any) -> float:
    """The step with which the type covers what ``v`` holds."""
    low, high = limits(dtype)
    return max(v.largest, 0.01) * 2 / (high - low)


def integers(net: Net, dtype: Any, shape: Sequence[int]) -> Value:
    """Quantized weights; often such that pairs of 8-bit products fit 16 bits."""
    low, high = limits(dtype)
    if net.chance(0.6) and dtype in BYTES:
        low, high = max(low, -63), min(high, 63)
    return net.constant(net.rng.integers(low, high, tuple(shape), endpoint=True).astype(dtype))


def parameters(net: Net, v: Value, dtype: Any) -> tuple[Value, Value]:
    """A scale and a zero point for all of ``v``."""
    return scale(net, spread(v, dtype), (), v.dtype), zero_point(net, dtype)


def there_and_back(net: Net, v: Value, dtype: Any = None) -> Value:
    """QuantizeLinear and DequantizeLinear with the same parameters, of the tensor or by axis."""
    dtype = dtype or net.choose(KINDS if net.chance(0.8) else SHORT)
    by_axis = v.rank > 1 and net.chance(0.12)
    axis = net.between(0, v.rank - 1) if by_axis else 1
    shape = (v.shape[axis],) if by_axis and not is_open(net, v, axis) else ()
    s = scale(net, spread(v, dtype), shape, v.dtype)
    zero = zero_point(net, dtype, shape)
    if dtype in BYTES and zero.array.ndim == 0 and net.chance(0.5):
        quantized = net.op("QuantizeLinear", v, s, zero)
        return net.op("DequantizeLinear", quantized, s, zero)
    more = {"axis": axis} if shape else {}
    names = [net.name(i) for i in range(2)]
    both = [
        helper.make_node("QuantizeLinear", [v.name, s.name, zero.name], names[:1],
                         name=f"{names[0]}q", **more),
        helper.make_node("DequantizeLinear", [names[0], s.name, zero.name], names[1:],
                         name=f"{names[1]}d", **more),
    ]  # fmt: skip
    return net.add(both, names[1:])[0]


def is_open(net: Net, v: Value, axis: int) -> bool:
    """Might this axis have another size in another run?"""
    return bool(net.sizes) and v.shape[axis] in net.sizes.values()


def dequantized(
    net: Net, dtype: Any, shape: Sequence[int], terms: int, axis: int | None = None,
    block: int = 0, to: Any = np.float32,
) -> Value:  # fmt: skip
    """Constant weights with a scale for the tensor, for each place of an axis, or for blocks."""
    low, high = limits(dtype)
    about = 2 * max(terms, 1) ** -0.5 / (high - low)
    more: dict[str, Any] = {}
    sizes: tuple[int, ...] = ()
    if block:
        assert axis is not None
        sizes = tuple(-(-d // block) if a == axis else d for a, d in enumerate(shape))
        more = {"axis": axis, "block_size": block}
    elif axis is not None:
        sizes, more = (shape[axis],), {"axis": axis}
    zero = zero_point(net, dtype, sizes) if net.chance(0.3) else None
    if zero is None and net.chance(0.7):
        zero = net.constant(np.zeros(sizes).astype(dtype))
    return net.op("DequantizeLinear", integers(net, dtype, shape), scale(net, about, sizes, to),
                  zero, **more)  # fmt: skip


__all__ = [
    "BYTES", "KINDS", "SHORT", "dequantized", "integers", "is_open", "limits", "parameters",
    "scale", "spread", "there_and_back", "zero_point",
]  # fmt: skip
