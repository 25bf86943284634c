"""A node of the file during import: inputs are resolved, attributes are Python values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx

from ..ir.graph import Value
from .errors import ImportFault, text
from .scope import Body, RawAttr, Scope
from .source import Source
from .tensors import decode, to_array, to_dense
from .valuetypes import Symbols, value_type

_KIND = onnx.AttributeProto


@dataclass(slots=True)
class OnnxNode:
    """A node of some opset; upgrade rules edit it in place.

    ``inputs`` are None if omitted; ``outputs`` are the file's names, empty for omitted ones.
    """

    op: str
    domain: str
    version: int
    name: str
    inputs: list[Value | None]
    outputs: list[str]
    attrs: dict[str, RawAttr]

    @property
    def key(self) -> str:
        return self.op if not self.domain else f"{self.domain}.{self.op}"

    def input(self, index: int) -> Value | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def required(self, index: int) -> Value:
        """An input; raises :class:`ImportFault` if it is omitted."""
        value = self.input(index)
        if value is None:
            raise ImportFault(f"input {index} is missing")
        return value

    def set_input(self, index: int, value: Value | None) -> None:
        self.inputs.extend([None] * (index + 1 - len(self.inputs)))
        self.inputs[index] = value

    def asks_for(self, output: int) -> bool:
        """Is this output named in the file, rather than omitted?"""
        return output < len(self.outputs) and bool(self.outputs[output])


def attributes(
    proto: onnx.NodeProto, scope: Scope, source: Source, symbols: Symbols
) -> dict[str, RawAttr]:
    """The attributes of a node, references to a function's attributes bound."""
    out: dict[str, RawAttr] = {}
    for attribute in proto.attribute:
        name = text(attribute.name)
        if name in out:
            raise ImportFault(f"attribute {name!r} is there twice")
        if attribute.ref_attr_name:
            bound = scope.bindings.get(attribute.ref_attr_name)
            if bound is not None:
                out[name] = bound
            continue
        out[name] = attribute_value(attribute, scope, source, symbols)
    return out


def attribute_value(
    proto: onnx.AttributeProto, scope: Scope, source: Source, symbols: Symbols
) -> RawAttr:
    """The Python value of an attribute; raises :class:`ImportFault` for unsupported kinds."""
    kind = proto.type or _guess_kind(proto)
    reader = _READERS.get(kind)
    try:
        if reader is not None:
            return reader(proto)
        if kind == _KIND.TENSOR:
            return to_array(source, proto.t)
        if kind == _KIND.SPARSE_TENSOR:
            return to_dense(source, proto.sparse_tensor)
        if kind == _KIND.GRAPH:
            return Body(proto.g, scope)
        if kind == _KIND.TYPE_PROTO:
            return value_type(proto.tp, proto.name, symbols)
    except ImportFault as e:
        raise ImportFault(f"attribute {proto.name!r}: {e}") from e
    raise ImportFault(f"attribute {proto.name!r} has an unsupported type {kind}")


_READERS: Mapping[int, Callable[[onnx.AttributeProto], RawAttr]] = {
    _KIND.FLOAT: lambda a: float(a.f),
    _KIND.INT: lambda a: int(a.i),
    _KIND.STRING: lambda a: decode(a.s),
    _KIND.FLOATS: lambda a: tuple(a.floats),
    _KIND.INTS: lambda a: tuple(a.ints),
    _KIND.STRINGS: lambda a: tuple(decode(s) for s in a.strings),
}


def _guess_kind(proto: onnx.AttributeProto) -> int:
    """The kind of an attribute in files of IR version 1, which do not state it."""
    for field, kind in (
        ("f", _KIND.FLOAT), ("i", _KIND.INT), ("s", _KIND.STRING), ("t", _KIND.TENSOR),
        ("g", _KIND.GRAPH),
    ):  # fmt: skip
        if proto.HasField(field):
            return kind
    for field, kind in (
        ("floats", _KIND.FLOATS), ("ints", _KIND.INTS), ("strings", _KIND.STRINGS),
    ):  # fmt: skip
        if len(getattr(proto, field)):
            return kind
    return _KIND.INTS
