"""Lowerings of RNN, GRU and LSTM."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx

from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.numeric import dtype_of
from ..registry import LowerContext, lowering
from .rnn_activations import Activation
from .rnn_layer import Layer, Place, Step


def summed_bias(layer: Layer, recurrent: int | None = None) -> Callable[[Expr, Expr], Expr] | None:
    """The sum of biases ``Wb + Rb`` for an element of the gates; Rb only of ``recurrent`` gates."""
    bias = layer.parameter(3)
    if bias is None:
        return None
    width = layer.gates * layer.hidden
    both = width if recurrent is None else recurrent * layer.hidden

    def entry(d: Expr, j: Expr) -> Expr:
        rest = bias[d, j + width]
        if recurrent is not None:
            rest = tirx.Select(j < both, rest, tirx.const(0, layer.dtype))
        return bias[d, j] + rest

    return entry


@lowering("RNN")
def lower_rnn(c: LowerContext) -> list[TensorExpr]:
    """RNN-22: ``h = f(X * W^T + h * R^T + Wb + Rb)``."""
    layer = Layer(c, gates=1, states=1, default=("Tanh",))
    weights = layer.parameter(2)
    assert weights is not None
    inputs, h = layer.projected(summed_bias(layer)), layer.state(0)
    products = _like_gates(layer)

    def step(s: Step) -> None:
        s.recur(h, weights, (0, layer.hidden), products)
        (f,) = s.functions

        def cell(p: Place, j: Expr) -> Expr:
            total = inputs[s.d, layer.row(p.time, p.sequence), j] + products[s.d, p.sequence, j]
            value = layer.b.let(f(layer.clipped(total)))
            h.store((s.d, p.sequence, j), value)
            return value

        s.update(cell)

    return layer.run(step, [h])


def _like_gates(layer: Layer) -> BufferTensor:
    """A buffer for the products of h with R: (directions, batch, gates * hidden)."""
    shape = (layer.directions, layer.batch, layer.gates * layer.hidden)
    return layer.b.workspace(shape, layer.dtype, "products")


@lowering("LSTM")
def lower_lstm(c: LowerContext) -> list[TensorExpr]:
    """LSTM-22 (Hochreiter and Schmidhuber, 1997); gates: input, output, forget, cell."""
    layer = Layer(c, gates=4, states=2, default=("Sigmoid", "Tanh", "Tanh"))
    weights = layer.parameter(2)
    assert weights is not None
    inputs = layer.projected(summed_bias(layer))
    h, memory = layer.state(0), layer.state(1)
    products = _like_gates(layer)
    cell = LstmCell(layer, inputs, products, memory, h)

    def step(s: Step) -> None:
        s.recur(h, weights, (0, 4 * layer.hidden), products)
        s.update(lambda p, j: cell.advance(s, p, j))

    return layer.run(step, [h, memory])


class LstmCell:
    """The element-wise part of an LSTM step; ``inputs`` and ``products`` hold the gates' sums."""

    def __init__(self, layer: Layer, inputs: BufferTensor, products: BufferTensor,
                 memory: BufferTensor, h: BufferTensor) -> None:  # fmt: skip
        self.layer, self.inputs, self.products = layer, inputs, products
        self.memory, self.h = memory, h
        self.peepholes = layer.parameter(7)
        self.coupled = bool(layer.c.attr("input_forget"))

    def advance(self, s: Step, p: Place, j: Expr) -> Expr:
        """Compute and store the new cell state and h; returns h."""
        layer, b = self.layer, self.layer.b
        row = layer.row(p.time, p.sequence)

        def gate(i: int, memory: Expr) -> Expr:
            place = j + i * layer.hidden
            total = self.inputs[s.d, row, place] + self.products[s.d, p.sequence, place]
            if self.peepholes is not None and i < _WITH_PEEPHOLES:
                total = total + self.peepholes[s.d, place] * memory
            return b.let(layer.clipped(b.let(total)))

        old = b.let(self.memory[s.d, p.sequence, j])
        new, value = lstm_cell(b, s.functions, gate, old, self.coupled)
        self.memory.store((s.d, p.sequence, j), new)
        self.h.store((s.d, p.sequence, j), value)
        return value


# The input, output and forget gates.
_WITH_PEEPHOLES = 3


def lstm_cell(
    b: Builder, functions: Sequence[Activation], gate: Callable[[int, Expr], Expr], old: Expr,
    coupled: bool,
) -> tuple[Expr, Expr]:  # fmt: skip
    """The new cell state and h of an element.

    ``gate(i, memory)`` is the operand of gate i's function. ``coupled``: the forget gate is one
    minus the input gate.
    """
    f, g, h = functions
    keep = b.let(f(gate(0, old)))
    forget = b.let(tirx.const(1, dtype_of(old)) - keep if coupled else f(gate(2, old)))
    new = b.let(forget * old + keep * b.let(g(gate(3, old))))
    emit = b.let(f(gate(1, new)))
    return new, b.let(emit * h(new))


@lowering("GRU")
def lower_gru(c: LowerContext) -> list[TensorExpr]:
    """GRU-22 (Cho et al., 2014), gates in the order update, reset, hidden."""
    layer = Layer(c, gates=3, states=1, default=("Sigmoid", "Tanh"))
    return _gru_linear_first(layer) if c.attr("linear_before_reset") else _gru_reset_first(layer)


def _gru_linear_first(layer: Layer) -> list[TensorExpr]:
    """``n = g(Xn + r * (h * Rn^T + Rbn) + Wbn)``."""
    b, size = layer.b, layer.hidden
    weights, bias = layer.parameter(2), layer.parameter(3)
    assert weights is not None
    inputs, h = layer.projected(summed_bias(layer, recurrent=2)), layer.state(0)
    products = _like_gates(layer)

    def step(s: Step) -> None:
        s.recur(h, weights, (0, 3 * size), products)
        f, g = s.functions

        def cell(p: Place, j: Expr) -> Expr:
            row = layer.row(p.time, p.sequence)
            own = [inputs[s.d, row, j + i * size] for i in range(3)]
            back = [products[s.d, p.sequence, j + i * size] for i in range(3)]
            z, r = (b.let(f(layer.clipped(b.let(own[i] + back[i])))) for i in range(2))
            linear = back[2] if bias is None else back[2] + bias[s.d, j + 5 * size]
            n = b.let(g(layer.clipped(b.let(own[2] + r * linear))))
            return _blend(layer, h, s, p, j, z, n)

        s.update(cell)

    return layer.run(step, [h])


def _gru_reset_first(layer: Layer) -> list[TensorExpr]:
    """``n = g(Xn + (r * h) * Rn^T + Rbn + Wbn)``."""
    b, size = layer.b, layer.hidden
    weights = layer.parameter(2)
    assert weights is not None
    inputs, h = layer.projected(summed_bias(layer)), layer.state(0)
    products = _like_gates(layer)
    update, reset = (b.workspace(h.shape, layer.dtype, "gate") for _ in range(2))

    def step(s: Step) -> None:
        f, g = s.functions
        s.recur(h, weights, (0, 2 * size), products)

        def total(p: Place, j: Expr, i: int) -> Expr:
            place = j + i * size
            row = layer.row(p.time, p.sequence)
            value = inputs[s.d, row, place] + products[s.d, p.sequence, place]
            return b.let(layer.clipped(b.let(value)))

        def gates(p: Place, j: Expr) -> None:
            at = (s.d, p.sequence, j)
            update.store(at, f(total(p, j, 0)))
            reset.store(at, f(total(p, j, 1)) * h[at])

        s.each(gates)
        s.recur(reset, weights, (2 * size, 3 * size), products)

        def cell(p: Place, j: Expr) -> Expr:
            n = b.let(g(total(p, j, 2)))
            return _blend(layer, h, s, p, j, update[s.d, p.sequence, j], n)

        s.update(cell)

    return layer.run(step, [h])


def _blend(layer: Layer, h: BufferTensor, s: Step, p: Place, j: Expr, z: Expr, n: Expr) -> Expr:
    """The new h, stored and returned."""
    at = (s.d, p.sequence, j)
    value = layer.b.let(gru_blend(h[at], z, n))
    h.store(at, value)
    return value


def gru_blend(h: Expr, z: Expr, n: Expr) -> Expr:
    """``(1 - z) * n + z * h``."""
    return (tirx.const(1, dtype_of(n)) - z) * n + z * h
