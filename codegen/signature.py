"""What the manifest says of a model's inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.graph import Value
from ..ir.registry import attribute
from ..ir.types import OptionalType, SequenceType, Type


def value_specs(values: Sequence[Value], names: Sequence[str]) -> list[dict[str, Any]]:
    """One manifest entry a value; symbolic dims are given as text."""
    return [_value_spec(v, name) for v, name in zip(values, names, strict=True)]


def _value_spec(value: Value, name: str) -> dict[str, Any]:
    spec = {"name": name, **type_spec(value.type)}
    if value.node.key == "kiln.ZipMap":
        spec["keys"] = list(attribute(value.node, "keys"))
    return spec


def add_defaults(
    specs: list[dict[str, Any]], inputs: Sequence[Value], weights: int
) -> list[tuple[str, np.ndarray]]:
    """Add the weight numbers of defaults to the manifest's inputs; returns these weights.

    They are numbered from ``weights`` on, the number of the other weights.
    """
    added: list[tuple[str, np.ndarray]] = []
    for spec, value in zip(specs, inputs, strict=True):
        default = value.node.attrs.get("default")
        if isinstance(default, np.ndarray):
            spec["default"] = weights + len(added)
            added.append((f"default of {value.name}", default))
    return added


def type_spec(t: Type) -> dict[str, Any]:
    """The manifest form of a type."""
    if isinstance(t, SequenceType):
        return {"kind": "sequence", "elem": type_spec(t.elem)}
    if isinstance(t, OptionalType):
        return {"kind": "optional", "optional": True, "elem": type_spec(t.elem)}
    shape = None if t.shape is None else [d if isinstance(d, int) else str(d) for d in t.shape]
    return {"kind": "tensor", "dtype": t.dtype.name, "shape": shape}
