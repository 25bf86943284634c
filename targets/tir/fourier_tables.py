"""Tables of Fourier transforms: roots of unity and chirps, computed in float64.

The n-th roots w^k are made by doubling: the first 2^j of them times w^(2^j), which is a literal,
are the next 2^j. Each is a product of at most log2(n) correctly rounded numbers, so errors stay at
a few units in the last place, and every step is a loop of independent elements.
"""

from __future__ import annotations

import math as pymath
from typing import Any, TypeAlias

from tvm import tirx

from .builder import BufferTensor, Builder, Expr
from .extents import index
from .numeric import cast

Complex: TypeAlias = "tuple[Expr, Expr]"


def product(a: Complex, b: Complex) -> Complex:
    """The product of complex numbers, each of which is used twice."""
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def roots(b: Builder, n: int, inverse: bool, dtype: str) -> BufferTensor:
    """The powers of w = exp(-2 pi i / n), or of its conjugate if ``inverse``, in workspace.

    Shape [2, n], element type ``dtype``: row 0 their real parts, row 1 their imaginary parts.
    """
    wide = b.workspace((2, n), "float64", "root")
    table = wide if dtype == "float64" else b.workspace((2, n), dtype, "twiddle")

    def body(_at: Any) -> None:
        _fill_roots(b, wide, n, inverse)
        if table is not wide:
            with b.grid(2, n) as at:
                table.store(at, cast(wide[at], dtype))

    b.nest((), body, cost=4 * n)
    return table


def _fill_roots(b: Builder, table: BufferTensor, n: int, inverse: bool) -> None:
    for part, value in enumerate((1.0, 0.0)):
        table.store((index(part), index(0)), tirx.const(value, "float64"))
    known = 1
    while known < n:
        re, im = root(known, n)
        sign = 1 if inverse else -1
        factor = tirx.const(re, "float64"), tirx.const(sign * im, "float64")
        with b.loop(min(known, n - known)) as i:
            power = product((b.let(table[0, i]), b.let(table[1, i])), factor)
            for part in range(2):
                table.store((index(part), i + known), power[part])
        known *= 2


def root(k: int, n: int) -> tuple[float, float]:
    """exp(2 pi i k / n) for k < n; the angle is taken within an eighth of a turn, where it is
    exact to a unit in the last place.
    """
    quarters, rest = divmod(4 * k, n)
    turned = 2 * rest > n
    angle = pymath.pi / 2 * ((n - rest if turned else rest) / n)
    re, im = pymath.cos(angle), pymath.sin(angle)
    if turned:
        re, im = im, re
    for _ in range(quarters):
        re, im = -im, re
    return re, im


def chirp(b: Builder, n: int, count: int, inverse: bool, dtype: str) -> BufferTensor:
    """exp(-pi i k^2 / n) for k < ``count``, or its conjugate if ``inverse``, in workspace.

    Shape [2, count]. They are 2n-th roots of unity, looked up by k^2 modulo 2n, so that angles are
    exact however large k is.
    """
    table = b.workspace((2, count), dtype, "chirp")
    powers = roots(b, 2 * n, inverse, "float64")

    def body(_at: Any) -> None:
        square = b.scalar("int64", 0)
        with b.loop(count) as k:
            for part in range(2):
                table.store((index(part), k), cast(powers[part, square.get()], dtype))
            following = b.let(square.get() + k * 2 + 1)
            square.set(tirx.Select(following >= 2 * n, following - 2 * n, following))

    b.nest((), body, cost=8 * count)
    return table
