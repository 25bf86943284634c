"""Families of graphs: each builds a net from chance alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..net import Net, Unfit

Step = Callable[[Net], object]
Family = Callable[[Net], None]


def grow(net: Net, steps: Sequence[Step], count: int) -> None:
    """Add so many steps; those that do not fit are tried again with others."""
    done = tries = 0
    while done < count and tries < 12 * count:
        tries += 1
        kept = len(net.nodes), len(net.values)
        try:
            net.choose(steps)(net)
            done += 1
        except Unfit:
            # A step may have added a part of what it wanted; that part is as good as any.
            done += len(net.nodes) > kept[0]


def families() -> dict[str, Family]:
    """Every family by name."""
    from . import control, convnets, elementwise, quantized, recurrent, shapes, transformers

    found: dict[str, Family] = {}
    # New ones go to the end: a family's place is part of what its graphs are made from.
    for module in (elementwise, shapes, convnets, transformers, recurrent, control, quantized):
        found.update(module.FAMILIES)
    return found


def build(family: str, seed: int) -> Net:
    """The net of a number; one that stays empty gets an Identity."""
    names = list(families())
    net = Net(np.random.default_rng([names.index(family), seed]))
    families()[family](net)
    if not net.nodes:
        net.op("Identity", net.values[0])
    return net
