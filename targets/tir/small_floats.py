"""Bit-level conversion between float32 and the float types that LLVM has no arithmetic for.

A codec is a pair (stored bits -> float32, float32 -> stored bits). Encoding rounds to nearest,
ties to even, and does not saturate: what is too large becomes infinity where the type has one,
else NaN, else (float4e2m1) the largest number; that is how ml_dtypes converts. Formats: OCP 8-bit
floating point 1.0, OCP microscaling 1.0 and IEEE-style "fnuz" types (arXiv 2206.02915).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import DataType, tirx

Expr = Any
Codec = tuple[Callable[[Expr], Expr], Callable[[Expr], Expr]]

_INFINITY, _NAN = 0x7F800000, 0x7FC00000


def _i32(value: int) -> Expr:
    return tirx.const(value, "int32")


def _f32(value: float) -> Expr:
    return tirx.const(value, "float32")


def _bits(value: Expr) -> Expr:
    return tirx.reinterpret("int32", value)


def _float(bits: Expr) -> Expr:
    return tirx.reinterpret("float32", bits)


def _let(value: Expr, body: Callable[[Expr], Expr]) -> Expr:
    """``body(value)``, with ``value`` in a variable, so that it is computed once."""
    var = tirx.Var("bits", "int32")
    return tirx.Let(var, value, body(var))


@dataclass(frozen=True)
class SmallFloat:
    """A float type of at most 8 bits.

    ``largest`` is the code of the largest finite number, ``overflow`` the code that larger numbers
    get, ``nan`` the code of NaN (None where the type has none). ``signed_nan`` says whether NaN has
    codes with both signs; otherwise the code of minus zero is the only NaN.
    """

    mantissa: int
    bias: int
    sign: int
    largest: int
    overflow: int
    nan: int | None
    signed_nan: bool = True

    @property
    def max(self) -> float:
        """The largest finite value."""
        exponent, fraction = divmod(self.largest, 1 << self.mantissa)
        return (1 + fraction / (1 << self.mantissa)) * 2.0 ** (exponent - self.bias)

    def decode(self, stored: Expr) -> Expr:
        """The float32 of a uint8 code."""
        return _let(tirx.Cast("int32", stored), self._decode)

    def _decode(self, code: Expr) -> Expr:
        magnitude = tirx.bitwise_and(code, _i32(self.sign - 1))
        normal = tirx.shift_left(magnitude, _i32(23 - self.mantissa)) + _i32(
            (127 - self.bias) << 23
        )
        step = 2.0 ** (1 - self.bias - self.mantissa)
        tiny = _bits(tirx.Cast("float32", magnitude) * _f32(step))
        value = tirx.Select(magnitude < _i32(1 << self.mantissa), tiny, normal)
        if self.signed_nan and self.nan is not None:
            special = _i32(_NAN)
            if self.overflow != self.nan:
                special = tirx.Select(magnitude > _i32(self.overflow), special, _i32(_INFINITY))
            value = tirx.Select(magnitude > _i32(self.largest), special, value)
        place = 31 - self.sign.bit_length() + 1
        sign = tirx.shift_left(tirx.bitwise_and(code, _i32(self.sign)), _i32(place))
        signed = tirx.bitwise_or(value, sign)
        if not self.signed_nan:
            signed = tirx.Select(code.equal(_i32(self.sign)), _i32(_NAN), signed)
        return _float(signed)

    def encode(self, value: Expr) -> Expr:
        """The uint8 code nearest to a float32."""
        return tirx.Cast("uint8", _let(_bits(value), self._encode))

    def _encode(self, bits: Expr) -> Expr:
        magnitude = tirx.bitwise_and(bits, _i32(0x7FFFFFFF))
        smallest_normal = _i32((128 - self.bias) << 23)
        code = tirx.Select(
            magnitude < smallest_normal, self._tiny(magnitude), self._normal(magnitude)
        )
        code = tirx.min(code, _i32(self.overflow))
        place = 31 - self.sign.bit_length() + 1
        sign = tirx.bitwise_and(tirx.shift_right(bits, _i32(place)), _i32(self.sign))
        is_nan = magnitude > _i32(_INFINITY)
        if self.nan is None:  # ml_dtypes makes NaN a zero of the other sign
            return tirx.Select(
                is_nan, tirx.bitwise_xor(sign, _i32(self.sign)), tirx.bitwise_or(code, sign)
            )
        code = tirx.Select(is_nan, _i32(self.nan), code)
        if self.signed_nan:
            return tirx.bitwise_or(code, sign)
        zero = _i32(0)
        return _let(code, lambda c: tirx.Select(c.equal(zero), zero, tirx.bitwise_or(c, sign)))

    def _normal(self, magnitude: Expr) -> Expr:
        dropped = 23 - self.mantissa
        odd = tirx.bitwise_and(tirx.shift_right(magnitude, _i32(dropped)), _i32(1))
        rounded = tirx.shift_right(magnitude + odd + _i32((1 << (dropped - 1)) - 1), _i32(dropped))
        return rounded - _i32((127 - self.bias) << self.mantissa)

    def _tiny(self, magnitude: Expr) -> Expr:
        """The code of a subnormal number: adding a power of two makes the hardware round it."""
        rounder = 2.0 ** (24 - self.bias - self.mantissa)
        base = (127 + 24 - self.bias - self.mantissa) << 23
        return _bits(_float(magnitude) + _f32(rounder)) - _i32(base)


SMALL_FLOATS: dict[str, SmallFloat] = {
    "float8e4m3fn": SmallFloat(3, 7, 0x80, 0x7E, 0x7F, 0x7F),
    "float8e4m3fnuz": SmallFloat(3, 8, 0x80, 0x7F, 0x80, 0x80, signed_nan=False),
    "float8e5m2": SmallFloat(2, 15, 0x80, 0x7B, 0x7C, 0x7E),
    "float8e5m2fnuz": SmallFloat(2, 16, 0x80, 0x7F, 0x80, 0x80, signed_nan=False),
    "float4e2m1": SmallFloat(1, 1, 0x08, 0x07, 0x07, None),
}


def decode_bfloat16(stored: Expr) -> Expr:
    """The float32 of a bfloat16's bits (uint16), or of a vector of them."""
    bits, floats = like(stored, "uint32"), like(stored, "float32")
    wide = tirx.shift_left(tirx.Cast(bits, stored), tirx.const(16, bits))
    return tirx.reinterpret(floats, wide)


def like(value: Expr, name: str) -> str:
    """The TVM dtype of elements called ``name`` with as many lanes as ``value``."""
    lanes = DataType(str(value.ty.dtype)).lanes
    return name if lanes == 1 else f"{name}x{lanes}"


def encode_bfloat16(value: Expr) -> Expr:
    """The bits (uint16) of the bfloat16 nearest to a float32; NaN keeps its sign."""
    bits = tirx.reinterpret("uint32", value)
    sixteen = tirx.const(16, "uint32")
    odd = tirx.bitwise_and(tirx.shift_right(bits, sixteen), tirx.const(1, "uint32"))
    rounded = tirx.shift_right(bits + odd + tirx.const(0x7FFF, "uint32"), sixteen)
    quiet = tirx.bitwise_or(tirx.shift_right(bits, sixteen), tirx.const(0x40, "uint32"))
    magnitude = tirx.bitwise_and(bits, tirx.const(0x7FFFFFFF, "uint32"))
    is_nan = magnitude > tirx.const(0x7F800000, "uint32")
    return tirx.Cast("uint16", tirx.Select(is_nan, quiet, rounded))


def decode_e8m0(stored: Expr) -> Expr:
    """The float32 of a float8e8m0 code: a power of two, NaN for 255."""
    return _float(_let(tirx.Cast("int32", stored), _decode_e8m0))


def _decode_e8m0(code: Expr) -> Expr:
    normal = tirx.shift_left(code, _i32(23))
    small = tirx.Select(code.equal(_i32(0)), _i32(0x00400000), normal)
    return tirx.Select(code.equal(_i32(255)), _i32(_NAN), small)


def encode_e8m0(value: Expr, mode: str = "nearest", saturate: bool = False) -> Expr:
    """The code (uint8) of a float32 rounded to a power of two.

    ``mode`` is ``nearest`` (ties up), ``up`` or ``down``. Out of range: the nearest end where
    ``saturate``, else NaN. Negative numbers, for which the type has nothing, give NaN. Raises
    ``ValueError`` for an unknown mode.
    """
    if mode not in ("nearest", "up", "down"):
        raise ValueError(f"unknown rounding mode {mode!r}")
    return tirx.Cast("uint8", _let(_bits(value), lambda bits: _encode_e8m0(bits, mode, saturate)))


def _encode_e8m0(bits: Expr, mode: str, saturate: bool) -> Expr:
    added = {"nearest": 0x400000, "up": 0x7FFFFF, "down": 0}[mode]
    normal = tirx.shift_right(bits + _i32(added), _i32(23))
    # Below 2^-126 there are only the codes 0 (2^-127) and 1 (2^-126).
    edge = {"nearest": 0x600000, "up": 0x400001, "down": 0x800000}[mode]
    small = tirx.Select(bits < _i32(edge), _i32(0), _i32(1))
    code = tirx.Select(bits < _i32(0x00800000), small, normal)
    lowest = {"nearest": 0x200000, "up": 1, "down": 0x400000}[mode]
    too_small, too_large = (0, 254) if saturate else (255, 255)
    code = tirx.Select(bits < _i32(lowest), _i32(too_small), code)
    largest = {"nearest": 0x7F3FFFFF, "up": 0x7F000000, "down": 0x7F7FFFFF}[mode]
    code = tirx.Select(bits > _i32(largest), _i32(too_large), code)
    undefined = tirx.Or(bits > _i32(_INFINITY), bits < _i32(0))
    code = tirx.Select(undefined, _i32(255), code)
    zero = tirx.bitwise_and(bits, _i32(0x7FFFFFFF)).equal(_i32(0))
    return tirx.Select(zero, _i32(too_small), code)


CODECS: dict[str, Codec] = {
    "bfloat16": (decode_bfloat16, encode_bfloat16),
    "float8e8m0": (decode_e8m0, encode_e8m0),
    **{name: (t.decode, t.encode) for name, t in SMALL_FLOATS.items()},
}
