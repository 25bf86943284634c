"""Targets: what the hardware is, and the kernels written for it."""

from __future__ import annotations

from functools import lru_cache

from .base import Target, TargetError, TargetInfo, parse_options

__all__ = ["Target", "TargetError", "TargetInfo", "parse_target", "target_names"]

_KINDS = ("cpu", "cuda")


def target_names() -> tuple[str, ...]:
    """The kinds a target's name may start with."""
    return _KINDS


@lru_cache(maxsize=16)
def parse_target(text: str) -> Target:
    """The target called ``text``: ``cpu``, ``cpu:x86-64-v3``, ``cpu:aarch64``, ``cuda:sm_90``.

    Options follow behind commas: ``cpu:x86-64-v3,check=bounds``. Raises :class:`TargetError` for
    a name or an option it does not know.
    """
    name, *options = text.split(",")
    kind, _, detail = name.partition(":")
    if kind == "cpu":
        from .cpu.target import CpuTarget

        return CpuTarget.parse(detail, parse_options(options, CpuTarget.OPTIONS))
    if kind == "cuda":
        from .cuda.target import CudaTarget

        parse_options(options, {})
        return CudaTarget.parse(detail)
    raise TargetError(f"target {text!r} is not known; targets are {', '.join(_KINDS)}")
