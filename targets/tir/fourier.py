"""Discrete Fourier transforms of one row.

Constant lengths take a mixed-radix Stockham transform: with n the length still to be transformed,
s = N/n, radix p and m = n/p, a stage computes

    y[q + s(pj + u)] = sum over t of x[q + s(j + mt)] * w^(s u (j + mt)),  w = exp(-+2 pi i / N)

for q < s, j < m, u < p; it ends in order, so nothing is permuted. Lengths that are only known at
run time are transformed by the definition, with w^k stepped by multiplication. All is computed in
float64, so that what cancels leaves no visible noise in float32 results.
"""

from __future__ import annotations

import math as pymath
from collections.abc import Callable
from typing import Any, TypeAlias

from tvm import tirx

from .builder import BufferTensor, Builder, Expr, index
from .numeric import cast

Complex: TypeAlias = "tuple[Expr, Expr]"


def radices(n: int) -> list[int]:
    """Factors of ``n``: fours, then primes."""
    found = []
    for p in (4, *range(2, n + 1)):
        if p * p > n and p > 4:
            break
        while n % p == 0:
            found.append(p)
            n //= p
    return [*found, n] if n > 1 else found


def twiddles(b: Builder, n: int, inverse: bool) -> BufferTensor:
    """The powers of w in workspace: row 0 their real parts, row 1 their imaginary parts."""
    table = b.workspace((2, n), "float64", "twiddle")
    angle = 2 * pymath.pi / n

    def body(_at: Any) -> None:
        power = _Power(b, (_double(pymath.cos(angle)), _double(_sign(inverse) * pymath.sin(angle))))
        with b.loop(n) as i:
            for part, value in enumerate(power.get()):
                table.store((index(part), i), value)
            power.step()

    b.nest((), body, cost=8 * n)
    return table


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


def fast_transform(
    b: Builder, n: int, table: BufferTensor, load: Callable[[Expr], Complex]
) -> Callable[[Expr], Complex]:
    """Transform ``load(0) ... load(n - 1)``; returns how to read the result's elements."""
    source, target = (b.workspace((2, n), "float64", "row") for _ in range(2))
    with b.loop(n) as i:
        for part, value in enumerate(load(i)):
            source.store((index(part), i), cast(value, "float64"))
    s = 1
    for p in radices(n):
        _stage(b, n, s, p, table, source, target)
        source, target = target, source
        s *= p
    return lambda i: (source[0, i], source[1, i])


def _stage(
    b: Builder, n: int, s: int, p: int, table: BufferTensor, x: BufferTensor, y: BufferTensor
) -> None:
    m = n // (s * p)
    with b.loop(m) as j, b.loop(p) as u, b.loop(s) as q:
        re, im = b.scalar("float64", 0.0), b.scalar("float64", 0.0)
        with b.loop(p, "unrolled" if p <= 4 else "serial") as t:
            at = q + (j + t * m) * s
            power = tirx.floormod(u * (j + t * m) * s, index(n))
            w_re, w_im = b.let(table[0, power]), b.let(table[1, power])
            x_re, x_im = b.let(x[0, at]), b.let(x[1, at])
            re.set(re.get() + x_re * w_re - x_im * w_im)
            im.set(im.get() + x_re * w_im + x_im * w_re)
        y.store((index(0), q + (j * p + u) * s), re.get())
        y.store((index(1), q + (j * p + u) * s), im.get())


def transform_point(
    b: Builder, n: Expr, k: Expr, count: Expr, inverse: bool, load: Callable[[Expr], Complex]
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
