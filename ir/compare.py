"""Structural equality of graphs: the same names, operations, edges, attributes, types and data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .graph import Graph, Node
from .literals import same_constant
from .text import format_type
from .types import Type


def structurally_equal(a: Graph, b: Graph) -> str | None:
    """None if the graphs are equal, else the first difference, as a message.

    Names must be equal, the order of creation need not be. Constants are compared by their bits.
    """
    if a.name != b.name:
        return f"graph names: {a.name!r} and {b.name!r}"
    for what, left, right in (
        ("inputs", [v.name for v in a.inputs], [v.name for v in b.inputs]),
        ("output names", list(a.output_names), list(b.output_names)),
        ("outputs", [v.name for v in a.outputs], [v.name for v in b.outputs]),
    ):
        if left != right:
            return f"{what}: {left} and {right}"
    return _compare_nodes(a, b)


def _compare_nodes(a: Graph, b: Graph) -> str | None:
    left, right = _by_name(a), _by_name(b)
    for name in [*left, *right]:
        if name not in left or name not in right:
            return f"only the {'first' if name in left else 'second'} graph has {name!r}"
    for name, node in left.items():
        difference = _compare_node(a, node, b, right[name])
        if difference is not None:
            return f"{name!r}: {difference}"
    return None


def _by_name(graph: Graph) -> dict[str, Node]:
    """Every node but the sink, by its first output's name (its own where it has none)."""
    nodes = [n for n in graph.nx if n is not graph.sink]
    return {(n.outputs[0].name if n.outputs else f"@{n.name}"): n for n in nodes}


def _compare_node(a: Graph, x: Node, b: Graph, y: Node) -> str | None:
    if x.key != y.key or x.op != y.op:
        return f"ops {x.key} and {y.key}"
    if x.name != y.name:
        return f"node names {x.name!r} and {y.name!r}"
    for what, left, right in (
        ("outputs", [o.name for o in x.outputs], [o.name for o in y.outputs]),
        ("types", [_type(o.type) for o in x.outputs], [_type(o.type) for o in y.outputs]),
        ("inputs", _input_names(a, x), _input_names(b, y)),
        ("origins", list(x.origins), list(y.origins)),
    ):
        if left != right:
            return f"{what} {left} and {right}"
    return _compare_attrs(x.attrs, y.attrs)


def _type(t: Type | None) -> str:
    return format_type(t)


def _input_names(graph: Graph, node: Node) -> list[str | None]:
    return [None if v is None else v.name for v in graph.inputs_of(node)]


def _compare_attrs(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    if a.keys() != b.keys():
        return f"attributes {sorted(a)} and {sorted(b)}"
    for key in sorted(a):
        difference = compare_attr(a[key], b[key])
        if difference is not None:
            return f"attribute {key!r}: {difference}"
    return None


def compare_attr(a: Any, b: Any) -> str | None:
    """None if two attribute values are the same in kind and value, else the difference."""
    if isinstance(a, Graph) and isinstance(b, Graph):
        return structurally_equal(a, b)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return None if same_constant(a, b) else "the tensors differ"
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return _compare_items(a, b)
    a, b = _plain(a), _plain(b)
    if type(a) is not type(b):
        return f"{a!r} and {b!r} differ in kind"
    # repr, since NaN equals itself and -0.0 is not 0.0 here.
    return None if a == b and repr(a) == repr(b) or repr(a) == repr(b) == "nan" else f"{a!r}, {b!r}"


def _compare_items(a: tuple[Any, ...] | list[Any], b: tuple[Any, ...] | list[Any]) -> str | None:
    if len(a) != len(b):
        return f"{len(a)} and {len(b)} items"
    differences = (compare_attr(x, y) for x, y in zip(a, b, strict=True))
    return next((d for d in differences if d is not None), None)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


__all__ = ["compare_attr", "structurally_equal"]
