"""Quantizers that let gradients pass: straight-through estimation.

Codes are integers, held as floats so that a gradient can flow: that of rounding counts as 1 within
the range of the codes and as 0 outside of it, where they saturate (Bengio et al. 2013, Estimating
or Propagating Gradients Through Stochastic Neurons; Jacob et al. 2018, Quantization and Training
of Neural Networks). Scales and zero points stay as they are.
"""

from __future__ import annotations

from ...errors import OperandError
from ...ir.types import DType
from ..emit import Call, Tensor, emits


@emits("QuantizeLinear")
def quantize_linear(call: Call) -> Tensor:
    return codes(
        call[0], call[1], call.get(2), call.element, call.attr("axis"), call.attr("block_size")
    )


@emits("DequantizeLinear")
def dequantize_linear(call: Call) -> Tensor:
    x, zero, axis, block = call[0], call.get(2), call.attr("axis"), call.attr("block_size")
    scale = aligned(call[1], x, axis, block)
    x = x.to(scale.dtype)
    x = x if zero is None else x - aligned(zero, x, axis, block).to(scale.dtype)
    return (x * scale).to(call.dtype)


def codes(
    x: Tensor, scale: Tensor, zero: Tensor | None, element: DType, axis: int, block: int
) -> Tensor:
    """The codes of ``x`` as floats: ``clamp(round(x / scale) + zero)``, halves to even.

    ``scale`` and ``zero`` are scalars, vectors along ``axis``, or of blocks of ``block`` elements
    along it. Raises ``OperandError`` for codes that are no integers.
    """
    if not element.is_integer:
        raise OperandError(f"codes of {element} do not run in PyTorch")
    low = -(2 ** (element.bits - 1)) if element.kind == "i" else 0
    steps = x / aligned(scale, x, axis, block).to(x.dtype)
    rounded = steps + (steps.round() - steps).detach()
    if zero is not None:
        rounded = rounded + aligned(zero, x, axis, block).to(x.dtype)
    return rounded.clamp(low, low + 2**element.bits - 1)


def aligned(parameter: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """A parameter of ``x`` in a shape that broadcasts to it."""
    if parameter.numel() == 1:
        return parameter.reshape(())
    axis = axis % x.dim()
    if block:
        return parameter.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    return parameter.reshape(-1, *[1] * (x.dim() - 1 - axis))
