"""Names of ops and functions: domains, op keys and opset versions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import onnx

from .errors import ImportFault, text
from .schema import LATEST

FunctionKey: TypeAlias = "tuple[str, str, str]"
"""Domain, name and overload of a function."""


def opset_versions(imports: Sequence[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Opset versions by domain; raises :class:`ImportFault` for those that cannot be imported."""
    out: dict[str, int] = {}
    for entry in imports:
        domain, version = domain_of(entry.domain), entry.version
        shown = domain or "ai.onnx"
        if version < 1 or version > LATEST.get(domain, version):
            newest = LATEST.get(domain, "any")
            raise ImportFault(f"opset {version} of {shown}; versions up to {newest} are known")
        if out.setdefault(domain, version) != version:
            raise ImportFault(f"opsets {out[domain]} and {version} of {shown} at once")
    return out


def domain_of(domain: str) -> str:
    """The domain as the IR spells it: the standard one is empty."""
    return "" if domain == "ai.onnx" else text(domain)


def op_key(node: onnx.NodeProto) -> str:
    """``Conv``, ``com.microsoft.Gelu``."""
    domain = domain_of(node.domain)
    return f"{domain}.{node.op_type}" if domain else node.op_type


def call_key(node: onnx.NodeProto) -> FunctionKey:
    """The function that a node would call."""
    return domain_of(node.domain), node.op_type, node.overload


def function_key(function: onnx.FunctionProto) -> FunctionKey:
    return domain_of(function.domain), text(function.name), text(function.overload)


def functions_by_key(
    functions: Iterable[onnx.FunctionProto],
) -> dict[FunctionKey, onnx.FunctionProto]:
    """A model's functions; raises :class:`ImportFault` if two have the same name."""
    out: dict[FunctionKey, onnx.FunctionProto] = {}
    for function in functions:
        key = function_key(function)
        if out.setdefault(key, function) is not function:
            raise ImportFault(f"function {'.'.join(k for k in key if k)} is there twice")
    return out
