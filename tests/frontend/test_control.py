"""If, Loop and Scan: closed bodies, their explicit inputs, and types that hold in every round."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from frontend.build import BOOL, INT64, graph, model, node, refusal, run, value

from graphkiln.frontend import load_model
from graphkiln.ir.graph import Graph, Node

X = np.array([[-1.0, 2.0, 0.5], [3.0, -4.0, 1.0]], np.float32)
COND = value("c", (), BOOL)


def _body(made: Node, name: str = "body") -> Graph:
    found = made.attrs[name]
    assert isinstance(found, Graph)
    return found


def _names(values: list[Any]) -> list[str]:
    return [v.name for v in values]


def _if_model(**extra: Any) -> onnx.ModelProto:
    then = graph([node("Add", "a x", "t"), node("Add", "t w", "r")], [], ["r"])
    other = graph([node("Mul", "b x", "r")], [], ["r"])
    nodes = [
        node("Neg", "x", "a"), node("Relu", "x", "b"),
        node("If", "c", "y", name="choose", then_branch=then, else_branch=other),
    ]  # fmt: skip
    return model(nodes, [value("x"), COND], ["y"], {"w": np.float32(5)}, **extra)


def test_branches_take_all_captured_values_in_one_order() -> None:
    found = load_model(_if_model()).graph
    choose = found.nodes[-1]
    assert _names(found.required_inputs(choose)) == ["c", "a", "x", "b"]
    then, other = _body(choose, "then_branch"), _body(choose, "else_branch")
    assert _names(then.inputs) == _names(other.inputs) == ["a", "x", "b"]
    assert then.name != other.name
    assert any(n.op == "Constant" for n in then.nx), "constants are repeated, not captured"


@pytest.mark.parametrize(("flag", "expected"), [(True, X - X + 5), (False, np.maximum(X, 0) * X)])
def test_if_computes(flag: bool, expected: np.ndarray) -> None:
    (y,) = run(_if_model(), {"x": X, "c": np.array(flag)})
    np.testing.assert_allclose(y, expected)


def test_a_known_condition_selects_its_branch() -> None:
    """What the other branch holds is not even looked at."""
    good = graph([node("Neg", "x", "r")], [], ["r"])
    bad = graph([node("Nope", "x", "r")], [], ["r"])
    nodes = [node("If", "c", "y", then_branch=good, else_branch=bad)]
    proto = model(nodes, [value("x")], ["y"], {"c": np.array(True)})
    (made,) = load_model(proto).graph.nodes
    assert made.op == "Neg" and made.outputs[0].name == "y"


def test_nested_branches_capture_through_each_other() -> None:
    deep = graph([node("Add", "x a", "q")], [], ["q"])
    flat = graph([node("Neg", "x", "q")], [], ["q"])
    then = graph([node("If", "d", "r", then_branch=deep, else_branch=flat)], [], ["r"])
    other = graph([node("Relu", "x", "r")], [], ["r"])
    nodes = [
        node("Exp", "x", "a"),
        node("If", "c", "y", then_branch=then, else_branch=other),
    ]
    proto = model(nodes, [value("x"), COND, value("d", (), BOOL)], ["y"])
    found = load_model(proto).graph
    assert set(_names(found.required_inputs(found.nodes[-1]))) == {"c", "d", "x", "a"}
    cases = {(1, 1): X + np.exp(X), (1, 0): -X, (0, 1): np.maximum(X, 0)}
    for (c, d), expected in cases.items():
        (y,) = run(proto, {"x": X, "c": np.array(bool(c)), "d": np.array(bool(d))})
        np.testing.assert_allclose(y, expected, rtol=1e-6)


def _loop_model(body: onnx.GraphProto, outputs: str, opset: int = 17) -> onnx.ModelProto:
    nodes = [node("Exp", "x", "e"), node("Loop", "m go x", outputs, name="loop", body=body)]
    inputs = [value("x", ("N", 3)), value("m", (), INT64)]
    return model(nodes, inputs, outputs.split(), {"go": np.array(True)}, opset=opset)


def _round(*nodes: onnx.NodeProto, outputs: str) -> onnx.GraphProto:
    inputs = [value("i", (), INT64), value("k", (), BOOL), value("v", None)]
    return graph([node("Identity", "k", "k2"), *nodes], inputs, outputs.split())


def test_loops_carry_scan_and_capture() -> None:
    body = _round(node("Add", "v e", "v2"), node("Neg", "v2", "s"), outputs="k2 v2 s")
    proto = _loop_model(body, "y z")
    found = load_model(proto).graph
    loop = found.nodes[-1]
    assert loop.attrs["num_carried"] == 1
    assert _names(found.required_inputs(loop)) == ["m", "go", "x", "e"]
    assert _names(_body(loop).inputs) == ["i", "k", "v", "e"]
    assert [str(v.type) for v in _body(loop).inputs] == [
        "int64[]", "bool[]", "float32[N,3]", "float32[N,3]",
    ]  # fmt: skip
    y, z = run(proto, {"x": X, "m": np.array(3)})
    steps = [X + (i + 1) * np.exp(X) for i in range(3)]
    np.testing.assert_allclose(y, steps[-1], rtol=1e-6)
    np.testing.assert_allclose(z, -np.stack(steps), rtol=1e-6)


def test_carried_shapes_that_grow_are_widened() -> None:
    body = _round(node("Concat", "v e", "v2", axis=0), outputs="k2 v2")
    proto = _loop_model(body, "y")
    carried = _body(load_model(proto).graph.nodes[-1]).inputs[2]
    assert str(carried.shape[0]) not in ("N", "2") and carried.shape[1] == 3
    (y,) = run(proto, {"x": X, "m": np.array(2)})
    np.testing.assert_allclose(y, np.concatenate([X, np.exp(X), np.exp(X)]), rtol=1e-6)


def test_loops_without_bounds_or_condition() -> None:
    inputs = [value("i", (), INT64), value("k", (), BOOL), value("v", ())]
    nodes = [node("Add", "v one", "v2"), node("Less", "v2 five", "k2")]
    body = graph(nodes, inputs, ["k2", "v2"], {"one": np.float32(1), "five": np.float32(5)})
    proto = model([node("Loop", "- - x", "y", body=body)], [value("x", ())], ["y"])
    (y,) = run(proto, {"x": np.float32(0)})
    assert y == 5


def test_body_names_may_hide_outer_ones() -> None:
    inputs = [value("i", (), INT64), value("k", (), BOOL), value("x", None)]
    body = graph([node("Neg", "x", "e"), node("Identity", "k", "k2")], inputs, ["k2", "e"])
    (y,) = run(_loop_model(body, "y"), {"x": X, "m": np.array(3)})
    np.testing.assert_allclose(y, -X)


def test_bodies_of_one_model_have_different_names() -> None:
    body = _round(node("Neg", "v", "v2"), outputs="k2 v2")
    nodes = [node("Loop", f"m go {a}", b, name="same", body=body) for a, b in ("xp", "py")]
    inputs = [value("x"), value("m", (), INT64)]
    found = load_model(model(nodes, inputs, ["y"], {"go": np.array(True)})).graph
    assert len({_body(n).name for n in found.nodes}) == 2


def _scan_body() -> onnx.GraphProto:
    nodes = [node("Add", "s v", "s2"), node("Mul", "s2 w", "o")]
    return graph(nodes, [value("s", (2,)), value("v", (2,))], ["s2", "o"])


def _scan_model(opset: int, inputs: str, infos: list[Any], **attrs: Any) -> onnx.ModelProto:
    call = node("Scan", inputs, "y z", name="scan", body=_scan_body(), num_scan_inputs=1, **attrs)
    return model([call], infos, ["y", "z"], {"w": np.float32(2)}, opset=opset)


def test_scan_axes_and_directions() -> None:
    proto = _scan_model(
        17, "h x", [value("h", (2,)), value("x")],
        scan_input_axes=[-1], scan_input_directions=[1], scan_output_axes=[1],
    )  # fmt: skip
    (scan,) = load_model(proto).graph.nodes
    assert scan.attrs["scan_input_axes"] == (1,) and scan.attrs["scan_output_axes"] == (1,)
    assert scan.attrs["scan_output_directions"] == (0,)
    assert [str(v.type) for v in _body(scan).inputs] == ["float32[2]", "float32[2]"]
    h = np.array([1.0, 2.0], np.float32)
    y, z = run(proto, {"h": h, "x": X})
    sums = h[:, None] + np.cumsum(X[:, ::-1], 1)
    np.testing.assert_allclose(y, sums[:, -1])
    np.testing.assert_allclose(z, 2 * sums)


def test_scan_of_opset_8_has_a_batch() -> None:
    infos = [value("h", (4, 2)), value("x", (4, 3, 2))]
    proto = _scan_model(8, "- h x", infos)
    rng = np.random.default_rng(0)
    h, x = rng.random((4, 2), np.float32), rng.random((4, 3, 2), np.float32)
    y, z = run(proto, {"h": h, "x": x})
    sums = h[:, None] + np.cumsum(x, 1)
    np.testing.assert_allclose(y, sums[:, -1], rtol=1e-6)
    np.testing.assert_allclose(z, 2 * sums, rtol=1e-6)


def test_scan_of_opset_8_with_lengths_is_refused() -> None:
    infos = [value("n", (4,), INT64), value("h", (4, 2)), value("x", (4, 3, 2))]
    assert "sequence_lens" in refusal(_scan_model(8, "n h x", infos)).reason


def _bad_if(then: onnx.GraphProto) -> onnx.ModelProto:
    other = graph([node("Neg", "x", "r")], [], ["r"])
    return model(
        [node("If", "c", "y", name="choose", then_branch=then, else_branch=other)],
        [value("x"), COND], ["y"],
    )  # fmt: skip


def test_blockers_of_bodies_are_all_reported_once() -> None:
    then = graph([node("Foo", "x", "f"), node("Bar", "f", "r")], [], ["r"])
    error = refusal(_bad_if(then))
    assert [b.op for b in error.blockers] == ["Foo", "Bar"]


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        (graph([], [value("q")], ["q"]), "each branch must have no inputs"),
        (graph([], [], []), "each branch must have no inputs and 1 outputs"),
        (graph([node("Neg", "nope", "r")], [], ["r"]), "value 'nope' is not defined"),
        (graph([node("Neg", "x", "q")], [], ["r"]), "value 'r' is not defined"),
    ],
)
def test_branches_that_do_not_fit(then: onnx.GraphProto, reason: str) -> None:
    assert reason in str(refusal(_bad_if(then)))


def test_loops_that_do_not_fit() -> None:
    body = graph([node("Identity", "k", "k2")], [value("i"), value("k")], ["k2"])
    assert "carries 1 values" in refusal(_loop_model(body, "y")).reason
    grown = _round(node("Cast", "v", "v2", to=INT64), outputs="k2 v2")
    assert "before and int64" in refusal(_loop_model(grown, "y")).reason
    more = _round(node("Neg", "v", "v2"), outputs="k2 v2")
    assert "has 2 outputs, its body gives 1" in refusal(_loop_model(more, "y z")).reason


def test_scans_that_do_not_fit() -> None:
    infos = [value("h", (2,)), value("x")]
    bad = _scan_model(17, "h x", infos, scan_input_axes=[2])
    assert "scan axis 2 is out of range" in refusal(bad).reason
    bad = _scan_model(17, "h x", infos, scan_input_axes=[0, 1])
    assert "'scan_input_axes' needs 1 entries" in refusal(bad).reason


def test_a_body_that_needs_a_later_node_is_sorted() -> None:
    proto = _if_model()
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes[::-1])
    assert load_model(proto).graph.nodes[-1].op == "If"


def test_a_cycle_through_a_body() -> None:
    then = graph([node("Neg", "z", "r")], [], ["r"])
    proto = _bad_if(then)
    proto.graph.node.append(node("Neg", "y", "z", name="back"))
    assert refusal(proto).reason == "the nodes 'choose', 'back' form a cycle"
