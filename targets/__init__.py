"""Targets: what the hardware is, and the kernels written for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import entry_points
from typing import TypeAlias

from ..tvm_import import import_tvm
from .base import Target, TargetError, TargetInfo, parse_options

__all__ = [
    "Parser", "Target", "TargetError", "TargetInfo", "foreign_names", "is_foreign", "parse_options",
    "parse_target", "register_target", "target_names",
]  # fmt: skip

GROUP = "graphkiln.targets"
"""The group of entry points that bring targets; each gives a :data:`Parser`."""

Parser: TypeAlias = Callable[[str, Sequence[str]], Target]
"""Makes the target of what stands behind the colon of its name, and of the options.

Raises :class:`TargetError` for either.
"""


def _parse_cpu(detail: str, options: Sequence[str]) -> Target:
    from .cpu.target import CpuTarget

    return CpuTarget.parse(detail, parse_options(options, CpuTarget.OPTIONS))


def _parse_cuda(detail: str, options: Sequence[str]) -> Target:
    from .cuda.target import CudaTarget

    parse_options(options, {})
    return CudaTarget.parse(detail)


_BUILT_IN: dict[str, Parser] = {"cpu": _parse_cpu, "cuda": _parse_cuda}
_registered: dict[str, Parser] = {}


def register_target(kind: str, parser: Parser) -> None:
    """Make a kind of target known to this process, instead of another one of its name."""
    _registered[kind] = parser
    parse_target.cache_clear()


def target_names() -> tuple[str, ...]:
    """The kinds a target's name may start with."""
    return (*_BUILT_IN, *foreign_names())


def foreign_names() -> list[str]:
    """The kinds that plugins and :func:`register_target` brought."""
    found = {*_registered, *(e.name for e in entry_points(group=GROUP))}
    return sorted(found - _BUILT_IN.keys())


def is_foreign(spec: str) -> bool:
    """Is this a target that only this process knows, and no worker of it?"""
    return _kind(spec) in _registered


def _kind(text: str) -> str:
    return text.partition(",")[0].partition(":")[0]


@lru_cache(maxsize=16)
def parse_target(text: str) -> Target:
    """The target called ``text``: ``cpu``, ``cpu:x86-64-v3``, ``cpu:aarch64``, ``cuda:sm_90``.

    Options follow behind commas: ``cpu:x86-64-v3,check=bounds``. Kinds are the package's, those of
    plugins (entry points in the group ``graphkiln.targets``), and what :func:`register_target` got.
    Raises :class:`TargetError` for a name or an option it does not know.
    """
    import_tvm()  # before a target's own modules do
    name, *options = text.split(",")
    kind, _, detail = name.partition(":")
    parser = _registered.get(kind) or _BUILT_IN.get(kind)
    if parser is None:
        for found in entry_points(group=GROUP, name=kind):
            parser = found.load()
    if parser is None:
        raise TargetError(f"target {text!r} is not known; targets are {', '.join(target_names())}")
    return parser(detail, options)
