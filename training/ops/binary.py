"""Ops on several tensors that broadcast: arithmetic, comparison, logic, choice."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch

from ..emit import Call, Tensor, emits

_PLAIN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "And": torch.logical_and,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Or": torch.logical_or,
    "Sub": torch.sub,
    "Xor": torch.logical_xor,
}
_WITH_WEIGHTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "Mul": torch.mul,
}
_CHAINS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Max": torch.maximum,
    "Min": torch.minimum,
    "Sum": torch.add,
}


def _register(key: str, function: Callable[[Tensor, Tensor], Tensor], weights: bool) -> None:
    @emits(key, weights=(0, 1) if weights else (), vectors=True)
    def emit(call: Call) -> Tensor:
        return function(call[0], call[1])


def _register_chain(key: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    @emits(key)
    def emit(call: Call) -> Tensor:
        return reduce(function, call.present)


for _key, _function in _PLAIN.items():
    _register(_key, _function, False)
for _key, _function in _WITH_WEIGHTS.items():
    _register(_key, _function, True)
for _key, _function in _CHAINS.items():
    _register_chain(_key, _function)


@emits("Mean")
def mean(call: Call) -> Tensor:
    return reduce(torch.add, call.present) / len(call.present)


@emits("Div")
def div(call: Call) -> Tensor:
    a, b = call[0], call[1]
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@emits("Pow")
def power(call: Call) -> Tensor:
    """The result has the type of the base. For exponents of floats, integers are no bases."""
    a, b = call[0], call[1]
    if b.is_floating_point() and not a.is_floating_point():
        return torch.pow(a.to(b.dtype), b).to(a.dtype)
    return torch.pow(a, b).to(a.dtype)


@emits("Mod")
def mod(call: Call) -> Tensor:
    return (torch.fmod if call.attr("fmod") else torch.remainder)(call[0], call[1])


@emits("BitShift")
def bit_shift(call: Call) -> Tensor:
    left = call.attr("direction") == "LEFT"
    shift = torch.bitwise_left_shift if left else torch.bitwise_right_shift
    return shift(call[0], call[1])


@emits("Where")
def where(call: Call) -> Tensor:
    return torch.where(call[0], call[1], call[2])
