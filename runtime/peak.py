"""Measures this machine's peak: arithmetic operations a second of one core, and memory bandwidth.

Operations are timed in a loop of multiply-adds alone, on registers, with enough independent
accumulators to keep every unit busy. The loop is machine code that is assembled here, since the
machines that artifacts run on need no compiler. Each vector length of the CPU is measured, and the
fastest counts. Other work on the machine can only slow a measurement down, so of many runs the
fastest counts.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import numpy as np

from ..machine import cpu_features, machine_arch

ARITHMETIC = ("float32", "float64", "int8")

_TURNS = 4_000
_TRIALS = 100

_SMALLEST_COPY, _LARGEST_COPY = 256 << 10, 256 << 20
_ROUND_BYTES = 64 << 20
_ROUNDS = 5


class Loop(NamedTuple):
    """Machine code of ``void loop(long iterations)`` in C, and its operations in an iteration."""

    code: bytes
    operations: int


@cache
def peak_operations(arithmetic: str) -> float | None:
    """Operations a second of one core, a multiply-add counting two; measured once a process.

    ``arithmetic`` is ``float32``, ``float64``, or ``int8``: products of 8-bit integers summed up
    in 32 bits. None where it cannot be measured: on other architectures than x86-64 and aarch64,
    for int8 where the CPU has no dot product of bytes, and where the system forbids code that is
    made at run time.
    """
    make = {"x86_64": x86_loops, "aarch64": arm_loops}.get(machine_arch())
    loops = make(arithmetic, cpu_features()) if make else []
    try:
        return max((_time(loop) for loop in loops), default=None)
    except OSError:
        return None


def _time(loop: Loop) -> float:
    with open(os.memfd_create("loop"), "wb") as file:
        file.write(loop.code)
        file.flush()
        # Mapped from a file, the code is never writable and executable at once.
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_EXEC) as page:
            view = np.frombuffer(page, np.uint8)
            run = ctypes.CFUNCTYPE(None, ctypes.c_long)(view.ctypes.data)
            best = min(_seconds(lambda: run(_TURNS)) for _ in range(_TRIALS))
            del view
    return loop.operations * _TURNS / best


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# ---- x86-64 --------------------------------------------------------------------------------------

_X86_SUMS = 12
_X86_OPERANDS = (12, 13)
_FUSED_MULTIPLY_ADD, _DOT_BYTES = 0xB8, 0x50  # vfmadd231ps and pd, vpdpbusd


def x86_loops(arithmetic: str, features: frozenset[str]) -> list[Loop]:
    """A loop for each vector length of a CPU with these features."""
    bits = []
    if {"int8": "avx512_vnni"}.get(arithmetic, "avx512f") in features:
        bits.append(512)
    if {"int8": "avx_vnni"}.get(arithmetic, "fma") in features:
        bits.append(256)
    return [_x86_loop(arithmetic, b) for b in bits]


def _x86_loop(arithmetic: str, bits: int) -> Loop:
    opcode = _DOT_BYTES if arithmetic == "int8" else _FUSED_MULTIPLY_ADD
    wide = arithmetic == "float64"
    encode = _evex if bits == 512 else _vex
    body = b"".join(encode(opcode, n, *_X86_OPERANDS, wide) for n in range(_X86_SUMS))
    body += bytes.fromhex("48ffcf")  # dec rdi
    back = len(body) + 6
    clear = b"".join(_clear(n) for n in range(_X86_SUMS + 2))
    code = clear + body + b"\x0f\x85" + struct.pack("<i", -back) + bytes.fromhex("c5f877c3")
    return Loop(code, _X86_SUMS * _operations(arithmetic, bits))


def _clear(n: int) -> bytes:
    """``vxorps xmmN, xmmN, xmmN``, which clears the whole register."""
    high = n >> 3 ^ 1
    return bytes([0xC4, high << 7 | 0x40 | high << 5 | 1, (n ^ 15) << 3, 0x57, _registers(n, n)])


def _evex(opcode: int, out: int, left: int, right: int, wide: bool) -> bytes:
    """An instruction on 512-bit registers below 16, of the opcode map 0F38 with prefix 66."""
    prefix = (out >> 3 ^ 1) << 7 | 0x40 | (right >> 3 ^ 1) << 5 | 0x10 | 2
    second = wide << 7 | (left ^ 15) << 3 | 4 | 1
    return bytes([0x62, prefix, second, 0x48, opcode, _registers(out, right)])


def _vex(opcode: int, out: int, left: int, right: int, wide: bool) -> bytes:
    """The same on 256-bit registers."""
    prefix = (out >> 3 ^ 1) << 7 | 0x40 | (right >> 3 ^ 1) << 5 | 2
    second = wide << 7 | (left ^ 15) << 3 | 4 | 1
    return bytes([0xC4, prefix, second, opcode, _registers(out, right)])


def _registers(out: int, right: int) -> int:
    return 0xC0 | (out & 7) << 3 | right & 7


# ---- aarch64 -------------------------------------------------------------------------------------

_ARM_SUMS = range(16, 32)  # the callee may use these as it likes
_ARM_WORDS = {"float32": 0x4E20CC00, "float64": 0x4E60CC00, "int8": 0x4E809400}  # fmla, fmla, sdot
_ARM_CLEAR, _ARM_RETURN = 0x6F00E400, 0xD65F03C0  # movi v.2d, #0 and ret


def arm_loops(arithmetic: str, features: frozenset[str]) -> list[Loop]:
    """The loop of a CPU with these features, on 128-bit vectors."""
    if arithmetic == "int8" and "asimddp" not in features:
        return []
    word = _ARM_WORDS[arithmetic] | 1 << 16  # out += v0 * v1
    clear = [_ARM_CLEAR | n for n in (0, 1, *_ARM_SUMS)]
    body = [*(word | n for n in _ARM_SUMS), 0xF1000400]  # subs x0, x0, #1
    jump = 0x54000001 | (-len(body) & 0x7FFFF) << 5  # b.ne
    words = [*clear, *body, jump, _ARM_RETURN]
    return [Loop(struct.pack(f"<{len(words)}I", *words), len(_ARM_SUMS) * _operations(arithmetic))]


def _operations(arithmetic: str, bits: int = 128) -> int:
    """Multiplications and additions of one instruction."""
    return 2 * bits // {"float32": 32, "float64": 64, "int8": 8}[arithmetic]


# ---- memory --------------------------------------------------------------------------------------


def copied_bytes(nbytes: int) -> int:
    """How many bytes :func:`copy_bandwidth` works on for a given ``nbytes``."""
    return min(max(nbytes, _SMALLEST_COPY), _LARGEST_COPY)


@cache
def copy_bandwidth(nbytes: int, threads: int) -> float:
    """Bytes read and written a second while ``threads`` threads copy blocks of memory.

    All blocks together take about ``nbytes``, so it is the bandwidth of the cache that holds so
    much, or of memory. Less than 256 KiB counts as 256 KiB, more than 256 MiB as 256 MiB.
    """
    total = copied_bytes(nbytes)
    share = total // (2 * threads)
    blocks = [(np.ones(share, np.uint8), np.ones(share, np.uint8)) for _ in range(threads)]
    repeats = max(1, _ROUND_BYTES // total)
    work = [_copying(target, source, repeats) for target, source in blocks]
    best = _shortest(work)
    return 2 * share * threads * repeats / best


def _copying(target: np.ndarray, source: np.ndarray, repeats: int) -> Callable[[], None]:
    to, origin, size = target.ctypes.data, source.ctypes.data, target.nbytes

    def copy() -> None:
        for _ in range(repeats):
            ctypes.memmove(to, origin, size)

    return copy


def _shortest(work: Sequence[Callable[[], None]]) -> float:
    """Seconds of the fastest round in which every thread does its work."""
    if len(work) == 1:
        return min(_seconds(work[0]) for _ in range(_ROUNDS))
    with ThreadPoolExecutor(len(work)) as pool:

        def together() -> None:
            for done in [pool.submit(w) for w in work]:
                done.result()

        return min(_seconds(together) for _ in range(_ROUNDS))
