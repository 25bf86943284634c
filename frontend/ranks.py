"""Ops whose result's rank depends on open dims: an If for each size that decides it.

Squeeze without axes drops the dims that are 1, GatherND as many as the last dim of its indices.
Their nodes become functions of nodes with one rank each, so import treats them as it treats what
exporters write: both ways stay where nothing needs the rank, and else one is assumed and guarded
(see :mod:`.choices`). The usual case stands in the first branch.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import helper

from ..ir.conditions import Condition, Relation
from ..ir.dims import Dim
from .emit import Emit
from .keys import opset_versions
from .node import OnnxNode
from .schema import LATEST
from .scope import Scope, Slot


def squeeze_open(node: OnnxNode, emit: Emit) -> Sequence[Slot] | None:
    """Squeeze-13 without axes of a tensor with open dims."""
    if node.input(1) is not None:
        return None
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
        helper.make_node("Constant", [], [f"{mark}_axes"], value_ints=axes),
        helper.make_node("Squeeze", [x, f"{mark}_axes"], [f"{mark}_dropped"], f"drop_{mark}"),
    ]


def gather_nd_open(node: OnnxNode, emit: Emit) -> Sequence[Slot] | None:
    """GatherND-13 with indices whose last dim is open: the deepest gather first."""
    x, indices = emit.dims(node.required(0)), emit.dims(node.required(1))
    batch = node.attrs.get("batch_dims", 0)
    if not indices or isinstance(indices[-1], int) or not isinstance(batch, int):
        return None
    depths = [k for k in range(len(x) - batch, 0, -1) if _may_be(indices[-1], k)]
    if not depths:
        return None
    last = len(indices) - 1
    nodes = _gathered(depths[-1], last, batch)
    for k in reversed(depths[:-1]):
        choice = _either(f"depth{k}_is", _gathered(k, last, batch), nodes, f"y{k}_chosen")
        nodes = [*_size_is("i", last, k, f"depth{k}"), choice]
    return _call(["x", "i"], nodes, nodes[-1].output[0], node, emit)


def _gathered(depth: int, last: int, batch: int) -> list[onnx.NodeProto]:
    """GatherND by indices whose last dim is ``depth``, or the run fails."""
    return [
        helper.make_node("Constant", [], [f"to{depth}"], value_ints=[*[0] * last, depth]),
        helper.make_node("Reshape", ["i", f"to{depth}"], [f"i{depth}"], f"depth{depth}"),
        helper.make_node(
            "GatherND", ["x", f"i{depth}"], [f"y{depth}"], f"gather{depth}", batch_dims=batch
        ),
    ]


def _may_be(d: Dim, size: int) -> bool:
    return not Condition(Relation.EQUAL, d, size, "", "").refuted()


def _size_is(x: str, axis: int, size: int, mark: str) -> list[onnx.NodeProto]:
    """``MARK_is``: has ``x`` this size along ``axis``?"""
    return [
        helper.make_node("Shape", [x], [f"{mark}_dim"], start=axis, end=axis + 1),
        helper.make_node("Constant", [], [f"{mark}_wanted"], value_ints=[size]),
        helper.make_node("Equal", [f"{mark}_dim", f"{mark}_wanted"], [f"{mark}_is"]),
    ]


def _either(
    condition: str, then: list[onnx.NodeProto], other: list[onnx.NodeProto], result: str
) -> onnx.NodeProto:
    """An If that gives what the last node of the branch taken gives."""
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
    """The nodes' result, imported in the place of ``node``, whose inputs they call ``inputs``."""
    function = helper.make_function(
        "kiln", node.op, inputs, [result], nodes, [helper.make_opsetid("", LATEST[""])]
    )
    inner = Scope(emit.scope.builder, opset_versions(function.opset_import))
    return emit.importer.call(function, node, inner, emit.scope)
