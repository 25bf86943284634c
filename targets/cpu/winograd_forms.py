"""The transforms of Winograd convolutions F(m x m, 3x3).

``Y = A^T [(G g G^T) . (B^T d B)] A``: a tile of m x m outputs takes (m + 2)^2 multiplications
instead of 9 m^2, which is 36 instead of 144 for m = 4 (Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", 2016). The interpolation points are 0, 1, -1 and infinity, for m = 4
also 2 and -2. The transforms here are one-dimensional, and work on vectors of channels.

For 8-bit integers everything is exact. The rows of ``G`` are multiplied by what makes them whole,
and transformed inputs and weights fit into 16 bits. For F(2x2, 3x3) that is 2: inputs are at most
4 * 255, weights 9 * 128, and the result is 4 times the convolution. For F(4x4, 3x3) inputs are at
most 100 * 255 and weights 49 * 128. The rows are multiplied by 4, -6, -6, 24, 24 and 1, which the
columns of ``A^T`` make 24 of all: the result is 24^2 = 9 * 64 times the convolution. It is computed
modulo 2^32, where 9 has an inverse, so that a convolution is exact whose 64-fold fits into 32 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from tvm import tirx

from ..tir.builder import Builder

Expr = Any
Vectors: TypeAlias = list[Expr]


@dataclass(frozen=True)
class Arithmetic:
    """Vectors of ``lanes`` numbers of a type, each result in a variable of its own."""

    b: Builder
    lanes: int
    dtype: str = "float32"

    def let(self, value: Expr) -> Expr:
        return self.b.let(value, "t")

    def all(self, *values: Expr) -> Vectors:
        return [self.let(v) for v in values]

    def number(self, value: float) -> Expr:
        return tirx.Broadcast(tirx.const(value, self.dtype), self.lanes)


Transform: TypeAlias = Callable[[Arithmetic, Vectors], Vectors]


@dataclass(frozen=True)
class Form:
    """F(outputs x outputs, 3x3).

    The output transform gives ``scale`` times the convolution, modulo 2^32 for integers.
    ``image_cost`` counts vector
    operations of an input or output transform of one tile and one vector of channels,
    ``weight_cost`` those of one input channel's weights for a vector of filters.
    """

    name: str
    outputs: int
    image_cost: int
    weight_cost: int
    input: Transform
    weight: Transform
    output: Transform
    scale: int = 1

    @property
    def growth(self) -> int:
        """The power of two in ``scale``, by which bits of the accumulators are lost."""
        return self.scale & -self.scale

    @property
    def inverse(self) -> int:
        """The inverse of the odd part of ``scale`` modulo 2^32."""
        return pow(self.scale // self.growth, -1, 2**32)

    @property
    def inputs(self) -> int:
        """Rows (and columns) of a tile of inputs."""
        return self.outputs + 2

    @property
    def points(self) -> int:
        """Multiplications of a tile, for each pair of an input channel and a filter."""
        return self.inputs**2


def _input2(a: Arithmetic, d: Vectors) -> Vectors:
    """``B^T d``"""
    return a.all(d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3])


def _weight2(a: Arithmetic, g: Vectors) -> Vectors:
    """``G g``"""
    outer, inner = a.let((g[0] + g[2]) * a.number(0.5)), a.let(g[1] * a.number(0.5))
    return a.all(g[0], outer + inner, outer - inner, g[2])


def _doubled_weight2(a: Arithmetic, g: Vectors) -> Vectors:
    """``2 G g``"""
    outer = a.let(g[0] + g[2])
    return a.all(g[0] + g[0], outer + g[1], outer - g[1], g[2] + g[2])


def _output2(a: Arithmetic, m: Vectors) -> Vectors:
    """``A^T m``"""
    return a.all(m[0] + m[1] + m[2], m[1] - m[2] - m[3])


def _input4(a: Arithmetic, d: Vectors) -> Vectors:
    """``B^T d``"""
    even, odd = a.let(d[4] - a.number(4) * d[2]), a.let(d[3] - a.number(4) * d[1])
    near, far = a.let(d[4] - d[2]), a.let((d[3] - d[1]) * a.number(2))
    return a.all(
        a.number(4) * d[0] - a.number(5) * d[2] + d[4],
        even + odd, even - odd, near + far, near - far,
        a.number(4) * d[1] - a.number(5) * d[3] + d[5],
    )  # fmt: skip


def _weight4(a: Arithmetic, g: Vectors) -> Vectors:
    """``G g``"""
    outer, inner = a.let((g[0] + g[2]) * a.number(-1 / 6)), a.let(g[1] * a.number(-1 / 6))
    wide = a.let(g[0] * a.number(1 / 24) + g[2] * a.number(1 / 6))
    narrow = a.let(g[1] * a.number(1 / 12))
    return a.all(
        g[0] * a.number(1 / 4), outer + inner, outer - inner, wide + narrow, wide - narrow, g[2],
    )  # fmt: skip


def _output4(a: Arithmetic, m: Vectors) -> Vectors:
    """``A^T m``"""
    one, two = a.let(m[1] + m[2]), a.let(m[3] + m[4])
    first, second = a.let(m[1] - m[2]), a.let(m[3] - m[4])
    return a.all(
        m[0] + one + two, first + a.number(2) * second, one + a.number(4) * two,
        first + a.number(8) * second + m[5],
    )  # fmt: skip


def _whole_weight4(a: Arithmetic, g: Vectors) -> Vectors:
    """``G g`` with rows times 4, -6, -6, 24, 24, 1."""
    outer, wide = a.let(g[0] + g[2]), a.let(g[0] + a.number(4) * g[2])
    twice = a.let(a.number(2) * g[1])
    return a.all(g[0], outer + g[1], outer - g[1], wide + twice, wide - twice, g[2])


def _whole_output4(a: Arithmetic, m: Vectors) -> Vectors:
    """``24 A^T m`` for points that are multiplied by 4, -6, -6, 24, 24, 1."""
    one, two = a.let(a.number(4) * (m[1] + m[2])), a.let(m[3] + m[4])
    first, second = a.let(a.number(4) * (m[1] - m[2])), a.let(a.number(2) * (m[3] - m[4]))
    return a.all(
        a.number(6) * m[0] - one + two, second - first, a.number(4) * two - one,
        a.number(4) * second - first + a.number(24) * m[5],
    )  # fmt: skip


F2 = Form("winograd_2x2", 2, 80, 100, _input2, _weight2, _output2)
F4 = Form("winograd_4x4", 4, 220, 320, _input4, _weight4, _output4)
FORMS = {form.name: form for form in (F4, F2)}
"""The forms of floats by their names, which are the values of the attribute ``algorithm``."""
WHOLE_F2 = replace(F2, weight=_doubled_weight2, scale=4, image_cost=45, weight_cost=60)
WHOLE_F4 = replace(
    F4, weight=_whole_weight4, output=_whole_output4, scale=576, image_cost=180, weight_cost=170
)
WHOLE_FORMS = {form.name: form for form in (WHOLE_F4, WHOLE_F2)}
"""The same for 8-bit integers."""
