"""Discrete Fourier transforms of one row.

Constant lengths have a plan: by stages of small radices, or, where a factor is a large prime, by a
convolution. Lengths that are only known at run time are transformed by the definition, with the
powers of w stepped by multiplication in float64.
"""

from __future__ import annotations

import math as pymath

from tvm import tirx

from .builder import Builder, Expr
from .extents import index
from .fourier_chirp import Bluestein
from .fourier_stages import Load, Stockham, radices
from .fourier_tables import Complex
from .numeric import cast, dtype_of


def transform_plan(
    b: Builder, n: int, inverse: bool, dtype: str, count: int, bins: int
) -> Stockham | Bluestein:
    """The faster way to the first ``bins`` results of transforms of length ``n``.

    ``count`` is the number of elements from which on a row is zero.
    """
    if radices(n) is None:
        return Bluestein(b, n, inverse, dtype, count, bins)
    return Stockham(b, n, inverse, dtype)


def _sign(inverse: bool) -> int:
    return 1 if inverse else -1


def _double(value: float) -> Expr:
    return tirx.const(value, "float64")


class _Power:
    """The powers 1, w, w^2 ... of a complex number, in float64."""

    def __init__(self, b: Builder, w: Complex) -> None:
        self._b = b
        self._w = w
        self._re, self._im = b.scalar("float64", 1.0), b.scalar("float64", 0.0)

    def get(self) -> Complex:
        return self._re.get(), self._im.get()

    def step(self) -> None:
        re, im = self._b.let(self._re.get()), self._b.let(self._im.get())
        self._re.set(re * self._w[0] - im * self._w[1])
        self._im.set(re * self._w[1] + im * self._w[0])


def transform_point(
    b: Builder, n: Expr, k: Expr, count: Expr, inverse: bool, load: Load
) -> Complex:
    """Sum of ``load(i) * w^(k i)`` over ``i < count`` for transforms of length ``n``, in float64.

    ``count`` may be 0; ``n`` must be positive.
    """
    angle = cast(tirx.floormod(k, n), "float64") * _double(2 * pymath.pi) / cast(n, "float64")
    angle = b.let(angle)
    sine = tirx.sin(angle) * _double(float(_sign(inverse)))
    power = _Power(b, (b.let(tirx.cos(angle)), b.let(sine)))
    re, im = b.scalar("float64", 0.0), b.scalar("float64", 0.0)
    with b.loop(count) as i:
        w_re, w_im = power.get()
        x_re, x_im = (b.let(cast(v, "float64")) for v in load(i))
        re.set(re.get() + x_re * w_re - x_im * w_im)
        im.set(im.get() + x_re * w_im + x_im * w_re)
        power.step()
    return re.get(), im.get()


def real_spectrum(get: Load, n: int) -> Load:
    """The spectrum of a real signal from its first half: the other half is the conjugate mirror."""

    def load(k: Expr) -> Complex:
        upper = k * 2 > index(n)
        re, im = get(tirx.Select(upper, index(n) - k, k))
        zero = tirx.const(0, dtype_of(im))
        own_mirror = tirx.any(k.equal(index(0)), (k * 2).equal(index(n)))
        return re, tirx.Select(own_mirror, zero, tirx.Select(upper, zero - im, im))

    return load
