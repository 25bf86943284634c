"""Standard ops that the compiler knows only through the function body in onnx's schema."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import onnx
from onnx import helper

from ..ir.reference import attribute_proto, type_proto
from .node import OnnxNode
from .schema import LATEST, python_value
from .scope import Body


def has_body(op: str, domain: str) -> bool:
    """Whether a standard op has a function body at its newest opset."""
    schema = _schema(op, domain)
    return schema is not None and bool(
        schema.function_opset_versions or schema.context_dependent_function_opset_versions
    )


def function_body(node: OnnxNode) -> onnx.FunctionProto | None:
    """The function that a node of the newest opset stands for, or None.

    Bodies that depend on attributes and input types are made for this node.
    """
    schema = _schema(node.op, node.domain)
    if schema is None:
        return None
    plain = _newest(schema.function_opset_versions)
    if plain is not None:
        return _parse(schema.get_function_with_opset_version(plain))
    version = _newest(schema.context_dependent_function_opset_versions)
    if version is None:
        return None
    types = [
        (onnx.TypeProto() if v is None else type_proto(v.type)).SerializeToString()
        for v in node.inputs
    ]
    made = schema.get_context_dependent_function_with_opset_version(
        version, node_proto(node).SerializeToString(), types
    )
    return _parse(made) if made else None


def _parse(body: bytes) -> onnx.FunctionProto:
    function = onnx.FunctionProto()
    function.ParseFromString(body)
    return function


@cache
def default_attributes(op: str, domain: str) -> Mapping[str, Any]:
    """The defaults of an op's attributes at its newest opset."""
    schema = _schema(op, domain)
    found = {} if schema is None else {n: a.default_value for n, a in schema.attributes.items()}
    return {n: python_value(helper.get_attribute_value(d)) for n, d in found.items() if d.name}


def _newest(versions: list[int]) -> int | None:
    return max((v for v in versions if v <= LATEST[""]), default=None)


@cache
def _schema(op: str, domain: str) -> Any:
    latest = LATEST.get(domain)
    if latest is None or not onnx.defs.has(op, latest, domain):
        return None
    return onnx.defs.get_schema(op, latest, domain)


def node_proto(node: OnnxNode) -> onnx.NodeProto:
    """A node as protobuf, its inputs and outputs named by position."""
    proto = onnx.NodeProto(op_type=node.op, domain=node.domain, name=node.name)
    proto.input.extend("" if v is None else f"input_{i}" for i, v in enumerate(node.inputs))
    proto.output.extend(o and f"output_{i}" for i, o in enumerate(node.outputs))
    kinds = _kinds(node.op, node.domain)
    for name, value in node.attrs.items():
        if isinstance(value, Body):
            proto.attribute.append(helper.make_attribute(name, value.proto))
        else:
            proto.attribute.append(attribute_proto(name, value, kinds.get(name)))
    return proto


@cache
def _kinds(op: str, domain: str) -> Mapping[str, int]:
    schema = _schema(op, domain)
    return {} if schema is None else {n: int(a.type.value) for n, a in schema.attributes.items()}
