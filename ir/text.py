"""The text format of graphs, printing side; :mod:`.parser` reads it back.

    graph  = "graph" NAME "(" [param ("," param)*] ")" "->" "(" [NAME ("," NAME)*] ")"
             "{" line* "return" [value ("," value)*] "}"
    param  = value [attrs] ":" type ["@" NAME]
    line   = value "=" "constant" tensor suffix
           | [value ("," value)* "="] OP "(" [arg ("," arg)*] ")" suffix
    suffix = [attrs] [":" type ("," type)*] ["@" NAME] ["@" "[" NAME ("," NAME)* "]"] ["on" NAME]
    arg    = value | "_"                                  _ is an omitted input
    value  = "%" NAME
    attrs  = "{" NAME "=" attr ("," NAME "=" attr)* "}"
    attr   = INT | FLOAT | STRING | "true" | "false" | "none" | "[" [attr ("," attr)*] "]"
           | "<" dim ">" | "tensor" tensor | type | DTYPE | graph
    tensor = DTYPE "[" dims "]" (element | "[" elements "]" | "sha256:" HEX)
    type   = DTYPE "[" ("*" | dims) "]" ["{" LAYOUT "}"]
           | ("seq" | "empty" | "optional") "<" type ">"  an empty one is a sequence of nothing yet
           | "?"                                          ? is a type nobody inferred yet

There is one operation on a line, in topological order. Names with other characters than letters,
digits and ``_./-`` are JSON strings. The names in brackets are a node's origins: the ONNX nodes
that it stands for. Its own name (after ``@``) is left out if it is that of its last origin, or that
of its first output for constants and nodes without origins. After ``on`` stands the device that
runs it, where one was chosen. ``#`` starts a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from .dims import SymExpr
from .graph import Graph, GraphError, Node
from .literals import constant_hash, format_elements, format_float, quote
from .types import DType, OptionalType, SequenceType, TensorType, Type, array_type

MAX_NESTING = 64
"""The depth to which graphs, tuples and types may be nested in the text."""

PLAIN_NAME = re.compile(r"[A-Za-z0-9_./-]+")
PLAIN_OP = re.compile(r"(?:([A-Za-z_][A-Za-z0-9_.]*)\.)?([A-Za-z_][A-Za-z0-9_]*)")


def print_graph(graph: Graph, *, limit: int = 16) -> str:
    """The text of a graph.

    Constants of more than ``limit`` elements are printed as type, shape and hash; the parser takes
    their arrays from a mapping, which :func:`large_constants` returns. Raises :class:`GraphError`
    for cycles and for attributes that have no text form.
    """
    lines: list[str] = []
    _Printer(lines, limit).graph(graph, "", "", "", 0)
    return "\n".join(lines) + "\n"


def large_constants(graph: Graph, *, limit: int = 16) -> dict[str, np.ndarray]:
    """The arrays that ``print_graph`` with the same ``limit`` prints as hashes, by hash."""
    return {constant_hash(a): a for a in _arrays(graph) if a.size > limit}


def _arrays(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, Graph):
        for node in value.nx:
            yield from _arrays(tuple(node.attrs.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _arrays(item)
    elif isinstance(value, np.ndarray):
        yield value


# A name stands where its value is made, where it is used, and among origins: mostly close together.
@lru_cache(maxsize=4096)
def format_name(name: str) -> str:
    """A name as the text has it: plain or quoted."""
    return name if PLAIN_NAME.fullmatch(name) else quote(name)


def format_op(node: Node) -> str:
    """``Conv``, ``com.microsoft.Gelu``, or domain and op quoted if they have other characters."""
    plain = PLAIN_OP.fullmatch(node.key)
    if plain and (plain[1] or "", plain[2]) == (node.domain, node.op):
        return node.key
    return f"{quote(node.domain)}.{quote(node.op)}"


def format_type(t: Type | None) -> str:
    """A type as the parser reads it; ``?`` for None."""
    if t is None:
        return "?"
    if isinstance(t, SequenceType):
        return f"{t.word}<{format_type(t.elem)}>"
    if isinstance(t, OptionalType):
        return f"optional<{format_type(t.elem)}>"
    return t.plain if t.layout is None else f"{t.plain}{{{format_name(t.layout)}}}"


def format_attr(value: Any, *, limit: int = 16) -> str:
    """An attribute value (no graphs) on one line; raises :class:`GraphError` for unknown kinds."""
    if value is None:
        return "none"
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return format_float(np.float64(value))
    if isinstance(value, str | bytes):
        return quote(value)
    if isinstance(value, SymExpr):
        return f"<{value}>"
    if isinstance(value, tuple | list):
        return f"[{', '.join(format_attr(v, limit=limit) for v in value)}]"
    if isinstance(value, np.ndarray):
        return f"tensor {format_tensor(value, limit=limit)}"
    if isinstance(value, DType):
        return value.name
    if isinstance(value, TensorType | SequenceType | OptionalType):
        return format_type(value)
    raise GraphError(f"an attribute of type {type(value).__name__} has no text form")


def format_tensor(array: np.ndarray, *, limit: int = 16) -> str:
    """``float32[2] [1.0, 2.0]``, or the hash where there are more than ``limit`` elements."""
    head = str(array_type(array))
    if array.size > limit:
        return f"{head} sha256:{constant_hash(array)}"
    elements = ", ".join(format_elements(array))
    return f"{head} {elements}" if array.ndim == 0 else f"{head} [{elements}]"


class _Printer:
    def __init__(self, lines: list[str], limit: int) -> None:
        self._lines = lines
        self._limit = limit

    def graph(self, graph: Graph, indent: str, before: str, after: str, depth: int) -> None:
        """Append the lines of ``graph``, the first after ``before``, the last before ``after``."""
        if depth > MAX_NESTING:
            raise GraphError(f"graphs are nested deeper than {MAX_NESTING}")
        params = ", ".join(self._param(v.node) for v in graph.inputs)
        names = ", ".join(format_name(n) for n in graph.output_names)
        head = f"graph {format_name(graph.name)}({params}) -> ({names}) {{"
        self._lines.append(f"{indent}{before}{head}")
        for node in graph.topological_all():
            if node.key not in ("Input", "Output"):
                self._node(graph, node, f"{indent}  ", depth)
        results = ", ".join(f"%{format_name(v.name)}" for v in graph.outputs)
        self._lines.append(f"{indent}  return {results}".rstrip())
        self._lines.append(f"{indent}}}{after}")

    def _param(self, node: Node) -> str:
        out = node.outputs[0]
        attrs = f" {self._inline(node.attrs)}" if node.attrs else ""
        return f"%{format_name(out.name)}{attrs}: {format_type(out.type)}{_own_name(node)}"

    def _node(self, graph: Graph, node: Node, indent: str, depth: int) -> None:
        head, attrs = self._head(graph, node)
        if not any(isinstance(v, Graph) for v in attrs.values()):
            braces = f" {self._inline(attrs)}" if attrs else ""
            self._lines.append(f"{indent}{head}{braces}{_tail(node)}")
            return
        self._lines.append(f"{indent}{head} {{")
        for i, (key, value) in enumerate(sorted(attrs.items())):
            comma = "," if i < len(attrs) - 1 else ""
            before = f"{format_name(key)} = "
            if isinstance(value, Graph):
                self.graph(value, f"{indent}  ", before, comma, depth + 1)
            else:
                self._lines.append(f"{indent}  {before}{self._attr(value)}{comma}")
        self._lines.append(f"{indent}}}{_tail(node)}")

    def _head(self, graph: Graph, node: Node) -> tuple[str, Mapping[str, Any]]:
        results = ", ".join(f"%{format_name(o.name)}" for o in node.outputs)
        left = f"{results} = " if results else ""
        value = node.attrs.get("value")
        if node.key == "Constant" and isinstance(value, np.ndarray):
            rest = {k: v for k, v in node.attrs.items() if k != "value"}
            return f"{left}constant {format_tensor(value, limit=self._limit)}", rest
        arguments = ", ".join(
            "_" if v is None else f"%{format_name(v.name)}" for v in graph.inputs_of(node)
        )
        return f"{left}{format_op(node)}({arguments})", node.attrs

    def _inline(self, attrs: Mapping[str, Any]) -> str:
        items = (f"{format_name(k)}={self._attr(v)}" for k, v in sorted(attrs.items()))
        return f"{{{', '.join(items)}}}"

    def _attr(self, value: Any) -> str:
        return format_attr(value, limit=self._limit)


def _tail(node: Node) -> str:
    types = [o.type for o in node.outputs]
    value = node.attrs.get("value") if node.key == "Constant" else None
    if isinstance(value, np.ndarray):
        told = types[0] != array_type(value)
    else:
        told = any(t is not None for t in types)
    text = f" : {', '.join(format_type(t) for t in types)}" if told else ""
    return text + _own_name(node)


def _own_name(node: Node) -> str:
    """The node's name, unless it is the default of the parser, its origins and its device."""
    text = "" if node.name == usual_name(node) else f" @{format_name(node.name)}"
    names = node.origins.names
    if names:
        text += f" @[{', '.join(map(format_name, names))}]"
    return f"{text} on {format_name(node.device)}" if node.device else text


def usual_name(node: Node) -> str | None:
    """The name of a node for which the text has none."""
    names = node.origins.names
    if names and node.key != "Constant":
        return names[-1]
    return node.outputs[0].name if node.outputs else None


__all__ = [
    "MAX_NESTING", "format_attr", "format_name", "format_op", "format_tensor", "format_type",
    "large_constants", "print_graph", "usual_name",
]  # fmt: skip
