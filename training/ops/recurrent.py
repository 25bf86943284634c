"""LSTM, GRU and RNN, unrolled over time.

z = x W' + bias                    the input's share of the gates, of all steps at once
h, c = cell(z of the step, h, c)   from the first step to the last, or backwards
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...errors import OperandError
from ..emit import Call, Tensor, emits

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh,
}  # fmt: skip
_State = tuple[Tensor, ...]


@dataclass(frozen=True)
class _Direction:
    """What one direction computes with: weights [gates * hidden, ...], biases, activations."""

    call: Call
    weights: Tensor
    recurrent: Tensor
    input_bias: Tensor | None
    state_bias: Tensor | None
    peepholes: Tensor | None
    functions: list[Callable[[Tensor], Tensor]]

    def gates(self, state: Tensor) -> Tensor:
        """The state's share of all gates."""
        share = state @ self.recurrent.T
        return share if self.state_bias is None else share + self.state_bias


_Cell = Callable[[_Direction, Tensor, _State], _State]


@emits("LSTM", weights=(1, 2, 3))
def lstm(call: Call) -> list[Tensor]:
    return _run(call, _lstm_cell, ("Sigmoid", "Tanh", "Tanh"), 2)


@emits("GRU", weights=(1, 2, 3))
def gru(call: Call) -> list[Tensor]:
    return _run(call, _gru_cell, ("Sigmoid", "Tanh"), 1)


@emits("RNN", weights=(1, 2, 3))
def rnn(call: Call) -> list[Tensor]:
    return _run(call, _rnn_cell, ("Tanh",), 1)


def _lstm_cell(d: _Direction, x: Tensor, state: _State) -> _State:
    """Gates i, o, f, c in this order; peepholes i, o, f see the cell."""
    f, g, h = d.functions
    hidden, cell = state
    i, o, forget, c = (x + d.gates(hidden)).chunk(4, -1)
    peeps = None if d.peepholes is None else d.peepholes.chunk(3)
    if peeps is not None:
        i, forget = i + peeps[0] * cell, forget + peeps[2] * cell
    i = f(i)
    kept = 1 - i if d.call.attr("input_forget") else f(forget)
    cell = kept * cell + i * g(c)
    if peeps is not None:
        o = o + peeps[1] * cell
    return f(o) * h(cell), cell


def _gru_cell(d: _Direction, x: Tensor, state: _State) -> _State:
    """Gates z, r, h; with ``linear_before_reset`` the reset gate scales the product."""
    f, g = d.functions
    (hidden,) = state
    xz, xr, xh = x.chunk(3, -1)
    if d.call.attr("linear_before_reset"):
        hz, hr, hh = d.gates(hidden).chunk(3, -1)
        z, r = f(xz + hz), f(xr + hr)
        candidate = g(xh + r * hh)
    else:
        rz, rr, rh = d.recurrent.chunk(3)
        bz, br, bh = (0, 0, 0) if d.state_bias is None else d.state_bias.chunk(3)
        z, r = f(xz + hidden @ rz.T + bz), f(xr + hidden @ rr.T + br)
        candidate = g(xh + (r * hidden) @ rh.T + bh)
    return ((1 - z) * candidate + z * hidden,)


def _rnn_cell(d: _Direction, x: Tensor, state: _State) -> _State:
    return (d.functions[0](x + d.gates(state[0])),)


def _run(call: Call, cell: _Cell, default: tuple[str, ...], states: int) -> list[Tensor]:
    if call.attr("clip"):
        raise OperandError("a recurrence with a clip does not run in PyTorch")
    first = bool(call.attr("layout"))
    x = call[0].transpose(0, 1) if first else call[0]
    found = []
    for i, backward in enumerate(_directions(call)):
        d = _direction(call, i, default)
        share = x @ d.weights.T
        share = share if d.input_bias is None else share + d.input_bias
        state = tuple(_start(call, 5 + k, i, x, d) for k in range(states))
        found.append(_steps(d, cell, share, state, call.get(4), backward))
    outputs = torch.stack([steps for steps, _ in found], 1)
    last = [torch.stack([state[k] for _, state in found]) for k in range(states)]
    if first:
        outputs = outputs.permute(2, 0, 1, 3)
        last = [s.transpose(0, 1) for s in last]
    return [outputs, *last][: len(call.node.outputs)]


def _steps(
    d: _Direction, cell: _Cell, share: Tensor, state: _State, lengths: Tensor | None, backward: bool
) -> tuple[Tensor, _State]:
    """The hidden states [time, batch, hidden] and the last state of each sequence."""
    outputs: list[Tensor | None] = [None] * len(share)
    order = range(len(share) - 1, -1, -1) if backward else range(len(share))
    for step in order:
        after = cell(d, share[step], state)
        if lengths is None:
            state = after
            outputs[step] = state[0]
            continue
        # Behind its end a sequence keeps its state, and its outputs are zeros.
        inside = (step < lengths).unsqueeze(-1)
        state = tuple(torch.where(inside, a, s) for a, s in zip(after, state, strict=True))
        outputs[step] = torch.where(inside, after[0], torch.zeros_like(after[0]))
    return torch.stack([o for o in outputs if o is not None]), state


def _directions(call: Call) -> list[bool]:
    """Whether each direction runs backwards."""
    return {"forward": [False], "reverse": [True]}.get(call.attr("direction"), [False, True])


def _direction(call: Call, i: int, default: tuple[str, ...]) -> _Direction:
    bias, peepholes = call.get(3), call.get(7)
    both = (None, None) if bias is None else bias[i].chunk(2)
    names = call.attr("activations") or default
    count = len(default)
    chosen = [str(n).lower() for n in (names[i * count : (i + 1) * count] or names)]
    missing = [n for n in chosen if n not in _ACTIVATIONS]
    if missing:
        raise OperandError(f"a recurrence with activation {missing[0]!r} does not run in PyTorch")
    return _Direction(
        call, call[1][i], call[2][i], both[0], both[1],
        None if peepholes is None else peepholes[i], [_ACTIVATIONS[n] for n in chosen],
    )  # fmt: skip


def _start(call: Call, index: int, i: int, x: Tensor, d: _Direction) -> Tensor:
    given = call.get(index)
    if given is None:
        return x.new_zeros(x.shape[1], d.recurrent.shape[-1])
    return given[:, i] if call.attr("layout") else given[i]
