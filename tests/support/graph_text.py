"""Graphs from short text, with types inferred."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphkiln.ir.graph import Graph
from graphkiln.ir.infer import infer_types
from graphkiln.ir.literals import constant_hash
from graphkiln.ir.parser import parse_graph
from graphkiln.ir.types import array_type


def graph_of(text: str, constants: Mapping[str, np.ndarray] | None = None) -> Graph:
    """The graph ``text`` describes, every value with its type."""
    graph = parse_graph(text, constants)
    infer_types(graph)
    return graph


def body_of(params: str, lines: str, results: str, name: str = "body") -> str:
    """The text of a graph on one line: ``lines`` are separated by semicolons."""
    names = ", ".join(f"o{i}" for i, _ in enumerate(results.split(",")))
    code = lines.replace(";", "\n")
    return f"graph {name}({params}) -> ({names}) {{\n{code}\nreturn {results}\n}}"


def constant_lines(arrays: Mapping[str, np.ndarray]) -> tuple[str, dict[str, np.ndarray]]:
    """Lines that define named constants by hash, and the arrays that :func:`graph_of` takes."""
    lines = [
        f"%{name} = constant {array_type(a)} sha256:{constant_hash(a)}"
        for name, a in arrays.items()
    ]
    return "\n".join(lines), {constant_hash(a): a for a in arrays.values()}
