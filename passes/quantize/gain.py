"""What integers gain: how many times as fast a layer becomes, by the target's estimates.

    gain = t(float) / (t(int8) + t(rounding) / readers)

A layer of integers has its operand rounded where that is computed, which is shared by the layers
that read it. The result of a layer counts for those that read it in turn. For 16-bit activations
see :mod:`..word_speed`.
"""

from __future__ import annotations

from ...ir.graph import Node
from ...ir.hardware import Hardware
from ...ir.layer_work import layer_work
from ..word_speed import word_gain
from .places import Places

_LEAST = {8: 0.9, 16: 1.0}
"""The least gain of a layer that is quantized, by the bits of activations: with 8 of them, results
get smaller, and estimates are rough."""


def gains(places: Places, hardware: Hardware, bits: int = 8) -> dict[Node, float]:
    """The gain of each product whose times the hardware knows, with activations of so many bits."""
    found = {}
    for node in places.products:
        gain = _gain(places, node, hardware, bits)
        if gain is not None:
            found[node] = gain
    return found


def slowdown(gain: float | None, bits: int = 8) -> str | None:
    """A reason not to quantize a layer of this gain, or None."""
    if gain is None or gain >= _LEAST[bits]:
        return None
    return f"{bits} bits would take {1 / gain:.1f} times as long"


def _gain(places: Places, node: Node, hardware: Hardware, bits: int) -> float | None:
    work = layer_work(places.graph, node)
    if work is None:
        return None
    operand = places.graph.required_inputs(node)[0]
    readers = max(1, len(places.tensors.get(operand, ())))
    if bits == 16:
        return word_gain(work, hardware, readers)
    floats = hardware.layer_seconds(work)
    integers = hardware.layer_seconds(work.in_bytes())
    rounding = hardware.rounding_seconds(work.read)
    if floats is None or integers is None or rounding is None:
        return None
    return floats / (integers + rounding / readers)


__all__ = ["gains", "slowdown"]
