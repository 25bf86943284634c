"""Type inference of recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence

from ..axes.recurrent import quantized_lstm, recurrent
from ..dims import Dim
from ..graph import Node
from ..registry import InferContext, op
from ..traits import Trait
from ..types import Shape, TensorType, Type
from . import flops

DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


_TRAITS = (Trait.CONTRACTION,)


def _summed_axes(_node: Node, index: int) -> tuple[int, ...]:
    """The weights of the input and of the state are [directions, gates, features]."""
    return (2,) if index == 1 or index == 2 else ()


@op(
    "RNN", traits=_TRAITS, flops=flops.recurrent, summed_axes=_summed_axes,
    axes=recurrent(gates=1, states=1),
)  # fmt: skip
def infer_rnn(c: InferContext) -> list[Type]:
    return infer_layer(c, c.tensor(2).dims[2], states=1, gates=1)


@op(
    "GRU", traits=_TRAITS, flops=flops.recurrent, summed_axes=_summed_axes,
    axes=recurrent(gates=3, states=1),
)  # fmt: skip
def infer_gru(c: InferContext) -> list[Type]:
    return infer_layer(c, c.tensor(2).dims[2], states=1, gates=3)


@op(
    "LSTM", traits=_TRAITS, flops=flops.recurrent, summed_axes=_summed_axes,
    axes=recurrent(gates=4, states=2),
)  # fmt: skip
def infer_lstm(c: InferContext) -> list[Type]:
    if c.has(7):
        shape = (c.tensor(2).dims[0], 3 * c.tensor(2).dims[2])
        c.require_same_shape(c.tensor(7).dims, shape, "peepholes of three gates")
    return infer_layer(c, c.tensor(2).dims[2], states=2, gates=4)


@op(
    "DynamicQuantizeLSTM",
    domain="com.microsoft",
    arity=(12, 12),
    traits=_TRAITS,
    flops=flops.recurrent,
    defaults={"direction": "forward", "input_forget": 0},
    omitted=(3, 4, 5, 6, 7),
    axes=quantized_lstm,
)  # fmt: skip
def infer_dynamic_quantize_lstm(c: InferContext) -> list[Type]:
    return infer_layer(c, c.tensor(2).dims[1], states=2, gates=4, features=1)


def infer_layer(
    c: InferContext,
    hidden: Dim,
    states: int,
    gates: int | None,
    features: int = 2,
    first_state: int = 5,
) -> list[Type]:
    """The types of Y and of the last value of each state, with dims as ONNX's ``layout`` orders
    them.

    W and R have the rows of ``gates`` gates, or are packed if that is None. ``features`` is the
    axis of W that is as long as one step of X. The initial states are the inputs from
    ``first_state`` on, after the lengths.
    """  # fmt: skip
    x, w = c.tensor(0), c.tensor(1)
    if x.rank != 3:
        raise c.error(f"the input {x} must have rank 3")
    if c.attr("direction") not in DIRECTIONS:
        raise c.error(f"unknown direction {c.attr('direction')!r}")
    count = DIRECTIONS[c.attr("direction")]
    c.require_equal(w.dims[0], count, "a weight for each direction")
    if w.rank == 3:
        c.require_equal(x.dims[2], w.dims[features], "X and W with as many features")
    if gates is not None:
        _require_weights(c, hidden, count, gates * hidden, features)
    last: TensorType
    if c.attr("layout"):
        batch, steps, _ = x.dims
        y = x.with_shape((batch, steps, count, hidden))
        last = x.with_shape((batch, count, hidden))
    else:
        steps, batch, _ = x.dims
        y = x.with_shape((steps, count, batch, hidden))
        last = x.with_shape((count, batch, hidden))
    _relate(c, first_state - 1, (batch,), ("X and sequence_lens of one batch size",))
    if c.has(first_state - 1):
        c.require_values(first_state - 1, 0, steps, "sequence_lens within the steps of X")
    for i, name in enumerate(("initial_h", "initial_c")[:states]):
        needs = [f"{name} with one state a direction", f"X and {name} of one batch size"]
        if c.attr("layout"):
            needs.reverse()
        _relate(c, first_state + i, last.dims, (*needs, f"R and {name} of one hidden size"))
    return [y, *[last] * states]


def _require_weights(c: InferContext, hidden: Dim, count: int, rows: Dim, features: int) -> None:
    """Record that W, R and B fit one hidden size, for layers of ONNX and com.microsoft.

    ``rows`` are those of all gates; with ``features`` 1 they are the last axis, not the middle one.
    """
    w, r = c.tensor(1), c.tensor(2)
    given = c.attr("hidden_size")
    if given is not None:
        c.require_equal(hidden, int(given), "weights of the given hidden_size")
    if w.rank == 3:
        c.require_equal(w.dims[3 - features], rows, "W with the rows of all gates")
    shape = (count, rows, hidden) if features == 2 else (count, hidden, rows)
    c.require_same_shape(r.dims, shape, "R with the rows of all gates")
    if c.has(3):
        c.require_same_shape(c.tensor(3).dims, (count, 2 * rows), "biases of all gates")


def _relate(c: InferContext, index: int, shape: Shape, needs: Sequence[str]) -> None:
    """Record that an optional input has this shape; ``needs`` says why, for each dim."""
    t = c.inputs[index] if c.has(index) else None
    if isinstance(t, TensorType) and t.shape is not None and len(t.shape) == len(shape):
        for have, want, why in zip(t.shape, shape, needs, strict=True):
            c.require_equal(want, have, why)
