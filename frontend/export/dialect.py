"""Dialect ops, written as ONNX ops.

Blocked layouts are undone: if a blocked value has a plain form, the ops that read it use that, and
the blocked form is only written if something needs it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ir.dims import Dim
from ...ir.elementwise import is_elementwise
from ...ir.graph import Node, Value
from ...ir.onnx_types import element_code
from ...ir.ops.blocked import joined_weights, picked_channels, plain_conv_weight
from ...ir.ops.rnn_packed import GATES, plain_attributes, plain_columns, plain_parameters
from ...ir.ops.word_sums import BYTE
from ...ir.packing import (
    unpack_channels,
    unpack_matmul_weight,
)
from ...ir.registry import attribute
from ...ir.types import DTYPES, TensorType
from .scope import EXPORTERS, Blocked, ExportError, Scope

_INT64 = DTYPES["int64"]
_FLOAT = DTYPES["float32"]
_LOWEST = -(1 << 63)


def _required(inputs: list[Value | None]) -> Value:
    if not inputs or inputs[0] is None:
        raise ExportError("the first input is missing")
    return inputs[0]


# ---- movements -----------------------------------------------------------------------------------


def _reshape(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    x, dims = _required(inputs), _dims(node, "shape")
    if len(dims) > 3 and dims == (*x.shape, 1) and isinstance(dims[1], int):
        # Blocks of one channel.
        _set_blocked(scope, node.out(), Blocked(scope.name(x), dims[1]))
        return
    source = _same_order(scope, x)
    name = scope.name(x) if source is None else source
    write_reshape(scope, name, dims, scope.result(node.out()), node.name)


def _same_order(scope: Scope, x: Value) -> str | None:
    """The plain form of a blocked value, if its elements are in the same order."""
    form = scope.find_blocked(x)
    if form is None:
        return None
    _, blocks, *spatial, block = x.shape
    whole = blocks * block == form.channels and all(d == 1 for d in spatial)
    return form.name if whole or block == 1 else None


def write_reshape(scope: Scope, x: str, dims: tuple[Dim, ...], result: str, name: str = "") -> str:
    """A Reshape to exactly ``dims``; one symbolic dim may be -1, which ONNX computes."""
    symbolic = [i for i, d in enumerate(dims) if not isinstance(d, int)]
    zero = any(d == 0 for d in dims)
    if len(symbolic) == 1 and not zero:
        shape = scope.ints([-1 if i in symbolic else int(d) for i, d in enumerate(dims)])
        return scope.emit("Reshape", [x, shape], outputs=[result], name=name)
    # A size of 0 must not mean "as in the input".
    attrs = {"allowzero": 1} if zero or symbolic else {}
    return scope.emit("Reshape", [x, scope.shape(dims)], attrs, outputs=[result], name=name)


def _expand(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    names = [scope.name(_required(inputs)), scope.shape(_dims(node, "shape"))]
    scope.emit("Expand", names, outputs=[scope.result(node.out())], name=node.name)


def _slice(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    x = _required(inputs)
    ranges = []
    parts = zip(
        _dims(node, "starts"), _dims(node, "steps"), _dims(node, "shape"), x.shape, strict=True
    )
    for axis, (start, step, extent, size) in enumerate(parts):
        if not isinstance(step, int):
            raise ExportError(f"step {step} is symbolic", at=node)
        if (start, step, extent) != (0, 1, size):
            ranges.append((start, _end(start, step, extent, size), axis, step))
    name = scope.name(x)
    if not ranges:
        scope.emit("Identity", [name], outputs=[scope.result(node.out())])
        return
    starts, ends, axes, steps = zip(*ranges, strict=True)
    operands = [name, *(scope.shape(v) for v in (starts, ends, axes, steps))]
    scope.emit("Slice", operands, outputs=[scope.result(node.out())], name=node.name)


def _end(start: Dim, step: int, extent: Dim, size: Dim) -> Dim:
    """The exclusive end of a slice; one before the first element is a number below -size."""
    if extent == 0:
        return start
    if step > 0:
        return start + (extent - 1) * step + 1
    return start + (extent - 1) * step - 1 - size


def _shape_value(scope: Scope, node: Node, _inputs: list[Value | None]) -> None:
    vector = scope.shape(_dims(node, "dims"))
    shape = [int(d) for d in _dims(node, "shape")]
    if len(shape) != 1:
        vector = scope.emit("Reshape", [vector, scope.ints(shape)])
    code = element_code(str(attribute(node, "dtype")))
    scope.emit("Cast", [vector], {"to": code}, outputs=[scope.result(node.out())])


def _dims(node: Node, name: str) -> tuple[Dim, ...]:
    value = node.attrs[name]
    assert isinstance(value, tuple)
    return value


# ---- blocked layouts -----------------------------------------------------------------------------


def _pack(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    x = _required(inputs)
    channels = x.shape[1]
    if not isinstance(channels, int):
        raise ExportError(f"{channels} channels are symbolic", at=node)
    _set_blocked(scope, node.out(), Blocked(scope.name(x), channels))


def _set_blocked(scope: Scope, value: Value, form: Blocked) -> None:
    """Record that ``form`` is the plain form of ``value``, which itself is written on demand."""
    scope.blocked[value] = form
    scope.later(value, lambda: _write_blocked(scope, value, form))


def _write_blocked(scope: Scope, value: Value, form: Blocked) -> None:
    batch, blocks, *spatial, block = value.shape
    name = form.name
    missing = int(blocks) * int(block) - form.channels
    if missing:
        borders = [0, 0, *[0] * len(spatial), 0, missing, *[0] * len(spatial)]
        name = scope.emit("Pad", [name, scope.ints(borders)])
    split = (batch, blocks, block, *spatial)
    name = write_reshape(scope, name, split, scope.shared.names.unique(f"{value.name}_split"))
    order = (0, 1, *range(3, 3 + len(spatial)), 2)
    scope.emit("Transpose", [name], {"perm": order}, outputs=[scope.result(value)])


def _plain(scope: Scope, value: Value, channels: int) -> str:
    """The name of ``value`` [N,Cb,*S,block] as [N,channels,*S]."""
    form = scope.find_blocked(value)
    if form is not None and form.channels == channels:
        return form.name
    batch, blocks, *spatial, block = value.shape
    width = int(blocks) * int(block)
    order = (0, 1, 2 + len(spatial), *range(2, 2 + len(spatial)))
    name = scope.emit("Transpose", [scope.name(value)], {"perm": order})
    merged = (batch, width, *spatial)
    name = write_reshape(scope, name, merged, scope.shared.names.unique(f"{value.name}_merged"))
    if width == channels:
        return name
    bounds = [scope.ints([v]) for v in (0, channels, 1)]
    return scope.emit("Slice", [name, *bounds])


def _unpack(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    scope.bind(node.out(), _plain(scope, _required(inputs), int(attribute(node, "channels"))))


def _conv(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    x = _required(inputs)
    channels, out = int(attribute(node, "in_channels")), int(attribute(node, "out_channels"))
    weight, group = plain_conv_weight(node, _packed(scope, node, inputs, tiles=2))
    bias = None
    if len(inputs) > 2 and inputs[2] is not None:
        bias = np.ascontiguousarray(_constant(scope, node, inputs[2]).reshape(-1)[:out])
    names = [_plain(scope, x, channels), scope.tensor(weight, f"{node.name}_weight")]
    attrs = {**_window(node), "group": group}
    if x.tensor_type.dtype.is_integer:
        result = _integer_conv(scope, node, x, names, weight, bias, attrs)
    else:
        names += [] if bias is None else [scope.tensor(bias, f"{node.name}_bias")]
        result = scope.emit("Conv", names, attrs, name=node.name)
    _set_blocked(scope, node.out(), Blocked(result, out))


def _integer_conv(
    scope: Scope, node: Node, x: Value, names: list[str], weight: np.ndarray,
    bias: np.ndarray | None, attrs: dict[str, Any],
) -> str:  # fmt: skip
    """ConvInteger pads with its zero point and subtracts it from all; this is added back here."""
    zero = int(attribute(node, "pad_value"))
    start = zero * weight.reshape(weight.shape[0], -1).sum(axis=1, dtype=np.int32)
    start = start if bias is None else start + bias
    kind = np.uint8 if x.dtype == "uint8" else np.int8
    names = [*names, scope.tensor(np.asarray(zero, kind), f"{node.name}_zero_point")]
    total = scope.emit("ConvInteger", names, attrs, name=node.name)
    shaped = start.astype(np.int32).reshape(-1, *(1,) * (weight.ndim - 2))
    return scope.emit("Add", [total, scope.tensor(shaped, f"{node.name}_bias")])


def _pool(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    x = _required(inputs)
    op = {"max": "MaxPool", "average": "AveragePool"}[str(attribute(node, "mode"))]
    attrs = _window(node)
    if op == "MaxPool":
        attrs.pop("count_include_pad", None)
    form = scope.find_blocked(x)
    channels = int(x.shape[1]) * int(x.shape[-1]) if form is None else form.channels
    result = scope.emit(op, [_plain(scope, x, channels)], attrs, name=node.name)
    _set_blocked(scope, node.out(), Blocked(result, channels))


def _select(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    names, offsets, total = [], [], 0
    for x in (v for v in inputs if v is not None):
        form = scope.find_blocked(x)
        channels = int(x.shape[1]) * int(x.shape[-1]) if form is None else form.channels
        names.append(_plain(scope, x, channels))
        offsets.append(total)
        total += channels
    picks = picked_channels(_dims(node, "runs"))  # type: ignore[arg-type]
    joined = names[0] if len(names) == 1 else scope.emit("Concat", names, {"axis": 1})
    chosen = scope.ints([offsets[i] + c for i, c in picks])
    result = scope.emit("Gather", [joined, chosen], {"axis": 1}, name=node.name)
    _set_blocked(scope, node.out(), Blocked(result, len(picks)))


def _depth_to_space(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    x, (kh, kw) = _required(inputs), _dims(node, "window")
    n, blocks, height, width, block = x.shape
    channels = int(blocks) * int(block) // (int(kh) * int(kw))
    unique = scope.shared.names.unique
    name = _plain(scope, x, int(blocks) * int(block))
    split = (n, kh, kw, channels, height, width)
    name = write_reshape(scope, name, split, unique(f"{node.name}_split"))
    name = scope.emit("Transpose", [name], {"perm": (0, 3, 4, 1, 5, 2)}, name=node.name)
    merged = (n, channels, height * kh, width * kw)
    name = write_reshape(scope, name, merged, unique(f"{node.name}_merged"))
    _set_blocked(scope, node.out(), Blocked(name, channels))


def _window(node: Node) -> dict[str, Any]:
    names = ("kernel_shape", "strides", "pads", "dilations", "ceil_mode", "count_include_pad")
    return {k: node.attrs[k] for k in names if node.attrs.get(k) is not None}


def _matmul(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    x = scope.name(_required(inputs))
    packed = _packed(scope, node, inputs, tiles=1)
    rows, depth = _required(inputs).shape[-1], int(attribute(node, "depth"))
    columns = int(attribute(node, "columns"))
    weight = unpack_matmul_weight(packed, columns, rows if isinstance(rows, int) else None, depth)
    name = scope.tensor(weight, f"{node.name}_weight")
    integer = _required(inputs).tensor_type.dtype.is_integer
    if not integer and weight.dtype != np.float32:
        name = scope.emit("Cast", [name], {"to": element_code(_FLOAT)})
    names = [x, name]
    bias = inputs[2] if len(inputs) > 2 else None
    op = "MatMulInteger" if integer else "MatMul"
    if bias is None:
        scope.emit(op, names, outputs=[scope.result(node.out())], name=node.name)
        return
    product = scope.emit(op, names, name=node.name)
    scope.emit("Add", [product, scope.name(bias)], outputs=[scope.result(node.out())])


def _requantize(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    total, scale, zero = scope.names(inputs)
    exact = scope.emit("Cast", [total], {"to": element_code(_FLOAT)})
    steps = scope.emit("Mul", [exact, scale])
    names = [steps, scope.tensor(np.ones((), np.float32), "one"), zero]
    scope.emit("QuantizeLinear", names, outputs=[scope.result(node.out())], name=node.name)


def _join_sums(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    wide = {"to": element_code(_INT64)}
    high, low = (scope.emit("Cast", [name], wide) for name in scope.names(inputs))
    steps = scope.emit("Mul", [high, scope.tensor(np.asarray(BYTE, np.int64), "byte")])
    total = scope.emit("Add", [steps, low])
    to = {"to": element_code(_FLOAT)}
    scope.emit("Cast", [total], to, outputs=[scope.result(node.out())], name=node.name)


def _packed(scope: Scope, node: Node, inputs: list[Value | None], tiles: int) -> np.ndarray:
    """The packed weights of a convolution or product, in one piece."""
    split = [_constant(scope, node, v) for v in inputs[3:]]
    return joined_weights(_constant(scope, node, inputs[1]), split, tiles)


def _constant(scope: Scope, node: Node, value: Value | None) -> np.ndarray:
    array = None if value is None else scope.find(value).constant
    if array is None:
        raise ExportError("packed weights must be constant", at=node)
    return array


# ---- recurrent layers ----------------------------------------------------------------------------


def _recurrent(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    """ONNX's layer, whose W picks a direction's columns from the product computed beforehand."""
    packed, bias = _constant(scope, node, inputs[1]), inputs[2] if len(inputs) > 2 else None
    late = None if bias is None else _constant(scope, node, bias)
    _, blocks, _, width = packed.shape
    columns = plain_columns(node, blocks, width // GATES[node.op]).reshape(-1)
    order = scope.ints([int(c) for c in columns])
    x = scope.emit("Gather", [scope.name(_required(inputs)), order], {"axis": 2})
    parameters = plain_parameters(node, packed, late)
    names = ["" if a is None else scope.tensor(a, f"{node.name}_weight") for a in parameters]
    names += scope.names(inputs[3:])
    scope.emit(
        node.op.removesuffix("Packed"), [x, *names], plain_attributes(node),
        outputs=[scope.result(v) for v in node.values], name=node.name,
    )  # fmt: skip


# ---- guards --------------------------------------------------------------------------------------


def _nothing(_scope: Scope, _node: Node, _inputs: list[Value | None]) -> None:
    """What ONNX's ops demand of sizes and indices, whoever runs a model checks for himself."""


def _require(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    """A check as ONNX nodes, which has no assertions: an index is out of range if it fails.

    The node that fails has the guard's message as its name.
    """
    names = scope.names(inputs[:1])
    if inputs[1] is not None and scope.find(inputs[1]).node.key == "kiln.Within":
        scope.bind(node.out(), names[0])
        return
    value, condition = *names, *scope.names(inputs[1:])
    wrong = scope.emit("Cast", [scope.emit("Not", [condition])], {"to": element_code(_INT64)})
    stacked = scope.emit("Unsqueeze", [value, scope.ints([0])])
    message = str(node.attrs["message"])
    result = scope.result(node.out())
    scope.emit("Gather", [stacked, wrong], {"axis": 0}, outputs=[result], name=message)


# ---- boxes ---------------------------------------------------------------------------------------


def _kept_boxes(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    """NonMaxSuppression as a whole; its result is that of the ``kiln.BoxRows`` that follows."""
    attrs = {"center_point_box": int(attribute(node, "center_point_box"))}
    scope.rows[node.out()] = scope.emit(
        "NonMaxSuppression", scope.names(inputs), attrs, name=node.name
    )


def _box_rows(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    kept = _required(inputs)
    if kept not in scope.rows:
        raise ExportError("its boxes must come from kiln.KeptBoxes", at=node)
    scope.bind(node.out(), scope.rows[kept])


EXPORTERS.update(
    {
        "kiln.BoxRows": _box_rows,
        "kiln.ConvBlocked": _conv,
        "kiln.DepthwiseBlocked": _conv,
        "kiln.Expand": _expand,
        "kiln.GRUPacked": _recurrent,
        "kiln.JoinSums": _join_sums,
        "kiln.KeptBoxes": _kept_boxes,
        "kiln.LSTMPacked": _recurrent,
        "kiln.RNNPacked": _recurrent,
        "kiln.MatMulPacked": _matmul,
        "kiln.PackChannels": _pack,
        "kiln.PoolBlocked": _pool,
        "kiln.Assert": _nothing,
        "kiln.Within": _nothing,
        "kiln.Require": _require,
        "kiln.Requantize": _requantize,
        "kiln.SelectChannels": _select,
        "kiln.DepthToSpaceBlocked": _depth_to_space,
        "kiln.Reshape": _reshape,
        "kiln.ShapeValue": _shape_value,
        "kiln.Slice": _slice,
        "kiln.UnpackChannels": _unpack,
    }
)


def plain_elementwise(scope: Scope, node: Node, inputs: list[Value | None]) -> bool:
    """Write an elementwise op on blocked values as one on their plain forms, if all have one.

    Constants are unpacked, scalars stay. Returns whether that was possible.
    """
    if not is_elementwise(node, inputs) or len(node.outputs) != 1:
        return False
    forms = [None if v is None else scope.find_blocked(v) for v in inputs]
    channels = {f.channels for f in forms if f is not None}
    out = node.outputs[0].type
    if len(channels) != 1 or not isinstance(out, TensorType) or out.shape is None:
        return False
    (count,) = channels
    operands: list[str | np.ndarray] = []
    for v, form in zip(inputs, forms, strict=True):
        operand = "" if v is None else _plain_operand(scope, v, form, count, len(out.shape))
        if operand is None:
            return False
        operands.append(operand)
    names = [scope.tensor(v, node.name) if isinstance(v, np.ndarray) else v for v in operands]
    result = scope.emit(node.op, names, node.attrs, domain=node.domain, name=node.name)
    _set_blocked(scope, node.out(), Blocked(result, count))
    return True


def _plain_operand(
    scope: Scope, value: Value, form: Blocked | None, channels: int, rank: int
) -> str | np.ndarray | None:
    if form is not None:
        return form.name
    array = scope.find(value).constant
    if array is None:
        return None
    if array.size == 1:
        return array.reshape(())
    if array.ndim == rank and array.shape[1] * array.shape[-1] >= channels:
        return unpack_channels(array, channels)
    return None
