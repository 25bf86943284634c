"""CPU models: their instruction sets, vector widths, registers and caches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ...machine import cpu_features, machine_arch
from ..base import TargetError


@dataclass(frozen=True)
class CpuFeatures:
    """What kernels depend on in one CPU model.

    ``mcpu``, ``triple`` and ``mattr`` go to LLVM. ``required`` are the features, as Linux spells
    them in ``/proc/cpuinfo``, that LLVM uses for ``mcpu``: an artifact is not loaded where one is
    missing. ``vector_bytes`` is the width of a SIMD register, ``registers`` their number, ``l1``
    and ``l2`` the sizes of a core's data caches in bytes. ``dot`` names the instructions that sum
    products of 8-bit integers: ``vnni``, ``madd`` (pairs, in 16 bits), ``sdot``, or None.
    """

    name: str
    arch: str
    mcpu: str
    triple: str
    vector_bytes: int
    registers: int
    required: tuple[str, ...]
    mattr: tuple[str, ...] = ()
    dot: str | None = None
    l1: int = 32 * 1024
    l2: int = 1024 * 1024

    @property
    def target(self) -> str:
        """The target's name without options, ``cpu:haswell``, as databases of tuned kernels have
        it.
        """
        return f"cpu:{self.name}"

    @property
    def lanes(self) -> int:
        """float32 elements of a SIMD register."""
        return self.vector_bytes // 4


_X86 = "x86_64-linux-gnu"
_V2 = ("ssse3", "sse4_1", "sse4_2", "popcnt")
_V3 = (*_V2, "avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "movbe", "abm")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_ICELAKE = (
    *_V4, "avx512_vnni", "avx512vbmi", "avx512_vbmi2", "avx512ifma", "avx512_bitalg",
    "avx512_vpopcntdq", "gfni",
)  # fmt: skip

_NAMED = {
    f.name: f
    for f in (
        CpuFeatures("x86-64-v2", "x86_64", "x86-64-v2", _X86, 16, 16, _V2, dot="madd"),
        CpuFeatures("x86-64-v3", "x86_64", "x86-64-v3", _X86, 32, 16, _V3, dot="madd"),
        CpuFeatures("x86-64-v4", "x86_64", "x86-64-v4", _X86, 64, 32, _V4, dot="madd"),
        CpuFeatures(
            "haswell", "x86_64", "haswell", _X86, 32, 16, _V3, dot="madd", l2=256 * 1024
        ),
        CpuFeatures(
            "skylake-avx512", "x86_64", "skylake-avx512", _X86, 64, 32, _V4, dot="madd"
        ),
        CpuFeatures(
            "cascadelake", "x86_64", "cascadelake", _X86, 64, 32, (*_V4, "avx512_vnni"), dot="vnni"
        ),
        CpuFeatures(
            "icelake-server", "x86_64", "icelake-server", _X86, 64, 32, _ICELAKE, dot="vnni",
            l1=48 * 1024, l2=1280 * 1024,
        ),
        CpuFeatures(
            "sapphirerapids", "x86_64", "sapphirerapids", _X86, 64, 32,
            (*_ICELAKE, "avx512_bf16", "avx512_fp16", "avx_vnni"), dot="vnni",
            l1=48 * 1024, l2=2048 * 1024,
        ),
        CpuFeatures(
            "znver4", "x86_64", "znver4", _X86, 64, 32, (*_ICELAKE, "avx512_bf16", "sse4a"),
            dot="vnni",
        ),
        CpuFeatures(
            "aarch64", "aarch64", "generic", "aarch64-linux-gnu", 16, 32, ("asimd",),
            mattr=("+neon",),
        ),
        CpuFeatures(
            "aarch64-dotprod", "aarch64", "generic", "aarch64-linux-gnu", 16, 32,
            ("asimd", "asimddp"), mattr=("+neon", "+dotprod"), dot="sdot",
        ),
    )
}  # fmt: skip

_HOSTS = (
    "sapphirerapids", "znver4", "icelake-server", "cascadelake", "x86-64-v4", "x86-64-v3",
    "x86-64-v2",
)  # fmt: skip
"""x86 CPUs, the most specific first."""


def named_cpus() -> tuple[str, ...]:
    """The CPU names that ``cpu:NAME`` takes."""
    return tuple(_NAMED)


def features_of(name: str) -> CpuFeatures:
    """The features of a named CPU; an empty name or ``native`` means this machine's model.

    Raises :class:`TargetError` for a name that is not known.
    """
    if name in ("", "native"):
        return host_features()
    found = _NAMED.get(name)
    if found is None:
        raise TargetError(f"CPU {name!r} is not known; known are {', '.join(_NAMED)}")
    return found


@cache
def host_features() -> CpuFeatures:
    """The model that the target ``cpu`` stands for on this machine (detected once)."""
    return detected_features()


def detected_features() -> CpuFeatures:
    """The most specific named model whose features this machine has.

    Raises :class:`TargetError` where it has not even SSE4.2.
    """
    flags = cpu_features()
    if machine_arch() == "aarch64":
        return _NAMED["aarch64-dotprod" if "asimddp" in flags else "aarch64"]
    for name in _HOSTS:
        if set(_NAMED[name].required) <= flags:
            return _NAMED[name]
    raise TargetError("this CPU lacks SSE4.2, which the oldest known target needs")
