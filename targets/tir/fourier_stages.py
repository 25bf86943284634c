"""Discrete Fourier transforms of lengths with small factors.

A mixed-radix Stockham transform: with n the length still to be transformed, s = N/n, radix p and
m = n/p, a stage computes

    y[q + s(pj + u)] = w^(s j u) * sum over t of x[q + s(j + mt)] * v^(t u)

for q < s, j < m, u < p, where w = exp(-+2 pi i / N) and v = w^(N/p); it ends in order, so nothing
is permuted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from tvm import tirx

from .builder import BufferTensor, Builder, Expr
from .extents import index
from .fourier_tables import Complex, product, root, roots
from .numeric import cast

Load: TypeAlias = "Callable[[Expr], Complex]"
Rows: TypeAlias = "tuple[BufferTensor, BufferTensor]"


_RADICES = (4, 2, 3, 5, 7, 11, 13)


def radices(n: int) -> list[int] | None:
    """The radices of the stages of a transform of length ``n``: 4, 2, 4, 3 for 96.

    None if ``n`` has a prime factor above 13. A 2 stands behind the first 4: from the third stage
    on vectors of 8 elements lie side by side then.
    """
    found = []
    for p in _RADICES:
        while n % p == 0:
            found.append(p)
            n //= p
    if 2 in found and 4 in found:
        found.remove(2)
        found.insert(1, 2)
    return found if n == 1 else None


class Stockham:
    """A plan for transforms of length ``n``, with no prime factor above 13, in ``dtype``.

    Its table is computed where it is made, which must be outside of a nest. Rows are memory for
    complex numbers: [2, at least ``length``], row 0 the real parts. Raises ValueError for another
    length.
    """

    def __init__(self, b: Builder, n: int, inverse: bool, dtype: str) -> None:
        stages = radices(n)
        if stages is None:
            raise ValueError(f"{n} has a prime factor above {_RADICES[-1]}")
        self.length, self._radices = n, stages
        self._b, self._inverse = b, inverse
        self._table = roots(b, n, inverse, dtype)

    def transform(self, rows: Rows, load: Load) -> Load:
        """Transform ``load(0) ... load(n - 1)``; returns how to read the result's elements."""
        with self._b.loop(self.length) as i:
            store(rows[0], i, load(i))
        return reader(self.run(rows))

    def run(self, rows: Rows) -> BufferTensor:
        """Transform the first of two rows; returns the one of them that holds the result."""
        source, target = rows
        s = 1
        for p in self._radices:
            _Stage(self._b, self.length, s, p, self._inverse, self._table).emit(source, target)
            source, target = target, source
            s *= p
        return source


def store(row: BufferTensor, i: Expr, value: Complex) -> None:
    """Store a complex number, converted to the row's type."""
    for part in range(2):
        row.store((index(part), i), cast(value[part], row.dtype))


def reader(row: BufferTensor) -> Load:
    """How to read a row's elements."""
    return lambda i: (row[0, i], row[1, i])


class _Stage:
    def __init__(
        self, b: Builder, n: int, s: int, p: int, inverse: bool, table: BufferTensor
    ) -> None:
        self.b, self.n, self.s, self.p = b, n, s, p
        self.m = n // (s * p)
        self.inverse = inverse
        self.table = table

    def emit(self, x: BufferTensor, y: BufferTensor) -> None:
        with self.b.loop(self.m) as j, self.b.loop(self.s) as q:
            terms = [self._load(x, j, q, t) for t in range(self.p)]
            for u, value in enumerate(_BUTTERFLIES.get(self.p, _odd)(self, terms)):
                self._store(y, j, q, u, value)

    def let(self, value: Complex) -> Complex:
        return self.b.let(value[0]), self.b.let(value[1])

    def _load(self, x: BufferTensor, j: Expr, q: Expr, t: int) -> Complex:
        at = q + (j + t * self.m) * self.s
        return self.let((x[0, at], x[1, at]))

    def _store(self, y: BufferTensor, j: Expr, q: Expr, u: int, value: Complex) -> None:
        at = q + (j * self.p + u) * self.s
        if self.m > 1:
            value = product(self.let(value), self._power(j * u * self.s))
        y.store((index(0), at), value[0])
        y.store((index(1), at), value[1])

    def _power(self, k: Expr) -> Complex:
        return self.let((self.table[0, k], self.table[1, k]))

    def constant(self, value: float) -> Expr:
        return tirx.const(value, self.table.dtype)

    def times_i(self, value: Complex) -> Complex:
        """``value`` times ``-i``, or times ``i`` in the inverse transform."""
        re, im = value
        zero = self.constant(0.0)
        return (zero - im, re) if self.inverse else (im, zero - re)


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
            cosine, sine = (stage.constant(v) for v in root(t * u % p, p))
            even = _add(even, (cosine * sums[t][0], cosine * sums[t][1]))
            term = (sine * differences[t][0], sine * differences[t][1])
            odd = term if odd is None else _add(odd, term)
        assert odd is not None
        even, odd = stage.let(even), stage.let(stage.times_i(odd))
        out[u], out[p - u] = _add(even, odd), _subtract(even, odd)
    return out


_BUTTERFLIES = {2: _two, 4: _four}
