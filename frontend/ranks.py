"""Ops whose result's rank depends on open dims: an If for each size that decides it.

Squeeze without axes drops the dims that are 1; for GatherND, Reshape and others the number of
elements of an input decides. Such a node becomes an If with a node of one rank in each branch, as
exporters write it. All branches stay if nothing needs to know the rank; otherwise one is assumed
and guarded (see :mod:`.assumptions`). The usual case is the first branch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..ir.conditions import Condition, Relation
from ..ir.dims import Dim
from ..ir.graph import Value
from ..ir.types import TensorType
from .emit import Emit
from .keys import opset_versions
from .node import OnnxNode
from .schema import LATEST
from .scope import Scope, Slot


def squeeze(node: OnnxNode, emit: Emit) -> Sequence[Slot] | None:
    """Squeeze-13 of a tensor with open dims, without axes or with an unknown number of them."""
    if node.input(1) is not None:
        return counted(node, emit)
    dims = emit.dims(node.required(0))
    ones = [i for i, d in enumerate(dims) if d == 1]
    undecided = [i for i, d in enumerate(dims) if not isinstance(d, int) and _may_be(d, 1)]
    if all(isinstance(d, int) for d in dims):
        return None
    nodes, last = [], "x"
    if ones:
        nodes, last = _dropped("x", ones, "ones"), "ones_dropped"
    for i in reversed(undecided):
        at = i - sum(o < i for o in ones)
        stays = [helper.make_node("Identity", [last], [f"axis{i}_kept"])]
        nodes += _size_is("x", i, 1, f"axis{i}")
        nodes.append(helper.make_node("Not", [f"axis{i}_is"], [f"axis{i}_stays"]))
        nodes.append(
            _either(f"axis{i}_stays", stays, _dropped(last, [at], f"axis{i}"), f"axis{i}_done")
        )
        last = f"axis{i}_done"
    return _call(["x"], nodes, last, node, emit)


def _dropped(x: str, axes: list[int], mark: str) -> list[onnx.NodeProto]:
    """``MARK_dropped``: ``x`` without these axes."""
    return [
        _integers(f"{mark}_axes", axes),
        helper.make_node("Squeeze", [x, f"{mark}_axes"], [f"{mark}_dropped"], f"drop_{mark}"),
    ]


# ---- ops whose parameter's length counts ---------------------------------------------------------


def _of_squeeze(node: OnnxNode, emit: Emit) -> Sequence[int]:
    return range(1, emit.rank(node.required(0)) + 1)


def _of_unsqueeze(_node: OnnxNode, _emit: Emit) -> Sequence[int]:
    return range(1, _MOST)


def _of_reduce(node: OnnxNode, emit: Emit) -> Sequence[int]:
    """The possible numbers of reduced axes, which only matter if these are not kept."""
    return () if node.attrs.get("keepdims", 1) else (*_of_squeeze(node, emit), 0)


def _of_shape(_node: OnnxNode, _emit: Emit) -> Sequence[int]:
    return (*range(1, _MOST), 0)


def _of_reshape(node: OnnxNode, emit: Emit) -> Sequence[int]:
    """A scalar only where the input may have one element."""
    dims = emit.dims(node.required(0))
    return (*range(1, _MOST), *([0] if all(_may_be(d, 1) for d in dims) else []))


def _of_expand(node: OnnxNode, emit: Emit) -> Sequence[int]:
    rank = emit.rank(node.required(0))
    return (*range(rank, max(rank, _MOST - 1) + 1), *range(rank))


def _of_indices(node: OnnxNode, emit: Emit) -> Sequence[int]:
    """The possible numbers of coordinates; the largest comes first."""
    batch = node.attrs.get("batch_dims", 0)
    return range(emit.rank(node.required(0)) - batch, 0, -1) if isinstance(batch, int) else ()


def _of_updates(node: OnnxNode, emit: Emit) -> Sequence[int]:
    """The only number of coordinates that fits the rank of the updates."""
    data, indices, updates = (emit.rank(node.required(i)) for i in range(3))
    return [indices - 1 + data - updates]


_MOST = 7
_REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"
_COUNTED: Mapping[str, tuple[int, Callable[[OnnxNode, Emit], Sequence[int]]]] = {
    "ConstantOfShape": (0, _of_shape),
    "Expand": (1, _of_expand),
    "GatherND": (1, _of_indices),
    "Reshape": (1, _of_reshape),
    "ScatterND": (1, _of_updates),
    "Squeeze": (1, _of_squeeze),
    "Unsqueeze": (1, _of_unsqueeze),
    **{f"Reduce{op}": (1, _of_reduce) for op in _REDUCTIONS.split()},
}
"""By op, the input whose last dim decides the rank, and its possible sizes, usual ones first."""


def counted(node: OnnxNode, emit: Emit) -> Sequence[Slot] | None:
    """An op of :data:`_COUNTED` with that dim open: one node for each possible size."""
    index, sizes = _COUNTED[node.op]
    value = node.input(index)
    if value is None or not _is_open(value) or emit.known(value) is not None:
        return None
    dims = emit.dims(value)
    fitting = [k for k in sizes(node, emit) if _may_be(dims[-1], k)]
    if not fitting:
        return None
    last = len(dims) - 1
    nodes = _of_size(node, index, fitting[-1], last)
    for k in reversed(fitting[:-1]):
        choice = _either(f"size{k}_is", _of_size(node, index, k, last), nodes, f"chosen{k}")
        nodes = [*_size_is(f"i{index}", last, k, f"size{k}"), choice]
    names = [f"i{n}" for n in range(len(node.inputs))]
    return _call(names, nodes, nodes[-1].output[0], node, emit)


def _is_open(value: Value) -> bool:
    t = value.type
    return isinstance(t, TensorType) and bool(t.shape) and not isinstance(t.dims[-1], int)


def _of_size(node: OnnxNode, index: int, size: int, last: int) -> list[onnx.NodeProto]:
    """The op for a last dim of input ``index`` of ``size``; the run fails for others."""
    given = [f"i{n}" if v is not None else "" for n, v in enumerate(node.inputs)]
    given[index] = f"fixed{size}"
    attrs: dict[str, Any] = {
        k: onnx.numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v
        for k, v in node.attrs.items()
    }
    dims = [*[0] * last, size] if size else [*[1] * last, 0]
    return [
        _integers(f"to{size}", dims),
        helper.make_node("Reshape", [f"i{index}", f"to{size}"], [given[index]], f"size{size}",
                         allowzero=0 if size else 1),
        helper.make_node(node.op, given, [f"y{size}"], f"of{size}", **attrs),
    ]  # fmt: skip


def _integers(name: str, values: list[int]) -> onnx.NodeProto:
    array = onnx.numpy_helper.from_array(np.array(values, np.int64))
    return helper.make_node("Constant", [], [name], value=array)


def _may_be(d: Dim, size: int) -> bool:
    return not Condition(Relation.EQUAL, d, size, "", "").refuted()


def _size_is(x: str, axis: int, size: int, mark: str) -> list[onnx.NodeProto]:
    """``MARK_is``: has ``x`` this size along ``axis``?"""
    return [
        helper.make_node("Shape", [x], [f"{mark}_dim"], start=axis, end=axis + 1),
        _integers(f"{mark}_wanted", [size]),
        helper.make_node("Equal", [f"{mark}_dim", f"{mark}_wanted"], [f"{mark}_is"]),
    ]


def _either(
    condition: str, then: list[onnx.NodeProto], other: list[onnx.NodeProto], result: str
) -> onnx.NodeProto:
    """An If that returns the result of the last node of the branch that is taken."""
    then_branch, else_branch = (
        helper.make_graph(n, result, [], [onnx.ValueInfoProto(name=n[-1].output[0])])
        for n in (then, other)
    )
    return helper.make_node(
        "If", [condition], [result], f"if_{condition}",
        then_branch=then_branch, else_branch=else_branch,
    )  # fmt: skip


def _call(
    inputs: list[str], nodes: list[onnx.NodeProto], result: str, node: OnnxNode, emit: Emit
) -> Sequence[Slot]:
    """The result of ``nodes``, imported in place of ``node``, whose inputs they call ``inputs``."""
    function = helper.make_function(
        "kiln", node.op, inputs, [result], nodes, [helper.make_opsetid("", LATEST[""])]
    )
    builder = emit.scope.builder
    inner = Scope(builder, opset_versions(function.opset_import), origins=builder.origins)
    return emit.importer.call(function, node, inner, emit.scope)


RANK_RULES: Mapping[str, Callable[[OnnxNode, Emit], Sequence[Slot] | None]] = {
    **dict.fromkeys(_COUNTED, counted),
    "Squeeze": squeeze,
}
