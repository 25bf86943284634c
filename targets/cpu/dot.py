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

from ...ir.choices import ProductShape
from ..tir.builder import BufferTensor, TensorExpr
from ..tir.extents import index
from ..tir.numeric import cast, compute_dtype
from .features import CpuFeatures
from .tiling import SINGLE, MultiplyAdd, Tile, largest_tile, rank_product_tiles

Expr = Any


@dataclass(frozen=True)
class Dot(ABC):
    """One multiply-add into a vector of ``lanes`` sums."""

    lanes: int
    depth: ClassVar[int] = 1
    """Products that a step adds to each sum."""
    sums: ClassVar[str]
    """The dtype of the sums."""
    cost: ClassVar[MultiplyAdd] = SINGLE
    """What the cost model counts for one."""

    @abstractmethod
    def operand(self, x: TensorExpr, at: Sequence[Expr], step: Expr) -> Expr:
        """Elements ``[*at, step*depth : (step+1)*depth]`` of ``x``, broadcast to all lanes."""

    @abstractmethod
    def weights(self, w: BufferTensor, at: Sequence[Expr], first: int) -> Expr:
        """The weights at ``[*at]``, for the lanes from ``first`` on."""

    @abstractmethod
    def add(self, acc: Expr, x: Expr, w: Expr) -> Expr:
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
        return WordDot(lanes) if depth == WordDot.depth else PairDot(lanes)
    return ByteDot(lanes, byte_dot_intrinsic(cpu, lanes))


def cost_of(cpu: CpuFeatures, operand: str) -> MultiplyAdd:
    """The cost of a multiply-add in kernels with packed weights, for an element type."""
    return dot_of(cpu, operand, integer_depth(cpu), cpu.lanes).cost


def rank_packed_tiles(cpu: CpuFeatures, shape: ProductShape) -> list[Tile]:
    """The register tiles of a product by packed weights, the cheapest by estimate first."""
    return rank_product_tiles(cpu, shape.rows, shape.columns, cost_of(cpu, shape.operand))


def packed_tile(cpu: CpuFeatures, operand: str, width: int, depth: int, lanes: int) -> Tile:
    """The largest register tile for packed weights.

    ``width`` is the last dim of the weights: columns of a tile times ``depth``.
    """
    dot = dot_of(cpu, operand, depth, lanes)
    return largest_tile(cpu, width // depth // lanes, dot.cost)


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


def _fenced(total: Expr, lanes: int) -> Expr:
    """``total``, which LLVM computes as it stands.

    It would sum the products of several unrolled steps first, as integers may be added in any
    order, and run out of registers for them. The fence is for floats, but moves no bits.
    """
    kind = f"float32x{lanes}"
    fence = _intrinsic("llvm.arithmetic.fence", kind, tirx.reinterpret(kind, total))
    return tirx.reinterpret(f"int32x{lanes}", fence)


def hidden(count: int) -> Expr:
    """``count``, at most 2**24, as an extent that LLVM doesn't know, so that it unrolls no loop."""
    fence = _intrinsic("llvm.arithmetic.fence", "float32", tirx.const(float(count), "float32"))
    return tirx.Cast("int64", fence)


@dataclass(frozen=True)
class FloatDot(Dot):
    """Fused multiply-add of float32; 8-bit and 16-bit weights are converted when loaded."""

    sums: ClassVar = "float32"

    def operand(self, x: TensorExpr, at: Sequence[Expr], step: Expr) -> Expr:
        return tirx.Broadcast(x[(*at, step)], self.lanes)

    def weights(self, w: BufferTensor, at: Sequence[Expr], first: int) -> Expr:
        return cast(w.load_values([*at, _ramp(first, self.lanes)]), f"float32x{self.lanes}")

    def add(self, acc: Expr, x: Expr, w: Expr) -> Expr:
        return acc + x * w


@dataclass(frozen=True)
class WideningDot(Dot):
    """Products of 8-bit integers, signed or not, as int32: for CPUs without a dot product."""

    sums: ClassVar = "int32"

    def operand(self, x: TensorExpr, at: Sequence[Expr], step: Expr) -> Expr:
        return tirx.Broadcast(cast(x[(*at, step)], "int32"), self.lanes)

    def weights(self, w: BufferTensor, at: Sequence[Expr], first: int) -> Expr:
        return cast(w.load_raw([*at, _ramp(first, self.lanes)]), f"int32x{self.lanes}")

    def add(self, acc: Expr, x: Expr, w: Expr) -> Expr:
        return acc + x * w


@dataclass(frozen=True)
class _Bytes(Dot):
    """Four products of bytes for each lane."""

    depth: ClassVar = 4
    sums: ClassVar = "int32"

    def operand(self, x: TensorExpr, at: Sequence[Expr], step: Expr) -> Expr:
        wide = tirx.Broadcast(_bytes(x, at, step), self.lanes)
        return tirx.reinterpret(f"int8x{4 * self.lanes}", wide)

    def weights(self, w: BufferTensor, at: Sequence[Expr], first: int) -> Expr:
        return w.load_raw([*at, _ramp(4 * first, 4 * self.lanes)])


@dataclass(frozen=True)
class ByteDot(_Bytes):
    """One instruction that adds four products of bytes to each lane, without saturation.

    ``vpdpbusd`` takes uint8 times int8, ``sdot`` int8 times int8.
    """

    intrinsic: str

    def add(self, acc: Expr, x: Expr, w: Expr) -> Expr:
        return _intrinsic(self.intrinsic, f"int32x{self.lanes}", acc, x, w)


@dataclass(frozen=True)
class PairDot(_Bytes):
    """``vpmaddubsw``, which sums pairs of uint8 times int8 in 16 bits, then pairs of these sums.

    The first instruction saturates, so weights must be such that it does not: see
    :mod:`...ir.split_weights`. The second one, ``vpmaddwd``, multiplies by ones, which stay in a
    register.
    """

    # The registers are the ones and the sums of pairs. Beside three instructions, operands of rows
    # are loaded for nothing.
    cost: ClassVar = MultiplyAdd(cycles=1.0, registers=2, operand=0.0)

    def add(self, acc: Expr, x: Expr, w: Expr) -> Expr:
        pairs, quads = _PAIRS[self.lanes]
        ones = tirx.Broadcast(tirx.const(1, "int16"), 2 * self.lanes)
        sums = _intrinsic(pairs, f"int16x{2 * self.lanes}", x, w)
        return _fenced(acc + _intrinsic(quads, f"int32x{self.lanes}", sums, ones), self.lanes)


@dataclass(frozen=True)
class WordDot(Dot):
    """``vpmaddwd``: products of pairs of int16, summed in int32."""

    depth: ClassVar = 2
    sums: ClassVar = "int32"
    cost: ClassVar = MultiplyAdd(cycles=0.7, registers=1)  # the sums of pairs

    def operand(self, x: TensorExpr, at: Sequence[Expr], step: Expr) -> Expr:
        assert isinstance(x, BufferTensor)
        pair = tirx.reinterpret("int32", x.load_raw([*at, tirx.Ramp(step * 2, index(1), 2)]))
        return tirx.reinterpret(f"int16x{2 * self.lanes}", tirx.Broadcast(pair, self.lanes))

    def weights(self, w: BufferTensor, at: Sequence[Expr], first: int) -> Expr:
        return w.load_raw([*at, _ramp(2 * first, 2 * self.lanes)])

    def add(self, acc: Expr, x: Expr, w: Expr) -> Expr:
        pairs = _intrinsic(_PAIRS[self.lanes][1], f"int32x{self.lanes}", x, w)
        return _fenced(acc + pairs, self.lanes)


_PAIRS = {
    4: ("llvm.x86.ssse3.pmadd.ub.sw.128", "llvm.x86.sse2.pmadd.wd"),
    8: ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"),
    16: ("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"),
}
"""LLVM's names of ``vpmaddubsw`` and ``vpmaddwd``, by lanes of 32 bits."""
