"""Hypothesis strategies: blocked convolutions of every kind, with NumPy's results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from graphkiln.ir.choices import DIRECT
from graphkiln.ir.graph import Value
from graphkiln.ir.packing import (
    pack_channels,
    pack_conv_weight,
    pack_depthwise_weight,
    unpack_channels,
)
from graphkiln.targets.cpu.features import features_of
from graphkiln.targets.cpu.layouts import CpuLayouts

from .cpu_kernels import Kernel, int8_weights, packed_inputs, without_blocks

Array = np.ndarray

FLOAT, STORED, BYTES = "float32", "int8 weights", "bytes"


@dataclass(frozen=True)
class Spec:
    """One convolution; ``pads`` are those before and after each dim, ``open_dims`` symbols."""

    kind: str
    group: int
    channels: int
    filters: int
    image: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    batch: int = 1
    vectors: int = 1
    bias: bool = True
    epilogue: str = "none"
    open_dims: str = ""
    seed: int = 0
    algorithm: str = DIRECT
    weight: int | None = None
    """The weight that all are, for int8; None for random ones."""
    listed: float | None = None
    """The share of steps that are not zero and stand in a list; None if all are multiplied."""

    @property
    def is_depthwise(self) -> bool:
        return self.group == self.channels == self.filters and self.group > 1

    @property
    def attrs(self) -> dict[str, Any]:
        begin, end = zip(*self.pads, strict=True)
        return {
            "kernel_shape": self.kernel, "strides": self.strides, "dilations": self.dilations,
            "pads": (*begin, *end), "in_channels": self.channels, "out_channels": self.filters,
        }  # fmt: skip


EPILOGUES = ("none", "relu", "channels", "residual", "both")
BYTE_EPILOGUES = ("none", "requantize", "requantize channels", "residual")


@st.composite
def windows(draw: st.DrawFn, rank: int) -> dict[str, Any]:
    """Extents, windows, strides, dilations and borders that leave at least one result.

    Volumes are smaller along each dim, so that they take no longer.
    """
    parts = []
    for _ in range(rank):
        kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 2))
        begin, end = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        least = max(1, (kernel - 1) * dilation + 1 - begin - end)
        extent = least + draw(st.integers(0, 17 if rank < 3 else 6))
        parts.append((extent, kernel, draw(st.integers(1, 3)), dilation, (begin, end)))
    names = ("image", "kernel", "strides", "dilations", "pads")
    return dict(zip(names, zip(*parts, strict=True), strict=True))


@st.composite
def specs(
    draw: st.DrawFn, kind: str, lanes: int, depthwise: bool = False,
    ranks: Sequence[int] = (2, 2, 1),
) -> Spec:  # fmt: skip
    """Any convolution that the template takes, of one of ``ranks`` spatial dims."""
    if depthwise:
        group = channels = filters = draw(st.integers(2, 2 * lanes + 3))
    elif draw(st.integers(0, 3)) == 0:
        group = draw(st.integers(2, 3))
        channels, filters = (group * lanes * draw(st.integers(1, 2)) for _ in range(2))
    else:
        group, channels = 1, draw(st.integers(1, 2 * lanes + 3))
        filters = draw(st.integers(1, 3 * lanes + 3))
    return Spec(
        kind, group, channels, filters, **draw(windows(draw(st.sampled_from(ranks)))),
        batch=draw(st.integers(1, 2)), vectors=draw(st.integers(1, 4)), bias=draw(st.booleans()),
        epilogue=draw(st.sampled_from(BYTE_EPILOGUES if kind == BYTES else EPILOGUES)),
        open_dims=draw(st.sampled_from(["", "", "N", "HW", "NHW"])),
        seed=draw(st.integers(0, 99)),
    )  # fmt: skip


def reference(x: Array, w: Array, spec: Spec, border: float = 0) -> Array:
    """The convolution of ``x`` [N, C, *S] by ``w`` [M, C/g, *K], in float64."""
    rank, g = len(spec.kernel), spec.group
    padded = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *spec.pads], constant_values=border)
    sizes = [(k - 1) * d + 1 for k, d in zip(spec.kernel, spec.dilations, strict=True)]
    seen = sliding_window_view(padded, sizes, tuple(range(2, 2 + rank)))
    steps = [slice(None, None, s) for s in (*spec.strides, *spec.dilations)]
    seen = seen[(slice(None), slice(None), *steps)]
    seen = seen.reshape(seen.shape[0], g, -1, *seen.shape[2:])
    weight = w.astype(np.float64).reshape(g, -1, *w.shape[1:])
    o, k = "xyz"[:rank], "ijk"[:rank]
    y = np.einsum(f"ngc{o}{k},gmc{k}->ngm{o}", seen, weight, optimize=True)
    return y.reshape(y.shape[0], -1, *y.shape[3:])


class _Data:
    """Random arrays of a convolution."""

    def __init__(self, spec: Spec, signed: bool) -> None:
        rng = np.random.default_rng(spec.seed)
        x_shape = (spec.batch, spec.channels, *spec.image)
        w_shape = (spec.filters, spec.channels // spec.group, *spec.kernel)
        self.rng = rng
        if spec.kind == BYTES:
            x = rng.integers(0, 256, x_shape).astype(np.uint8)
            self.x = (x ^ 128).view(np.int8) if signed else x
            self.border = int(rng.choice(self.x.reshape(-1)))
        else:
            self.x = rng.normal(size=x_shape).astype(np.float32)
            self.border = 0
        if spec.kind == FLOAT:
            self.w = rng.normal(size=w_shape).astype(np.float32)
        else:
            self.w = int8_weights(rng, w_shape, spec.weight)
        self.bias = None
        if spec.bias:
            wide = spec.kind == BYTES
            self.bias = self.row(spec.filters) if not wide else self.whole(spec.filters)

    def row(self, size: int) -> Array:
        return self.rng.normal(size=size).astype(np.float32)

    def whole(self, size: int) -> Array:
        return self.rng.integers(-9999, 9999, size).astype(np.int32)

    def total(self, spec: Spec) -> Array:
        y = reference(self.x, self.w, spec, self.border)
        if self.bias is not None:
            y = y + self.bias.reshape(-1, *(1,) * (y.ndim - 2))
        return y.astype(np.int32) if spec.kind == BYTES else y.astype(np.float32)


def kernel_of(spec: Spec, cpu: str) -> Kernel:
    """The kernel of a convolution on one CPU's layout, with its epilogue."""
    layouts = CpuLayouts(features_of(cpu))
    data = _Data(spec, layouts.activation == "int8")
    block = layouts.block
    steps = layouts.dot_depth if spec.kind == BYTES else 1
    blocks_of_step = (block, steps, *(1,) * len(spec.kernel))
    data.w = without_blocks(data.rng, data.w, blocks_of_step, spec.listed)
    kernel = Kernel(view=lambda a: unpack_channels(a, spec.filters))
    if spec.kind != BYTES:  # errors grow with the sums
        kernel.atol = 1e-5 * float(np.prod(data.w.shape[1:])) * max(1, np.abs(data.w).max())
    attrs = {**spec.attrs, "block": block}
    depth, weight, in_block = _packed(spec, data, layouts)
    if depth > 1:
        attrs["depth"] = depth
    if not spec.is_depthwise:
        attrs |= {"group": spec.group, "algorithm": spec.algorithm}
    x = kernel.input(pack_channels(data.x, in_block), _open_dims(spec))
    bias = None
    if data.bias is not None:
        blocks = weight.shape[0] if spec.is_depthwise else _out_blocks(weight, depth, block)
        bias = _by_channel(data.bias, blocks, block, len(spec.kernel))
    inputs: list[Value | None] = [x]
    if spec.is_depthwise:
        inputs += [kernel.input(a) for a in (weight, bias) if a is not None]
    else:
        listed = spec.listed is not None
        inputs += packed_inputs(kernel, weight, bias, layouts, depth, tiles=2, listed=listed)
    if data.border:
        inputs += [None] * ((3 if spec.is_depthwise else 6) - len(inputs))
        inputs.append(kernel.input(np.array(data.border, data.x.dtype)))
    op = "DepthwiseBlocked" if spec.is_depthwise else "ConvBlocked"
    return _finish(kernel, spec, data, kernel.node(op, inputs, attrs, "kiln"), block)


def _packed(spec: Spec, data: _Data, layouts: CpuLayouts) -> tuple[int, Array, int]:
    """The depth, the packed weights and the input's block."""
    block = layouts.block
    if spec.is_depthwise:
        fits = spec.kind == BYTES and spec.dilations[-1] == 1
        depth = layouts.depthwise_depth if fits else 1
        return depth, pack_depthwise_weight(data.w, block, depth), block
    depth = layouts.dot_depth if spec.algorithm == DIRECT else layouts.winograd_depth
    depth = depth if spec.kind == BYTES else 1
    in_block = block if spec.channels >= block else depth
    tile = block * spec.vectors
    while spec.group > 1 and (spec.filters // spec.group) % tile:
        tile -= block
    return depth, pack_conv_weight(data.w, spec.group, in_block, tile, depth), in_block


def _out_blocks(weight: Array, depth: int, block: int) -> int:
    return weight.shape[0] * weight.shape[1] * (weight.shape[-1] // depth // block)


def _by_channel(values: Array, blocks: int, block: int, rank: int) -> Array:
    packed = np.zeros(blocks * block, values.dtype)
    packed[: values.size] = values
    return packed.reshape(blocks, *(1,) * rank, block)


def _open_dims(spec: Spec) -> dict[int, str]:
    names = {0: "N"} if "N" in spec.open_dims else {}
    if "HW" in spec.open_dims:
        names |= {2 + i: f"S{i}" for i in range(len(spec.kernel))}
    return names


def _finish(kernel: Kernel, spec: Spec, data: _Data, y: Value, block: int) -> Kernel:
    """What follows the convolution, in the kernel and in NumPy."""
    total = data.total(spec)
    blocks, rank = int(y.shape[1]), len(spec.kernel)
    column = (-1, *(1,) * rank)

    def row(values: Array) -> Value:
        return kernel.input(_by_channel(values, blocks, block, rank))

    if spec.epilogue in ("none", "both"):
        kernel.want.append(total)
    if spec.epilogue == "none":
        return kernel.finish([y])
    if spec.epilogue in ("relu", "both"):
        kernel.want.append(np.maximum(total, 0))
        relu = kernel.node("Relu", [y])
        return kernel.finish([relu] if spec.epilogue == "relu" else [y, relu])
    if spec.epilogue == "channels":
        scale, shift = data.row(spec.filters), data.row(spec.filters)
        kernel.want.append(np.maximum(total * scale.reshape(column) + shift.reshape(column), 0))
        kernel.atol *= 4
        scaled = kernel.node("Mul", [y, row(scale)])
        return kernel.finish([kernel.node("Relu", [kernel.node("Add", [scaled, row(shift)])])])
    if spec.epilogue == "residual":
        other = data.row(total.size).reshape(total.shape) if spec.kind != BYTES else data.whole(
            total.size).reshape(total.shape)  # fmt: skip
        kernel.want.append(np.maximum(total + other, 0))
        residual = kernel.typed(pack_channels(other, block), y.tensor_type)
        return kernel.finish([kernel.node("Relu", [kernel.node("Add", [residual, y])])])
    return _requantized(kernel, spec, data, y, total, row)


def _requantized(
    kernel: Kernel, spec: Spec, data: _Data, y: Value, total: Array, row: Any
) -> Kernel:
    by_channel = spec.epilogue == "requantize channels"
    spread = 100 / (1 + np.abs(total).max())
    scale = (spread * (0.5 + data.rng.random(spec.filters if by_channel else 1))).astype("float32")
    zero = np.uint8(131)
    factor = scale.reshape(-1, *(1,) * len(spec.kernel))
    steps = np.rint(total.astype(np.float32) * factor) + np.float32(zero)
    kernel.want.append(np.clip(steps, 0, 255).astype(np.uint8))
    given = row(scale) if by_channel else kernel.constant(scale[0])
    result = kernel.node("Requantize", [y, given, kernel.constant(zero, "uint8")], domain="kiln")
    return kernel.finish([result])
