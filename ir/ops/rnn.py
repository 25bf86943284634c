"""Type inference of recurrent layers."""

from __future__ import annotations

from ..dims import Dim, is_static
from ..registry import InferContext, op
from ..types import TensorType, Type

DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


@op("RNN", "GRU")
def infer_rnn(c: InferContext) -> list[Type]:
    return _layer(c, c.tensor(2).dims[2], states=1)


@op("LSTM")
def infer_lstm(c: InferContext) -> list[Type]:
    return _layer(c, c.tensor(2).dims[2], states=2)


@op(
    "DynamicQuantizeLSTM",
    domain="com.microsoft",
    arity=(12, 12),
    defaults={"direction": "forward", "input_forget": 0},
)
def infer_dynamic_quantize_lstm(c: InferContext) -> list[Type]:
    return _layer(c, c.tensor(2).dims[1], states=2)


def _layer(c: InferContext, hidden: Dim, states: int) -> list[Type]:
    """Y, then the last value of each state, as ONNX's ``layout`` orders their dims."""
    x = c.tensor(0)
    if x.rank != 3:
        raise c.error(f"the input {x} must have rank 3")
    if c.attr("direction") not in DIRECTIONS:
        raise c.error(f"unknown direction {c.attr('direction')!r}")
    count = DIRECTIONS[c.attr("direction")]
    if is_static(c.tensor(1).dims[0]) and c.tensor(1).dims[0] != count:
        raise c.error(f"the weight {c.tensor(1)} must hold {count} directions")
    last: TensorType
    if c.attr("layout"):
        batch, steps, _ = x.dims
        y = x.with_shape((batch, steps, count, hidden))
        last = x.with_shape((batch, count, hidden))
    else:
        steps, batch, _ = x.dims
        y = x.with_shape((steps, count, batch, hidden))
        last = x.with_shape((count, batch, hidden))
    return [y, *[last] * states]
