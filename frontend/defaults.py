"""Initializers that are also inputs: their values are defaults of these inputs.

Since version 4 of the format, an initializer that is listed as an input is a default, which a run
may replace. But many exporters list all of their weights as inputs, and a compiler needs to know
weights, so for such models the initializers are constants.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import onnx

Defaults: TypeAlias = Literal["auto", "open", "constant"]
"""What initializers among the inputs become: "open" inputs with a default (as in onnxruntime),
"constant", or "auto": open unless the model lists its weights as inputs."""

DEFAULTS = get_args(Defaults)
_FIRST_VERSION = 4
_WEIGHTS = 256


def inputs_with_defaults(proto: onnx.ModelProto, mode: Defaults) -> tuple[set[str], str]:
    """The inputs that keep their initializer as a default, and a remark if others lose it.

    A weight is a matrix, or more, of at least 256 elements: only "open" keeps it an input.
    """
    inputs = {info.name for info in proto.graph.input}
    listed = [t for t in proto.graph.initializer if t.name in inputs]
    if mode == "constant" or proto.ir_version < _FIRST_VERSION or not listed:
        return set(), ""
    if mode == "auto" and any(_is_weight(t) for t in listed):
        return set(), _remark(listed, "--input-defaults open keeps them inputs, with slower code")
    texts = [t for t in listed if t.data_type == onnx.TensorProto.STRING]
    remark = _remark(texts, "strings cannot be kept as defaults") if texts else ""
    return {t.name for t in listed} - {t.name for t in texts}, remark


def _is_weight(tensor: onnx.TensorProto) -> bool:
    sizes = [d for d in tensor.dims if d > 1]
    return len(sizes) > 1 and math.prod(sizes) >= _WEIGHTS


def _remark(closed: list[onnx.TensorProto], why: str) -> str:
    first, more = repr(closed[0].name), f" and {len(closed) - 1} more" if len(closed) > 1 else ""
    return (
        f"initializers among the inputs ({first}{more}) are taken as constants, which no run can "
        f"replace; {why}"
    )
