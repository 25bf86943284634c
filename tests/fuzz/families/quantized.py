"""Quantized nets: pairs around float operations, integer operations, and onnxruntime's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..net import MICROSOFT, Net, Unfit, Value
from . import Step, grow
from .convnets import windows
from .scales import (
    BYTES,
    SHORT,
    dequantized,
    integers,
    parameters,
    scale,
    spread,
    there_and_back,
    zero_point,
)
from .weights import sized


def real(v: Value) -> bool:
    return v.dtype == np.float32 and v.rank > 0 and v.array.size > 0


def picture(v: Value) -> bool:
    return real(v) and v.rank in (3, 4)


def rows(v: Value) -> bool:
    return real(v) and v.rank in (2, 3)


def byte(v: Value) -> bool:
    return v.dtype in BYTES and v.rank > 0 and v.array.size > 0


def pair(net: Net) -> Value:
    return there_and_back(net, net.pick(real))


def odd_pair(net: Net) -> None:
    """QuantizeLinear alone, with scales and types of which other steps know nothing."""
    v = net.pick(real)
    dtype = net.choose((*BYTES, np.int16, np.uint16))
    s, zero = parameters(net, v, dtype)
    given = [v, s] if dtype == np.uint8 and net.chance(0.3) else [v, s, zero]
    bytes_ = net.op("QuantizeLinear", *given)
    net.op("DequantizeLinear", bytes_, scale(net, spread(v, dtype)), zero_point(net, dtype))


def bias_of(net: Net, count: int, about: float) -> Value:
    """int32 with the product of two scales."""
    numbers = net.constant(net.rng.integers(-500, 500, count), np.int32)
    return net.op("DequantizeLinear", numbers, scale(net, about))


def convolution(net: Net) -> None:
    v = there_and_back(net, net.pick(picture), net.choose(BYTES))
    channels, outputs = v.shape[1], net.between(1, 8)
    groups = channels if net.chance(0.25) else 1
    outputs = channels * net.between(1, 2) if groups > 1 else outputs
    window = windows(net, v)
    if window.get("auto_pad", "VALID") != "VALID":
        window.pop("dilations", None)
    shape = (outputs, channels // groups, *window["kernel_shape"])
    axis = net.choose((0, 0, None))
    w = dequantized(net, net.choose((np.int8, np.int8, np.uint8)), shape,
                    int(np.prod(shape[1:])), axis)  # fmt: skip
    bias = bias_of(net, outputs, 1e-3) if net.chance(0.6) else None
    out = net.op("Conv", v, w, bias, group=groups, **window)
    if net.chance(0.5):
        out = net.op("Relu", out) if net.chance(0.6) else clipped(net, out)
    there_and_back(net, out, net.choose(BYTES))


def clipped(net: Net, v: Value) -> Value:
    return net.op("Clip", v, net.constant(0, v.dtype), net.constant(6, v.dtype))


def product(net: Net) -> None:
    """MatMul or Gemm by quantized weights: of the tensor, by column, in blocks, in 4 bits."""
    v = there_and_back(net, net.pick(rows)) if net.chance(0.8) else net.pick(rows)
    width, outputs = v.shape[-1], net.choose((1, 3, 4, 8, 16, 17))
    kind = net.choose((np.int8, np.int8, np.uint8, *SHORT))
    gemm = v.rank == 2 and net.chance(0.4)
    turned = gemm and net.chance(0.6)
    shape = (outputs, width) if turned else (width, outputs)
    axis = net.choose((None, 0 if turned else 1))
    block = 0
    if net.chance(0.25):
        axis, block = (1 if turned else 0), net.choose((2, 4, 16))
    w = dequantized(net, kind, shape, width, axis, block)
    if gemm:
        bias = bias_of(net, outputs, 1e-3) if net.chance(0.6) else None
        more = {"alpha": 0.5, "beta": 2.0} if net.chance(0.15) else {}
        out = net.op("Gemm", v, w, bias, transB=int(turned), **more)
    else:
        out = net.op("MatMul", v, w)
    there_and_back(net, out)


def between_values(net: Net) -> None:
    """A product of two values of the run, both quantized."""
    v = net.pick(rows)
    other = there_and_back(net, v, np.uint8 if net.chance(0.5) else np.int8)
    order = [*range(v.rank - 2), v.rank - 1, v.rank - 2]
    turned = net.op("Transpose", other, perm=order)
    there_and_back(net, net.op("MatMul", there_and_back(net, v, net.choose(BYTES)), turned))


def around(net: Net) -> None:
    """An operation between pairs that may share their parameters, or not."""
    v = pair(net)
    kind = net.choose((
        "Relu", "Sigmoid", "Add", "Add", "Mul", "Concat", "MaxPool", "AveragePool", "Reshape",
        "Transpose", "Softmax", "LeakyRelu", "Global", "Mean", "HardSwish", "Slice",
    ))  # fmt: skip
    if kind in ("Add", "Mul"):
        other = net.pick(lambda w: real(w) and w.shape == v.shape)
        out = net.op(kind, v, there_and_back(net, other))
    elif kind == "Concat":
        other = net.pick(lambda w: real(w) and w.shape == v.shape)
        out = net.op("Concat", v, there_and_back(net, other), axis=v.rank - 1)
    elif kind in ("MaxPool", "AveragePool"):
        if not picture(v):
            raise Unfit("no picture")
        out = net.op(kind, v, **windows(net, v))
    elif kind == "Reshape":
        out = net.op("Reshape", v, net.ints(0, -1) if v.rank > 1 else net.ints(1, -1))
    elif kind == "Transpose":
        out = net.op("Transpose", v, perm=[int(a) for a in net.rng.permutation(v.rank)])
    elif kind == "Global":
        out = net.op("GlobalAveragePool", v)
    elif kind == "Mean":
        out = net.op("ReduceMean", v, net.ints(-1), keepdims=net.between(0, 1))
    elif kind == "Slice":
        out = net.op("Slice", v, net.ints(0), net.ints(-1), net.ints(v.rank - 1))
    else:
        out = net.op(kind, v)
    if out.array.size:
        there_and_back(net, out)


def quantized(net: Net, v: Value, dtype: Any = None) -> tuple[Value, Value, Value]:
    """``v`` as bytes with its scale and its zero point."""
    dtype = dtype or net.choose(BYTES)
    s, zero = parameters(net, v, dtype)
    return net.op("QuantizeLinear", v, s, zero), s, zero


def qlinear_conv(net: Net) -> None:
    x, s, zero = quantized(net, net.pick(picture))
    window = windows(net, x)
    if window.get("auto_pad", "VALID") != "VALID":
        window.pop("dilations", None)
    outputs, channels = net.between(1, 8), x.shape[1]
    shape = (outputs, channels, *window["kernel_shape"])
    kind = np.int8 if x.dtype == np.int8 or net.chance(0.7) else np.uint8
    sizes = (outputs,) if net.chance(0.5) else ()
    w = integers(net, kind, shape)
    ws = scale(net, 2e-3, sizes)
    wz = net.constant(np.zeros(sizes), kind) if sizes or net.chance(0.5) else zero_point(net, kind)
    ys, yz = scale(net, float(s.array) * 2e-3 * 500), zero_point(net, x.dtype)
    bias = net.constant(net.rng.integers(-2000, 2000, outputs), np.int32)
    y = net.op("QLinearConv", x, s, zero, w, ws, wz, ys, yz,
               *([bias] if net.chance(0.5) else []), **window)  # fmt: skip
    net.op("DequantizeLinear", y, ys, yz)


def qlinear_matmul(net: Net) -> None:
    x, s, zero = quantized(net, net.pick(rows))
    kind = np.int8 if x.dtype == np.int8 or net.chance(0.6) else np.uint8
    width, outputs = x.shape[-1], net.choose((1, 3, 8, 17))
    sizes = (outputs,) if net.chance(0.3) else ()
    w, ws = integers(net, kind, (width, outputs)), scale(net, 2e-3, sizes)
    wz = net.constant(np.zeros(sizes), kind) if sizes else zero_point(net, kind)
    ys, yz = scale(net, float(s.array) * 2e-3 * 300), zero_point(net, x.dtype)
    y = net.op("QLinearMatMul", x, s, zero, w, ws, wz, ys, yz)
    net.op("DequantizeLinear", y, ys, yz)


def dynamic(net: Net) -> None:
    """DynamicQuantizeLinear, an integer product, and its scale, as exporters write it."""
    v = net.pick(rows)
    x, s, zero = net.ops("DynamicQuantizeLinear", 3, v)
    width, outputs = v.shape[-1], net.choose((1, 3, 8, 17))
    kind = net.choose(BYTES)
    w, sizes = integers(net, kind, (width, outputs)), (outputs,) if net.chance(0.3) else ()
    ws = scale(net, 5e-3, sizes)
    wz = net.constant(np.zeros(sizes), kind) if sizes else zero_point(net, kind)
    if net.chance(0.3):
        net.op("MatMulIntegerToFloat", x, w, s, ws, zero, wz, domain=MICROSOFT)
        return
    if net.chance(0.2):
        net.op("DynamicQuantizeMatMul", v, w, ws, wz, domain=MICROSOFT)
        return
    total = net.op("Cast", net.op("MatMulInteger", x, w, zero, wz), to=1)
    out = net.op("Mul", total, net.op("Mul", s, ws))
    if net.chance(0.5):
        net.op("Add", out, net.random(np.float32, (outputs,)))


def integer_product(net: Net) -> None:
    """ConvInteger or MatMulInteger of bytes, with and without zero points."""
    x = net.pick(byte)
    if x.dtype != np.uint8:
        raise Unfit("onnxruntime has no such type")
    if x.rank == 4 and net.chance(0.7):
        window = windows(net, x)
        window.pop("dilations", None)
        w = integers(net, np.uint8, (net.between(1, 6), x.shape[1], *window["kernel_shape"]))
        rest = [zero_point(net, np.uint8), zero_point(net, np.uint8)][: net.between(0, 2)]
        net.op("ConvInteger", x, w, *rest, **window)
    elif x.rank >= 2:
        kind = net.choose(BYTES)
        w = integers(net, kind, (x.shape[-1], net.choose((1, 4, 17))))
        rest = [zero_point(net, np.uint8), zero_point(net, kind)][: net.between(0, 2)]
        net.op("MatMulInteger", x, w, *rest)


def microsoft(net: Net) -> None:
    """onnxruntime's element-wise operations and pools on bytes."""
    v = net.pick(real)
    x, s, zero = quantized(net, v)
    ys, yz = scale(net, float(s.array) * 2), zero_point(net, x.dtype)
    kind = net.choose(("QLinearAdd", "QLinearMul", "QLinearLeakyRelu", "QLinearSigmoid",
                       "QLinearConcat", "QLinearAveragePool", "QLinearGlobalAveragePool",
                       "QLinearSoftmax"))  # fmt: skip
    more: dict[str, Any] = {}
    given = [x, s, zero, ys, yz]
    if kind in ("QLinearAdd", "QLinearMul"):
        other = net.pick(lambda w: real(w) and w.shape == v.shape)
        given[3:3] = quantized(net, other, x.dtype)
    elif kind == "QLinearConcat":
        given = [ys, yz, x, s, zero, x, s, zero]
        more["axis"] = v.rank - 1
    elif kind == "QLinearLeakyRelu":
        more["alpha"] = net.choose((0.1, -0.5))
    elif kind == "QLinearSoftmax":
        more |= {"axis": -1, "opset": 13}
        s_zero = np.zeros((), x.dtype) + (0 if x.dtype == np.uint8 else -128)
        given[3:] = [net.constant(1 / 256, np.float32), net.constant(s_zero.astype(x.dtype))]
    elif kind.endswith("Pool"):
        if v.rank != 4:
            raise Unfit("no picture")
        if kind == "QLinearAveragePool":
            more = windows(net, x)
            more.pop("dilations", None)
        else:
            more["channels_last"] = 0
    out = net.op(kind, *given, domain=MICROSOFT, **more)
    net.op("DequantizeLinear", out, ys, yz)


def gemm(net: Net) -> None:
    """onnxruntime's QGemm, whose result is bytes or, without their scale, floats."""
    x, s, zero = quantized(net, net.pick(lambda v: real(v) and v.rank == 2))
    kind = np.int8 if x.dtype == np.int8 else net.choose(BYTES)
    width, outputs = x.shape[1], net.choose((1, 3, 8, 17))
    w, ws = integers(net, kind, (outputs, width)), scale(net, 2e-3)
    given = [x, s, zero, w, ws, net.constant(0, kind)]
    bias = net.constant(net.rng.integers(-2000, 2000, outputs), np.int32)
    given.append(bias if net.chance(0.6) else None)
    more = {"transB": 1, "alpha": net.choose((1.0, 1.0, 0.5))}
    if net.chance(0.3):
        net.op("QGemm", *given, domain=MICROSOFT, **more)
        return
    ys, yz = scale(net, float(s.array) * 2e-3 * 300), zero_point(net, x.dtype)
    y = net.op("QGemm", *given, ys, yz, domain=MICROSOFT, **more)
    net.op("DequantizeLinear", y, ys, yz)


def few_bits(net: Net) -> None:
    """MatMulNBits: weights of 4 bits in blocks, packed in bytes."""
    v = net.pick(rows)
    width, outputs, block = v.shape[-1], net.choose((1, 3, 8)), net.choose((16, 32))
    blocks = -(-width // block)
    packed = net.constant(net.rng.integers(0, 256, (outputs, blocks, block // 2)), np.uint8)
    scales = net.constant(net.rng.uniform(0.01, 0.1, outputs * blocks), np.float32)
    zero = net.constant(net.rng.integers(0, 256, outputs * (-(-blocks // 2))), np.uint8)
    net.op("MatMulNBits", v, packed, scales, *([zero] if net.chance(0.4) else []),
           domain=MICROSOFT, K=width, N=outputs, bits=4, block_size=block)  # fmt: skip


STEPS: list[Step] = [
    odd_pair, convolution, convolution, convolution, product, product, product, between_values,
    around, around, around, qlinear_conv, qlinear_conv, qlinear_matmul, gemm, few_bits, dynamic,
    dynamic, integer_product, microsoft, microsoft,
]  # fmt: skip


def quantized_nets(net: Net) -> None:
    """A picture or rows of float32, seldom bytes; batches and sizes may be open."""
    high = net.choose((1.0, 2.0, 6.0, 100.0))
    channels = net.choose((1, 2, 3, 4, 8, 16, 17))
    if net.chance(0.55):
        space = net.choose((1, 2, 2, 2))
        dims = [sized(net, "HW"[a], 3, 8, 0.2) for a in range(space)]
        net.input(np.float32, [sized(net, "N", 1, 3, 0.4), channels, *dims], -high, high)
    else:
        lead = [sized(net, "BS"[a], 1, 4, 0.4) for a in range(net.between(1, 2))]
        net.input(np.float32, [*lead, channels], -high, high)
    if net.chance(0.15):
        net.input(np.uint8, [sized(net, "N", 1, 3, 0.4), 3, 5, 5], 0, 255)
    grow(net, STEPS, net.between(1, 3))


FAMILIES = {"quantized": quantized_nets}

__all__ = ["FAMILIES"]
