"""Neighbouring registers of int32 packed to bytes together.

LLVM narrows one register of 8 int32 at a time, by four shuffles and a store of 8 bytes. Packed four
at a time they take one shuffle each, and one store of 32 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from tvm import tirx

from ..generic.registry import Run, TemplateContext
from ..tir.extents import index
from .features import CpuFeatures

Expr = Any

Pack: TypeAlias = "Callable[[Sequence[Expr]], Expr]"
"""The low bytes of vectors of int32, one vector after the other, as a vector of uint8."""

_TOGETHER = 4
"""Vectors that are packed at once, at most."""

_LANES = 8


def byte_packer(cpu: CpuFeatures) -> Pack | None:
    """How this CPU packs registers of int32; None where LLVM's own way is the best."""
    return _pack if cpu.arch == "x86_64" and cpu.lanes == _LANES else None


def store_vectors(
    ctx: TemplateContext, places: Sequence[tuple[Expr, ...]], value: Callable[[int, Expr], Expr],
    lanes: int, pack: Pack | None,
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


def _pack(vectors: Sequence[Expr]) -> Expr:
    """``vpackusdw`` and ``vpackuswb`` saturate, but not what has been cut to a byte before.

    They work on halves of registers: of vectors a, b, c, d the result holds the first four bytes of
    each, then the last four of each, which a last shuffle sorts.
    """
    low = tirx.Broadcast(tirx.const(255, "int32"), _LANES)
    cut = [tirx.bitwise_and(v, low) for v in vectors]
    pairs = [(cut[i], cut[min(i + 1, len(cut) - 1)]) for i in range(0, len(cut), 2)]
    intrinsic = tirx.call_llvm_pure_intrin
    words = [intrinsic("int16x16", "llvm.x86.avx2.packusdw", *pair) for pair in pairs]
    packed = intrinsic("int8x32", "llvm.x86.avx2.packuswb", words[0], words[-1])
    fours = tirx.reinterpret("int32x8", packed)
    order = [index(half * 4 + i) for i in range(len(vectors)) for half in (0, 1)]
    return tirx.reinterpret(f"uint8x{8 * len(vectors)}", tirx.Shuffle([fours], order))


__all__ = ["Pack", "byte_packer", "store_vectors"]
