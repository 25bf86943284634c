"""Ops with bodies: captured inputs become names of the outer graph; regions become their nodes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from ...ir.graph import Attr, Graph, Node, Value
from ...ir.reference import node_proto
from ...ir.registry import attribute
from .ml import maps_info
from .scope import EXPORTERS, ExportError, Scope

# Attributes that only closed bodies have.
_CLOSING = ("num_carried", "num_captured")


def _region(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    body = _body(node, "body")
    for inner, outer in zip(body.inputs, inputs, strict=True):
        if outer is not None:
            scope.alias(inner, outer)
    for value, inner in zip(node.values, body.outputs, strict=False):
        name = scope.wanted(value)
        if name is not None and inner.node.key not in ("Input", "Constant"):
            scope.want(inner, name)
    scope.run(body)
    for value, inner in zip(node.values, body.outputs, strict=False):
        scope.alias(value, inner)


def _if(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    captured = inputs[1:]
    branches = {
        name: _graph(scope, _body(node, name), [], captured)
        for name in ("then_branch", "else_branch")
    }
    _write(scope, node, scope.names(inputs[:1]), branches)


def _loop(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    inputs = [*inputs, None, None][: max(2, len(inputs))]
    own = 2 + int(attribute(node, "num_carried") or 0)
    body = _body(node, "body")
    graph = _graph(scope, body, body.inputs[:own], inputs[own:])
    _write(scope, node, scope.names(inputs[:own]), {"body": graph})


def _scan(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    own = int(attribute(node, "num_carried") or 0) + int(attribute(node, "num_scan_inputs"))
    body = _body(node, "body")
    graph = _graph(scope, body, body.inputs[:own], inputs[own:])
    _write(scope, node, scope.names(inputs[:own]), {"body": graph})


def _sequence_map(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    own = len(inputs) - int(attribute(node, "num_captured") or 0)
    body = _body(node, "body")
    graph = _graph(scope, body, body.inputs[:own], inputs[own:])
    _write(scope, node, scope.names(inputs[:own]), {"body": graph})


def _body(node: Node, name: str) -> Graph:
    body = node.attrs.get(name)
    if not isinstance(body, Graph):
        raise ExportError(f"{name} is not a graph", at=node)
    return body


def _graph(
    outer: Scope, body: Graph, own: Sequence[Value], captured: Sequence[Value | None]
) -> onnx.GraphProto:
    """A body in ONNX's form: ``own`` are its inputs; the others are ``captured`` by name."""
    scope = Scope(outer.shared, onnx.GraphProto(name=body.name or "body"), outer)
    for v in own:
        name = scope.shared.names.unique(v.name)
        scope.bind(v, name)
        scope.proto.input.append(scope.info(v.type, name))
    for inner, value in zip(body.inputs[len(own) :], captured, strict=True):
        if value is not None:
            scope.alias(inner, value)
    scope.run(body)
    close(scope, body, [None] * len(body.outputs))
    return scope.proto


def close(scope: Scope, graph: Graph, names: Sequence[str | None]) -> None:
    """Write a graph's outputs, called ``names`` if given.

    Outputs of ONNX graphs must be results of their own nodes. Other values, such as an input or an
    outer value, go through an ``Identity``, and so does one that a body returns twice. A name that
    is given twice stands for one value.
    """
    seen: set[str] = set()
    for v, wanted in zip(graph.outputs, names, strict=True):
        name = wanted if wanted in seen else scope.name(v)
        fits = name == wanted if wanted is not None else name in scope.own and name not in seen
        if not fits:
            target = wanted or scope.shared.names.unique(v.name)
            name = scope.emit("Identity", [name], outputs=[target])
        seen.add(name)
        info = maps_info(v.node, name) if v.node.key == "kiln.ZipMap" else scope.info(v.type, name)
        scope.proto.output.append(info)


def _write(scope: Scope, node: Node, inputs: list[str], graphs: dict[str, onnx.GraphProto]) -> None:
    attrs: dict[str, Attr] = {
        k: v for k, v in node.attrs.items() if not isinstance(v, Graph) and k not in _CLOSING
    }
    plain = Node(node.op, node.domain, node.name, attrs, node.outputs, node.serial)
    proto = node_proto(plain, inputs, [scope.result(v) for v in node.values])
    for name, graph in graphs.items():
        proto.attribute.append(
            onnx.AttributeProto(name=name, g=graph, type=onnx.AttributeProto.GRAPH)
        )
    scope.append(proto)


EXPORTERS.update(
    {
        "If": _if,
        "Loop": _loop,
        "Scan": _scan,
        "SequenceMap": _sequence_map,
        "kiln.Region": _region,
    }
)
