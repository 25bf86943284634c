"""The opsets that a written model needs: the lowest that have its ops as it uses them."""

from __future__ import annotations

from collections.abc import Set

import onnx
import onnx.defs

from ...ir.reference import DOMAIN_VERSIONS

_OLDEST = 13

WIDENED = frozenset(
    "Add Cast CastLike Constant ConstantOfShape Conv ConvTranspose DepthToSpace DequantizeLinear "
    "Div Elu Equal Flatten GRU GlobalAveragePool GlobalMaxPool GreaterOrEqual HardSigmoid "
    "HardSwish Identity If InstanceNormalization LSTM LeakyRelu LessOrEqual Loop MaxPool Mod Mul "
    "OneHot PRelu QuantizeLinear RNN Relu Reshape Round Scan Selu Shape Size Softplus Softsign "
    "SpaceToDepth Squeeze Sub ThresholdedRelu Transpose Unsqueeze Where".split()
)
"""Ops of which newer versions, from 13 on, take more element types or have more attributes, and
compute the same otherwise. Other ops need the version that they have in the newest opset, as an
older one may compute something else."""


class OpsetNeeds:
    """Collects what the nodes of a model need."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[str, str], list[onnx.NodeProto]] = {}

    def note(self, node: onnx.NodeProto) -> None:
        """Count in a node."""
        self._nodes.setdefault((node.domain, node.op_type), []).append(node)

    def opsets(self, elements: Set[str]) -> list[onnx.OperatorSetIdProto]:
        """The opset of each domain for a model with tensors of these element types."""
        versions = {"": _OLDEST}
        for (domain, op), nodes in self._nodes.items():
            needed = self._needed(domain, op, nodes, elements)
            versions[domain] = max(versions.get(domain, 1), needed)
        return [onnx.OperatorSetIdProto(domain=d, version=v) for d, v in sorted(versions.items())]

    def _needed(self, domain: str, op: str, nodes: list[onnx.NodeProto], elements: Set[str]) -> int:
        newest = DOMAIN_VERSIONS.get(domain, 1)
        if not onnx.defs.has(op, newest, domain):
            return 1
        schema = onnx.defs.get_schema(op, newest, domain)
        found: int = schema.since_version
        if domain or op not in WIDENED:
            return found
        names = {f"tensor({e.lower()})" for e in elements}
        while schema.since_version > _OLDEST and onnx.defs.has(op, found - 1, domain):
            older = onnx.defs.get_schema(op, found - 1, domain)
            lacking = names & (_types(schema) - _types(older))
            if lacking or not all(_accepts(older, node) for node in nodes):
                break
            schema, found = older, older.since_version
        return found


def _accepts(schema: onnx.defs.OpSchema, node: onnx.NodeProto) -> bool:
    """Has the op so many inputs, and attributes of these names?"""
    return len(node.input) <= schema.max_input and all(
        a.name in schema.attributes for a in node.attribute
    )


def _types(schema: onnx.defs.OpSchema) -> set[str]:
    return {t for c in schema.type_constraints for t in c.allowed_type_strs}


__all__ = ["WIDENED", "OpsetNeeds"]
