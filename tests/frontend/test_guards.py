"""Compiled guards: what they let through, and what a run says where a condition fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from frontend.build import BOOL, graph, model, node, value
from onnx import TensorProto

import graphkiln
from graphkiln.frontend import load_model
from graphkiln.ir.graph import Graph
from graphkiln.runtime import InputError

W = {"w": np.arange(12, dtype=np.float32).reshape(3, 4)}


def _branches(x: str) -> dict[str, Any]:
    squeezed = graph([node("Squeeze", f"{x} axes", "t")], [], ["t"], {"axes": np.array([1])})
    return {"then_branch": squeezed, "else_branch": graph([node("Identity", x, "u")], [], ["u"])}


def _chosen(x: str, cond: str, y: str) -> Any:
    """``y = squeeze(x, 1) if cond else x``"""
    return node("If", cond, y, name="pick", **_branches(x))


@pytest.mark.parametrize("kind", ["result", "input"])
def test_a_guard_lets_values_through_or_ends_the_run(kind: str) -> None:
    """Of a kernel's result, which a convolution would keep in blocks, and of a plain input."""
    first = node("Exp", "x", "e") if kind == "result" else node("Identity", "x", "e")
    nodes = [first, _chosen("e", "c", "s"), node("Gemm", "s w", "y")]
    proto = model(nodes, [value("x", ("N", 1, 3)), value("c", (), BOOL)], ["y"], W)
    artifact = graphkiln.compile(proto, jobs=1)
    message = "node 'pick' (If): the model was compiled for a condition 'c' that is true"
    assert artifact.report["warnings"] == [f"{message}; running it fails for others"]
    session = artifact.session()
    x = np.random.default_rng(0).random((2, 1, 3), np.float32)
    (y,) = session.run(None, {"x": x, "c": np.array(True)})
    wanted = np.exp(x[:, 0]) if kind == "result" else x[:, 0]
    np.testing.assert_allclose(y, wanted @ W["w"], rtol=1e-5)
    with pytest.raises(InputError) as error:
        session.run(None, {"x": x, "c": np.array(False)})
    assert str(error.value).endswith(f"{message}, which does not hold for these inputs")
    (again,) = session.run(None, {"x": x, "c": np.array(True)})
    np.testing.assert_array_equal(again, y)


def test_a_guard_in_a_branch_only_counts_there() -> None:
    then = graph([_chosen("x", "d", "s"), node("Gemm", "s w", "r")], [], ["r"])
    other = graph([node("ReduceSum", "x ax", "f", keepdims=0), node("Gemm", "f w", "r")], [],
                  ["r"], {"ax": np.array([1])})  # fmt: skip
    inputs = [value("x", ("N", 1, 3)), value("c", (), BOOL), value("d", (1,), BOOL)]
    nodes = [node("If", "c", "y", name="outer", then_branch=then, else_branch=other)]
    session = graphkiln.compile(model(nodes, inputs, ["y"], W), jobs=1).session()
    x = np.ones((2, 1, 3), np.float32)
    for c, d in ((True, True), (False, True), (False, False)):
        (y,) = session.run(None, {"x": x, "c": np.array(c), "d": np.array([d])})
        np.testing.assert_allclose(y, x[:, 0] @ W["w"])
    with pytest.raises(InputError, match="'d' that is true, which does not hold"):
        session.run(None, {"x": x, "c": np.array(True), "d": np.array([False])})


def test_guards_of_strings() -> None:
    nodes = [_chosen("x", "c", "s"), node("StringConcat", "s s", "two"),
             node("Equal", "two two", "same"), node("Cast", "same", "n", to=TensorProto.FLOAT),
             node("Gemm", "n w", "y")]  # fmt: skip
    inputs = [value("x", ("N", 1, 3), TensorProto.STRING), value("c", (), BOOL)]
    session = graphkiln.compile(model(nodes, inputs, ["y"], W, opset=20), jobs=1).session()
    x = np.full((2, 1, 3), "a", object)
    (y,) = session.run(None, {"x": x, "c": np.array(True)})
    np.testing.assert_allclose(y, np.ones((2, 3)) @ W["w"])
    with pytest.raises(InputError, match="does not hold"):
        session.run(None, {"x": x, "c": np.array(False)})


def _looked_up(rows: int, table: np.ndarray) -> Graph:
    """``w[table[:N]]`` for an input of N elements, and ``w`` of so many rows."""
    nodes = [
        node("Shape", "x", "n"), node("Slice", "p zero n zero", "q"), node("Gather", "w q", "y")
    ]  # fmt: skip
    constants = {"w": np.ones((rows, 4), np.float32), "p": table, "zero": np.array([0])}
    proto = model(nodes, [value("x", ("N",))], ["y"], constants)
    return load_model(proto).graph


def test_positions_picked_from_a_table_need_no_check() -> None:
    positions = np.arange(8)
    assert not [n for n in _looked_up(8, positions).nodes if n.op in ("Within", "Require")]
    assert not [n for n in _looked_up(8, positions - 8).nodes if n.op == "Within"]


@pytest.mark.parametrize("moved", [1, -9])
def test_positions_of_a_table_that_reach_too_far_do(moved: int) -> None:
    graph = _looked_up(8, np.arange(8) + moved)
    assert [n.op for n in graph.nodes if n.op in ("Within", "Require")] == ["Within", "Require"]
