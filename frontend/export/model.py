"""The whole model: opsets, inputs and outputs, the file and its external data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from onnx.helper import find_min_ir_version_for

from ...ir.graph import Graph
from ...ir.literals import raw_bytes
from ...ir.onnx_types import element_code
from ...ir.reference import fill_tensor
from ...ir.types import from_numpy_dtype
from . import control
from .dialect import plain_elementwise
from .scope import ExportError, Scope, Shared, has_form

EXTERNAL_BYTES = 1_500_000_000
"""Models with more bytes of constants than this have them in a separate file."""

_INLINE_BYTES = 1024
_ALIGNMENT = 64
# The versions of the format that introduced element types.
_IR_VERSIONS = {
    "FLOAT8E4M3FN": 9, "FLOAT8E4M3FNUZ": 9, "FLOAT8E5M2": 9, "FLOAT8E5M2FNUZ": 9, "INT4": 10,
    "UINT4": 10, "FLOAT4E2M1": 11, "FLOAT8E8M0": 12, "INT2": 13, "UINT2": 13,
}  # fmt: skip


def to_onnx(graph: Graph, path: str | os.PathLike[str] | None = None) -> onnx.ModelProto:
    """``graph`` as an ONNX model of standard ops, written to ``path`` if one is given.

    Types must be inferred. Regions become their nodes, bodies capture values by name, and symbolic
    sizes are computed from shapes. The opset is the lowest that has every op as it is used, see
    :mod:`.opsets`. Constants of more than :data:`EXTERNAL_BYTES` in all need a path, and are
    written to ``<path>.data``. Raises :class:`ExportError`, which names the nodes without ONNX
    form, and ``OSError``.
    """
    _check(graph)
    target = None if path is None else Path(path)
    if sum(a.nbytes for a in _constants(graph)) <= EXTERNAL_BYTES:
        model = _build(graph, Shared(fill_tensor, plain_elementwise))
        if target is not None:
            _replace(target, lambda file: file.write(model.SerializeToString()))
        return model
    if target is None:
        raise ExportError("a model of this size needs a path: its constants take a file of theirs")
    return _write_external(graph, target)


def _check(graph: Graph) -> None:
    bad = [n for g in graph.walk() for n in g.nodes if not has_form(n)]
    if bad:
        listed = ", ".join(f"{n.key} (node {n.name!r})" for n in bad[:10])
        more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise ExportError(f"no ONNX form for {listed}{more}; EXPORTERS can give them one")


def _constants(graph: Graph) -> list[np.ndarray]:
    found: dict[int, np.ndarray] = {}
    for g in graph.walk():
        for node in g.nx:
            array = node.out().constant if node.outputs else None
            if array is not None:
                found[id(array)] = array
    return list(found.values())


# ---- the message ---------------------------------------------------------------------------------


def _build(graph: Graph, shared: Shared) -> onnx.ModelProto:
    model = onnx.ModelProto(producer_name="graphkiln")
    model.graph.name = graph.name or "main"
    scope = Scope(shared, model.graph)
    for v in graph.inputs:
        scope.bind(v, shared.names.unique(v.name))
        model.graph.input.append(scope.info(v.type, v.name))
        default = v.node.attrs.get("default")
        if isinstance(default, np.ndarray):
            shared.store(model.graph.initializer.add(name=v.name), default)
    inputs = {v.name for v in graph.inputs}
    for name in set(graph.output_names) - inputs:
        shared.names.unique(name)
    for v, name in zip(graph.outputs, graph.output_names, strict=True):
        if v.node.key not in ("Input", "Constant"):
            scope.want(v, name)
    scope.run(graph)
    control.close(scope, graph, graph.output_names)
    model.opset_import.extend(shared.opsets.opsets(shared.elements))
    version = find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    model.ir_version = max([version, *(_IR_VERSIONS.get(e, 0) for e in shared.elements.values())])
    return model


# ---- files ---------------------------------------------------------------------------------------


def _write_external(graph: Graph, target: Path) -> onnx.ModelProto:
    data = target.with_name(f"{target.name}.data")
    models: list[onnx.ModelProto] = []

    def write(file: IO[bytes]) -> None:
        store = _ExternalStore(file, data.name)
        models.append(_build(graph, Shared(store, plain_elementwise)))

    _replace(data, write)
    _replace(target, lambda file: file.write(models[0].SerializeToString()))
    return models[0]


class _ExternalStore:
    """Fills initializers whose bytes are in ``file``."""

    def __init__(self, file: IO[bytes], location: str) -> None:
        self._file = file
        self._location = location
        self._at = 0

    def __call__(self, proto: onnx.TensorProto, array: np.ndarray) -> None:
        element = from_numpy_dtype(array.dtype)
        # Elements narrower than a byte are packed, which is only done in the message itself.
        if array.nbytes < _INLINE_BYTES or element.kind not in "fiuc" or element.bits < 8:
            fill_tensor(proto, array)
            return
        gap = -self._at % _ALIGNMENT
        self._file.write(bytes(gap))
        self._file.write(raw_bytes(array))
        proto.data_type = element_code(element)
        proto.dims.extend(array.shape)
        proto.data_location = onnx.TensorProto.EXTERNAL
        entries = {"location": self._location, "offset": self._at + gap, "length": array.nbytes}
        for key, value in entries.items():
            proto.external_data.add(key=key, value=str(value))
        self._at += gap + array.nbytes


def _replace(target: Path, write: Any) -> None:
    """Write a file beside ``target`` and then rename it, so that ``target`` is never incomplete."""
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            write(file)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


__all__ = ["EXTERNAL_BYTES", "to_onnx"]
