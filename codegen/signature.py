"""What the manifest says of a model's inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..ir.graph import Value
from ..ir.types import OptionalType, SequenceType, Type


def value_specs(values: Sequence[Value], names: Sequence[str]) -> list[dict[str, Any]]:
    """One manifest entry a value; symbolic dims are given as text."""
    return [
        {"name": name, **type_spec(v.type)} for v, name in zip(values, names, strict=True)
    ]


def type_spec(t: Type) -> dict[str, Any]:
    """The manifest form of a type."""
    if isinstance(t, SequenceType):
        return {"kind": "sequence", "elem": type_spec(t.elem)}
    if isinstance(t, OptionalType):
        return {"kind": "optional", "optional": True, "elem": type_spec(t.elem)}
    shape = None if t.shape is None else [d if isinstance(d, int) else str(d) for d in t.shape]
    return {"kind": "tensor", "dtype": t.dtype.name, "shape": shape}
