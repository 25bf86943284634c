"""Recurrent layers with packed weights: a register tile holds all gates of some hidden elements.

A step of time computes ``x W^T + h R^T`` for each gate. The first product is an input of this
kernel: it was computed for all steps at once, by a packed product before. The second is computed
here, block by block of hidden elements, for all gates of the block together.

A task runs through time for a few sequences in one direction. Its states are in buffers of its own.
There are two of h, since a step reads all of the old h while it writes the new one. Where there is
only one task, the cores share the blocks of each step instead. The last block is padded beyond the
hidden size with elements that nothing reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...ir.graph import Graph, Node
from ...ir.registry import attribute
from ..generic.ops.rnn import gru_blend, lstm_cell
from ..generic.ops.rnn_activations import Activation
from ..generic.ops.rnn_dot import each_lane
from ..generic.ops.rnn_layer import Layer, Place
from ..generic.registry import Details, Template, TemplateContext, operand_types
from ..tir.builder import BufferTensor
from ..tir.cpu_loops import PARALLEL_THRESHOLD
from ..tir.extents import as_int, index, product
from .dot import FloatDot
from .features import CpuFeatures
from .microkernel import RegisterTile
from .tiling import cover, largest_tile, tile_cost

Expr = Any
_FIRST_STATE = 4
_WAIT = 4
"""An operation counts so many times: with few rows, a step mostly waits for its weights."""
_FLOAT = "float32"


def recurrent_templates(cpu: CpuFeatures) -> dict[str, Template]:
    """The templates of ``kiln.RNNPacked``, ``kiln.GRUPacked`` and ``kiln.LSTMPacked``."""

    def template(gates: int, states: int, functions: tuple[str, ...], step: Step) -> Template:
        def emit(ctx: TemplateContext) -> None:
            layer = Layer(ctx, gates, states, functions, first_state=_FIRST_STATE)
            _Recurrent(ctx, cpu, layer, step).emit()

        def details(graph: Graph, node: Node) -> Details:
            x, weights = operand_types(graph, node, 2)
            batch = as_int(x.dims[0 if attribute(node, "layout") else 1])
            tile = largest_tile(cpu, int(weights.dims[-1]) // cpu.lanes)
            return Details(tile.covering(batch).text(cpu.lanes))

        return Template(emit, details, stores=True)

    return {
        "kiln.RNNPacked": template(1, 1, ("Tanh",), _rnn_step),
        "kiln.GRUPacked": template(3, 1, ("Sigmoid", "Tanh"), _gru_step),
        "kiln.LSTMPacked": template(4, 2, ("Sigmoid", "Tanh", "Tanh"), _lstm_step),
    }


class _Recurrent:
    """The kernel of one layer."""

    def __init__(self, ctx: TemplateContext, cpu: CpuFeatures, layer: Layer, step: Step) -> None:
        self.ctx, self.b, self.layer, self.step = ctx, ctx.b, layer, step
        self.lanes = cpu.lanes
        self.weights = ctx.buffered(1)
        _, self.blocks, self.hidden, width = (int(d) for d in self.weights.shape)
        self.tile = width // layer.gates
        self.vectors = self.tile // self.lanes
        self.padded = self.blocks * self.tile
        rows = product((layer.steps, layer.batch))
        shape = (rows, layer.directions, self.blocks, layer.gates, self.tile)
        self.inputs = self.b.view(ctx.buffered(0), shape)
        self.bias = ctx.buffered(2) if ctx.has(2) else None
        self.starts = [layer.parameter(_FIRST_STATE + i) for i in range(layer.states)]
        self.limit = largest_tile(cpu, layer.gates * self.vectors).rows
        self.outputs = [ctx.result(i) for i in range(len(ctx.types))]
        self.wants_steps = ctx.destination(0) is not None

    def emit(self) -> None:
        """Cut the batch into tasks of some sequences each.

        If its size is only known at run time, tasks have the most sequences that fit, and those
        that are left over are tasks of one sequence.
        """
        batch = as_int(self.layer.batch)
        if batch is not None:
            start = 0
            for size, count in cover(batch, self.limit):
                self._tasks(index(start), count, size)
                start += size * count
            return
        whole = tirx.floordiv(index(self.layer.batch), index(self.limit))
        self._tasks(index(0), whole, self.limit)
        if self.limit > 1:
            done = whole * self.limit
            self._tasks(done, index(self.layer.batch) - done, 1)

    def _tasks(self, start: Expr, count: Any, rows: int) -> None:
        """Tasks for ``count`` times ``rows`` sequences; at run time it may be a single one."""
        tasks = product((self.layer.directions, count))
        known = as_int(tasks)
        if known is not None or self.layer.directions > 1:
            self._walks(start, count, rows, alone=known == 1)
            return
        alone = self.b.let(index(tasks).equal(index(1)))
        with self.b.when(alone):
            self._walks(start, 1, rows, alone=True)
        with self.b.when(tirx.Not(alone)):
            self._walks(start, count, rows, alone=False)

    def _walks(self, start: Expr, count: Any, rows: int, alone: bool) -> None:
        """Run the tasks; each direction has code of its own if its activation functions differ."""
        layer = self.layer
        functions = layer.functions()

        def task(at: tuple[Expr, ...]) -> None:
            d, c = at
            first = self.b.let(start + c * rows)
            if len(functions) == 1:
                _Walk(self, d, first, rows, functions[0], alone).emit()
                return
            for i, own in enumerate(functions):
                with self.b.when(d.equal(index(i))):
                    _Walk(self, d, first, rows, own, alone).emit()

        if alone:
            task((index(0), index(0)))
            return
        steps = as_int(layer.steps) or 16
        cost = tile_cost(2 * layer.gates * self.hidden * self.padded * rows * steps)
        self.b.nest((layer.directions, count), task, cost, sequential_last=True)


@dataclass(frozen=True)
class _Now:
    """A step: where each sequence is in time, and which buffer of h is old and which is new."""

    places: list[Place]
    old: Expr
    new: Expr


class _Walk:
    """One task: ``rows`` sequences from ``first`` on, all steps of time, in direction ``d``.

    ``alone``: it is the only task, so all cores may share the blocks of a step.
    """

    def __init__(
        self, kernel: _Recurrent, d: Expr, first: Expr, rows: int, functions: list[Activation],
        alone: bool,
    ) -> None:  # fmt: skip
        self.k, self.b, self.layer = kernel, kernel.b, kernel.layer
        self.d, self.first, self.rows, self.functions = d, first, rows, functions
        self.alone = alone
        self.h = self.b.workspace((2, rows, kernel.padded), _FLOAT, "h")
        self.memory: BufferTensor | None = None
        if self.layer.states > 1:
            self.memory = self.b.workspace((rows, kernel.padded), _FLOAT, "c")

    def emit(self) -> None:
        self._start(self.h, (index(0),), 0)
        if self.memory is not None:
            self._start(self.memory, (), 1)
        with self.b.loop(self.layer.steps) as s:
            old = self.b.let(tirx.floormod(s, index(2)))
            places = [self.layer.place(self.d, s, self.first + r) for r in range(self.rows)]
            now = _Now(places, old, self.b.let(1 - old))
            self.k.step(self, now)
            if self.k.wants_steps:
                self._write(now, s)
        self._finish()

    def _start(self, state: BufferTensor, half: tuple[Expr, ...], i: int) -> None:
        """The initial value of state ``i``, or zeros."""
        for r in range(self.rows):
            self._start_row(state, (*half, index(r)), self.k.starts[i], self.first + r)

    def _start_row(
        self, state: BufferTensor, row: tuple[Expr, ...], given: BufferTensor | None, n: Expr
    ) -> None:
        self._copy(self.k.padded, lambda j: state.store((*row, j), tirx.const(0, _FLOAT)))
        if given is not None:
            initial, at = given, self._state_place(n)
            self._copy(self.k.hidden, lambda j: state.store((*row, j), initial[(*at, j)]))

    def _write(self, now: _Now, s: Expr) -> None:
        """Write h of this step to output 0; zeros for sequences that have ended."""
        for r, place in enumerate(now.places):
            self._write_row(place, s, (now.new, index(r)))

    def _write_row(self, place: Place, s: Expr, row: tuple[Expr, ...]) -> None:
        n, d, out = place.sequence, self.d, self.k.outputs[0]

        def put(t: Expr, value: Callable[[Expr], Expr]) -> None:
            lead = (n, t, d) if self.layer.batch_first else (t, d, n)
            self._copy(self.k.hidden, lambda j: out.store((*lead, j), value(j)))

        self._either(
            place,
            lambda: put(place.time, lambda j: self.h[(*row, j)]),
            lambda: put(s, lambda _j: tirx.const(0, _FLOAT)),
        )

    def _finish(self) -> None:
        """Write the last states to the other outputs."""
        last = tirx.floormod(index(self.layer.steps), index(2))
        self._finish_state(1, self.h, (last,))
        if self.memory is not None:
            self._finish_state(2, self.memory, ())

    def _finish_state(self, i: int, state: BufferTensor, half: tuple[Expr, ...]) -> None:
        out = self.k.outputs[i] if i < len(self.k.outputs) else None
        if out is None or self.k.ctx.destination(i) is None:
            return
        for r in range(self.rows):
            self._finish_row(state, (*half, index(r)), out, self._state_place(self.first + r))

    def _finish_row(
        self, state: BufferTensor, row: tuple[Expr, ...], out: BufferTensor, at: tuple[Expr, ...]
    ) -> None:
        self._copy(self.k.hidden, lambda j: out.store((*at, j), state[(*row, j)]))

    def _state_place(self, n: Expr) -> tuple[Expr, ...]:
        """The index of sequence ``n`` in initial and last states."""
        return (n, self.d) if self.layer.batch_first else (self.d, n)

    def _copy(self, extent: int, body: Callable[[Expr], None]) -> None:
        each_lane(self.b, extent, _FLOAT, body)

    def _either(self, place: Place, alive: Callable[[], None], dead: Callable[[], None]) -> None:
        if place.exists is None:
            alive()
            return
        with self.b.when(place.exists):
            alive()
        with self.b.when(tirx.Not(place.exists)):
            dead()

    # ---- parts of a step ---------------------------------------------------------------------

    def each_block(self, now: _Now, gates: int, body: Callable[[Expr], None]) -> None:
        """Run ``body(block)`` for all blocks of hidden elements; it multiplies ``gates`` gates.

        A single core takes the blocks in reverse order in every other step. If the weights are
        slightly larger than a cache, reading them always in the same order would evict each block
        just before it is read again; in reverse, most are still there. Cores that share the blocks
        get the same ones in each step.
        """
        k = self.k
        cost = tile_cost(_WAIT * 2 * gates * k.hidden * k.tile * self.rows)
        if self.alone and cost * k.blocks >= PARALLEL_THRESHOLD:
            self.b.nest((k.blocks,), lambda at: body(at[0]), cost, sequential_last=True)
            return
        with self.b.loop(k.blocks) as i:
            body(self.b.let(tirx.Select(now.old.equal(index(0)), i, k.blocks - 1 - i)))

    def gates(
        self, block: Expr, source: BufferTensor, lead: Sequence[Expr], first: int, count: int
    ) -> RegisterTile:
        """The products of ``source[*lead, row]`` with ``count`` gates of R from ``first`` on."""
        k = self.k
        tile = RegisterTile(self.b, self.rows, count * k.vectors, FloatDot(k.lanes))
        tile.zero()
        tile.reduce(
            (k.hidden,),
            lambda r, at: (source, (*lead, index(r), at[0])),
            lambda at: (k.weights, (self.d, block, at[0])),
            first * k.tile,
        )
        return tile

    def cells(
        self, now: _Now, block: Expr, body: Callable[[int, int, Expr, Expr], None],
        idle: Callable[[int, Expr], None],
    ) -> None:  # fmt: skip
        """Run ``body(row, vector, lane, element)`` for all elements of a block.

        For sequences that have ended, ``idle(row, element)`` runs instead.
        """
        k = self.k

        def each(call: Callable[[int, Expr, Expr], None]) -> None:
            for v in range(k.vectors):
                with self.b.lanes(k.lanes) as lane:
                    call(v, lane, block * k.tile + v * k.lanes + lane)

        def row(r: int, place: Place) -> None:
            self._either(
                place,
                lambda: each(lambda v, lane, j: body(r, v, lane, j)),
                lambda: each(lambda _v, _lane, j: idle(r, j)),
            )

        for r, place in enumerate(now.places):
            row(r, place)

    def total(
        self, now: _Now, block: Expr, tile: RegisterTile, row: int, vector: int, lane: Expr,
        gate: int, first: int = 0,
    ) -> Expr:  # fmt: skip
        """The operand of a gate's activation function, ``x W^T + h R^T``, clipped.

        ``tile`` holds the second product, for the gates from ``first`` on.
        """
        back = tile.value(row, (gate - first) * self.k.vectors + vector, lane)
        return self.clipped(self.share(now, block, row, vector, lane, gate) + back)

    def share(self, now: _Now, block: Expr, row: int, vector: int, lane: Expr, gate: int) -> Expr:
        """The product of a gate's weights with the input, ``x W^T``, which includes the bias."""
        place = now.places[row]
        source = self.layer.row(place.time, place.sequence)
        return self.k.inputs[source, self.d, block, gate, vector * self.k.lanes + lane]

    def clipped(self, x: Expr) -> Expr:
        return self.b.let(self.layer.clipped(self.b.let(x)))

    def keep(self, now: _Now, r: int, j: Expr) -> None:
        """Copy the state of a sequence that has ended to the new h."""
        self.h.store((now.new, r, j), self.h[now.old, r, j])


Step = Callable[[_Walk, _Now], None]


def _rnn_step(w: _Walk, now: _Now) -> None:
    """``h = f(x W^T + h R^T)``"""
    (f,) = w.functions

    def one(block: Expr) -> None:
        tile = w.gates(block, w.h, (now.old,), 0, 1)

        def cell(r: int, v: int, lane: Expr, j: Expr) -> None:
            w.h.store((now.new, r, j), f(w.total(now, block, tile, r, v, lane, 0)))

        w.cells(now, block, cell, lambda r, j: w.keep(now, r, j))

    w.each_block(now, 1, one)


def _lstm_step(w: _Walk, now: _Now) -> None:
    """One step of an LSTM, whose gates and cell state are updated block by block."""
    coupled, memory = bool(w.k.ctx.attr("input_forget")), w.memory
    assert memory is not None

    def one(block: Expr) -> None:
        tile = w.gates(block, w.h, (now.old,), 0, 4)

        def cell(r: int, v: int, lane: Expr, j: Expr) -> None:
            def gate(i: int, _memory: Expr) -> Expr:
                return w.total(now, block, tile, r, v, lane, i)

            old = w.b.let(memory[r, j])
            new, value = lstm_cell(w.b, w.functions, gate, old, coupled)
            memory.store((r, j), new)
            w.h.store((now.new, r, j), value)

        w.cells(now, block, cell, lambda r, j: w.keep(now, r, j))

    w.each_block(now, 4, one)


def _gru_step(w: _Walk, now: _Now) -> None:
    if w.k.ctx.attr("linear_before_reset"):
        _gru_linear_first(w, now)
    else:
        _gru_reset_first(w, now)


def _gru_linear_first(w: _Walk, now: _Now) -> None:
    """A GRU that multiplies first, ``n = g(x W^T + r * (h R^T + b))``, so one product is enough."""
    f, g = w.functions
    bias = w.k.bias

    def one(block: Expr) -> None:
        tile = w.gates(block, w.h, (now.old,), 0, 3)

        def cell(r: int, v: int, lane: Expr, j: Expr) -> None:
            z, reset = (w.b.let(f(w.total(now, block, tile, r, v, lane, i))) for i in range(2))
            linear = tile.value(r, 2 * w.k.vectors + v, lane)
            linear = linear if bias is None else linear + bias[w.d, j]
            n = g(w.clipped(w.share(now, block, r, v, lane, 2) + reset * linear))
            w.h.store((now.new, r, j), gru_blend(w.h[now.old, r, j], z, w.b.let(n)))

        w.cells(now, block, cell, lambda r, j: w.keep(now, r, j))

    w.each_block(now, 3, one)


def _gru_reset_first(w: _Walk, now: _Now) -> None:
    """A GRU that applies the reset gate first, ``n = g(x W^T + (r * h) R^T)``.

    The product for n needs all elements of ``r * h``, so there is a second loop over the blocks.
    """
    f, g = w.functions
    update, reset = (w.b.workspace((w.rows, w.k.padded), _FLOAT, "gate") for _ in range(2))

    def first(block: Expr) -> None:
        tile = w.gates(block, w.h, (now.old,), 0, 2)

        def gates(r: int, v: int, lane: Expr, j: Expr) -> None:
            update.store((r, j), f(w.total(now, block, tile, r, v, lane, 0)))
            value = w.b.let(f(w.total(now, block, tile, r, v, lane, 1)))
            reset.store((r, j), value * w.h[now.old, r, j])

        w.cells(now, block, gates, lambda r, j: reset.store((r, j), tirx.const(0, _FLOAT)))

    def second(block: Expr) -> None:
        tile = w.gates(block, reset, (), 2, 1)

        def cell(r: int, v: int, lane: Expr, j: Expr) -> None:
            n = w.b.let(g(w.total(now, block, tile, r, v, lane, 2, first=2)))
            w.h.store((now.new, r, j), gru_blend(w.h[now.old, r, j], update[r, j], n))

        w.cells(now, block, cell, lambda r, j: w.keep(now, r, j))

    w.each_block(now, 2, first)
    w.each_block(now, 1, second)
