"""The optimizers of ai.onnx.preview.training, expanded into arithmetic.

Each takes a learning rate R, an update count T, and groups of tensors: the values X, their
gradients G, then the optimizer's state. It returns the new values, then the new state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..ir.graph import Value
from .emit import Emit
from .errors import ImportFault
from .node import OnnxNode
from .term import Term


def _number(node: OnnxNode, name: str) -> float:
    value = node.attrs[name]
    assert isinstance(value, float)
    return value


def _update(
    node: OnnxNode, emit: Emit, states: int, step: Callable[..., tuple[Term, ...]]
) -> Sequence[Value]:
    """Apply ``step(R, T, X, G, *state)`` to every tensor; ``G`` comes with its regularization."""
    rate, count = (Term(node.required(i), emit) for i in (0, 1))
    terms = [Term(node.required(i), emit) for i in range(2, len(node.inputs))]
    tensors, rest = divmod(len(terms), 2 + states)
    if rest or not tensors:
        raise ImportFault(f"takes {2 + states} inputs for each tensor, after R and T")
    results = []
    for i in range(tensors):
        x, g, *state = terms[i::tensors]
        g = x * _number(node, "norm_coefficient") + g
        results.append(step(rate.like(x), count, x, g, *state))
    return [made.value for group in zip(*results, strict=True) for made in group]


def adagrad(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """``X - r*G / (sqrt(H + G*G) + epsilon)`` with ``r = R / (1 + T*decay_factor)``."""

    def step(r: Term, t: Term, x: Term, g: Term, h: Term) -> tuple[Term, ...]:
        r = r / (1.0 + t.like(x) * _number(node, "decay_factor"))
        h = h + g * g
        return x - r * g / (h.sqrt() + _number(node, "epsilon")), h

    return _update(node, emit, 1, step)


def adam(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """``X - r*V / (sqrt(H) + epsilon)`` with running means V of G and H of G*G."""
    alpha, beta = _number(node, "alpha"), _number(node, "beta")

    def step(r: Term, t: Term, x: Term, g: Term, v: Term, h: Term) -> tuple[Term, ...]:
        v = alpha * v + (1 - alpha) * g
        h = beta * h + (1 - beta) * (g * g)
        count = t.like(x)
        bias = (1.0 - beta**count).sqrt() / (1.0 - alpha**count)
        r = t.where_positive(r * bias, r)
        x = x - r * v / (h.sqrt() + _number(node, "epsilon"))
        return x * (1 - _number(node, "norm_coefficient_post")), v, h

    return _update(node, emit, 2, step)


def momentum(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """``V = alpha*V + beta*G`` (beta is 1 at T = 0); ``X - R*V``, or Nesterov's ``G + alpha*V``."""
    alpha, mode = _number(node, "alpha"), node.attrs["mode"]
    if mode not in ("standard", "nesterov"):
        raise ImportFault(f"mode {mode!r} is neither standard nor nesterov")

    def step(r: Term, t: Term, x: Term, g: Term, v: Term) -> tuple[Term, ...]:
        v = alpha * v + t.where_positive(g * _number(node, "beta"), g)
        return x - r * (g + alpha * v if mode == "nesterov" else v), v

    return _update(node, emit, 1, step)
