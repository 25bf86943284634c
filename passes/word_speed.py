"""What 16-bit activations gain: how many times as fast as floats two products of bytes are."""

from __future__ import annotations

from ..ir.hardware import Hardware
from ..ir.layer_work import LayerWork

_HALVES = 2


def word_gain(work: LayerWork, hardware: Hardware, readers: int = 1) -> float | None:
    """How many times as fast as in floats a layer is whose operand has two bytes, each of which is
    multiplied by itself. The operand is rounded and taken apart once for so many ``readers``.

    None where the hardware does not know.
    """
    floats = hardware.layer_seconds(work)
    integers = hardware.layer_seconds(work.in_bytes())
    rounding = hardware.rounding_seconds(work.read)
    joining = hardware.joining_seconds(work.written)
    if floats is None or integers is None or rounding is None or joining is None:
        return None
    return floats / (_HALVES * (integers + rounding / readers) + joining)


__all__ = ["word_gain"]
