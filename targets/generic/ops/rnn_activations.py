"""The activation functions that recurrent and fused ops name in their attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from tvm import tirx

from ....errors import OperandError
from ....ir.ops.fused_activation import activation_parameters
from ...tir import math
from ...tir.builder import Builder, Expr
from ...tir.floats import at_least, at_most
from ...tir.numeric import dtype_of
from ..registry import LowerContext

Activation: TypeAlias = "Callable[[Expr], Expr]"

# Name -> the defaults of alpha and beta (None: the function has no such parameter).
_PARAMETERS: dict[str, tuple[float | None, float | None]] = {
    "Relu": (None, None),
    "Tanh": (None, None),
    "Sigmoid": (None, None),
    "Affine": (1.0, 0.0),
    "LeakyRelu": (0.01, None),
    "ThresholdedRelu": (1.0, None),
    "ScaledTanh": (1.0, 1.0),
    "HardSigmoid": (0.2, 0.5),
    "Elu": (1.0, None),
    "Softsign": (None, None),
    "Softplus": (None, None),
}


def activations(
    b: Builder, names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]
) -> list[Activation]:
    """The functions called ``names``, whatever the case of their letters.

    Those with parameters take the next of ``alphas`` and ``betas`` each, or ONNX's defaults.
    Raises :class:`.OperandError` for an unknown name.
    """
    known = {name.lower(): name for name in _PARAMETERS}
    alpha, beta = iter(alphas), iter(betas)
    found = []
    for name in names:
        if name.lower() not in known:
            raise OperandError(f"unknown activation {name!r}")
        exact = known[name.lower()]
        default_alpha, default_beta = _PARAMETERS[exact]
        found.append(activation(b, exact, _next(alpha, default_alpha), _next(beta, default_beta)))
    return found


def _next(values: Iterator[float], default: float | None) -> float:
    return 0.0 if default is None else next(values, default)


def activation(b: Builder, name: str, alpha: float = 0.0, beta: float = 0.0) -> Activation:
    """The function called ``name`` with its parameters."""
    builder = _BUILDERS[name]

    def apply(x: Expr) -> Expr:
        dtype = dtype_of(x)
        return builder(b, b.let(x), tirx.const(alpha, dtype), tirx.const(beta, dtype))

    return apply


def between(b: Builder, x: Expr, low: float, high: float) -> Expr:
    """``x`` clipped to between ``low`` and ``high``; NaN stays NaN."""
    return at_least(b.let(at_most(b.let(x), high)), low)


def _one(x: Expr) -> Expr:
    return tirx.const(1, dtype_of(x))


def _zero(x: Expr) -> Expr:
    return tirx.const(0, dtype_of(x))


_BUILDERS: dict[str, Callable[[Builder, Expr, Expr, Expr], Expr]] = {
    "Relu": lambda b, x, alpha, beta: at_least(x, 0.0),
    "Tanh": lambda b, x, alpha, beta: math.tanh(b, x),
    "Sigmoid": lambda b, x, alpha, beta: math.sigmoid(b, x),
    "Affine": lambda b, x, alpha, beta: alpha * x + beta,
    "LeakyRelu": lambda b, x, alpha, beta: tirx.Select(x >= _zero(x), x, alpha * x),
    "ThresholdedRelu": lambda b, x, alpha, beta: tirx.Select(x >= alpha, x, _zero(x)),
    "ScaledTanh": lambda b, x, alpha, beta: alpha * math.tanh(b, b.let(beta * x)),
    "HardSigmoid": lambda b, x, alpha, beta: between(b, alpha * x + beta, 0.0, 1.0),
    "Elu": lambda b, x, alpha, beta: tirx.Select(x >= _zero(x), x, alpha * math.expm1(b, x)),
    "Softsign": lambda b, x, alpha, beta: x / (_one(x) + tirx.abs(x)),
    "Softplus": lambda b, x, alpha, beta: math.softplus(b, x),
}


def fused_activation(c: LowerContext) -> Activation:
    """The activation that com.microsoft's fused ops apply to their result: attribute
    ``activation``, with its parameters.
    """
    name: str = c.attr("activation") or ""
    given = activation_parameters(c.attr)
    if not name:
        return lambda x: x
    if name == "Clip":
        low, high = (*given, 0.0, 0.0)[:2]
        return lambda x: between(c.b, x, low, high)
    try:
        return activations(c.b, [name], given[:1], given[1:2])[0]
    except OperandError as e:
        raise c.error(e.reason) from e
