"""Symbolic dimensions of inputs, and shapes that pin them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from frontend.build import INT64, model, node, refusal, value
from onnx import helper

import graphkiln
from graphkiln.frontend import load_model
from graphkiln.ir.dims import free_symbols
from graphkiln.ir.types import TensorType


def _model(**shapes: Sequence[int | str | None] | None) -> onnx.ModelProto:
    inputs = [value(name, shape) for name, shape in shapes.items()]
    return model([], inputs, list(shapes))


def _types(proto: onnx.ModelProto, **pins: Sequence[int | str]) -> list[str]:
    return [str(v.type) for v in load_model(proto, shapes=pins).graph.inputs]


def test_names_are_kept_and_shared() -> None:
    found = _types(_model(x=("batch_size", 3), y=("seq", "batch_size")))
    assert found == ["float32[batch_size,3]", "float32[seq,batch_size]"]


def test_expressions_are_read_as_such() -> None:
    assert _types(_model(x=("N", "2*N+1"))) == ["float32[N,2*N+1]"]


@pytest.mark.parametrize("text", ["", "?", "*", "-1", "None", " ? "])
def test_unnamed_dims_are_all_different(text: str) -> None:
    assert _types(_model(x=(text, None), y=(text,))) == ["float32[x_d0,x_d1]", "float32[y_d0]"]


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (("batch size", "batch_size"), ["batch_size", "batch_size_1"]),
        (("batch_size", "batch size"), ["batch_size", "batch_size_1"]),
        (("unk__3.0", "ünk"), ["unk__3_0", "nk"]),
        (("7", "7up"), ["s_7_", "s_7up_"]),
        (("floor(n/2)", "n"), ["floor_n_2", "n"]),
        (("u12_0", "body_u1_2"), ["s_u12_0_", "s_body_u1_2_"]),
        (("max", "()"), ["s_max_", "d"]),
        (("a" * 500,), None),
    ],
)
def test_texts_become_distinct_symbols(texts: Sequence[str], names: list[str] | None) -> None:
    (found,) = load_model(_model(x=texts)).graph.inputs
    symbols = [str(d) for d in found.shape]
    assert len(set(symbols)) == len(texts)
    assert all(free_symbols(d) == {str(d)} for d in found.shape)
    assert names is None or symbols == names


def test_one_text_is_one_symbol_everywhere() -> None:
    assert _types(_model(x=("a b", "a b"), y=("a b",))) == ["float32[a_b,a_b]", "float32[a_b]"]


def test_pins_replace_the_symbol_everywhere() -> None:
    proto = _model(x=("N", "S"), y=("N", 4, "2*S"))
    assert _types(proto, x=(8, 5)) == ["float32[8,5]", "float32[8,4,10]"]
    assert _types(proto, x=("N", 5)) == ["float32[N,5]", "float32[N,4,10]"]
    assert _types(proto, x=("batch", 5)) == ["float32[batch,5]", "float32[batch,4,10]"]


def test_pins_solve_expressions() -> None:
    assert _types(_model(x=("2*N+1",), y=("N",)), x=(9,)) == ["float32[9]", "float32[4]"]


def test_pins_give_a_rank() -> None:
    assert _types(_model(x=None), x=(1, "N")) == ["float32[1,N]"]
    assert _types(_model(x=())) == ["float32[]"]


@pytest.mark.parametrize(
    ("pins", "reason"),
    [
        ({"z": (1,)}, "a shape for 'z', which is no tensor input (inputs: x, y)"),
        ({"x": (1,)}, "input 'x' has 2 dimensions"),
        ({"x": (1, 4)}, "input 'x' has the fixed dimension 3, not 4"),
        ({"x": (1, 3), "y": (2, 3)}, "N is 1 elsewhere, here 2"),
        ({"y": (1, 4)}, "dimension 2*M+1 cannot be made 4"),
        ({"x": (-1, 3)}, "has a dimension -1"),
        ({"x": (2**50, 3)}, "has a dimension"),
    ],
)
def test_pins_that_do_not_fit(pins: dict[str, tuple[int, ...]], reason: str) -> None:
    error = refusal(_model(x=("N", 3), y=("N", "2*M+1")), shapes=pins)
    assert reason in error.reason


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((2**62, 2**62), "absurd"), ((1,) * 100, "absurd")],
)
def test_declared_dims_are_checked(shape: tuple[int, ...], reason: str) -> None:
    error = refusal(_model(x=shape))
    assert reason in error.reason and "input 'x'" in error.reason


def test_every_kind_of_input() -> None:
    inner = helper.make_tensor_type_proto(onnx.TensorProto.STRING, ("N",))
    infos = [
        helper.make_value_info("s", helper.make_sequence_type_proto(inner)),
        helper.make_value_info("o", helper.make_optional_type_proto(inner)),
    ]
    assert _types(model([], infos, ["s", "o"])) == ["seq<string[N]>", "optional<string[N]>"]
    assert _types(model([], infos, ["s"]))[1] == "optional<string[N]>", "unused inputs are kept"


def _refused_type(proto: onnx.TypeProto) -> str:
    return refusal(model([], [helper.make_value_info("x", proto)], ["x"])).reason


def test_kinds_that_are_not_served() -> None:
    number = helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, (2,))
    assert "map type" in _refused_type(helper.make_map_type_proto(onnx.TensorProto.INT64, number))
    assert "sparse tensor type" in _refused_type(helper.make_sparse_tensor_type_proto(1, (2,)))
    assert "has no type" in _refused_type(onnx.TypeProto())
    assert "element type UNDEFINED" in _refused_type(helper.make_tensor_type_proto(0, (2,)))
    assert "element type 77" in _refused_type(helper.make_tensor_type_proto(77, (2,)))


def test_zero_sized_dims_are_allowed() -> None:
    (found,) = load_model(_model(x=(0, 3))).graph.inputs
    assert isinstance(found.type, TensorType) and found.type.static_shape == (0, 3)


def test_open_dims_that_hide_a_rank_are_named() -> None:
    """More axes than a reshape to an open number of them is tried with."""
    nodes = [node("Reshape", "x s", "t"), node("Transpose", "t", "y", perm=[*range(9)])]
    proto = model(nodes, [value("x", ("N",)), value("s", ("M",), INT64)], ["y"])
    assert "(x: float32[N], s: int64[M])" in refusal(proto).reason
    found = load_model(proto, shapes={"s": (9,)}).graph
    assert found.outputs[0].rank == 9


def _listed(nodes: Sequence[onnx.NodeProto], inputs: Sequence[onnx.ValueInfoProto]) -> Any:
    proto = model([*nodes, node("SequenceAt", "s at", "r")], [*inputs, value("at", (), INT64)],
                  ["r"])  # fmt: skip
    return graphkiln.compile(proto, jobs=1).session()


def test_lists_of_tensors_of_different_rank() -> None:
    """What was put in last says nothing of the others."""
    feeds = {"x": np.ones((2, 3, 4), "f"), "y": np.ones((3, 4), "f"), "z": np.ones((4, 1, 4), "f")}
    session = _listed(
        [node("SequenceEmpty", "", "a"), node("SequenceInsert", "a x", "b"),
         node("SequenceInsert", "b y", "c"), node("SequenceInsert", "c z", "s")],
        [value(name, a.shape) for name, a in feeds.items()],
    )  # fmt: skip
    for at, name in enumerate(feeds):
        renamed = {**feeds, "at": np.array(at)}
        np.testing.assert_array_equal(session.run(None, renamed)[0], feeds[name])


@pytest.mark.parametrize(
    ("nodes", "at", "want"),
    [
        ("SequenceConstruct x y > s", 1, "y"),
        ("SequenceConstruct x y > s", -2, "x"),
        ("SequenceEmpty > a; SequenceInsert a x > b; SequenceInsert b y > s", 1, "y"),
        ("SequenceConstruct x > a; SequenceInsert a y first > b; Identity b > s", 0, "y"),
        ("SequenceConstruct x y x > a; SequenceErase a first > s", 0, "y"),
        ("SequenceConstruct x y > a; SequenceErase a > b; SequenceInsert b y > s", 1, "y"),
    ],
)
def test_an_element_whose_place_is_known_has_its_own_rank(nodes: str, at: int, want: str) -> None:
    feeds = {"x": np.ones((2, 3, 4), np.float32), "y": -np.ones((3, 4), np.float32)}
    made = []
    for text in nodes.split("; "):
        (op, *inputs), output = text.partition(" > ")[0].split(), text.partition(" > ")[2]
        made.append(node(op, " ".join(inputs), output))
    made += [node("SequenceAt", "s at", "e"), node("Abs", "e", "r")]
    proto = model(
        made, [value(n, a.shape) for n, a in feeds.items()], ["r"],
        {"at": np.array(at), "first": np.array(0)},
    )  # fmt: skip
    (got,) = graphkiln.compile(proto, jobs=1).session().run(None, feeds)
    np.testing.assert_array_equal(got, abs(feeds[want]))


def test_lists_of_tensors_of_no_known_shape() -> None:
    """A tensor that joins a list says nothing of those that the list came with."""
    inner = helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
    given = helper.make_value_info("q", helper.make_sequence_type_proto(inner))
    session = _listed([node("SequenceInsert", "q x", "s")], [given, value("x", (2, 3))])
    x, other = np.ones((2, 3), np.float32), np.ones((4, 5, 6), np.float32)
    for at, want in ((0, other), (1, x)):
        (got,) = session.run(None, {"q": [other], "x": x, "at": np.array(at)})
        np.testing.assert_array_equal(got, want)


def test_a_dim_below_zero_is_open() -> None:
    (x,) = load_model(_model(x=(-1, 3))).graph.inputs
    assert str(x.type) == "float32[x_d0,3]"


def test_an_expression_that_no_input_explains_is_a_name() -> None:
    """``h*w`` is a size like any other where neither h nor w is known."""
    graph = load_model(_model(x=("h*w", 4), y=("n", "n+1"), z=("h*w", "2*k"))).graph
    assert [str(v.type) for v in graph.inputs] == [
        "float32[h_w,4]", "float32[n,n+1]", "float32[h_w,s_2_k_]",
    ]  # fmt: skip
