"""Checks one op with its parameters at run time and constant, shapes static and symbolic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from oputil import Array, assert_close, input_type, one_node, run_graph

from graphkiln.ir.graph import Graph, Value
from graphkiln.ir.infer import infer_types
from graphkiln.ir.interpreter import evaluate


def ramp(*shape: int, dtype: str = "float32") -> Array:
    return np.arange(np.prod(shape), dtype=np.int64).reshape(shape).astype(dtype)


def ints(*values: Any) -> Array:
    return np.array(values, np.int64)


Mode = tuple[Any, Sequence[int]]


def check(
    op: str, inputs: Sequence[Array | None], attrs: dict[str, Any] | None = None,
    domain: str = "", num_outputs: int = 1, modes: Sequence[Mode] | None = None,
    parameters: Sequence[int] | None = None,
) -> None:  # fmt: skip
    """Compare, with ``parameters`` (default: all inputs but the first) at run time and constant.

    A mode says whether the other inputs' dims are symbols, and which parameters are constants.
    """
    found = [i for i, a in enumerate(inputs) if i and a is not None]
    given = found if parameters is None else parameters
    want = evaluate(
        one_node(op, inputs, attrs, domain, num_outputs),
        {f"x{i}": a for i, a in enumerate(inputs) if a is not None},
        check_types=True,
    )
    default: list[Mode] = [(False, ()), ("distinct", ()), (False, given), (True, given)]
    for symbolic, constants in modes or default:
        graph = Graph()
        values = [_input(graph, a, i, symbolic and i not in given, constants) for i, a in
                  enumerate(inputs)]  # fmt: skip
        node = graph.add_node(op, values, attrs, outputs=num_outputs, domain=domain)
        graph.set_outputs(list(node.values))
        infer_types(graph)
        feeds = [a for i, a in enumerate(inputs) if a is not None and i not in constants]
        for a, b in zip(run_graph(graph, feeds), want, strict=True):
            assert_close(a, b)


def _input(
    graph: Graph, a: Array | None, i: int, symbolic: Any, constants: Sequence[int]
) -> Value | None:
    if a is None:
        return None
    if i in constants:
        return graph.add_constant(np.asarray(a))
    return graph.add_input(f"x{i}", input_type(a, i, symbolic))
