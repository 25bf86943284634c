"""LSTM, GRU and RNN with everything ONNX gives them: lengths, clip, peepholes, activations.

``onnx.reference`` ignores ``sequence_lens``, ``clip``, ``input_forget`` and most activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import OperandError
from ..graph import Node
from ..registry import attribute
from .arithmetic import compute_dtype, dynamic_codes

Array = np.ndarray
Function = Callable[[Array], Array]
State = tuple[Array, ...]  # h, and c for LSTM
# One step: the input's share of the gates and the state give the next state (h first).
Cell = Callable[[Array, State], State]


@dataclass(frozen=True)
class Direction:
    """The parameters of one direction: weights, split biases, activations, clip."""

    node: Node
    w: Array
    r: Array
    input_bias: Array
    state_bias: Array
    peepholes: Array | None
    functions: tuple[Function, ...]

    def flag(self, name: str) -> bool:
        return bool(attribute(self.node, name))


def lstm(node: Node, inputs: list[Any]) -> list[Any]:
    """``LSTM``: outputs Y, Y_h, Y_c."""
    return _recurrent(node, inputs, ("Sigmoid", "Tanh", "Tanh"), _lstm_cell, states=2)


def gru(node: Node, inputs: list[Any]) -> list[Any]:
    """``GRU``: outputs Y, Y_h."""
    return _recurrent(node, inputs, ("Sigmoid", "Tanh"), _gru_cell, states=1)


def rnn(node: Node, inputs: list[Any]) -> list[Any]:
    """``RNN``: outputs Y, Y_h."""
    return _recurrent(node, inputs, ("Tanh",), _rnn_cell, states=1)


def _recurrent(
    node: Node, inputs: list[Any], default: Sequence[str], cell: Callable[[Direction], Cell],
    states: int,
) -> list[Any]:  # fmt: skip
    padded: list[Any] = inputs + [None] * (8 - len(inputs))
    x, w, r, b, lengths, h0, c0, p = padded
    dtype, work = x.dtype, compute_dtype(x.dtype)
    batch_first = bool(attribute(node, "layout"))
    x = (x.swapaxes(0, 1) if batch_first else x).astype(work, copy=False)
    starts = [_start(s, batch_first, w, r, x) for s in (h0, c0)[:states]]
    results = []
    for i, reverse in enumerate(_directions(node)):
        input_bias, state_bias = _biases(b, i, w, work)
        direction = Direction(
            node, w[i].astype(work), r[i].astype(work), input_bias, state_bias,
            None if p is None else p[i].astype(work),
            _functions(node, i, default),
        )  # fmt: skip
        state = tuple(s[i].astype(work) for s in starts)
        results.append(_scan(cell(direction), x @ direction.w.T, state, lengths, reverse))
    return _collect(results, batch_first, dtype, states)[: len(node.outputs)]


def _start(state: Array | None, batch_first: bool, w: Array, r: Array, x: Array) -> Array:
    if state is None:
        return np.zeros((w.shape[0], x.shape[1], r.shape[2]), x.dtype)
    return state.swapaxes(0, 1) if batch_first else state


def _directions(node: Node) -> list[bool]:
    """For each direction, whether it runs from the end."""
    name = attribute(node, "direction") or "forward"
    return {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[name]


def _biases(b: Array | None, i: int, w: Array, work: np.dtype) -> tuple[Array, Array]:
    if b is None:
        return np.zeros(w.shape[1], work), np.zeros(w.shape[1], work)
    first, second = np.split(b[i].astype(work), 2)
    return first, second


def _scan(cell: Cell, gates: Array, state: State, lengths: Array | None, reverse: bool) -> State:
    """Y [seq,batch,hidden] and the last states; steps past a sequence's length change nothing."""
    steps = len(gates)
    y: Array = np.zeros((steps, *state[0].shape), state[0].dtype)
    for t in reversed(range(steps)) if reverse else range(steps):
        new = cell(gates[t], state)
        if lengths is None:
            state, y[t] = new, new[0]
            continue
        valid = (t < lengths)[:, None]
        y[t] = np.where(valid, new[0], 0)
        state = tuple(np.where(valid, n, s) for n, s in zip(new, state, strict=True))
    return (y, *state)


def _collect(results: list[State], batch_first: bool, dtype: np.dtype, states: int) -> list[Array]:
    y = np.stack([r[0] for r in results], axis=1)
    finals = [np.stack([r[1 + i] for r in results]) for i in range(states)]
    if batch_first:
        y = y.transpose(2, 0, 1, 3)
        finals = [f.swapaxes(0, 1) for f in finals]
    return [np.ascontiguousarray(v.astype(dtype, copy=False)) for v in (y, *finals)]


# ---- quantized -----------------------------------------------------------------------------------


def dynamic_quantize_lstm(node: Node, inputs: list[Any]) -> list[Any]:
    """com.microsoft's ``DynamicQuantizeLSTM``: 8-bit W and R (gates last), X and h quantized."""
    x, w, r, b, lengths, h0, c0, p, w_scale, w_zero, r_scale, r_zero = inputs
    starts = [_start(s, False, w, r.swapaxes(1, 2), x) for s in (h0, c0)]
    results = []
    for i, reverse in enumerate(_directions(node)):
        weights, recurrent = (
            w[i] - w_zero[i].astype(np.float64),
            r[i] - r_zero[i].astype(np.float64),
        )
        input_bias, state_bias = _biases(b, i, w.swapaxes(1, 2), x.dtype)
        hidden = r.shape[1]
        direction = Direction(
            node, weights, np.zeros((4 * hidden, hidden), x.dtype), input_bias, state_bias,
            None if p is None else p[i],
            _functions(node, i, ("Sigmoid", "Tanh", "Tanh")),
        )  # fmt: skip
        step = _quantized_step(_lstm_cell(direction), recurrent, r_scale[i])
        gates = _dynamic_product(x, weights, w_scale[i])
        results.append(_scan(step, gates, tuple(s[i] for s in starts), lengths, reverse))
    return _collect(results, False, x.dtype, 2)[: len(node.outputs)]


def _quantized_step(cell: Cell, recurrent: Array, scale: Array) -> Cell:
    """A cell without a recurrent product, given the quantized one."""
    return lambda x, state: cell(x + _dynamic_product(state[0], recurrent, scale), state)


def _dynamic_product(x: Array, weights: Array, scale: Array) -> Array:
    """``x @ weights * scale`` with x quantized to uint8 over its own range."""
    codes, step = dynamic_codes(x)
    product: Array = codes @ weights * (step * scale)
    return product.astype(x.dtype)


# ---- cells ---------------------------------------------------------------------------------------


def _lstm_cell(d: Direction) -> Cell:
    f, g, h = d.functions
    # Left out, not zeros: those would make NaN of an infinite memory.
    p_i, p_o, p_f = (None,) * 3 if d.peepholes is None else np.split(d.peepholes, 3)
    bias = d.input_bias + d.state_bias

    def step(x: Array, state: State) -> State:
        hidden, cell = state
        i, o, forget, c = np.split(x + hidden @ d.r.T + bias, 4, axis=-1)
        i = f(_peeped(i, p_i, cell))
        forget = 1 - i if d.flag("input_forget") else f(_peeped(forget, p_f, cell))
        cell = forget * cell + i * g(c)
        return f(_peeped(o, p_o, cell)) * h(cell), cell

    return step


def _peeped(gate: Array, peephole: Array | None, cell: Array) -> Array:
    return gate if peephole is None else gate + peephole * cell


def _gru_cell(d: Direction) -> Cell:
    f, g = d.functions
    size = d.r.shape[1]
    r_zr, r_h = d.r[: 2 * size], d.r[2 * size :]
    bias_zr = (d.input_bias + d.state_bias)[: 2 * size]
    input_h, state_h = d.input_bias[2 * size :], d.state_bias[2 * size :]
    linear = d.flag("linear_before_reset")

    def step(x: Array, state: State) -> State:
        (hidden,) = state
        z, r = np.split(f(x[:, : 2 * size] + hidden @ r_zr.T + bias_zr), 2, axis=-1)
        rest = r * (hidden @ r_h.T + state_h) if linear else (r * hidden) @ r_h.T + state_h
        candidate = g(x[:, 2 * size :] + rest + input_h)
        return ((1 - z) * candidate + z * hidden,)

    return step


def _rnn_cell(d: Direction) -> Cell:
    (f,) = d.functions
    bias = d.input_bias + d.state_bias
    return lambda x, state: (f(x + state[0] @ d.r.T + bias),)


# ---- activations ---------------------------------------------------------------------------------

# Name -> (function of x, alpha, beta; default alpha; default beta); None where it takes none.
_Activation = tuple[Callable[[Array, float, float], Array], "float | None", "float | None"]
_ACTIVATIONS: dict[str, _Activation] = {
    "relu": (lambda x, a, b: np.maximum(x, 0), None, None),
    "tanh": (lambda x, a, b: np.tanh(x), None, None),
    "sigmoid": (lambda x, a, b: 1 / (1 + np.exp(-x)), None, None),
    "affine": (lambda x, a, b: a * x + b, 1.0, 0.0),
    "leakyrelu": (lambda x, a, b: np.where(x >= 0, x, a * x), 0.01, None),
    "thresholdedrelu": (lambda x, a, b: np.where(x >= a, x, 0), 1.0, None),
    "scaledtanh": (lambda x, a, b: a * np.tanh(b * x), 1.0, 1.0),
    "hardsigmoid": (lambda x, a, b: np.clip(a * x + b, 0, 1), 0.2, 0.5),
    "elu": (lambda x, a, b: np.where(x >= 0, x, a * np.expm1(x)), 1.0, None),
    "softsign": (lambda x, a, b: x / (1 + np.abs(x)), None, None),
    "softplus": (lambda x, a, b: np.logaddexp(0, x), None, None),
}  # fmt: skip


def _functions(node: Node, direction: int, default: Sequence[str]) -> tuple[Function, ...]:
    """The activations of one direction; alpha and beta go to those that take them, in order."""
    names = list(attribute(node, "activations") or [])
    if len(names) < len(default) * (direction + 1):
        names = list(default) * (direction + 1)
    alphas = iter(attribute(node, "activation_alpha") or ())
    betas = iter(attribute(node, "activation_beta") or ())
    # The clip bounds the gates' sums, not the memory that an LSTM's third function gets.
    clips = [attribute(node, "clip") if i % len(default) < 2 else None for i in range(len(names))]
    functions = [_function(n, alphas, betas, c) for n, c in zip(names, clips, strict=True)]
    return tuple(functions[direction * len(default) : (direction + 1) * len(default)])


def _function(
    name: str, alphas: Iterator[float], betas: Iterator[float], clip: float | None
) -> Function:
    found = _ACTIVATIONS.get(name.lower())
    if found is None:
        raise OperandError(f"unknown activation {name!r}")
    call, alpha, beta = found
    a = 0.0 if alpha is None else next(alphas, alpha)
    b = 0.0 if beta is None else next(betas, beta)

    def apply(x: Array) -> Array:
        bounded = np.clip(x, -clip, clip) if clip else x
        return call(bounded, a, b).astype(x.dtype, copy=False)

    return apply
