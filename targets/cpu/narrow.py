"""Neighbouring registers of 32-bit numbers packed to bytes together.

LLVM narrows one register of int32 at a time: 8 of them by four shuffles and a store of 8 bytes, 16
by an instruction of two steps. Packed four at a time they take one shuffle each, and one store of
a whole register. The instructions that pack saturate, so floats that are rounded to bytes need no
bounds of their own, and the zero point is added to two registers at once, in 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tvm import tirx

from ..generic.registry import Packer, Run, TemplateContext
from ..tir.extents import as_int, index
from .features import CpuFeatures

Expr = Any

_TOGETHER = 4
"""Vectors that are packed at once, at most."""

_WORD_MOST = 2.0**15 - 1
"""The greatest number of 16 bits with a sign."""


def byte_packer(cpu: CpuFeatures) -> Packer | None:
    """How this CPU packs registers of 32-bit numbers; None where LLVM's own way is the best."""
    packs = cpu.arch == "x86_64" and cpu.lanes in _PACKING
    return _BytePacker(cpu.lanes) if packs else None


def store_vectors(
    ctx: TemplateContext, places: Sequence[tuple[Expr, ...]], value: Callable[[int, Expr], Expr],
    lanes: int, pack: Packer | None,
) -> None:  # fmt: skip
    """Give vectors that follow each other in memory to the epilogue.

    ``places`` are the indices of their first elements, ``value(i, lane)`` the elements of the
    ``i``-th. With ``pack``, bytes are narrowed together.
    """
    for group in _groups(len(places), 1 if pack is None else _TOGETHER):
        if pack is None or len(group) == 1:
            *lead, first = places[group[0]]
            with ctx.b.lanes(lanes) as lane:
                ctx.sink((*lead, first + lane), value(group[0], lane))
        else:
            own = partial(_of_group, value, group)
            ctx.sink_run(Run([places[i] for i in group], own, lanes, pack))


def _of_group(value: Callable[[int, Expr], Expr], group: Sequence[int], i: int, lane: Expr) -> Expr:
    return value(group[i], lane)


def _groups(count: int, size: int) -> list[range]:
    """The numbers below ``count`` in runs of ``size`` and a rest."""
    return [range(i, min(count, i + size)) for i in range(0, count, size)]


@dataclass(frozen=True)
class _Packing:
    """LLVM's names of the instructions for one width of registers.

    ``words`` narrows int32 to int16 and ``unsigned_words`` int32 to uint16, ``bytes`` int16 to int8
    or uint8, all with saturation. ``nearest`` rounds floats to int32, halves to even; what does not
    fit, and NaN, becomes the least int32.
    """

    nearest: str
    words: str
    unsigned_words: str
    bytes: dict[str, str]
    masked: bool = False


_PACKING = {
    8: _Packing(
        "llvm.x86.avx.cvt.ps2dq.256", "llvm.x86.avx2.packssdw", "llvm.x86.avx2.packusdw",
        {"uint8": "llvm.x86.avx2.packuswb", "int8": "llvm.x86.avx2.packsswb"},
    ),
    16: _Packing(
        "llvm.x86.avx512.mask.cvtps2dq.512", "llvm.x86.avx512.packssdw.512",
        "llvm.x86.avx512.packusdw.512",
        {"uint8": "llvm.x86.avx512.packuswb.512", "int8": "llvm.x86.avx512.packsswb.512"},
        masked=True,
    ),
}  # fmt: skip
"""By lanes of 32 bits."""


@dataclass(frozen=True)
class _BytePacker(Packer):
    """Packs up to four registers of ``lanes`` 32-bit numbers."""

    lanes: int

    def low_bytes(self, vectors: Sequence[Expr]) -> Expr:
        # What has been cut to a byte does not saturate.
        low = self._all(tirx.const(255, "int32"))
        cut = [tirx.bitwise_and(v, low) for v in vectors]
        return self._sorted(
            self._words(cut, _PACKING[self.lanes].unsigned_words), "uint8", len(cut)
        )

    def rounded(self, vectors: Sequence[Expr], zero: Expr, dtype: str) -> Expr:
        """As 16 bits hold sums with any zero point, or saturate beyond any byte, saturation at each
        step is that at the end.
        """
        whole = [self._nearest(v) for v in vectors]
        words = self._words(whole, _PACKING[self.lanes].words)
        if as_int(zero) != 0:
            kind = f"int16x{2 * self.lanes}"
            shift = tirx.Broadcast(tirx.Cast("int16", zero), 2 * self.lanes)
            words = [_intrinsic(kind, "llvm.sadd.sat", word, shift) for word in words]
        return self._sorted(words, dtype, len(vectors))

    def _all(self, value: Expr) -> Expr:
        return tirx.Broadcast(value, self.lanes)

    def _nearest(self, value: Expr) -> Expr:
        """Floats as int32. The instruction makes the least number of one that is too large, too."""
        packing, most = _PACKING[self.lanes], self._all(tirx.const(_WORD_MOST, "float32"))
        operands = [tirx.Select(most < value, most, value)]
        kind = f"int32x{self.lanes}"
        if packing.masked:
            mask = tirx.const(-1, f"int{self.lanes}")
            operands += [self._all(tirx.const(0, "int32")), mask, tirx.const(_AS_SET, "int32")]
        return _intrinsic(kind, packing.nearest, *operands)

    def _words(self, vectors: Sequence[Expr], instruction: str) -> list[Expr]:
        """Pairs of vectors in registers of 16-bit numbers; a single one beside itself."""
        last = len(vectors) - 1
        pairs = [(vectors[i], vectors[min(i + 1, last)]) for i in range(0, last + 1, 2)]
        return [_intrinsic(f"int16x{2 * self.lanes}", instruction, *pair) for pair in pairs]

    def _sorted(self, words: Sequence[Expr], dtype: str, count: int) -> Expr:
        """The bytes of ``count`` vectors in their order.

        Instructions work on each 128 bits of registers: of vectors a, b, c, d the result holds the
        first four bytes of each, then the next four of each, which a last shuffle sorts.
        """
        instruction = _PACKING[self.lanes].bytes[dtype]
        packed = _intrinsic(f"int8x{4 * self.lanes}", instruction, words[0], words[-1])
        fours = tirx.reinterpret(f"int32x{self.lanes}", packed)
        order = [index(part * 4 + i) for i in range(count) for part in range(self.lanes // 4)]
        return tirx.reinterpret(f"{dtype}x{self.lanes * count}", tirx.Shuffle([fours], order))


_AS_SET = 4
"""Rounding as the processor is set to round: to nearest, halves to even."""


def _intrinsic(kind: str, name: str, *operands: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin(kind, name, *operands)


__all__ = ["byte_packer", "store_vectors"]
