"""Optimised graphs compute what plain ones do: random graphs through the whole pipeline."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from support.cost import growth
from support.pass_checks import random_feeds, same

from graphkiln.ir.dims import sym
from graphkiln.ir.graph import Graph, Value
from graphkiln.ir.infer import infer_types
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.types import tensor
from graphkiln.passes.manager import PassManager
from graphkiln.passes.pipeline import default_pipeline


class Net:
    """A graph over values of shape [N, 4, 6], grown by random steps."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph()
        self.values: list[Value] = [
            self.graph.add_input(f"x{i}", tensor("float32", sym("N"), 4, 6)) for i in range(2)
        ]

    def pick(self) -> Value:
        recent = self.values[-5:]
        return recent[self.rng.integers(len(recent))]

    def constant(self, *shape: int) -> Value:
        return self.graph.add_constant(self.rng.normal(size=shape).astype(np.float32))

    def ints(self, *numbers: int) -> Value:
        return self.graph.add_constant(np.array(numbers, np.int64))

    def scalar(self, number: float) -> Value:
        return self.graph.add_constant(np.float32(number))

    def op(self, name: str, *inputs: Value | None, **attrs: object) -> Value:
        return self.graph.add_node(name, inputs, attrs).out()  # type: ignore[arg-type]

    def grow(self, steps: int) -> Graph:
        for _ in range(steps):
            step = STEPS[self.rng.integers(len(STEPS))]
            self.values.append(step(self))
        self.graph.set_outputs([self.values[-1], self.values[-3]])
        infer_types(self.graph)
        return self.graph


def _binary(n: Net) -> Value:
    return n.op(["Add", "Sub", "Mul", "Max", "Min"][n.rng.integers(5)], n.pick(), n.pick())


def _unary(n: Net) -> Value:
    return n.op(["Relu", "Tanh", "Sigmoid", "Neg", "Abs", "Identity"][n.rng.integers(6)], n.pick())


def _constant_operand(n: Net) -> Value:
    shape = [(), (6,), (4, 1), (1, 1, 1), (1,)][n.rng.integers(5)]
    number = n.constant(*shape)
    if n.rng.integers(3) == 0:
        number = n.scalar([0.0, 1.0, 2.0][n.rng.integers(3)])
    return n.op(["Add", "Sub", "Mul"][n.rng.integers(3)], n.pick(), number)


def _transposed(n: Net) -> Value:
    there = n.op("Transpose", n.pick(), perm=(0, 2, 1))
    middle = n.op("Tanh", there) if n.rng.integers(2) else there
    return n.op("Transpose", middle, perm=(0, 2, 1))


def _reshaped(n: Net) -> Value:
    x = n.pick()
    shape = n.op("Shape", x)
    flat = n.op("Reshape", x, n.ints(0, -1))
    return n.op("Reshape", n.op("Relu", flat), shape)


def _computed_shape(n: Net) -> Value:
    x = n.pick()
    rows = n.op("Gather", n.op("Shape", x), n.ints(0))
    target = n.op("Concat", rows, n.ints(2, 2), n.ints(6), axis=0)
    back = n.op("Concat", rows, n.ints(4, 6), axis=0)
    return n.op("Reshape", n.op("Reshape", x, target), back)


def _sliced(n: Net) -> Value:
    x = n.pick()
    first = n.op("Slice", x, n.ints(0), n.ints(3), n.ints(2))
    last = n.op("Slice", x, n.ints(3), n.ints(2**62), n.ints(2))
    return n.op("Concat", last, first, axis=2)


def _linear(n: Net) -> Value:
    y = n.op("MatMul", n.pick(), n.constant(6, 6))
    if n.rng.integers(2):
        y = n.op("Add", y, n.constant(6))
    return n.op("Mul", y, n.constant(6)) if n.rng.integers(2) else y


def _convolution(n: Net) -> Value:
    y = n.op("Conv", n.pick(), n.constant(4, 4, 3), n.constant(4), pads=(1, 1))
    if n.rng.integers(2):
        parameters = [n.constant(4), n.constant(4), n.constant(4)]
        variance = n.graph.add_constant(np.abs(n.rng.normal(size=4)).astype(np.float32) + 1)
        y = n.op("BatchNormalization", y, *parameters, variance)
    return y


def _normalised(n: Net) -> Value:
    x, axis = n.pick(), n.ints(-1)
    d = n.op("Sub", x, n.op("ReduceMean", x, axis))
    variance = n.op("ReduceMean", n.op("Pow", d, n.scalar(2.0)), axis)
    return n.op("Div", d, n.op("Sqrt", n.op("Add", variance, n.scalar(1e-3))))


def _softmax(n: Net) -> Value:
    x, axis = n.op("Tanh", n.pick()), n.ints(1)
    e = n.op("Exp", n.op("Sub", x, n.op("ReduceMax", x, axis)))
    return n.op("Div", e, n.op("ReduceSum", e, axis))


def _gelu(n: Net) -> Value:
    x = n.pick()
    gate = n.op("Add", n.op("Erf", n.op("Div", x, n.scalar(2**0.5))), n.scalar(1.0))
    return n.op("Mul", n.op("Mul", x, gate), n.scalar(0.5))


def _sequence(n: Net) -> Value:
    q = n.op("SequenceConstruct", n.pick(), n.pick())
    return n.op("SequenceAt", q, n.graph.add_constant(np.int64(-1)))


def _expanded(n: Net) -> Value:
    x = n.pick()
    wide = n.op("Expand", n.constant(4, 1), n.op("Shape", x))
    return n.op("Mul", wide, x)


def _clipped(n: Net) -> Value:
    x = n.op("Clip", n.pick(), n.scalar(-1.0), n.scalar(1.0))
    return n.op("Relu", x) if n.rng.integers(2) else n.op("Clip", x, None, n.scalar(0.5))


STEPS: list[Callable[[Net], Value]] = [
    _binary, _unary, _constant_operand, _transposed, _reshaped, _computed_shape, _sliced, _linear,
    _convolution, _normalised, _softmax, _gelu, _sequence, _expanded, _clipped,
]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_optimised_equals_plain(seed: int) -> None:
    graph = Net(seed).grow(14)
    feeds = random_feeds(graph, {"N": 1 + seed % 3})
    expected = evaluate(graph, feeds)
    records = PassManager(default_pipeline()).run(graph).records
    assert sum(r.changes for r in records) > 0
    same(evaluate(graph, feeds), expected, rtol=1e-3)
    assert not {n.op for n in graph.nodes} & {"Shape", "Identity", "SequenceAt"}


def test_the_default_pipeline_needs_linear_time() -> None:
    """Four times the nodes may take six times as long; quadratic work would take sixteen."""

    def make(count: int) -> Callable[[], object]:
        graph = Net(1).grow(count // 5)
        return lambda: PassManager(default_pipeline()).run(graph.copy())

    assert growth(make, small=400) < 6
