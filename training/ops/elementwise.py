"""Ops on one tensor, element by element."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ...errors import OperandError
from ..emit import Call, Tensor, emits

_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseNot": torch.bitwise_not,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}


def _register(key: str, function: Callable[[Tensor], Tensor]) -> None:
    @emits(key)
    def emit(call: Call) -> Tensor:
        return function(call[0])


for _key, _function in _PLAIN.items():
    _register(_key, _function)


@emits("Identity")
def identity(call: Call) -> Tensor:
    return call[0]


@emits("Dropout")
def dropout(call: Call) -> list[Tensor]:
    """As ONNX runs it for inference: elements stay as they are, and the mask is all true."""
    if call.get(2) is not None and bool(call[2]):
        raise OperandError("dropout runs in its inference form only (training_mode false)")
    return [call[0], torch.ones_like(call[0], dtype=torch.bool)]


# ---- activations with parameters -----------------------------------------------------------------


@emits("Gelu")
def gelu(call: Call) -> Tensor:
    return F.gelu(call[0], approximate=call.attr("approximate"))


@emits("com.microsoft.Gelu")
def gelu_microsoft(call: Call) -> Tensor:
    return F.gelu(call[0])


@emits("Swish")
def swish(call: Call) -> Tensor:
    return call[0] * torch.sigmoid(call.attr("alpha") * call[0])


@emits("SwiGLU")
def swiglu(call: Call) -> Tensor:
    gate = call[0]
    return gate * torch.sigmoid(call.attr("alpha") * gate) * call[1]


@emits("HardSigmoid")
def hard_sigmoid(call: Call) -> Tensor:
    return torch.clamp(call.attr("alpha") * call[0] + call.attr("beta"), 0.0, 1.0)


@emits("LeakyRelu")
def leaky_relu(call: Call) -> Tensor:
    return F.leaky_relu(call[0], call.attr("alpha"))


@emits("PRelu", weights=(1,))
def prelu(call: Call) -> Tensor:
    x, slope = call[0], call[1]
    return torch.where(x < 0, slope * x, x)


@emits("Elu")
def elu(call: Call) -> Tensor:
    return F.elu(call[0], call.attr("alpha"))


@emits("Celu")
def celu(call: Call) -> Tensor:
    return F.celu(call[0], call.attr("alpha"))


@emits("Selu")
def selu(call: Call) -> Tensor:
    x, alpha = call[0], call.attr("alpha")
    return call.attr("gamma") * torch.where(x > 0, x, alpha * torch.expm1(torch.clamp(x, max=0)))


@emits("Softplus")
def softplus(call: Call) -> Tensor:
    return torch.logaddexp(call[0], torch.zeros_like(call[0]))


@emits("ThresholdedRelu")
def thresholded_relu(call: Call) -> Tensor:
    return torch.where(call[0] > call.attr("alpha"), call[0], torch.zeros_like(call[0]))


@emits("Shrink")
def shrink(call: Call) -> Tensor:
    x, bias, limit = call[0], call.attr("bias"), call.attr("lambd")
    inner = torch.where(x > limit, x - bias, torch.zeros_like(x))
    return torch.where(x < -limit, x + bias, inner).to(x.dtype)


@emits("Clip")
def clip(call: Call) -> Tensor:
    x, low, high = call[0], call.get(1), call.get(2)
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


@emits("IsInf")
def is_inf(call: Call) -> Tensor:
    x = call[0]
    found = torch.zeros_like(x, dtype=torch.bool)
    if call.attr("detect_positive"):
        found = found | torch.isposinf(x)
    if call.attr("detect_negative"):
        found = found | torch.isneginf(x)
    return found


# ---- conversion ----------------------------------------------------------------------------------


@emits("Cast", "CastLike")
def cast(call: Call) -> Tensor:
    x, target = call[0], call.dtype
    if call.element.bits < 8 and target is not torch.bool:
        raise OperandError(f"a conversion to {call.element} does not run in PyTorch")
    if target is torch.bool:
        return x != 0
    return x.to(target)
