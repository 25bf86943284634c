"""Checks of nodes against onnx's schemas: arity, attributes, and changed defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx.defs import OpSchema

from ..ir.registry import ML_OPSET, OPSET, OpSpec
from ..ir.types import OptionalType, SequenceType, TensorType
from .errors import ImportFault
from .node import OnnxNode
from .scope import Body

LATEST: Mapping[str, int] = {
    "": OPSET, "ai.onnx.ml": ML_OPSET, "ai.onnx.preview": 1, "ai.onnx.preview.training": 1,
}  # fmt: skip
"""The opset that each standard domain is upgraded to."""

VARIADIC = 2**31 - 1
"""The largest arity in the schema of a variadic op."""

_KINDS: dict[str, type | tuple[type, ...]] = {
    "FLOAT": float, "INT": int, "STRING": str, "TENSOR": np.ndarray, "GRAPH": Body,
    "SPARSE_TENSOR": np.ndarray, "TYPE_PROTO": (TensorType, SequenceType, OptionalType),
}  # fmt: skip
_LISTS: dict[str, type] = {"FLOATS": float, "INTS": int, "STRINGS": str}


@dataclass(frozen=True)
class Signature:
    """The parts of a schema of one version that import needs.

    ``last`` is the last version that had the op; ``old_defaults`` are defaults that later versions
    changed, which import sets explicitly.
    """

    last: int
    attributes: Mapping[str, tuple[str, bool]]
    min_inputs: int
    max_inputs: int
    min_outputs: int
    max_outputs: int
    required_inputs: frozenset[int]
    old_defaults: Mapping[str, Any]


@cache
def signature(op: str, domain: str, version: int) -> Signature | None:
    """The signature of a standard op at an opset, or None where there is no such op."""
    if domain not in LATEST or not onnx.defs.has(op, version, domain):
        return None
    schema: Any = onnx.defs.get_schema(op, version, domain)
    before = schema.since_version - 1
    if schema.deprecated and onnx.defs.has(op, before, domain):
        # The op was removed in this version; files that use it nevertheless mean the last one.
        return signature(op, domain, before)
    return Signature(
        version,
        {n: (a.type.name, a.required) for n, a in schema.attributes.items()},
        schema.min_input,
        schema.max_input,
        schema.min_output,
        schema.max_output,
        frozenset(
            i for i, p in enumerate(schema.inputs)
            if p.option == OpSchema.FormalParameterOption.Single
        ),
        _old_defaults(schema),
    )  # fmt: skip


def _old_defaults(schema: OpSchema) -> dict[str, Any]:
    latest = onnx.defs.get_schema(schema.name, LATEST[schema.domain], schema.domain)
    out = {}
    for name, attribute in schema.attributes.items():
        default = attribute.default_value
        if not default.name or name not in latest.attributes:
            continue
        if default != latest.attributes[name].default_value:
            out[name] = python_value(onnx.helper.get_attribute_value(default))
    return out


def python_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return tuple(python_value(v) for v in value) if isinstance(value, list) else value


def check(node: OnnxNode, known: Signature) -> None:
    """Raise :class:`ImportFault` if a node does not fit its schema.

    Attributes that start with two underscores are private to tools, and are dropped.
    """
    _check_arity(node, known)
    _check_elements(node)
    for name in [n for n in node.attrs if n.startswith("__")]:
        del node.attrs[name]
    for name, value in node.attrs.items():
        declared = known.attributes.get(name)
        if declared is None:
            raise ImportFault(f"has no attribute {name!r} in opset {node.version}")
        if not _fits(value, declared[0]):
            raise ImportFault(f"attribute {name!r} must be of type {declared[0]}")
    for name, (_, required) in known.attributes.items():
        # The first opsets required this hint to an allocator, which nothing ever read.
        if required and name not in node.attrs and name != "consumed_inputs":
            raise ImportFault(f"attribute {name!r} is missing")


def check_registered(node: OnnxNode, known: OpSpec) -> None:
    """Raise :class:`ImportFault` if a node of another domain does not fit its OpSpec."""
    if not known.min_inputs <= len(node.inputs) <= known.max_inputs:
        limits = _limits(known.min_inputs, known.max_inputs)
        raise ImportFault(f"has {len(node.inputs)} inputs, the op takes {limits}")
    for name in node.attrs:
        if known.attributes is not None and name not in known.attributes:
            raise ImportFault(f"has no attribute {name!r}")


def _check_arity(node: OnnxNode, known: Signature) -> None:
    if not known.min_inputs <= len(node.inputs) <= known.max_inputs:
        limits = _limits(known.min_inputs, known.max_inputs)
        raise ImportFault(f"has {len(node.inputs)} inputs, the op takes {limits}")
    if not known.min_outputs <= len(node.outputs) <= known.max_outputs:
        limits = _limits(known.min_outputs, known.max_outputs)
        raise ImportFault(f"has {len(node.outputs)} outputs, the op gives {limits}")
    for i in known.required_inputs:
        if node.input(i) is None:
            raise ImportFault(f"input {i} is missing")


def _check_elements(node: OnnxNode) -> None:
    for i, value in enumerate(node.inputs):
        if value is None or not isinstance(value.type, TensorType):
            continue
        taken = _elements(node.op, node.domain, node.version, i)
        if taken and value.dtype not in taken:
            raise ImportFault(
                f"input {i} holds {value.dtype}, the op takes {', '.join(sorted(taken))}"
            )


@cache
def _elements(op: str, domain: str, version: int, index: int) -> frozenset[str]:
    """The element types that an input may have, in the op's version or in the newest one.

    Empty if any type is allowed, or if the input may be no tensor.
    """
    found: set[str] = set()
    for opset in (version, LATEST[domain]):
        if not onnx.defs.has(op, opset, domain):
            continue
        inputs: Any = onnx.defs.get_schema(op, opset, domain).inputs
        if index < len(inputs) or inputs and _repeats(inputs[-1]):
            found |= set(inputs[min(index, len(inputs) - 1)].types)
    if not all(t.startswith("tensor(") for t in found):
        return frozenset()
    names = (t.removeprefix("tensor(").removesuffix(")") for t in found)
    return frozenset({"float": "float32", "double": "float64"}.get(n, n) for n in names)


def _repeats(parameter: Any) -> bool:
    return bool(parameter.option == OpSchema.FormalParameterOption.Variadic)


def _limits(low: int, high: int) -> str:
    if low == high:
        return str(low)
    return f"at least {low}" if high >= VARIADIC else f"{low} to {high}"


def _fits(value: Any, kind: str) -> bool:
    element = _LISTS.get(kind)
    if element is not None:
        # Lists may have millions of numbers (decision trees), so this avoids a Python loop.
        return isinstance(value, tuple) and set(map(type, value)) <= {element}
    return kind in _KINDS and isinstance(value, _KINDS[kind])
