"""Functions: a model's own, and those in onnx's schemas, are expanded where they are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from frontend.build import BOOL, graph, model, node, refusal, run, value
from onnx import helper
from onnx.reference import ReferenceEvaluator

from graphkiln.frontend import load_model
from graphkiln.frontend.importer import Importer

X = np.array([[-1.0, 2.0, 0.5], [3.0, -4.0, 1.0]], np.float32)


def _function(
    name: str,
    inputs: str,
    outputs: str,
    nodes: Sequence[onnx.NodeProto],
    *,
    attributes: Sequence[str] = (),
    defaults: Sequence[onnx.AttributeProto] = (),
    opset: int = 17,
) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return helper.make_function(
        "local", name, inputs.split(), outputs.split(), list(nodes), opsets,
        attributes=list(attributes), attribute_protos=list(defaults),
    )  # fmt: skip


def _reference(op: str, inputs: str, outputs: str, **refs: tuple[str, int]) -> onnx.NodeProto:
    """A node whose attributes refer to those of the function around it."""
    made = node(op, inputs, outputs)
    for name, (source, kind) in refs.items():
        made.attribute.append(onnx.AttributeProto(name=name, ref_attr_name=source, type=kind))
    return made


def _call(function: str, inputs: str, outputs: str, **attrs: Any) -> onnx.NodeProto:
    return node(function, inputs, outputs, domain="local", **attrs)


def _model(calls: Sequence[onnx.NodeProto], functions: Sequence[onnx.FunctionProto]) -> Any:
    return model(calls, [value("x")], ["y"], functions=functions, local=1)


ALPHA = onnx.AttributeProto.FLOAT
LEAKY = _function(
    "Leaky", "a", "b", [_reference("LeakyRelu", "a", "b", alpha=("slope", ALPHA))],
    defaults=[helper.make_attribute("slope", 0.5)],
)  # fmt: skip


@pytest.mark.parametrize(("attrs", "slope"), [({}, 0.5), ({"slope": 0.25}, 0.25)])
def test_attributes_are_bound(attrs: dict[str, float], slope: float) -> None:
    proto = _model([_call("Leaky", "x", "y", **attrs)], [LEAKY])
    found = load_model(proto).graph
    assert [n.key for n in found.nodes] == ["LeakyRelu"]
    assert found.nodes[0].outputs[0].name == "y", "a result keeps the caller's name"
    (y,) = run(proto, {"x": X})
    np.testing.assert_allclose(y, np.where(X < 0, X * np.float32(slope), X))


def test_an_unbound_attribute_is_omitted() -> None:
    body = [_reference("LeakyRelu", "a", "b", alpha=("slope", ALPHA))]
    function = _function("F", "a", "b", body, attributes=["slope"])
    (made,) = load_model(_model([_call("F", "x", "y")], [function])).graph.nodes
    assert made.attrs == {}


def test_nested_calls_and_attributes_passed_on() -> None:
    inner = node("Leaky", "a", "t", domain="local", name="inner")
    inner.attribute.append(onnx.AttributeProto(name="slope", ref_attr_name="s", type=ALPHA))
    outer = _function("Outer", "a", "b", [inner, node("Neg", "t", "b")], attributes=["s"])
    proto = _model([_call("Outer", "x", "y", s=0.125, name="call")], [LEAKY, outer])
    found = load_model(proto).graph
    assert [v.name for n in found.nodes for v in n.values] == ["call/t", "y"]
    (y,) = run(proto, {"x": X})
    np.testing.assert_allclose(y, -np.where(X < 0, X * np.float32(0.125), X))


def test_functions_have_their_own_opset() -> None:
    old = _function("Old", "a", "b", [node("ReduceSum", "a", "b", axes=[1])], opset=11)
    (y,) = run(_model([_call("Old", "x", "y")], [old]), {"x": X})
    np.testing.assert_allclose(y, X.sum(1, keepdims=True))


def test_omitted_inputs_reach_the_body() -> None:
    function = _function("Clamp", "a lo hi", "b", [node("Clip", "a lo hi", "b")])
    proto = _model([_call("Clamp", "x - x0", "y"), node("Relu", "x", "x1")], [function])
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1), "x0"))
    found = load_model(proto).graph
    inputs = found.inputs_of(found.nodes[0])
    assert [v and v.name for v in inputs] == ["x", None, "x0"]


def test_names_of_two_calls_do_not_clash() -> None:
    twice = _function("Twice", "a", "b", [node("Neg", "a", "t"), node("Neg", "t", "b")])
    calls = [_call("Twice", "x", "m", name="one"), _call("Twice", "m", "y", name="two")]
    names = [v.name for n in load_model(_model(calls, [twice])).graph.nodes for v in n.values]
    assert names == ["one/t", "m", "two/t", "y"]


def test_bodies_inside_functions_see_its_names_and_attributes() -> None:
    leaky = _reference("LeakyRelu", "a", "r", alpha=("slope", ALPHA))
    then, other = graph([leaky], [], ["r"]), graph([node("Neg", "a", "r")], [], ["r"])
    choose = node("If", "c", "b", then_branch=then, else_branch=other)
    function = _function("Choose", "a c", "b", [choose], attributes=["slope"])
    proto = model(
        [_call("Choose", "x c", "y", slope=0.5)],
        [value("x"), value("c", (), BOOL)], ["y"], functions=[function], local=1,
    )  # fmt: skip
    for flag, expected in ((True, np.where(X < 0, X / 2, X)), (False, -X)):
        (y,) = run(proto, {"x": X, "c": np.array(flag)})
        np.testing.assert_allclose(y, expected)


def test_recursion_is_refused() -> None:
    even = _function("Even", "a", "b", [_call("Odd", "a", "b")])
    odd = _function("Odd", "a", "b", [_call("Even", "a", "b")])
    error = refusal(_model([_call("Even", "x", "y")], [even, odd]))
    assert "function local.Even calls itself" in error.reason


def test_deep_chains_of_calls_are_refused() -> None:
    functions = [_function(f"F{i}", "a", "b", [_call(f"F{i + 1}", "a", "b")]) for i in range(300)]
    functions.append(_function("F300", "a", "b", [node("Neg", "a", "b")]))
    assert "deep" in refusal(_model([_call("F0", "x", "y")], functions)).reason


def _doubling(levels: int) -> Any:
    functions = [
        _function(f"F{i}", "a", "b", [_call(f"F{i + 1}", "a", "t"), _call(f"F{i + 1}", "t", "b")])
        for i in range(levels)
    ]
    functions.append(_function(f"F{levels}", "a", "b", [node("Neg", "a", "b")]))
    return _model([_call("F0", "x", "y")], functions)


@pytest.mark.parametrize("levels", [14, 30, 60])
def test_exponential_growth_is_refused_before_it_happens(
    monkeypatch: pytest.MonkeyPatch, levels: int
) -> None:
    monkeypatch.setattr(Importer, "run_nodes", None)
    assert "with its functions expanded" in refusal(_doubling(levels)).reason


def test_modest_growth_is_not() -> None:
    assert len(list(load_model(_doubling(8)).graph.nodes)) == 256


def test_two_functions_of_one_name_are_refused() -> None:
    assert "local.Leaky is there twice" in refusal(_model([], [LEAKY, LEAKY])).reason


def test_blockers_inside_functions_name_the_path() -> None:
    function = _function("F", "a", "b", [node("Nope", "a", "b", name="bad")])
    error = refusal(_model([_call("F", "x", "y", name="call")], [function]))
    assert (error.node, error.op) == ("call/bad", "Nope")
    assert len(error.blockers) == 1


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (_call("F", "x x x", "y"), "more inputs or outputs than the function"),
        (_call("F", "x", "y z"), "more inputs or outputs than the function"),
        (_call("F", "x", "y", size=3), "no attribute 'size'"),
    ],
)
def test_calls_that_do_not_fit(call: onnx.NodeProto, reason: str) -> None:
    function = _function("F", "a b", "c", [node("Neg", "a", "c")])
    assert reason in refusal(_model([call], [function])).reason


def test_schema_functions_are_expanded() -> None:
    """SequenceMap has no kernel of its own: onnx's body makes a Loop of it."""
    body = graph([node("Neg", "item", "r")], [value("item", ("N",))], [value("r", ("N",))])
    nodes = [
        node("SplitToSequence", "x", "s", axis=0, keepdims=0),
        node("SequenceMap", "s", "t", body=body),
        node("ConcatFromSequence", "t", "y", axis=0, new_axis=1),
    ]
    proto = model(nodes, [value("x")], ["y"])
    ops = {n.op for n in load_model(proto).graph.nodes}
    assert "SequenceMap" not in ops and "Loop" in ops
    (y,) = run(proto, {"x": X})
    np.testing.assert_allclose(y, -X)


TRAINING = "ai.onnx.preview.training"


@pytest.mark.parametrize("count", [0, 4])
@pytest.mark.parametrize(
    ("op", "states", "attrs"),
    [
        ("Adagrad", 1, {"norm_coefficient": 0.1, "decay_factor": 0.2, "epsilon": 1e-3}),
        ("Adam", 2, {"norm_coefficient": 0.1, "norm_coefficient_post": 0.01}),
        ("Momentum", 1, {"norm_coefficient": 0.1, "alpha": 0.9, "beta": 0.5, "mode": "standard"}),
        ("Momentum", 1, {"norm_coefficient": 0.1, "alpha": 0.9, "beta": 0.5, "mode": "nesterov"}),
    ],
)
def test_optimizers(op: str, states: int, attrs: dict[str, Any], count: int) -> None:
    rng = np.random.default_rng(2)
    tensors = {f"{n}{i}": rng.random((i + 1, 3), np.float32) for n in "xgvh" for i in (0, 1)}
    names = [n for n in tensors if n[0] in "xgvh"[: 2 + states]]
    outputs = [f"{n}_new" for n in names if n[0] != "g"]
    feeds = {"r": np.float32(0.1), "t": np.array(count), **{n: tensors[n] for n in names}}
    made = node(op, " ".join(feeds), " ".join(outputs), domain=TRAINING, **attrs)
    infos = [value("r", ()), value("t", (), onnx.TensorProto.INT64)]
    infos += [value(n, tensors[n].shape) for n in names]
    proto = model([made], infos, outputs, ai_onnx_preview_training=1)
    expected = ReferenceEvaluator(proto).run(None, feeds)
    for have, want in zip(run(proto, feeds), expected, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-5)
    bad = node(op, "r t x0", " ".join(outputs), domain=TRAINING, **attrs)
    error = refusal(model([bad], infos, outputs, ai_onnx_preview_training=1))
    assert "inputs for each tensor" in error.reason


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("size", [(2, 1, 5, 6), (2, 1, 3, 4, 5)])
@pytest.mark.parametrize("known", [True, False])
def test_affine_grid(size: tuple[int, ...], align: int, known: bool) -> None:
    spatial = len(size) - 2
    theta = np.random.default_rng(1).random((2, spatial, spatial + 1), np.float32)
    infos, weights = [value("theta", theta.shape)], {"size": np.array(size)}
    made = node("AffineGrid", "theta size", "grid", align_corners=align)
    if not known:
        infos.append(value("size", (len(size),), onnx.TensorProto.INT64))
    feeds = {"theta": theta} if known else {"theta": theta, **weights}
    proto = model([made], infos, ["grid"], weights if known else {}, opset=20)
    (expected,) = ReferenceEvaluator(proto).run(None, feeds)
    (grid,) = run(proto, feeds)
    np.testing.assert_allclose(grid, expected, rtol=1e-5, atol=1e-6)
