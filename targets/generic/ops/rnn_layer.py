"""The loops that recurrent layers share: input projection, time, directions and states.

The products of all inputs with W are computed first, for all steps at once. Then a task for each
direction and block of sequences runs through time, with states in buffers of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tvm import tirx

from ....errors import OperandError
from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.extents import as_int, index, product
from ...tir.numeric import cast
from ..registry import LowerContext
from .conv_direct import blocks_of, in_memory
from .rnn_activations import Activation, activations, between
from .rnn_dot import COLUMNS, dot_tile, each_lane, tile_rows

CHUNK = 64
"""Columns of the input projection that one task computes."""


@dataclass
class Layer:
    """A recurrent layer: the parameters of its node, for the kernels.

    ``gates`` is the number of gates, and ``states`` that of states: h, and c of an LSTM. The
    initial states are the inputs from ``first_state`` on. Values are computed in ``dtype``.
    """

    c: LowerContext
    gates: int
    states: int
    default: tuple[str, ...]
    first_state: int = 5
    dtype: str = field(init=False)
    hidden: Any = field(init=False)

    def __post_init__(self) -> None:
        self.b: Builder = self.c.b
        self.dtype = self.c.input(0).compute_dtype
        self.batch_first = bool(self.c.attr("layout"))
        self.directions = 2 if self.c.attr("direction") == "bidirectional" else 1
        shape = self.c.input(0).shape
        self.steps, self.batch = (shape[1], shape[0]) if self.batch_first else shape[:2]
        self.hidden = self.c.out_shape()[-1]
        lengths = self.first_state - 1
        self.lengths = self.c.buffered(lengths) if self.c.has(lengths) else None
        self.clip = self.c.attr("clip") or None

    @property
    def block(self) -> Any:
        """Sequences of one task: a divisor of the batch."""
        batch = as_int(self.batch)
        return (
            1 if not batch else next(n for n in range(tile_rows(self.b), 0, -1) if batch % n == 0)
        )

    @property
    def blocks(self) -> Any:
        """Blocks of the batch."""
        return blocks_of(self.batch, self.block)

    def row(self, t: Expr, n: Expr) -> Expr:
        """The row of step ``t`` of sequence ``n`` among all input rows."""
        steps, batch = index(self.steps), index(self.batch)
        return n * steps + t if self.batch_first else t * batch + n

    def parameter(self, i: int) -> BufferTensor | None:
        """Input ``i`` in memory in the layer's dtype, or None."""
        return in_memory(self.b, self.c.input(i), self.dtype) if self.c.has(i) else None

    def clipped(self, x: Expr) -> Expr:
        """The operand of an activation: ``x`` clipped to the layer's ``clip``; NaN stays NaN."""
        if self.clip is None:
            return x
        limit = float(self.clip)
        return between(self.b, x, -limit, limit)

    def functions(self) -> list[list[Activation]]:
        """The activations of each direction, or one list where all directions have the same."""
        count = len(self.default)
        names = tuple(self.c.attr("activations") or self.default * self.directions)
        if len(names) > count * self.directions:  # ONNX's default for RNN names both directions
            names = names[: count * self.directions]
        alphas = tuple(self.c.attr("activation_alpha") or ())
        betas = tuple(self.c.attr("activation_beta") or ())
        if len(names) != count * self.directions:
            raise self.c.error(f"{len(names)} activations for {self.directions} directions")
        same = self.directions == 2 and names[:count] == names[count:] and not alphas + betas
        try:
            found = activations(self.b, names, alphas, betas)
        except OperandError as e:
            raise self.c.error(e.reason) from e
        return [found[:count]] if same or self.directions == 1 else [found[:count], found[count:]]

    # ---- inputs ------------------------------------------------------------------------------

    def projected(self, bias: Callable[[Expr, Expr], Expr] | None) -> BufferTensor:
        """``X * W^T + bias`` as (directions, rows, gates * hidden)."""
        b = self.b
        w = in_memory(b, self.c.input(1), self.dtype)
        x = in_memory(b, self.c.input(0), self.dtype)
        count = product((self.steps, self.batch))
        x = b.view(x, (count, x.shape[2]))
        out = b.workspace((self.directions, count, w.shape[1]), self.dtype, "projected")
        known = as_int(count)
        rows = tile_rows(b) if known is None or known >= tile_rows(b) else 1

        def body(at: tuple[Expr, ...]) -> None:
            d, block, chunk = at
            lines = [b.let(tirx.min(block * rows + r, index(count) - 1)) for r in range(rows)]

            def store(r: int, j: Expr, value: Expr) -> None:
                value = value if bias is None else value + bias(d, j)
                out.store((d, lines[r], j), value)

            loads = [partial(_entry, x, (line,)) for line in lines]
            first = chunk * CHUNK
            last = tirx.min(first + CHUNK, index(w.shape[1]))
            multiply_rows(b, loads, w, d, (first, last), self.dtype, store)

        chunks = _ceil_div(w.shape[1], CHUNK)
        b.nest((self.directions, _ceil_div(count, rows), chunks), body, cost=1 << 14,
               sequential_last=True)  # fmt: skip
        return out

    def state(self, i: int) -> BufferTensor:
        """State ``i`` as (directions, batch, hidden), with its initial value."""
        given = self.parameter(self.first_state + i)
        state = self.b.workspace((self.directions, self.batch, self.hidden), self.dtype, "state")

        def body(at: tuple[Expr, ...]) -> None:
            d, n, j = at
            if given is None:
                state.store(at, tirx.const(0, self.dtype))
            else:
                state.store(at, given[n, d, j] if self.batch_first else given[d, n, j])

        self.b.nest(state.shape, body)
        return state

    # ---- time --------------------------------------------------------------------------------

    def run(self, step: Callable[[Step], None], states: Sequence[BufferTensor]) -> list[TensorExpr]:
        """Emit the loop over time; ``step`` emits one step of one block of sequences.

        Returns the layer's outputs.
        """
        b = self.b
        outputs = [self.c.result(i) for i in range(len(self.c.types))]
        functions = self.functions()

        def walk(at: tuple[Expr, ...], chosen: list[Activation]) -> None:
            d, block = at
            with b.loop(self.steps) as s:
                step(Step(self, d, block * self.block, s, chosen, outputs[0]))
            with b.loop(self.block) as r:
                for state, out in zip(states, outputs[1:], strict=False):
                    self._store_last(state, out, d, block * self.block + r)

        def body(at: tuple[Expr, ...]) -> None:
            if len(functions) == 1:
                walk(at, functions[0])
                return
            for i, chosen in enumerate(functions):
                with b.when(at[0].equal(index(i))):
                    walk(at, chosen)

        b.nest((self.directions, self.blocks), body, cost=1 << 16, sequential_last=True)
        return list(outputs)

    def place(self, d: Expr, s: Expr, n: Expr) -> Place:
        """The place in time of step ``s`` of sequence ``n``, which may be past the sequence's
        length.
        """
        b = self.b
        length = index(self.steps)
        if self.lengths is not None:
            length = b.let(tirx.min(cast(self.lengths[n], "int64"), length))
        backward = tirx.max(length - 1 - s, index(0))
        if self.directions == 2:
            t = b.let(tirx.Select(d.equal(index(1)), backward, s))
        else:
            t = backward if self.c.attr("direction") == "reverse" else s
        return Place(n, b.let(t), None if self.lengths is None else s < length)

    def _store_last(self, state: BufferTensor, out: BufferTensor, d: Expr, n: Expr) -> None:
        def copy(j: Expr) -> None:
            out.store((n, d, j) if self.batch_first else (d, n, j), state[d, n, j])

        each_lane(self.b, self.hidden, self.dtype, copy)


@dataclass(frozen=True)
class Place:
    """A step of a sequence: the time it is for, and whether it exists (None: always)."""

    sequence: Expr
    time: Expr
    exists: Expr | None


@dataclass(frozen=True)
class Step:
    """Step ``s`` of the block of sequences that starts at ``first``, in direction ``d``."""

    layer: Layer
    d: Expr
    first: Expr
    s: Expr
    functions: list[Activation]
    output: BufferTensor

    def recur(self, state: BufferTensor, weights: BufferTensor, span: tuple[Any, Any],
              into: BufferTensor) -> None:  # fmt: skip
        """``into[d, n, j] = state[d, n] * weights[d, j]`` for the columns j of ``span``."""

        def store(r: int, j: Expr, value: Expr) -> None:
            into.store((self.d, self.first + r, j), value)

        b, layer = self.layer.b, self.layer
        rows = [partial(_entry, state, (self.d, self.first + r)) for r in range(layer.block)]
        multiply_rows(b, rows, weights, self.d, span, layer.dtype, store)

    def each(self, body: Callable[[Place, Expr], None]) -> None:
        """``body(place, j)`` for every sequence of the block and every hidden element j."""
        layer = self.layer
        with layer.b.loop(layer.block) as r:
            place = layer.place(self.d, self.s, self.first + r)
            each_lane(layer.b, layer.hidden, layer.dtype, partial(body, place))

    def update(self, cell: Callable[[Place, Expr], Expr]) -> None:
        """Run ``cell(place, j)``, which gives h, for every sequence, and store h as the output.

        Past a sequence's length the states stay as they are, and the output is zero.
        """
        b, layer = self.layer.b, self.layer

        def live(place: Place, j: Expr) -> None:
            self._store(place, place.time, j, cell(place, j))

        def dead(place: Place, j: Expr) -> None:
            self._store(place, self.s, j, tirx.const(0, layer.dtype))

        with b.loop(layer.block) as r:
            place = layer.place(self.d, self.s, self.first + r)
            if place.exists is None:
                each_lane(b, layer.hidden, layer.dtype, partial(live, place))
                return
            with b.when(place.exists):
                each_lane(b, layer.hidden, layer.dtype, partial(live, place))
            with b.when(tirx.Not(place.exists)):
                each_lane(b, layer.hidden, layer.dtype, partial(dead, place))

    def _store(self, place: Place, t: Expr, j: Expr, value: Expr) -> None:
        n, d = place.sequence, self.d
        self.output.store((n, t, d, j) if self.layer.batch_first else (t, d, n, j), value)


def multiply_rows(
    b: Builder, rows: Sequence[Callable[[Expr], Expr]], w: BufferTensor, d: Expr,
    span: tuple[Any, Any], dtype: str, store: Callable[[int, Expr, Expr], None],
) -> None:  # fmt: skip
    """Call ``store(r, j, rows[r] * w[d, j])`` for all j of ``span``, for some of them twice."""
    first, last = (index(e) for e in span)
    width = COLUMNS if (as_int(w.shape[1]) or 0) >= COLUMNS else 1
    with b.loop(_ceil_div(last - first, width)) as q:
        start = b.let(tirx.max(tirx.min(first + q * width, last - width), index(0)))
        columns = [partial(_entry, w, (d, start + i)) for i in range(width)]
        products = dot_tile(b, rows, columns, w.shape[2], dtype)
        for r, line in enumerate(products):
            for i, value in enumerate(line):
                store(r, start + i, value)


def _entry(t: BufferTensor, lead: tuple[Expr, ...], k: Expr) -> Expr:
    return t.at(*lead, k)


def _ceil_div(n: Any, by: int) -> Any:
    known = as_int(n)
    return -(-known // by) if known is not None else tirx.floordiv(n + (by - 1), index(by))
