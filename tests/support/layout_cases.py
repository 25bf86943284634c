"""Graphs for tests of the layout pass, with constants of fixed numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphkiln.ir.graph import Graph

from .graph_text import constant_lines, graph_of
from .pass_checks import random_feeds

Array = np.ndarray


def floats(*shape: int) -> Array:
    """Eighths in [-1.375, 1.375]."""
    n = int(np.prod(shape, dtype=np.int64))
    return ((np.arange(n) * 7919 % 23 - 11) / 8).reshape(shape).astype(np.float32)


def signed(*shape: int) -> Array:
    """int8 of the whole range."""
    n = int(np.prod(shape, dtype=np.int64))
    return (np.arange(n) * 7919 % 256 - 128).reshape(shape).astype(np.int8)


def scales(*shape: int) -> Array:
    """Positive factors around 1/50 that are not powers of two."""
    n = int(np.prod(shape, dtype=np.int64))
    return (0.013 + 0.0031 * (np.arange(n) % 7)).reshape(shape).astype(np.float32)


def scalar(value: float, dtype: Any = np.float32) -> Array:
    return np.array(value, dtype)


@dataclass(frozen=True)
class Case:
    """A graph from ``params`` to %y; ``given`` replaces random inputs."""

    params: str
    lines: str
    constants: dict[str, Array] = field(default_factory=dict)
    given: dict[str, Array] = field(default_factory=dict)

    def text(self) -> str:
        given = constant_lines(self.constants)[0]
        return f"graph main({self.params}) -> (y) {{\n{given}\n{self.lines}\nreturn %y\n}}"

    @property
    def by_hash(self) -> dict[str, Array]:
        return constant_lines(self.constants)[1]

    def graph(self) -> Graph:
        return graph_of(self.text(), self.by_hash)

    def feeds(self) -> dict[str, Any]:
        """Random inputs; bytes take their whole range."""
        graph = self.graph()
        rng = np.random.default_rng(11)
        feeds = random_feeds(graph)
        for v in graph.inputs:
            if v.dtype in ("uint8", "int8"):
                shape = feeds[v.name].shape
                feeds[v.name] = rng.integers(0, 256, shape).astype(np.uint8).view(v.dtype)
        return {**feeds, **self.given}


# ---- recurrent layers ---------------------------------------------------------------------------

STEPS_OF_LAYER = "%x: float32[3,2,5]"


def layer(gates: int, hidden: int, inputs: int = 5, directions: int = 1) -> dict[str, Array]:
    """Weights, recurrent weights and biases of a recurrent layer."""
    return {
        "w": floats(directions, gates * hidden, inputs),
        "r": floats(directions, gates * hidden, hidden),
        "b": floats(directions, 2 * gates * hidden),
    }


RECURRENT = {
    "recurrent_gru": Case(
        STEPS_OF_LAYER, "%y, %last = GRU(%x, %w, %r, %b) {hidden_size=6}", layer(3, 6)
    ),
    "recurrent_gru_linear": Case(
        STEPS_OF_LAYER,
        "%y, %last = GRU(%x, %w, %r, %b) {hidden_size=6, linear_before_reset=1}", layer(3, 6),
    ),
    "recurrent_lstm": Case(
        "%x: float32[2,3,5], %h: float32[2,2,7], %k: float32[2,2,7], %n: int32[2]",
        "%s, %last, %y = LSTM(%x, %w, %r, %b, %n, %h, %k) "
        '{direction="bidirectional", hidden_size=7, layout=1}',
        layer(4, 7, directions=2), {"n": np.array([3, 2], np.int32)},
    ),
    "recurrent_rnn": Case(
        "%x: float32[T,N,5]", "%y, %last = RNN(%x, %w, %r) {hidden_size=9}",
        {k: v for k, v in layer(1, 9).items() if k != "b"},
    ),
}  # fmt: skip

LSTM = "%y, %last, %cell = LSTM(%x, %w, %r"
LEFT_LAYERS = {
    "plain_peepholes": Case(
        STEPS_OF_LAYER, f"{LSTM}, %b, _, _, _, %p) {{hidden_size=4}}",
        {**layer(4, 4), "p": floats(1, 12)},
    ),
    "plain_layer_weights": Case(
        f"{STEPS_OF_LAYER}, %w: float32[1,16,5]", f"{LSTM}) {{hidden_size=4}}",
        {"r": layer(4, 4)["r"]},
    ),
    "plain_layer_bias": Case(
        f"{STEPS_OF_LAYER}, %b: float32[1,32]", f"{LSTM}, %b) {{hidden_size=4}}",
        {k: v for k, v in layer(4, 4).items() if k != "b"},
    ),
    "plain_layer_double": Case(
        "%x: float64[3,2,5]", f"{LSTM}) {{hidden_size=4}}",
        {k: v.astype(np.float64) for k, v in layer(4, 4).items() if k != "b"},
    ),
}  # fmt: skip
