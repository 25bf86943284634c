"""Elementwise ops, and ops on rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphkiln.ir.onnx_types import element_code

from .base import MS, Array, Case, Draw, case, i64

# ---- elementwise ---------------------------------------------------------------------------------


@case(
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Cos", "Cosh", "Elu",
    "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN",
    "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid",
    "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh",
    "ThresholdedRelu", MS + "Gelu", MS + "QuickGelu",
)  # fmt: skip
def unary(d: Draw, key: str) -> Case:
    return Case(key, [d.floats(*d.shape(1))])


@case("Not")
def negation(d: Draw, key: str) -> Case:
    return Case(key, [d.bools(*d.shape())])


@case("BitwiseNot")
def complement(d: Draw, key: str) -> Case:
    return Case(key, [d.bytes(*d.shape())])


@case("Cast", "BitCast")
def cast(d: Draw, key: str) -> Case:
    return Case(key, [d.floats(*d.shape())], {"to": element_code("int32")})


@case("CastLike")
def cast_like(d: Draw, key: str) -> Case:
    return Case(key, [d.floats(*d.shape()), d.ints(0, 9, *d.shape())])


@case("Dropout")
def dropout(d: Draw, key: str) -> Case:
    return Case(key, [d.floats(*d.shape())], outputs=d.dim(1, 2))


def _operands(d: Draw, make: Callable[..., Array], count: int = 2) -> list[Array]:
    shape = d.shape()
    arrays = [make(*shape), *(make(*d.squeezed(shape)) for _ in range(count - 1))]
    return arrays if d.flag() else arrays[::-1]


@case(
    "Add", "Sub", "Mul", "Div", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual",
    "Pow", "Mod",
)  # fmt: skip
def binary(d: Draw, key: str) -> Case:
    return Case(key, _operands(d, d.positive), {"fmod": 1} if key == "Mod" else {})


@case("BitwiseAnd", "BitwiseOr", "BitwiseXor")
def bitwise(d: Draw, key: str) -> Case:
    return Case(key, _operands(d, d.bytes))


@case("BitShift")
def shift(d: Draw, key: str) -> Case:
    arrays = _operands(d, lambda *shape: d.ints(0, 8, *shape, dtype="uint8"))
    return Case(key, arrays, {"direction": d.pick("LEFT", "RIGHT")})


@case("And", "Or", "Xor")
def logical(d: Draw, key: str) -> Case:
    return Case(key, _operands(d, d.bools))


@case("Max", "Min", "Sum", "Mean")
def variadic(d: Draw, key: str) -> Case:
    return Case(key, _operands(d, d.floats, d.dim(1, 3)))


@case("Where")
def where(d: Draw, key: str) -> Case:
    shape = d.shape()
    x, y = d.floats(*d.squeezed(shape)), d.floats(*shape)
    return Case(key, [d.bools(*d.squeezed(shape)), *((x, y) if d.flag() else (y, x))])


@case("Clip")
def clip(d: Draw, key: str) -> Case:
    return Case(
        key, [d.floats(*d.shape()), np.float32([-1]).reshape(()), np.float32(1).reshape(())]
    )


@case("PRelu")
def prelu(d: Draw, key: str) -> Case:
    shape = d.shape()
    return Case(key, [d.floats(*shape), d.floats(*d.squeezed(shape))])


@case("SwiGLU")
def swiglu(d: Draw, key: str) -> Case:
    shape = d.shape()
    return Case(key, [d.floats(*shape), d.floats(*shape)])


@case(MS + "FastGelu", MS + "BiasGelu", MS + "BiasAdd")
def with_bias(d: Draw, key: str) -> Case:
    shape = d.shape(1)
    skip = [d.floats(*shape)] if key.endswith("Add") else []
    return Case(key, [d.floats(*shape), d.floats(shape[-1]), *skip])


@case(MS + "BiasSplitGelu")
def halves(d: Draw, key: str) -> Case:
    *lead, last = d.shape(1)
    return Case(key, [d.floats(*lead, 2 * last), d.floats(2 * last)])


@case(MS + "QLinearAdd", MS + "QLinearMul")
def quantized_binary(d: Draw, key: str) -> Case:
    scale, zero = np.float32(0.1), np.uint8(100)
    a, b = _operands(d, d.bytes)
    return Case(key, [a, scale, zero, b, scale, zero, np.float32(0.3), zero])


@case(MS + "QLinearSigmoid", MS + "QLinearLeakyRelu")
def quantized_unary(d: Draw, key: str) -> Case:
    return Case(
        key, [d.bytes(*d.shape()), np.float32(0.02), np.uint8(128), np.float32(0.01), np.uint8(3)]
    )


@case("kiln.Requantize")
def requantize(d: Draw, key: str) -> Case:
    shape = d.shape()
    scale, zero = d.positive(*d.squeezed(shape)) * 0.1, d.ints(0, 9, *d.squeezed(shape))
    return Case(key, [d.ints(-99, 99, *shape, dtype="int32"), scale, zero.astype(np.uint8)])


@case("kiln.JoinSums")
def join_sums(d: Draw, key: str) -> Case:
    shape = d.shape()
    return Case(key, [d.ints(-99, 99, *shape, dtype="int32") for _ in range(2)])


@case("kiln.MapBytes")
def map_bytes(d: Draw, key: str) -> Case:
    return Case(key, [d.bytes(*d.shape()), d.bytes(256)])


@case("StringConcat")
def string_concat(d: Draw, key: str) -> Case:
    return Case(key, [x.astype(str).astype(object) for x in _operands(d, d.bytes)])


@case("RegexFullMatch")
def regex(d: Draw, key: str) -> Case:
    return Case(key, [d.bytes(*d.shape()).astype(str).astype(object)], {"pattern": "1.*"})


@case("ai.onnx.ml.LabelEncoder")
def labels(d: Draw, key: str) -> Case:
    attrs = {"keys_int64s": (1, 2), "values_int64s": (5, 6), "default_int64": 9}
    return Case(key, [d.ints(0, 4, *d.shape(1))], attrs)


@case("ai.onnx.ml.OneHotEncoder")
def one_hot_encoder(d: Draw, key: str) -> Case:
    return Case(key, [d.ints(0, 3, *d.shape(1))], {"cats_int64s": (0, 1, 2)})


@case("kiln.Lookup")
def lookup(d: Draw, key: str) -> Case:
    return Case(key, [d.ints(0, 4, *d.shape()), i64(1, 2), i64(7, 8), i64(9).reshape(())])


@case("kiln.ZipMap")
def zip_map(d: Draw, key: str) -> Case:
    n = d.dim()
    return Case(key, [d.floats(d.dim(), n)], {"keys": tuple(range(n))}, resizable=False)


@case("kiln.Require")
def require(d: Draw, key: str) -> Case:
    return Case(key, [d.floats(*d.shape()), np.array(True)], {"message": "no"})


@case("kiln.TreeEnsemble")
def trees(d: Draw, key: str) -> Case:
    nodes = [
        np.int32([0]), d.floats(1), np.array([[1, 2]], np.int32), np.int32([0]), d.floats(2, 3)
    ]  # fmt: skip
    return Case(key, [d.floats(d.dim(), d.dim()), *nodes], {"targets": 3})


@case("kiln.CoupledProbabilities")
def coupled(d: Draw, key: str) -> Case:
    return Case(key, [d.positive(d.dim(), 3) / 3], {"classes": 3})
