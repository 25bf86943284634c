"""Discrete Fourier transforms of one row.

Constant lengths take a mixed-radix Stockham transform: with n the length still to be transformed,
s = N/n, radix p and m = n/p, a stage computes

    y[q + s(pj + u)] = w^(s j u) * sum over t of x[q + s(j + mt)] * v^(t u)

for q < s, j < m, u < p, where w = exp(-+2 pi i / N) and v = w^(N/p); it ends in order, so nothing
is permuted. Lengths that are only known at run time are transformed by the definition, with the
powers of w stepped by multiplication in float64.
"""

from __future__ import annotations

import math as pymath
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tvm import tirx

from .builder import BufferTensor, Builder, Expr
from .extents import index
from .numeric import cast, dtype_of

Complex: TypeAlias = "tuple[Expr, Expr]"
Load: TypeAlias = "Callable[[Expr], Complex]"


def radices(n: int) -> list[int]:
    """Factors of ``n``, as many fours as there are and then primes: 4, 4, 2, 3 for 96."""
    found = []
    for p in (4, *range(2, n + 1)):
        if p * p > n and p > 4:
            break
        while n % p == 0:
            found.append(p)
            n //= p
    return [*found, n] if n > 1 else found


def twiddles(b: Builder, n: int, inverse: bool, dtype: str) -> BufferTensor:
    """The powers of w in workspace: row 0 their real parts, row 1 their imaginary parts."""
    table = b.workspace((2, n), dtype, "twiddle")
    angle = 2 * pymath.pi / n

    def body(_at: Any) -> None:
        power = _Power(b, (_double(pymath.cos(angle)), _double(_sign(inverse) * pymath.sin(angle))))
        with b.loop(n) as i:
            for part, value in enumerate(power.get()):
                table.store((index(part), i), cast(value, dtype))
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
    b: Builder, n: int, inverse: bool, table: BufferTensor, rows: tuple[BufferTensor, BufferTensor],
    load: Load,
) -> Load:  # fmt: skip
    """Transform ``load(0) ... load(n - 1)``; returns how to read the result's elements.

    ``rows`` is memory for two complex rows: [2, n] of the type of ``table`` each.
    """
    dtype = table.dtype
    source, target = rows
    with b.loop(n) as i:
        for part, value in enumerate(load(i)):
            source.store((index(part), i), cast(value, dtype))
    s = 1
    for p in radices(n):
        _Stage(b, n, s, p, inverse, table).emit(source, target)
        source, target = target, source
        s *= p
    return lambda i: (source[0, i], source[1, i])


class _Stage:
    def __init__(
        self, b: Builder, n: int, s: int, p: int, inverse: bool, table: BufferTensor
    ) -> None:
        self.b, self.n, self.s, self.p = b, n, s, p
        self.m = n // (s * p)
        self.sign = _sign(inverse)
        self.table = table

    def emit(self, x: BufferTensor, y: BufferTensor) -> None:
        with self.b.loop(self.m) as j, self.b.loop(self.s) as q:
            if self.p in (2, 3, 4, 5):
                terms = [self._load(x, j, q, index(t)) for t in range(self.p)]
                for u, value in enumerate(_BUTTERFLIES[self.p](self, terms)):
                    self._store(y, j, q, index(u), value)
            else:
                with self.b.loop(self.p) as u:
                    self._store(y, j, q, u, self._sum(x, j, q, u))

    def let(self, value: Complex) -> Complex:
        return self.b.let(value[0]), self.b.let(value[1])

    def _load(self, x: BufferTensor, j: Expr, q: Expr, t: Expr) -> Complex:
        at = q + (j + t * self.m) * self.s
        return self.let((x[0, at], x[1, at]))

    def _store(self, y: BufferTensor, j: Expr, q: Expr, u: Expr, value: Complex) -> None:
        at = q + (j * self.p + u) * self.s
        if self.m > 1:
            value = _product(self.let(value), self._power(j * u * self.s))
        y.store((index(0), at), value[0])
        y.store((index(1), at), value[1])

    def _power(self, k: Expr) -> Complex:
        return self.let((self.table[0, k], self.table[1, k]))

    def _sum(self, x: BufferTensor, j: Expr, q: Expr, u: Expr) -> Complex:
        """The sum of a stage by its definition, for radices without a formula of their own."""
        re, im = (self.b.scalar(self.table.dtype, 0.0) for _ in range(2))
        with self.b.loop(self.p) as t:
            power = self._power(tirx.floormod(t * u, index(self.p)) * (self.n // self.p))
            term = _product(self._load(x, j, q, t), power)
            re.set(re.get() + term[0])
            im.set(im.get() + term[1])
        return re.get(), im.get()

    def constant(self, value: float) -> Expr:
        return tirx.const(value, self.table.dtype)

    def times_i(self, value: Complex) -> Complex:
        """``value`` times ``-i``, or times ``i`` in the inverse transform."""
        re, im = value
        zero = self.constant(0.0)
        return (zero - im, re) if self.sign > 0 else (im, zero - re)


def _product(a: Complex, b: Complex) -> Complex:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _add(a: Complex, b: Complex) -> Complex:
    return a[0] + b[0], a[1] + b[1]


def _subtract(a: Complex, b: Complex) -> Complex:
    return a[0] - b[0], a[1] - b[1]


def _two(_stage: _Stage, x: Sequence[Complex]) -> list[Complex]:
    return [_add(x[0], x[1]), _subtract(x[0], x[1])]


def _four(stage: _Stage, x: Sequence[Complex]) -> list[Complex]:
    a, c = stage.let(_add(x[0], x[2])), stage.let(_subtract(x[0], x[2]))
    b, d = stage.let(_add(x[1], x[3])), stage.let(stage.times_i(_subtract(x[1], x[3])))
    return [_add(a, b), _add(c, d), _subtract(a, b), _subtract(c, d)]


def _odd(stage: _Stage, x: Sequence[Complex]) -> list[Complex]:
    """An odd radix: the sums and differences of terms t and p - t are used in several outputs."""
    p = len(x)
    half = range(1, (p + 1) // 2)
    sums = {t: stage.let(_add(x[t], x[p - t])) for t in half}
    differences = {t: stage.let(_subtract(x[t], x[p - t])) for t in half}
    out = [x[0]] * p
    for t in half:
        out[0] = _add(out[0], sums[t])
    for u in half:
        even: Complex = x[0]
        odd: Complex | None = None
        for t in half:
            angle = 2 * pymath.pi * t * u / p
            cosine, sine = (stage.constant(f(angle)) for f in (pymath.cos, pymath.sin))
            even = _add(even, (cosine * sums[t][0], cosine * sums[t][1]))
            term = (sine * differences[t][0], sine * differences[t][1])
            odd = term if odd is None else _add(odd, term)
        assert odd is not None
        even, odd = stage.let(even), stage.let(stage.times_i(odd))
        out[u], out[p - u] = _add(even, odd), _subtract(even, odd)
    return out


_BUTTERFLIES = {2: _two, 3: _odd, 4: _four, 5: _odd}


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
