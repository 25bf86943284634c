"""Activation functions as expressions of float32 or float64 operands; NaN gives NaN."""

from __future__ import annotations

import math as constants
from typing import Any

import numpy as np
from tvm import tirx

from . import math
from .builder import Builder
from .floats import absolute, at_least, at_most, constant, subtract

Expr = Any

HARD_SWISH_SLOPE = float(np.float32(1 / 6))


def relu(b: Builder, x: Expr) -> Expr:
    """``max(x, 0)``"""
    return at_least(x, 0.0)


def leaky_relu(b: Builder, x: Expr, alpha: float) -> Expr:
    """``x``, or ``alpha * x`` below 0."""
    return tirx.Select(x < constant(0.0, x), x * constant(alpha, x), x)


def elu(b: Builder, x: Expr, alpha: float) -> Expr:
    """``x``, or ``alpha * (exp(x) - 1)`` below 0."""
    x = b.let(x)
    low = subtract(math.exp_flush(b, x), constant(1.0, x)) * constant(alpha, x)
    return tirx.Select(x < constant(0.0, x), low, x)


def selu(b: Builder, x: Expr, alpha: float, gamma: float) -> Expr:
    """``gamma * elu(x, alpha)``"""
    return elu(b, x, alpha) * constant(gamma, x)


def celu(b: Builder, x: Expr, alpha: float) -> Expr:
    """``x``, or ``alpha * (exp(x / alpha) - 1)`` below 0."""
    x = b.let(x)
    low = subtract(math.exp_flush(b, x / constant(alpha, x)), constant(1.0, x))
    return tirx.Select(x < constant(0.0, x), low * constant(alpha, x), x)


def gelu(b: Builder, x: Expr) -> Expr:
    """``x * normal_cdf(x)``"""
    x = b.let(x)
    half = constant(0.5, x)
    return (x * half) * (constant(1.0, x) + math.erf(b, x * constant(constants.sqrt(0.5), x)))


def gelu_tanh(b: Builder, x: Expr) -> Expr:
    """``x / 2 * (1 + tanh(u))`` with ``u = sqrt(2 / pi) * (x + 0.044715 x^3)``.

    Computed as ``x * sigmoid(2 u)``, which is the same.
    """
    x = b.let(x)
    scale = 2 * constants.sqrt(2 / constants.pi)
    cubic = x * x * constant(0.044715 * scale, x) + constant(scale, x)
    return x * math.sigmoid(b, b.let(x * cubic))


def hard_sigmoid(b: Builder, x: Expr, alpha: float, beta: float) -> Expr:
    """``alpha * x + beta``, clipped to between 0 and 1."""
    linear = b.let(x * constant(alpha, x) + constant(beta, x))
    return at_least(b.let(at_most(linear, 1.0)), 0.0)


def hard_swish(b: Builder, x: Expr) -> Expr:
    """``x * hard_sigmoid(x)`` with slope 1/6 around 1/2.

    ONNX defines it by a function with HardSigmoid, whose attributes are floats of single precision,
    so for float64 too the slope is the float32 next to 1/6.
    """
    x = b.let(x)
    return x * hard_sigmoid(b, x, HARD_SWISH_SLOPE, 0.5)


def mish(b: Builder, x: Expr) -> Expr:
    """``x * tanh(log(1 + exp(x)))``.

    With ``e = exp(x)`` this is ``x * (e^2 + 2 e) / (e^2 + 2 e + 2)``, which needs one exponential.
    """
    x = b.let(x)
    # Where exp(x) is subnormal, x times it may be normal, so it must not be flushed to 0.
    e = b.let(math.exp(b, at_most(x, 20.0)))
    n = b.let(e * (e + constant(2.0, x)))
    return x * (n / (n + constant(2.0, x)))


def shrink(b: Builder, x: Expr, bias: float, limit: float) -> Expr:
    """0 within ``limit`` of 0, else ``x`` moved towards 0 by ``bias``."""
    x = b.let(x)
    lower = tirx.Select(x < constant(-limit, x), x + constant(bias, x), constant(0.0, x))
    return tirx.Select(x > constant(limit, x), subtract(x, constant(bias, x)), lower)


def softsign(b: Builder, x: Expr) -> Expr:
    """``x / (1 + |x|)``"""
    x = b.let(x)
    return x / (constant(1.0, x) + absolute(x))


def swish(b: Builder, x: Expr, alpha: float = 1.0) -> Expr:
    """``x * sigmoid(alpha * x)``"""
    x = b.let(x)
    return x * math.sigmoid(b, x if alpha == 1.0 else b.let(x * constant(alpha, x)))


def thresholded_relu(b: Builder, x: Expr, alpha: float) -> Expr:
    """``x`` above ``alpha``, else 0."""
    return tirx.Select(x > constant(alpha, x), x, constant(0.0, x))


__all__ = [
    "celu", "elu", "gelu", "gelu_tanh", "hard_sigmoid", "hard_swish", "leaky_relu", "mish",
    "relu", "selu", "shrink", "softsign", "swish", "thresholded_relu",
]  # fmt: skip
