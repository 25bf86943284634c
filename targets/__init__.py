"""Targets: what the hardware is, and the kernels written for it."""

from __future__ import annotations

from functools import lru_cache

from .base import Target, TargetError, TargetInfo

__all__ = ["Target", "TargetError", "TargetInfo", "parse_target", "target_names"]

_KINDS = ("cpu", "cuda")


def target_names() -> tuple[str, ...]:
    """The kinds a target's name may start with."""
    return _KINDS


@lru_cache(maxsize=16)
def parse_target(text: str) -> Target:
    """The target called ``text``: ``cpu``, ``cpu:x86-64-v3``, ``cpu:aarch64``, ``cuda:sm_90``.

    Raises :class:`TargetError` for a name it does not know.
    """
    kind, _, detail = text.partition(":")
    if kind == "cpu":
        from .cpu.target import CpuTarget

        return CpuTarget.parse(detail)
    if kind == "cuda":
        from .cuda.target import CudaTarget

        return CudaTarget.parse(detail)
    raise TargetError(f"target {text!r} is not known; targets are {', '.join(_KINDS)}")
