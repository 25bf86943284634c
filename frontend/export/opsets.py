"""The opsets that a written model needs: the lowest that have its ops as it uses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnx.defs

from ...ir.reference import DOMAIN_VERSIONS
from ..upgrade.supersets import SUPERSETS, Reason

_OLDEST = 13

_USED_OR_NOT = Reason.TYPES | Reason.ATTRIBUTE | Reason.INPUT | Reason.OUTPUT | Reason.OPTIONAL
"""What a newer version adds that a node visibly uses or not. Where it does not, the node is one of
the older version, too, with the same meaning. Other changes may show in values of attributes."""


_FLOATS = frozenset(f"tensor({t})" for t in ("float", "double", "float16", "bfloat16"))


class OpsetNeeds:
    """Collects what the nodes of a model need."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[str, str], list[onnx.NodeProto]] = {}

    def note(self, node: onnx.NodeProto) -> None:
        """Count in a node."""
        self._nodes.setdefault((node.domain, node.op_type), []).append(node)

    def opsets(self, elements: Mapping[str, str]) -> list[onnx.OperatorSetIdProto]:
        """The opset of each domain, for tensors of these element types by name. One without an
        element type may have that of any other.
        """
        versions = {"": _OLDEST}
        for (domain, op), nodes in self._nodes.items():
            needed = self._needed(domain, op, nodes, elements)
            versions[domain] = max(versions.get(domain, 1), needed)
        return [onnx.OperatorSetIdProto(domain=d, version=v) for d, v in sorted(versions.items())]

    def _needed(
        self, domain: str, op: str, nodes: list[onnx.NodeProto], elements: Mapping[str, str]
    ) -> int:
        newest = DOMAIN_VERSIONS.get(domain, 1)
        if not onnx.defs.has(op, newest, domain):
            return 1
        schema = onnx.defs.get_schema(op, newest, domain)
        found: int = schema.since_version
        types = _types_at(schema, nodes, elements)
        changes = SUPERSETS.get(f"{domain}.{op}" if domain else op, {})
        is_float = any(t in _FLOATS for t in types)
        while found > _OLDEST and _is_visible(changes.get(found, Reason.KEPT), is_float):
            older = onnx.defs.get_schema(op, found - 1, domain)
            lacking = types & (_types(schema) - _types(older))
            if lacking or not all(_accepts(older, node) for node in nodes):
                break
            schema, found = older, older.since_version
        return found


def _is_visible(reason: Reason, is_float: bool) -> bool:
    """Does a node show whether it uses what a version changed for this reason?"""
    return reason in _USED_OR_NOT or (reason is Reason.FLOATS and not is_float)


def _types_at(
    schema: onnx.defs.OpSchema, nodes: list[onnx.NodeProto], elements: Mapping[str, str]
) -> set[str]:
    """The types of all inputs and outputs of nodes of one op."""
    found: set[str] = set()
    for node in nodes:
        typed = [*_typed(schema.inputs, node.input), *_typed(schema.outputs, node.output)]
        # A name that no exporter has told the type of may have that of another one.
        bound = {kind: elements[name] for name, kind in typed if name in elements}
        for name, kind in typed:
            element = elements.get(name, bound.get(kind))
            found |= set(elements.values()) if element is None else {element}
    return {f"tensor({e.lower()})" for e in found}


def _typed(formal: Sequence[Any], names: Sequence[str]) -> list[tuple[str, str]]:
    """Names with the variables of their types; the last formal one stands for all that follow."""
    return [
        (name, formal[min(i, len(formal) - 1)].type_str) for i, name in enumerate(names) if name
    ]


def _accepts(schema: onnx.defs.OpSchema, node: onnx.NodeProto) -> bool:
    """Has the op so many inputs and outputs, and are these its attributes?"""
    named = {a.name for a in node.attribute}
    required = {name for name, a in schema.attributes.items() if a.required}
    return (
        schema.min_input <= len(node.input) <= schema.max_input
        and len(node.output) <= schema.max_output
        and required <= named <= set(schema.attributes)
    )


def _types(schema: onnx.defs.OpSchema) -> set[str]:
    return {t for c in schema.type_constraints for t in c.allowed_type_strs}


__all__ = ["OpsetNeeds"]
