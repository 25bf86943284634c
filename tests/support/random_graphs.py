"""Hypothesis strategies: graphs with any names, attributes and types the IR allows."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from graphkiln.ir.dims import parse_dim
from graphkiln.ir.graph import Graph, Value
from graphkiln.ir.origins import Origins
from graphkiln.ir.types import (
    DTYPES,
    DType,
    OptionalType,
    SequenceType,
    TensorType,
    Type,
    to_numpy_dtype,
)

plain_names = st.from_regex(r"[A-Za-z0-9_./-]{1,12}", fullmatch=True)
any_names = st.one_of(plain_names, st.text(min_size=1, max_size=8))
dims = st.one_of(
    st.integers(0, 2**40),
    st.sampled_from(["N", "2*N+1", "N//2", "max(N,M)", "u3_0*seq%7"]).map(parse_dim),
)
dtypes = st.sampled_from([DTYPES[n] for n in sorted(DTYPES)])


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Small arrays of every element type, numbers given by random bytes."""
    element = draw(dtypes)
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    count = int(np.prod(shape))
    if element.kind == "s":
        strings = draw(st.lists(st.text(max_size=4), min_size=count, max_size=count))
        out = np.empty(count, object)
        out[:] = strings
        return out.reshape(shape)
    return _from_bytes(draw, element, count).reshape(shape)


def _from_bytes(draw: st.DrawFn, element: DType, count: int) -> np.ndarray:
    target = to_numpy_dtype(element)
    size = count * target.itemsize
    data = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    if element.kind == "b":
        return (data & 1).astype(bool)
    if element.bits < 8:
        data = data & ((1 << element.bits) - 1)
        if element.kind == "i":
            return (data.astype(np.int8) - (1 << (element.bits - 1))).astype(target)
        if element.kind == "u":
            return data.astype(target)
    return data.view(target)


@st.composite
def types(draw: st.DrawFn) -> Type:
    shape = draw(st.one_of(st.none(), st.lists(dims, max_size=4).map(tuple)))
    layout = draw(st.one_of(st.none(), st.just("NCHW16c"), st.text(max_size=4)))
    t: Type = TensorType(draw(dtypes), shape, layout)
    wraps = [SequenceType, OptionalType, partial(SequenceType, empty=True)]
    for wrap in draw(st.lists(st.sampled_from(wraps), max_size=2)):
        t = wrap(t)
    return t


attributes = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6),
        st.binary(max_size=4), dims, dtypes, types(), arrays(),
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn, depth: int = 1) -> Graph:
    """Graphs that verify in structure only: ops, attributes and types are arbitrary."""
    graph = Graph(draw(any_names))
    values: list[Value] = []
    for _ in range(draw(st.integers(0, 2))):
        values.append(graph.add_input(draw(any_names), draw(types())))
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            values.append(graph.add_constant(draw(arrays()), draw(any_names)))
        else:
            values.extend(_add_random_node(draw, graph, values, depth))
    outputs = draw(st.lists(st.sampled_from(values), max_size=3)) if values else []
    names = draw(st.lists(any_names, min_size=len(outputs), max_size=len(outputs)))
    graph.set_outputs(outputs, names)
    return graph


def _add_random_node(
    draw: st.DrawFn, graph: Graph, values: list[Value], depth: int
) -> tuple[Value, ...]:
    choices: Any = st.one_of(st.none(), st.sampled_from(values)) if values else st.none()
    attrs = draw(st.dictionaries(any_names, attributes, max_size=3))
    if depth and draw(st.integers(0, 4)) == 0:
        attrs["body"] = draw(graphs(depth - 1))
    count = draw(st.integers(1, 3))
    result_types = draw(st.lists(st.one_of(st.none(), types()), min_size=count, max_size=count))
    node = graph.add_node(
        draw(st.sampled_from(["Add", "Relu", "x::y", "constant"])),
        draw(st.lists(choices, max_size=3)),
        attrs,
        outputs=draw(st.lists(any_names, min_size=count, max_size=count)),
        types=result_types,
        domain=draw(st.sampled_from(["", "com.microsoft", "kiln", "odd domain!"])),
        name=draw(any_names),
        origins=Origins(draw(st.lists(any_names, max_size=2))),
    )
    return node.values
