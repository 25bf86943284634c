"""How a register tile multiplies and adds: the element types and the instruction of one step.

A step adds ``depth`` neighbouring products of the reduction to each sum: one for floats, four for
the dot products of 8-bit integers. Weights are packed with those neighbours innermost (see
``ir.packing``), so that one load has them for all lanes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm import tirx

from ..tir.builder import BufferTensor, TensorExpr
from ..tir.extents import index
from ..tir.numeric import cast, compute_dtype
from .features import CpuFeatures
from .tiling import Tile, largest_tile

Expr = Any
Parts = tuple[Expr, ...]


@dataclass(frozen=True)
class Dot(ABC):
    """One multiply-add into a vector of ``lanes`` sums."""

    lanes: int
    depth: ClassVar[int] = 1
    """Products that a step adds to each sum."""
    sums: ClassVar[str]
    """The dtype of the sums."""
    parts: ClassVar[int] = 1
    """Registers that a vector of weights, or a broadcast operand, takes."""

    @abstractmethod
    def operand(self, x: TensorExpr, at: Sequence[Expr], step: Expr) -> Parts:
        """Elements ``[*at, step*depth : (step+1)*depth]`` of ``x``, broadcast to all lanes."""

    @abstractmethod
    def weights(self, w: BufferTensor, at: Sequence[Expr], first: int) -> Parts:
        """The weights at ``[*at]``, for the lanes from ``first`` on."""

    @abstractmethod
    def add(self, acc: Expr, x: Parts, w: Parts) -> Expr:
        """``acc`` plus the products."""


def integer_depth(cpu: CpuFeatures) -> int:
    """The depth of this CPU's dot product of 8-bit integers; 1 where it has none."""
    return 4 if cpu.dot is not None else 1


def activation_type(cpu: CpuFeatures) -> str | None:
    """The 8-bit type that the dot product takes beside int8 weights; None: either."""
    if cpu.dot is None:
        return None
    return "int8" if cpu.dot == "sdot" else "uint8"


def dot_of(cpu: CpuFeatures, operand: str, depth: int, lanes: int) -> Dot:
    """The multiply-add for operands of element type ``operand`` and weights packed by ``depth``."""
    if compute_dtype(operand) == "float32":
        return FloatDot(lanes)
    if depth == 1:
        return WideningDot(lanes)
    if cpu.dot == "madd":
        return MaddDot(lanes)
    return ByteDot(lanes, byte_dot_intrinsic(cpu, lanes))


def packed_tile(cpu: CpuFeatures, operand: str, width: int, depth: int, lanes: int) -> Tile:
    """The largest register tile for packed weights.

    ``width`` is the last dim of the weights: columns of a tile times ``depth``.
    """
    dot = dot_of(cpu, operand, depth, lanes)
    return largest_tile(cpu, width // depth // lanes, dot.parts)


def byte_dot_intrinsic(cpu: CpuFeatures, lanes: int) -> str:
    """LLVM's name of the instruction with ``lanes`` sums."""
    if cpu.dot == "sdot":
        return f"llvm.aarch64.neon.sdot.v{lanes}i32.v{4 * lanes}i8"
    return f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"


def _ramp(first: Any, lanes: int) -> Expr:
    return tirx.Ramp(index(first), index(1), lanes)


def _bytes(x: TensorExpr, at: Sequence[Expr], step: Expr) -> Expr:
    """Four neighbouring bytes as one int32."""
    assert isinstance(x, BufferTensor)
    return tirx.reinterpret("int32", x.load_raw([*at, tirx.Ramp(step * 4, index(1), 4)]))


def _intrinsic(name: str, result: str, *operands: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin(result, name, *operands)


@dataclass(frozen=True)
class FloatDot(Dot):
    """Fused multiply-add of float32; 8-bit and 16-bit weights are converted when loaded."""

    sums: ClassVar = "float32"

    def operand(self, x: TensorExpr, at: Sequence[Expr], step: Expr) -> Parts:
        return (tirx.Broadcast(x[(*at, step)], self.lanes),)

    def weights(self, w: BufferTensor, at: Sequence[Expr], first: int) -> Parts:
        return (cast(w.load_raw([*at, _ramp(first, self.lanes)]), f"float32x{self.lanes}"),)

    def add(self, acc: Expr, x: Parts, w: Parts) -> Expr:
        return acc + x[0] * w[0]


@dataclass(frozen=True)
class WideningDot(Dot):
    """Products of 8-bit integers, signed or not, as int32: for CPUs without a dot product."""

    sums: ClassVar = "int32"

    def operand(self, x: TensorExpr, at: Sequence[Expr], step: Expr) -> Parts:
        return (tirx.Broadcast(cast(x[(*at, step)], "int32"), self.lanes),)

    def weights(self, w: BufferTensor, at: Sequence[Expr], first: int) -> Parts:
        return (cast(w.load_raw([*at, _ramp(first, self.lanes)]), f"int32x{self.lanes}"),)

    def add(self, acc: Expr, x: Parts, w: Parts) -> Expr:
        return acc + x[0] * w[0]


@dataclass(frozen=True)
class ByteDot(Dot):
    """One instruction that adds four products of bytes to each lane, without saturation.

    ``vpdpbusd`` takes uint8 times int8, ``sdot`` int8 times int8.
    """

    intrinsic: str
    depth: ClassVar = 4
    sums: ClassVar = "int32"

    def operand(self, x: TensorExpr, at: Sequence[Expr], step: Expr) -> Parts:
        wide = tirx.Broadcast(_bytes(x, at, step), self.lanes)
        return (tirx.reinterpret(f"int8x{4 * self.lanes}", wide),)

    def weights(self, w: BufferTensor, at: Sequence[Expr], first: int) -> Parts:
        return (w.load_raw([*at, _ramp(4 * first, 4 * self.lanes)]),)

    def add(self, acc: Expr, x: Parts, w: Parts) -> Expr:
        return _intrinsic(self.intrinsic, f"int32x{self.lanes}", acc, x[0], w[0])


@dataclass(frozen=True)
class MaddDot(Dot):
    """``vpmaddwd`` on bytes widened to 16 bits, the even and the odd ones apart.

    Each instruction adds two products to a lane, so a step takes two. Unlike ``vpmaddubsw``, which
    saturates at 16 bits, this is exact.
    """

    depth: ClassVar = 4
    sums: ClassVar = "int32"
    parts: ClassVar = 2

    def operand(self, x: TensorExpr, at: Sequence[Expr], step: Expr) -> Parts:
        four, even = tirx.reinterpret("uint32", _bytes(x, at, step)), tirx.const(0xFF00FF, "uint32")
        odd = tirx.bitwise_and(tirx.shift_right(four, tirx.const(8, "uint32")), even)
        return tuple(self._broadcast(v) for v in (tirx.bitwise_and(four, even), odd))

    def _broadcast(self, pair: Expr) -> Expr:
        return tirx.reinterpret(f"int16x{2 * self.lanes}", tirx.Broadcast(pair, self.lanes))

    def weights(self, w: BufferTensor, at: Sequence[Expr], first: int) -> Parts:
        four = w.load_raw([*at, _ramp(4 * first, 4 * self.lanes)])
        words = tirx.reinterpret(f"int16x{2 * self.lanes}", four)
        eight = tirx.Broadcast(tirx.const(8, "int16"), 2 * self.lanes)
        even = tirx.shift_right(tirx.shift_left(words, eight), eight)
        return even, tirx.shift_right(words, eight)

    def add(self, acc: Expr, x: Parts, w: Parts) -> Expr:
        name = "llvm.x86.avx512.pmaddw.d.512" if self.lanes == 16 else "llvm.x86.avx2.pmadd.wd"
        for a, b in zip(x, w, strict=True):
            acc = acc + _intrinsic(name, f"int32x{self.lanes}", a, b)
        return acc
