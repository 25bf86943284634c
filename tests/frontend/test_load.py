"""Plain models: names, order, edges of the graph, and what a damaged one is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from frontend.build import BOOL, FLOAT, INT64, graph, model, node, refusal, run, value
from onnx import numpy_helper

from graphkiln.frontend import load_model
from graphkiln.frontend.export import to_onnx
from graphkiln.ir import registry
from graphkiln.ir.registry import OpSpec, register

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def _mlp() -> onnx.ModelProto:
    weights = {"w": np.ones((3, 4), np.float32), "b": np.zeros(4, np.float32)}
    nodes = [node("MatMul", "x w", "h"), node("Add", "h b", "s"), node("Relu", "s", "y")]
    return model(nodes, [value("x", ("N", 3))], ["y"], weights)


def test_names_types_and_numbers() -> None:
    found = load_model(_mlp())
    assert [n.name for n in found.graph.nodes] == ["MatMul_h", "Add_s", "Relu_y"]
    assert [str(v.type) for v in found.graph.outputs] == ["float32[N,4]"]
    assert found.graph.output_names == ("y",)
    assert found.source == "<model>" and found.warnings == []
    (y,) = run(_mlp(), {"x": X})
    np.testing.assert_array_equal(y, np.maximum(X @ np.ones((3, 4)), 0))


def test_paths_bytes_and_protos_give_one_graph(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(_mlp().SerializeToString(deterministic=True))
    found = [load_model(s) for s in (path, str(path), path.read_bytes(), _mlp())]
    assert len({f.digest for f in found}) == 1
    assert found[0].source == str(path) and found[2].source == "<bytes>"
    assert len({tuple(n.name for n in f.graph.nodes) for f in found}) == 1


def test_initializers_that_are_inputs_are_constants() -> None:
    """Before version 4 of the format; see test_defaults for later ones."""
    proto = _mlp()
    proto.graph.input.append(value("w", (3, 4)))
    proto.ir_version = 3
    assert [v.name for v in load_model(proto).graph.inputs] == ["x"]


def test_unsorted_nodes_are_sorted() -> None:
    proto = _mlp()
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    assert [n.op for n in load_model(proto).graph.nodes] == ["MatMul", "Add", "Relu"]


def test_outputs_may_be_inputs_and_constants() -> None:
    proto = model([], [value("x")], ["x", "w"], {"w": X})
    found = load_model(proto).graph
    assert found.output_names == ("x", "w")
    assert [v.name for v in found.outputs] == ["x", "w"]


def test_omitted_inputs_and_outputs() -> None:
    nodes = [
        node("Clip", "x - hi -", "c"),
        node("TopK", "c k", "- i"),
        node("Dropout", "x", "d -"),
    ]
    weights = {"hi": np.float32(3), "k": np.array([2])}
    proto = model(nodes, [value("x")], ["i", "d"], weights)
    clip, topk, dropout = load_model(proto).graph.nodes
    found = load_model(proto).graph
    assert [v and v.name for v in found.inputs_of(found.nodes[0])] == ["x", None, "hi"]
    assert [len(n.outputs) for n in (clip, topk, dropout)] == [1, 2, 1]
    assert topk.outputs[1].name == "i"


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({"value": numpy_helper.from_array(X)}, X),
        ({"value_float": 1.5}, np.float32(1.5)),
        ({"value_floats": [1.5, 2.0]}, np.array([1.5, 2.0], np.float32)),
        ({"value_int": 3}, np.int64(3)),
        ({"value_ints": [3, 4]}, np.array([3, 4])),
        ({"value_string": "a"}, np.array("a", object)),
        ({"value_strings": ["a", "bc"]}, np.array(["a", "bc"], object)),
    ],
)
def test_forms_of_constants(attrs: dict[str, object], expected: np.ndarray) -> None:
    proto = model([node("Constant", "", "c", **attrs)], [], ["c"])
    found = load_model(proto).graph.outputs[0].constant
    assert found is not None and found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


def test_sparse_constants() -> None:
    sparse = onnx.SparseTensorProto(dims=[4])
    sparse.values.CopyFrom(numpy_helper.from_array(np.array([2.0], np.float32), "v"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([3])))
    proto = model([node("Constant", "", "c", sparse_value=sparse)], [], ["c"])
    found = load_model(proto).graph.outputs[0].constant
    assert found is not None and found.tolist() == [0, 0, 0, 2]


def test_other_domains_keep_their_attributes() -> None:
    nodes = [node("Pad", "x p", "y", domain="com.microsoft", mode="edge")]
    weights = {"p": np.array([0, 1, 0, 1])}
    (found,) = load_model(model(nodes, [value("x")], ["y"], weights, com_microsoft=1)).graph.nodes
    assert found.key == "com.microsoft.Pad" and found.attrs == {"mode": "edge"}


@pytest.fixture
def twice() -> Iterator[None]:
    """An op of a user's own domain, gone again after the test."""
    key = "my.domain.Twice"
    register(
        OpSpec(
            "Twice", "my.domain", lambda ctx: [ctx.tensor(0)], lambda _, inputs: [2 * inputs[0]],
            min_inputs=1, max_inputs=1, attributes=frozenset({"speed"}),
        )
    )  # fmt: skip
    yield
    registry._REGISTRY.pop(key)


@pytest.mark.usefixtures("twice")
def test_registered_ops_of_other_domains() -> None:
    good = node("Twice", "x", "y", domain="my.domain", speed=3)
    proto = model([good], [value("x")], ["y"], my_domain=1)
    np.testing.assert_array_equal(run(proto, {"x": X})[0], 2 * X)
    for bad, reason in (
        (node("Twice", "x x", "y", domain="my.domain"), "has 2 inputs, the op takes 1"),
        (node("Twice", "x", "y", domain="my.domain", size=3), "has no attribute 'size'"),
    ):
        assert reason in refusal(model([bad], [value("x")], ["y"], my_domain=1)).reason


def test_private_attributes_are_dropped() -> None:
    proto = model([node("Relu", "x", "y", __note=3)], [value("x")], ["y"])
    assert load_model(proto).graph.nodes[0].attrs == {}


def _cycle() -> onnx.ModelProto:
    nodes = [
        node("Add", "x c", "a", name="first"),
        node("Relu", "a", "b", name="second"),
        node("Neg", "b", "c", name="third"),
        node("Neg", "c", "y", name="last"),
    ]
    return model(nodes, [value("x")], ["y"])


def test_cycles_name_their_nodes() -> None:
    error = refusal(_cycle())
    assert error.reason == "the nodes 'first', 'second', 'third' form a cycle"


def test_a_node_that_uses_itself() -> None:
    proto = model([node("Add", "x y", "y", name="self")], [value("x")], ["y"])
    assert refusal(proto).reason == "the nodes 'self' form a cycle"


BAD_NODES = {
    "undefined input": (node("Add", "x q", "y"), "value 'q' is not defined"),
    "too many inputs": (node("Relu", "x x", "y"), "has 2 inputs, the op takes 1"),
    "too few inputs": (node("Add", "x", "y"), "has 1 inputs, the op takes 2"),
    "no inputs": (node("Concat", "", "y", axis=0), "has 0 inputs, the op takes at least 1"),
    "omitted": (node("Add", "- x", "y"), "input 0 is missing"),
    "too many outputs": (node("Relu", "x", "y z"), "has 2 outputs, the op gives 1"),
    "same name": (node("TopK", "x k", "y y"), "value 'y' is defined twice"),
    "unknown attribute": (node("Relu", "x", "y", size=3), "has no attribute 'size' in opset 17"),
    "wrong attribute": (node("Concat", "x", "y", axis=1.5), "attribute 'axis' must be of type INT"),
    "list": (node("Transpose", "x", "y", perm=[0.5, 1.0]), "'perm' must be of type INTS"),
    "missing attribute": (node("Concat", "x", "y"), "attribute 'axis' is missing"),
    "unknown op": (node("Sigmund", "x", "y"), "op Sigmund is not supported"),
    "too new": (node("Gelu", "x", "y"), "op Gelu is not in opset 17"),
    "no opset": (
        node("Scaler", "x", "y", domain="ai.onnx.ml"),
        "the model imports no opset of ai.onnx.ml",
    ),
    "types": (node("Add", "x k", "y"), ""),
    "shapes": (node("Add", "x w", "y"), ""),
    "constant": (node("Constant", "", "y"), "a constant needs one value"),
    "not utf-8": (node("Pad", "x k", "y", mode=b"\xff"), "not UTF-8"),
}


@pytest.mark.parametrize("case", BAD_NODES)
def test_bad_nodes(case: str) -> None:
    bad, reason = BAD_NODES[case]
    weights = {"k": np.array([2]), "w": np.zeros((5, 7), np.float32)}
    error = refusal(model([bad], [value("x")], ["y"], weights))
    assert error.node == bad.name and error.op.endswith(bad.op_type)
    assert reason in error.reason
    first = str(error).splitlines()[0]
    assert first.startswith(f"<model>: node '{bad.name}' ({error.op}): ")


@pytest.mark.parametrize("names", ["y y", "y z y", "x y x"])
def test_an_output_twice(names: str) -> None:
    nodes = [node("Neg", "x", "y"), node("Abs", "x", "z")]
    twice = model(nodes, [value("x")], names.split())
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    expected = [{"x": x, "y": -x, "z": abs(x)}[name] for name in names.split()]
    assert load_model(twice).graph.output_names == tuple(names.split())
    for proto in (twice, to_onnx(load_model(twice).graph)):
        for got, wanted in zip(run(proto, {"x": x}), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_an_attribute_twice() -> None:
    bad = node("Concat", "x", "y", axis=1)
    bad.attribute.append(bad.attribute[0])
    assert "'axis' is there twice" in refusal(model([bad], [value("x")], ["y"])).reason


def test_every_blocker_is_reported_at_once() -> None:
    nodes = [
        node("Foo", "x", "a", name="n1"),
        node("Relu", "a", "b", name="n2"),
        node("Bar", "b", "c", name="n3", domain="my.domain"),
        node("Concat", "x", "d", name="n4"),
        node("Baz", "q", "e", name="n5"),
    ]
    error = refusal(model(nodes, [value("x")], ["c", "d", "e", "f"]))
    assert [(b.node, b.op) for b in error.blockers] == [
        ("n1", "Foo"), ("n3", "my.domain.Bar"), ("n4", "Concat"), ("n5", "Baz"), ("", ""),
    ]  # fmt: skip
    assert len(str(error).splitlines()) == 5
    assert "output 'f'" in str(error.blockers[-1])


def test_unknown_ops_in_bodies_behind_unknown_ops() -> None:
    body = graph([node("Hidden", "a", "h", name="inside")], [], ["h"])
    nodes = [
        node("Foo", "x", "a", name="n1"),
        node("If", "a", "y", name="n2", then_branch=body, else_branch=body),
    ]
    error = refusal(model(nodes, [value("x")], ["y"]))
    assert {b.op for b in error.blockers} == {"Foo", "Hidden"}


def test_names_with_control_characters_stay_on_one_line() -> None:
    error = refusal(model([node("Fo\no", "x", "y", name="a\nb\x1b[31m")], [value("x")], ["y"]))
    assert len(str(error).splitlines()) == 1 and "\x1b" not in str(error)


def _without_graph() -> onnx.ModelProto:
    return onnx.ModelProto(ir_version=8)


def _two_producers() -> onnx.ModelProto:
    return model([node("Relu", "x", "y"), node("Neg", "x", "y")], [value("x")], ["y"])


def _twice(field: str) -> onnx.ModelProto:
    proto = model([node("Relu", "x", "y")], [value("x")], ["y"], {"w": X})
    entries = getattr(proto.graph, field)
    entries.append(entries[0])
    return proto


def _opset(version: int, domain: str = "") -> onnx.ModelProto:
    proto = _mlp()
    proto.opset_import.add(domain=domain, version=version)
    return proto


BAD_MODELS = {
    "input again": (
        lambda: model([node("Relu", "x", "x")], [value("x")], ["x"]),
        "node 'Relu_x' defines the value 'x' a second time",
    ),
    "no graph": (_without_graph, "has no graph"),
    "no outputs": (lambda: model([], [value("x")], []), "no outputs"),
    "two producers": (_two_producers, "the nodes 'Relu_y' and 'Neg_y' both define the value 'y'"),
    "input twice": (lambda: _twice("input"), "input 'x': is there twice"),
    "weight twice": (lambda: _twice("initializer"), "initializer 'w': is there twice"),
    "future": (lambda: model([], [value("x")], ["x"], opset=99), "opset 99 of ai.onnx"),
    "past": (lambda: model([], [value("x")], ["x"], opset=0), "opset 0 of ai.onnx"),
    "two opsets": (lambda: _opset(16), "opsets 17 and 16 of ai.onnx at once"),
    "alias": (lambda: _opset(16, "ai.onnx"), "opsets 17 and 16 of ai.onnx at once"),
    "future ml": (lambda: _opset(9, "ai.onnx.ml"), "opset 9 of ai.onnx.ml"),
    "nameless": (lambda: model([], [value("")], [""]), "has no name"),
    "output": (lambda: model([], [value("x")], ["z"]), "output 'z': value 'z' is not defined"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_models(case: str) -> None:
    make, reason = BAD_MODELS[case]
    assert reason in str(refusal(make()))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\x00" * 100, "is not an ONNX model"),
        (b"\x89PNG\r\n\x1a\n" * 10, "is not an ONNX model"),
        (b"\xff" * 50, "is not an ONNX model"),
        (b"{}", "ONNX model"),
    ],
)
def test_bytes_that_are_no_model(data: bytes, reason: str, tmp_path: Path) -> None:
    assert reason in refusal(data).reason
    (tmp_path / "m.onnx").write_bytes(data)
    assert reason in refusal(tmp_path / "m.onnx").reason


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.onnx").reason == "cannot be read: No such file or directory"
    assert refusal(tmp_path).reason == "is not a regular file"
    assert str(refusal("a\0b")).startswith("a")


def test_old_opsets_give_a_warning() -> None:
    proto = model([node("Relu", "x", "y")], [value("x")], ["y"], opset=6)
    assert "opset 6 is older than 7" in load_model(proto).warnings[0]


def test_values_with_absurd_sizes_are_refused() -> None:
    nodes = [node("ConstantOfShape", "s", "y", name="huge")]
    proto = model(nodes, [value("x")], ["y"], {"s": np.array([2**40, 2**20])})
    assert "absurd" in refusal(proto).reason


def test_kinds_of_inputs_that_stay() -> None:
    infos = [value("i", (2,), INT64), value("b", (), BOOL), value("f", ("N",), FLOAT)]
    found = [str(v.type) for v in load_model(model([], infos, ["i", "b", "f"])).graph.inputs]
    assert found == ["int64[2]", "bool[]", "float32[N]"]
