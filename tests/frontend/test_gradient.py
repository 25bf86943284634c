"""Gradient, against ONNX's own cases and differences of nearby values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from frontend.build import model, node, refusal, run, value

DOMAIN = "ai.onnx.preview.training"
DOUBLE = onnx.TensorProto.DOUBLE

# An op's inputs, by their shapes; the rest of the model squares and sums.
OPS: list[tuple[str, list[tuple[int, ...]], dict[str, Any]]] = [
    ("Abs", [(2, 3)], {}),
    ("Add", [(2, 3), (3,)], {}),
    ("Cos", [(2, 3)], {}),
    ("Div", [(2, 3), (2, 1)], {}),
    ("Elu", [(2, 3)], {"alpha": 0.7}),
    ("Exp", [(2, 3)], {}),
    ("Flatten", [(2, 3)], {"axis": 0}),
    ("Gemm", [(2, 3), (3, 4), (4,)], {"alpha": 0.5, "beta": 2.0}),
    ("Gemm", [(3, 2), (4, 3), (2, 1)], {"transA": 1, "transB": 1}),
    ("Gemm", [(3, 2), (3, 4)], {"transA": 1}),
    ("Identity", [(2, 3)], {}),
    ("LeakyRelu", [(2, 3)], {"alpha": 0.2}),
    ("MatMul", [(2, 3), (3, 4)], {}),
    ("MatMul", [(5, 2, 3), (3, 4)], {}),
    ("Mul", [(1, 3), (2, 1)], {}),
    ("Neg", [(2, 3)], {}),
    ("PRelu", [(2, 3), (3,)], {}),
    ("Reciprocal", [(2, 3)], {}),
    ("ReduceMean", [(2, 3, 4)], {"keepdims": 0}),
    ("ReduceSum", [(2, 3)], {"keepdims": 1}),
    ("Relu", [(2, 3)], {}),
    ("Sigmoid", [(2, 3)], {}),
    ("Sin", [(2, 3)], {}),
    ("Softmax", [(2, 3)], {"axis": 0}),
    ("Softplus", [(2, 3)], {}),
    ("Sub", [(2, 3), (2, 3)], {}),
    ("Sum", [(2, 3), (3,), (1, 1)], {}),
    ("Tanh", [(2, 3)], {}),
    ("Transpose", [(2, 3, 4)], {"perm": [1, 2, 0]}),
    ("Transpose", [(2, 3)], {}),
]


def gradient(names: list[str], y: str, results: list[str], **attrs: Any) -> onnx.NodeProto:
    given = attrs.pop("given", names)
    xs = {"xs": names} | attrs
    return node("Gradient", " ".join(given), " ".join(results), domain=DOMAIN, y=y, **xs)


def build(nodes: list[onnx.NodeProto], feeds: dict[str, Any], outputs: list[str]) -> Any:
    infos = [value(n, a.shape, DOUBLE) for n, a in feeds.items()]
    return model(nodes, infos, outputs, ai_onnx_preview_training=1)


def differences(nodes: list[onnx.NodeProto], feeds: dict[str, Any], y: str) -> dict[str, Any]:
    """The derivatives of the sum of ``y``, from small steps both ways."""
    proto = build(nodes, feeds, [y])
    found = {}
    for name, array in feeds.items():
        slope = np.zeros_like(array)
        for at in np.ndindex(array.shape):
            step = np.zeros_like(array)
            step[at] = 1e-6
            moved = [feeds | {name: a} for a in (array + step, array - step)]
            up, down = (run(proto, f)[0].sum() for f in moved)
            slope[at] = (up - down) / 2e-6
        found[name] = slope
    return found


@pytest.mark.parametrize(("op", "shapes", "attrs"), OPS)
def test_derivatives(op: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    # Away from 0, where some have a corner.
    feeds = {
        f"x{i}": rng.uniform(0.3, 1.5, s) * rng.choice([-1.0, 1.0], s)
        for i, s in enumerate(shapes)
    }  # fmt: skip
    names = list(feeds)
    nodes = [node(op, " ".join(names), "h", **attrs), node("Mul", "h h", "y")]
    want = differences(nodes, feeds, "y")
    nodes.append(gradient(names, "y", [f"d{n}" for n in names]))
    got = run(build(nodes, feeds, [f"d{n}" for n in names]), feeds)
    for name, slope in zip(names, got, strict=True):
        np.testing.assert_allclose(slope, want[name], rtol=1e-5, atol=1e-7)


def test_positive_arguments_and_choices() -> None:
    feeds = {"x": np.array([0.5, 1.5, 2.5]), "e": np.array([2.0, 0.5, -1.5])}
    nodes = [
        node("Pow", "x e", "p"), node("Log", "p", "l"), node("Sqrt", "x", "s"),
        node("Greater", "l s", "c"), node("Where", "c l s", "w"), node("Mul", "w s", "y"),
    ]  # fmt: skip
    want = differences(nodes, feeds, "y")
    nodes.append(gradient(["x", "e"], "y", ["dx", "de"]))
    dx, de = run(build(nodes, feeds, ["dx", "de"]), feeds)
    np.testing.assert_allclose(dx, want["x"], rtol=1e-5)
    np.testing.assert_allclose(de, want["e"], rtol=1e-5)


def test_views_and_reduced_axes() -> None:
    feeds = {"x": np.arange(1.0, 13.0).reshape(2, 6)}
    weights = {"shape": np.array([3, 4]), "one": np.array([1]), "last": np.array([-1])}
    nodes = [
        node("Reshape", "x shape", "r"), node("Unsqueeze", "r one", "u"),
        node("Squeeze", "u one", "s"), node("ReduceSum", "s last", "t", keepdims=0),
        node("Mul", "t t", "y"), gradient(["x"], "y", ["dx"]),
    ]  # fmt: skip
    proto = build(nodes, feeds, ["dx"])
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    rows = feeds["x"].reshape(3, 4).sum(1, keepdims=True)
    np.testing.assert_allclose(run(proto, feeds)[0], np.tile(2 * rows, (1, 4)).reshape(2, 6))


def test_second_derivative() -> None:
    feeds = {"x": np.array([1.0, 2.0])}
    nodes = [
        node("Mul", "x x", "s"), node("Mul", "s x", "y"), gradient(["x"], "y", ["first"]),
        gradient(["x"], "first", ["second"]),
    ]  # fmt: skip
    first, second = run(build(nodes, feeds, ["first", "second"]), feeds)
    assert first.tolist() == [3, 12] and second.tolist() == [6, 12]


def test_at_other_values_and_inside_of_the_graph() -> None:
    """``h`` is fed a value of its own; ``z`` is a constant of the differentiated part."""
    feeds = {"x": np.array([2.0]), "z": np.array([5.0]), "other": np.array([7.0])}
    nodes = [
        node("Exp", "x", "h"), node("Mul", "h h", "s"), node("Mul", "s z", "y"),
        gradient(["h"], "y", ["dh"], zs=["z"], given=["other", "z"]),
        gradient(["z", "x"], "y", ["dz", "dx"]),
        gradient(["other"], "y", ["nothing"]),
    ]  # fmt: skip
    dh, dz, dx, nothing = run(build(nodes, feeds, ["dh", "dz", "dx", "nothing"]), feeds)
    assert dh.tolist() == [70.0] and nothing.tolist() == [0.0]
    np.testing.assert_allclose([dz[0], dx[0]], [np.exp(4), 10 * np.exp(4)])


@pytest.mark.parametrize("name", ["test_gradient_of_add", "test_gradient_of_add_and_mul"])
def test_cases(name: str) -> None:
    from onnx.backend.test.case.model import collect_testcases

    (case,) = [c for c in collect_testcases() if c.name == name]
    for inputs, outputs in case.data_sets:
        feeds = dict(zip([i.name for i in case.model.graph.input], inputs, strict=True))
        for got, want in zip(run(case.model, feeds), outputs, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5)


def test_refusals() -> None:
    feeds = {"x": np.ones((2, 3))}
    nodes = [node("Det", "x", "d"), node("Mul", "d d", "y"), gradient(["x"], "y", ["dx"])]
    error = refusal(build(nodes, {"x": np.ones((3, 3))}, ["dx"]))
    assert "cannot differentiate Det" in error.reason
    nodes = [node("Relu", "x", "y"), gradient(["x"], "y", ["dx"], given=["x", "x"])]
    assert "2 inputs for 1 xs" in refusal(build(nodes, feeds, ["dx"])).reason
    nodes = [node("Relu", "x", "y"), gradient(["x"], "q", ["dx"])]
    assert "'q' is not defined" in refusal(build(nodes, feeds, ["dx"])).reason
