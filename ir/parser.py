"""The text format of graphs, reading side; the grammar stands in :mod:`.text`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from .dims import Dim, parse_dim
from .graph import Attr, Graph, Node, Value
from .literals import LiteralError, parse_elements, parse_float
from .origins import Origins
from .scanner import STRING, WORD, ParseError, Scanner
from .text import usual_name
from .types import (
    DTYPES,
    DType,
    OptionalType,
    SequenceType,
    TensorType,
    Type,
    array_type,
    dtype,
    to_numpy_dtype,
)

_NUMBER = re.compile(r"0x[0-9a-f]+|-?(?:inf|nan|[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?)")
_INTEGER = re.compile(r"-?[0-9]+")
_DIMS = re.compile(r"[^][{}<>\"]*")
_DIM = re.compile(r"[^<>\"{}]*")
_HASH = re.compile(r"[0-9a-f]+")
# Symbols of data-dependent sizes, which inference made, contain the serial of their node.
_FRESH = re.compile(r"u([0-9]{1,9})_[0-9]")


def parse_graph(
    text: str, constants: Mapping[str, np.ndarray] | None = None, *, placeholders: bool = False
) -> Graph:
    """The graph that ``print_graph`` wrote as ``text``.

    Constants that are written as a hash are looked up in ``constants``. Missing ones become zeros
    (which take no memory) with ``placeholders``, else they are an error. Raises
    :class:`ParseError`, and nothing else, for text that is not a graph.
    """
    parser = _Parser(text, constants or {}, placeholders)
    try:
        return parser.whole()
    except RecursionError:
        parser.fail("nested too deeply")


_WRAPPERS = ("seq", "empty", "optional")


class _Parser(Scanner):
    def __init__(self, text: str, constants: Mapping[str, np.ndarray], placeholders: bool) -> None:
        super().__init__(text)
        self._constants = constants
        self._placeholders = placeholders
        # When a parsed node is inferred again, its symbols must not be those of another node.
        self._first_serial = 1 + max((int(n) for n in _FRESH.findall(text)), default=0)

    # ---- graphs ----------------------------------------------------------------------------------

    def whole(self) -> Graph:
        graph = self._graph()
        if self.space() < len(self._text):
            self.fail("text after the end of the graph")
        return graph

    def _graph(self) -> Graph:
        self.expect("graph")
        graph = Graph(self.name())
        graph.skip_serials(self._first_serial)
        scope: dict[str, Value] = {}
        self.expect("(")
        self.many(lambda: self._param(graph, scope), ")")
        self.expect("->")
        self.expect("(")
        names = self.many(self.name, ")")
        self.expect("{")
        while self.word() != "return":
            self._line(graph, scope)
        self._results(graph, scope, names)
        self.expect("}")
        return graph

    def _results(self, graph: Graph, scope: dict[str, Value], names: list[str]) -> None:
        at = self.space()
        self.expect("return")
        values = self.some(lambda: self._value(scope)) if self.sees("%") else []
        if len(values) != len(names):
            self.fail(f"{len(names)} results are declared, {len(values)} returned", at)
        graph.set_outputs(values, names)

    def _param(self, graph: Graph, scope: dict[str, Value]) -> None:
        at, name = self.space(), self.value_name()
        self._fresh_name(scope, name, at)
        attrs = self._attrs()
        self.expect(":")
        t = self._type()
        value = graph.add_input(name, t)  # type: ignore[arg-type]
        value.node.attrs.update(attrs)
        self._name(value.node)
        scope[name] = value

    def _line(self, graph: Graph, scope: dict[str, Value]) -> None:
        at = self.space()
        names = self.some(self.value_name) if self.sees("%") else []
        for name in names:
            self._fresh_name(scope, name, at)
        if len(set(names)) < len(names):
            self.fail("two results have one name", at)
        if names:
            self.expect("=")
        constant = self.word() == "constant" and not self._is_call("constant")
        node = self._constant(graph, names, at) if constant else self._call(graph, scope, names)
        node.attrs.update(self._attrs())
        self._types(node)
        self._name(node)
        scope.update(zip(names, node.values, strict=True))

    def _fresh_name(self, scope: dict[str, Value], name: str, at: int) -> None:
        if name in scope:
            self.fail(f"the name {name!r} is taken", at)

    def _is_call(self, word: str) -> bool:
        return self._text.startswith("(", self._at + len(word))

    def _name(self, node: Node) -> None:
        """Give a node its name, its origins and its device."""
        own = None
        more = self.accept("@")
        if more and not self.sees("["):
            own = self.name()
            more = self.accept("@")
        if more:
            self.expect("[")
            node.origins = Origins(self.some(self.name))
            self.expect("]")
        if self.word() == "on":
            self.expect("on")
            node.device = self.name()
        name = usual_name(node) if own is None else own
        node.name = self.fail("an operation without results needs a name") if name is None else name

    def _constant(self, graph: Graph, names: list[str], at: int) -> Node:
        self.expect("constant")
        array = self._tensor()
        if len(names) != 1:
            self.fail("a constant has one result", at)
        return graph.add_constant(array, names[0]).node

    def _call(self, graph: Graph, scope: dict[str, Value], names: list[str]) -> Node:
        at = self.space()
        domain, op = self.op()
        self.expect("(")
        inputs = self.many(lambda: self._argument(scope), ")")
        if not domain and op in ("Input", "Output"):
            self.fail(f"{op} is not an operation", at)
        name = names[0] if names else op
        return graph.add_node(op, inputs, domain=domain, outputs=names, name=name)

    def _argument(self, scope: dict[str, Value]) -> Value | None:
        if self.accept("_"):
            return None
        return self._value(scope)

    def _value(self, scope: dict[str, Value]) -> Value:
        at, name = self.space(), self.value_name()
        found = scope.get(name)
        return self.fail(f"unknown value {name!r}", at) if found is None else found

    def _types(self, node: Node) -> None:
        if not self.accept(":"):
            return
        at = self._at
        types = self.some(self._type)
        if len(types) != len(node.outputs):
            self.fail(f"{len(types)} types for {len(node.outputs)} results", at)
        for out, t in zip(node.outputs, types, strict=True):
            out.type = t

    # ---- attributes ------------------------------------------------------------------------------

    def _attrs(self) -> dict[str, Attr]:
        if not self.accept("{"):
            return {}
        pairs = self.many(self._attr_pair, "}")
        attrs = dict(pairs)
        return attrs if len(attrs) == len(pairs) else self.fail("an attribute stands there twice")

    def _attr_pair(self) -> tuple[str, Attr]:
        name = self.name()
        self.expect("=")
        return name, self._attr()

    def _attr(self) -> Any:
        if self.sees('"') or self.sees('b"'):
            return self.string()
        if self.accept("["):
            return tuple(self.nested(lambda: self.many(self._attr, "]")))
        if self.sees("<"):
            return self._symbolic()
        word = self.word()
        if word in ("", "inf", "nan"):
            return self._number()
        return self._keyword(word)

    def _keyword(self, word: str) -> Any:
        if word == "graph":
            return self.nested(self._graph)
        if word in DTYPES and not self._text.startswith("[", self._at + len(word)):
            self.expect(word)
            return dtype(word)
        if word in DTYPES or word in _WRAPPERS:
            return self._type()
        at = self.space()
        self.expect(word)
        if word == "tensor":
            return self._tensor()
        if word not in ("true", "false", "none"):
            self.fail(f"{word!r} is not an attribute value", at)
        return None if word == "none" else word == "true"

    def _number(self) -> int | float:
        at = self.space()
        text = self.take(_NUMBER, "an attribute value")
        if _INTEGER.fullmatch(text):
            return self.guard(at, lambda: int(text))
        return self.guard(at, lambda: float(parse_float(text, dtype("float64"))))

    def _symbolic(self) -> Dim:
        self.expect("<")
        at = self.space()
        text = self.take(_DIM, "a dimension")
        self.expect(">")
        return self.guard(at, lambda: parse_dim(text.strip()))

    # ---- types and tensors -----------------------------------------------------------------------

    def _type(self) -> Type | None:
        if self.accept("?"):
            return None
        return self._known_type()

    def _known_type(self) -> Type:
        word = self.word()
        if word in _WRAPPERS:
            self.expect(word)
            self.expect("<")
            elem = self.nested(self._known_type)
            self.expect(">")
            return OptionalType(elem) if word == "optional" else SequenceType(elem, word == "empty")
        element, shape = self._shaped()
        layout = self.name() if self.accept("{") else None
        if layout is not None:
            self.expect("}")
        return TensorType(element, shape, layout)

    def _shaped(self) -> tuple[DType, tuple[Dim, ...] | None]:
        at = self.space()
        word = self.take(WORD, "a type")
        element = self.guard(at, lambda: dtype(word))
        self.expect("[")
        at = self.space()
        text = self.take(_DIMS, "dimensions").strip()
        self.expect("]")
        if text == "*":
            return element, None
        return element, self.guard(at, lambda: tuple(_size(d) for d in _split(text)))

    def _tensor(self) -> np.ndarray:
        at = self.space()
        element, shape = self._shaped()
        if shape is None or not all(isinstance(d, int) for d in shape):
            self.fail("a tensor needs a static shape", at)
        sizes = [int(d) for d in shape]
        if self.accept("sha256:"):
            return self._hashed(element, sizes, at)
        literals = self._elements() if sizes else [self._element()]
        return self.guard(at, lambda: parse_elements(literals, element, sizes))

    def _elements(self) -> list[Any]:
        self.expect("[")
        return self.many(self._element, "]")

    def _hashed(self, element: DType, shape: list[int], at: int) -> np.ndarray:
        key = self.take(_HASH, "a hash")
        array = self._constants.get(key)
        if array is None and not self._placeholders:
            self.fail(f"the data of constant sha256:{key} was not given", at)
        if array is None:
            zero = np.array("" if element.kind == "s" else 0, to_numpy_dtype(element))
            return self.guard(at, lambda: np.broadcast_to(zero, shape))
        if array_type(array) != TensorType(element, tuple(shape)):
            self.fail(f"constant sha256:{key} is a {array_type(array)}", at)
        return array

    def _element(self) -> Any:
        if self.accept("("):
            return tuple(self.nested(lambda: self.many(self._element, ")")))
        if self.sees('"') or self.sees('b"'):
            return self.take(STRING, "a string")
        word = self.word()
        if word in ("true", "false"):
            self.expect(word)
            return word
        return self.take(_NUMBER, "an element")


def _split(text: str) -> list[str]:
    """The parts between commas, except for commas in brackets."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]] if text else []


def _size(text: str) -> Dim:
    size = parse_dim(text.strip())
    if isinstance(size, int) and size < 0:
        raise LiteralError(f"a dimension is {size}")
    return size


__all__ = ["ParseError", "parse_graph"]
