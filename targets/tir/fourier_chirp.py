"""Discrete Fourier transforms of any length by a convolution (L. Bluestein, "A linear filtering
approach to the computation of discrete Fourier transform", 1970).

As 2jk = j^2 + k^2 - (k - j)^2, with the chirp c[k] = exp(-+pi i k^2 / n)

    y[k] = c[k] * sum over j of (x[j] c[j]) * conj(c[k - j])

The sum is a convolution, which transforms of a length m without large factors compute. K results of
J elements take m >= J + K - 1, so that nothing wraps around. The inverse transform of length m is
the forward one with real and imaginary parts exchanged before and after.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from .builder import BufferTensor, Builder, Expr
from .extents import index
from .fourier_stages import Load, Rows, Stockham, reader, store
from .fourier_tables import chirp, product


def convolution_length(count: int, bins: int) -> int:
    """The length of a convolution of ``count`` elements that gives ``bins`` results.

    It is 1, 3, 5 or 15 times a power of two: the next of these is at most a quarter too long, and
    its transform takes as little time for each element as any.
    """
    least = count + bins - 1
    return min(k << max(0, -(-least // k) - 1).bit_length() for k in (1, 3, 5, 15))


class Bluestein:
    """A plan for the first ``bins`` results of transforms of length ``n`` in ``dtype``.

    ``count`` is the number of elements from which on a row is zero. Tables are computed where the
    plan is made, which must be outside of a nest. Rows have ``length`` complex elements.
    """

    def __init__(
        self, b: Builder, n: int, inverse: bool, dtype: str, count: int, bins: int
    ) -> None:
        self._b, self._count, self._bins = b, count, bins
        self.length = convolution_length(count, bins)
        self._stages = Stockham(b, self.length, False, dtype)
        self._chirp = reader(chirp(b, n, max(count, bins), inverse, dtype))
        self._filter = reader(self._transformed_filter(dtype))

    def transform(self, rows: Rows, load: Load) -> Load:
        """Transform ``load(0) ... load(count - 1)``; returns how to read the first results."""
        b, m = self._b, self.length
        first, second = rows
        with b.loop(self._count) as i:
            store(first, i, product(self._let(load(i)), self._let(self._chirp(i))))
        self._clear(first, self._count, m)
        spectrum = self._stages.run(rows)
        with b.loop(m) as i:
            value = product(self._let(reader(spectrum)(i)), self._let(self._filter(i)))
            store(spectrum, i, value[::-1])
        other = second if spectrum is first else first
        swapped = reader(self._stages.run((spectrum, other)))
        return lambda k: product(self._let(swapped(k)[::-1]), self._let(self._chirp(k)))

    def _transformed_filter(self, dtype: str) -> BufferTensor:
        """The transform of conj(c[d]) for -J < d < K, wrapped around, divided by m."""
        b, m = self._b, self.length
        rows = b.workspace((2, m), dtype, "filter"), b.workspace((2, m), dtype, "filter")
        found: list[BufferTensor] = []

        def body(_at: Any) -> None:
            with b.loop(self._bins) as d:
                self._store_tap(rows[0], d, d)
            self._clear(rows[0], self._bins, m - self._count + 1)
            with b.loop(self._count - 1) as d:
                self._store_tap(rows[0], m - 1 - d, d + 1)
            found.append(self._stages.run(rows))

        b.nest((), body, cost=40 * m)
        return found[0]

    def _store_tap(self, row: BufferTensor, place: Expr, d: Expr) -> None:
        re, im = self._chirp(d)
        scale = tirx.const(1 / self.length, row.dtype)
        store(row, place, (re * scale, tirx.const(0, row.dtype) - im * scale))

    def _clear(self, row: BufferTensor, start: int, stop: int) -> None:
        zero = tirx.const(0, row.dtype)
        with self._b.loop(stop - start) as i:
            store(row, index(start) + i, (zero, zero))

    def _let(self, value: tuple[Expr, Expr]) -> tuple[Expr, Expr]:
        return self._b.let(value[0]), self._b.let(value[1])
