"""A small imaginary CPU for the layout pass: blocks of four channels, tiles of two blocks."""

from __future__ import annotations

from dataclasses import dataclass

from graphkiln.ir.choices import Choice, KernelShape
from graphkiln.passes.base import PassContext
from graphkiln.targets.cpu.features import CpuFeatures, features_of
from graphkiln.targets.cpu.hardware import CpuHardware
from graphkiln.targets.cpu.layouts import CpuLayouts

TOY = CpuFeatures("toy", "x86_64", "x86-64-v2", "x86_64-linux-gnu", 16, 16, (), dot="vnni")


@dataclass(frozen=True)
class ToyLayouts(CpuLayouts):
    """Tiles that no cost model chooses, so that golden texts outlive changes to it."""

    def estimate(self, shape: KernelShape) -> Choice:
        return Choice(8)


def toy_context() -> PassContext:
    """What passes see of the imaginary CPU."""
    return PassContext(CpuHardware.of(ToyLayouts(TOY)))


def cpu_context(name: str) -> PassContext:
    """What passes see of a named CPU."""
    return PassContext(CpuHardware.of(CpuLayouts(features_of(name))))
