"""Lowering of com.microsoft.DynamicQuantizeLSTM.

X is quantized once, over its whole range, and h at each step, over the range of all sequences. Both
products are computed in integers. W and R have the gates along their last dim.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...tir.builder import BufferTensor, Expr, TensorExpr
from ...tir.contract import At, Contraction, contract
from ...tir.extents import as_int, product
from ...tir.numeric import cast
from ..registry import LowerContext, lowering
from .quant import dynamic_parameters, quantized_byte, quantized_bytes, range_parameters
from .rnn import LstmCell, summed_bias
from .rnn_dot import each_lane
from .rnn_layer import Layer, Step

COLUMNS = 32
"""Columns of h * R that are summed at once."""


class _WholeBatch(Layer):
    """A layer whose steps compute all sequences together, since they share the range of h."""

    @property
    def block(self) -> Any:
        return self.batch

    @property
    def blocks(self) -> Any:
        return 1


@lowering("com.microsoft.DynamicQuantizeLSTM")
def lower_dynamic_quantize_lstm(c: LowerContext) -> list[TensorExpr]:
    """DynamicQuantizeLSTM-1: an LSTM with 8-bit weights and dynamically quantized X and h."""
    layer = _WholeBatch(c, gates=4, states=2, default=("Sigmoid", "Tanh", "Tanh"))
    b = c.b
    inputs, h, memory = _projected(layer), layer.state(0), layer.state(1)
    shape = (layer.directions, layer.batch, 4 * layer.hidden)
    products, codes = b.workspace(shape, "float32"), b.workspace(h.shape, "uint8", "codes")
    weights = _Weights(c, 2, 10)
    cell = LstmCell(layer, inputs, products, memory, h)

    def step(s: Step) -> None:
        scale, zero = _quantized_state(s, h, codes)
        with b.loop(layer.batch) as n:
            _multiply(s, codes, n, weights, (scale, zero), products)
        s.update(lambda p, j: cell.advance(s, p, j))

    return layer.run(step, [h, memory])


class _Weights:
    """8-bit weights (directions, inputs, columns); the inputs after them are scales and zero
    points.
    """

    def __init__(self, c: LowerContext, i: int, scale: int) -> None:
        self.values: BufferTensor = c.buffered(i)
        self.scales, self.zeros = c.buffered(scale), c.buffered(scale + 1)

    def centered(self, d: Expr, k: Expr, j: Expr) -> Expr:
        """A weight less its zero point, as int32."""
        zero = cast(_by_column(self.zeros, d, j), "int32")
        return cast(self.values[d, k, j], "int32") - zero

    def scale(self, d: Expr, j: Expr) -> Expr:
        return _by_column(self.scales, d, j)


def _by_column(t: BufferTensor, d: Expr, j: Expr) -> Expr:
    """A parameter of a direction, or of each of its columns."""
    if t.rank == 1:
        return t[d]
    return t[d, 0] if as_int(t.shape[1]) == 1 else t[d, j]


def _projected(layer: Layer) -> BufferTensor:
    """``X * W + bias`` as (directions, rows, gates * hidden)."""
    b, c, x = layer.b, layer.c, layer.c.buffered(0)
    weights, bias = _Weights(c, 1, 8), summed_bias(layer)
    rows, inner, columns = product(x.shape[:2]), x.shape[2], 4 * layer.hidden
    flat = b.view(x, (rows, inner))
    scale, zero = b.workspace((), "float32"), b.workspace((), "uint8")
    dynamic_parameters(b, flat, scale, zero)
    codes = quantized_bytes(b, flat, scale, zero)
    out = b.workspace((layer.directions, rows, columns), "float32", "projected")

    def store(at: At, i: Expr, j: Expr, total: Expr) -> None:
        value = cast(total, "float32") * (scale[()] * weights.scale(at[0], j))
        out.store((at[0], i, j), value if bias is None else value + bias(at[0], j))

    contraction = Contraction(
        (layer.directions,), rows, columns, (inner,),
        lambda _at, i, k: cast(codes[i, k[0]], "int32") - cast(zero[()], "int32"),
        lambda at, k, j: weights.centered(at[0], k[0], j), store, "int32",
    )  # fmt: skip
    contract(b, contraction, "columns")
    return out


def _quantized_state(s: Step, h: BufferTensor, codes: BufferTensor) -> tuple[Expr, Expr]:
    """Quantize the h of all sequences into ``codes``; gives the scale and zero point."""
    b, layer = s.layer.b, s.layer
    least, most = b.scalar("float32", 0.0), b.scalar("float32", 0.0)
    with b.grid(layer.batch, layer.hidden) as (n, j):
        least.set(tirx.min(least.get(), h[s.d, n, j]))
        most.set(tirx.max(most.get(), h[s.d, n, j]))
    scale, zero = range_parameters(b, least.get(), most.get())
    scale, zero = b.let(scale), b.let(zero)

    def store(n: Expr, j: Expr) -> None:
        codes.store((s.d, n, j), quantized_byte(b, h[s.d, n, j], scale, zero))

    with b.loop(layer.batch) as n:
        each_lane(b, layer.hidden, layer.dtype, lambda j: store(n, j))
    return scale, zero


def _multiply(s: Step, codes: BufferTensor, n: Expr, weights: _Weights,
              quantization: tuple[Expr, Expr], into: BufferTensor) -> None:  # fmt: skip
    """``into[d, n] = h * R`` for one sequence, a tile of columns at a time."""
    b, layer = s.layer.b, s.layer
    scale, zero = quantization
    columns = 4 * layer.hidden
    known = as_int(columns)
    tile = next((t for t in (COLUMNS, 16, 8, 4) if known and known % t == 0), 1)
    with b.loop(columns // tile) as t:
        start = b.let(t * tile)
        sums = b.local((tile,), "int32")
        with b.lanes(tile) as lane:
            sums.store((lane,), tirx.const(0, "int32"))
        with b.loop(layer.hidden) as k:
            value = b.let(cast(codes[s.d, n, k], "int32") - cast(zero, "int32"))
            with b.lanes(tile) as lane:
                term = value * weights.centered(s.d, k, start + lane)
                sums.store((lane,), sums[lane] + term)
        with b.lanes(tile) as lane:
            factor = scale * weights.scale(s.d, start + lane)
            into.store((s.d, n, start + lane), cast(sums[lane], "float32") * factor)
