"""Groups of large graphs are found in time linear in their size."""

from __future__ import annotations

import time

import numpy as np

from graphkiln.ir.graph import Graph, Value
from graphkiln.ir.infer import infer_types
from graphkiln.ir.types import tensor
from graphkiln.passes.prune import Channels


def residual(blocks: int) -> Graph:
    """Blocks of convolutions with residual sums, ten of a width each; five operations each."""
    random, graph = np.random.default_rng(0), Graph()

    def weights(*shape: int) -> Value:
        return graph.add_constant(random.standard_normal(shape, np.float32))

    value = graph.add_input("x", tensor("float32", 1, 16, 8, 8))
    for block in range(blocks):
        c = graph.add_node("Conv", [value, weights(16, 16, 1, 1)], {"kernel_shape": (1, 1)})
        n = graph.add_node("BatchNormalization", [c.out(), *(weights(16) for _ in range(4))])
        r = graph.add_node("Relu", [n.out()])
        d = graph.add_node("Conv", [r.out(), weights(16, 16, 1, 1)], {"kernel_shape": (1, 1)})
        value = graph.add_node("Add", [value if block % 10 else d.out(), d.out()]).out()
    graph.set_outputs([value])
    infer_types(graph)
    return graph


def seconds(graph: Graph) -> float:
    start = time.process_time()
    groups = Channels(graph).groups
    assert len(groups) > len(graph) / 10
    return time.process_time() - start


def test_groups_take_linear_time() -> None:
    """Four times the graph takes less than eight times as long."""
    small, large = residual(100), residual(400)
    assert seconds(large) < 8 * max(seconds(small), 0.02)
