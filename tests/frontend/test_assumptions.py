"""Conditions that decide ranks: which branch import commits to, and what guards it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from frontend.build import BOOL, FLOAT, INT64, graph, model, node, refusal, value

import graphkiln
from graphkiln.frontend import load_model, specialisation
from graphkiln.ir.graph import Graph, Node
from graphkiln.ir.interpreter import EvaluationError, evaluate
from graphkiln.ir.verify import verify

W = {"w": np.arange(12, dtype=np.float32).reshape(3, 4)}


def _squeezed(name: str, x: str, y: str, axis: int = 1) -> list[onnx.NodeProto]:
    """``y = squeeze(x, axis)`` as exporters write it where the dimension is open."""
    then = graph(
        [node("Squeeze", f"{x} axes", "t", name=f"{name}/Squeeze")], [], ["t"],
        {"axes": np.array([axis])},
    )  # fmt: skip
    other = graph([node("Identity", x, "e", name=f"{name}/Identity")], [], ["e"])
    constants = [
        node("Constant", "-", f"{name}_{k}", value_ints=[v]) for k, v in (("at", axis), ("one", 1))
    ]
    return [
        *constants,
        node("Shape", x, f"{name}_shape"),
        node("Gather", f"{name}_shape {name}_at", f"{name}_dim"),
        node("Equal", f"{name}_dim {name}_one", f"{name}_is"),
        node("If", f"{name}_is", y, name=name, then_branch=then, else_branch=other),
    ]


def _halved(x: str, y: str) -> list[onnx.NodeProto]:
    """Every other element of axis 1, whose size then has a range of origins."""
    parts = [node("Constant", "-", f"{y}_{i}", value_ints=[v]) for i, v in enumerate((0, 99, 1, 2))]
    slicing = node("Slice", f"{x} {y}_0 {y}_1 {y}_2 {y}_3", y)
    return [*parts, slicing]


def _imported(nodes: Sequence[onnx.NodeProto], **extra: Any) -> Any:
    inputs = extra.pop("inputs", [value("x", ("N", "T", 3))])
    outputs = extra.pop("outputs", ["y"])
    found = load_model(model(nodes, inputs, outputs, W, **extra))
    verify(found.graph)
    return found


def _ops(graph: Graph) -> list[str]:
    return [n.key for n in graph.nodes if n.op not in ("Constant", "Assert")]


def _guards(graph: Graph) -> list[Node]:
    return [n for n in graph.nodes if n.key == "kiln.Require"]


GEMM = node("Gemm", "s w", "y")


def _conv(x: str, y: str) -> list[onnx.NodeProto]:
    """Something that only takes a tensor of rank 3, with one channel."""
    kernel = onnx.numpy_helper.from_array(np.full((1, 1, 1), 2, np.float32))
    return [node("Constant", "-", f"{y}_k", value=kernel), node("Conv", f"{x} {y}_k", y)]


def test_the_branch_that_fits_stays_behind_a_guard() -> None:
    found = _imported([*_halved("x", "h"), *_squeezed("sq", "h", "s"), GEMM])
    (guard,) = _guards(found.graph)
    assert "If" not in _ops(found.graph) and _ops(found.graph)[-2:] == ["Squeeze", "Gemm"]
    assert [str(v.type) for v in found.graph.outputs] == ["float32[N,4]"]
    message = guard.attrs["message"]
    assert isinstance(message, str)
    assert message.startswith("node 'sq' (If): the model was compiled for ")
    assert message.endswith(" == 1")
    assert found.warnings == [f"{message}; running it fails for others"]
    for steps in (1, 2):
        x = np.random.default_rng(0).random((2, steps, 3), np.float32)
        (y,) = evaluate(found.graph, {"x": x}, check_types=True)
        np.testing.assert_allclose(y, x[:, 0] @ W["w"], rtol=1e-5)
    with pytest.raises(EvaluationError, match="needs axis 1 of 1 element"):
        evaluate(found.graph, {"x": np.zeros((2, 3, 3), np.float32)})


def test_the_other_branch_is_found_by_trying() -> None:
    found = _imported(
        [*_halved("x", "h"), node("Transpose", "h", "p", perm=[0, 2, 1]),
         *_squeezed("sq", "p", "s", axis=2), *_conv("s", "y")],
        inputs=[value("x", (5, "T", 1))],
    )  # fmt: skip
    (guard,) = _guards(found.graph)
    assert str(guard.attrs["message"]).endswith(" != 1")
    x = np.ones((5, 7, 1), np.float32)
    (y,) = evaluate(found.graph, {"x": x}, check_types=True)
    assert y.shape == (5, 1, 4) and (y == 2).all()
    with pytest.raises(EvaluationError, match="!= 1, which does not hold"):
        evaluate(found.graph, {"x": x[:, :2]})


def test_a_number_of_the_run_is_taken_to_be_none_in_particular() -> None:
    """AffineGrid's function asks whether a size is 1: both branches fit, one holds for most."""
    then = graph([node("Squeeze", "x", "t")], [], ["t"])
    other = graph([node("Identity", "x", "e")], [], ["e"])
    found = _imported(
        [node("Constant", "-", "one", value_ints=[1]), node("Equal", "n one", "is"),
         node("If", "is", "r", name="step", then_branch=then, else_branch=other),
         node("Mul", "v r", "y")],
        inputs=[value("n", (1,), INT64), value("x", (1,)), value("v", ("N",))],
    )  # fmt: skip
    feeds = {"x": np.full(1, 3, np.float32), "v": np.arange(4, dtype=np.float32)}
    (y,) = evaluate(found.graph, {"n": np.array([5]), **feeds}, check_types=True)
    np.testing.assert_array_equal(y, 3 * feeds["v"])
    with pytest.raises(EvaluationError, match="a condition 'is' that is false"):
        evaluate(found.graph, {"n": np.array([1]), **feeds})


def test_an_assumption_that_gives_a_symbol_its_value_needs_no_guard() -> None:
    found = _imported([*_squeezed("sq", "x", "s"), GEMM])
    assert str(found.graph.inputs[0].type) == "float32[N,1,3]"
    assert not _guards(found.graph)
    assert found.warnings == [
        "input 'x': dimension T is taken to be 1, because node 'sq/Squeeze' (Squeeze) "
        "needs axis 1 of 1 element"
    ]


def test_conditions_on_data() -> None:
    then = graph([node("Squeeze", "x axes", "t")], [], ["t"], {"axes": np.array([1])})
    other = graph([node("Identity", "x", "e")], [], ["e"])
    nodes = [node("If", "c", "s", name="pick", then_branch=then, else_branch=other), GEMM]
    found = _imported(nodes, inputs=[value("x", ("N", 1, 3)), value("c", (), BOOL)])
    (guard,) = _guards(found.graph)
    assert guard.attrs["message"] == (
        "node 'pick' (If): the model was compiled for a condition 'c' that is true"
    )
    feeds = {"x": np.ones((2, 1, 3), np.float32), "c": np.array(True)}
    assert evaluate(found.graph, feeds)[0].shape == (2, 4)
    with pytest.raises(EvaluationError, match="'c' that is true, which does not hold"):
        evaluate(found.graph, {**feeds, "c": np.array(False)})


def test_ranks_that_nothing_needs_stay_open() -> None:
    found = _imported(_squeezed("sq", "x", "y"))
    assert _ops(found.graph)[-1] == "If" and not found.warnings
    for steps, rank in ((1, 2), (2, 3)):
        assert evaluate(found.graph, {"x": np.ones((2, steps, 3), np.float32)})[0].ndim == rank


@pytest.mark.parametrize(("declared", "sign"), [((None, None), "=="), ((None,) * 3, "!=")])
def test_declared_ranks_of_results_decide_where_both_branches_fit(
    declared: tuple[None, ...], sign: str
) -> None:
    nodes = [*_halved("x", "h"), *_squeezed("sq", "h", "s"), node("Relu", "s", "y")]
    found = _imported(nodes, outputs=[value("y", declared)])
    assert f" {sign} 1" in found.warnings[0]
    assert found.graph.outputs[0].rank == len(declared)


def test_without_a_declared_rank_the_first_branch_that_fits_is_taken() -> None:
    nodes = [*_halved("x", "h"), *_squeezed("sq", "h", "s"), node("Relu", "s", "y")]
    assert _imported(nodes).graph.outputs[0].rank == 2


def test_equal_questions_get_one_answer() -> None:
    """Also where a branch asks for the opposite."""
    nodes = [*_halved("x", "h"), *_squeezed("sq", "h", "s"), *_squeezed("again", "h", "s2")]
    asked = {a.name: a.g for a in nodes.pop().attribute}
    flipped = {"then_branch": asked["else_branch"], "else_branch": asked["then_branch"]}
    nodes.append(node("Not", "again_is", "again_not"))
    nodes.append(node("If", "again_not", "s2", name="again", **flipped))
    found = _imported([*nodes, node("Gemm", "s w", "a"), node("Gemm", "s2 w", "b"),
                       node("Add", "a b", "y")])  # fmt: skip
    assert {str(g.attrs["message"]).partition("for ")[2] for g in _guards(found.graph)} == {
        "(min(T,99)+1)//2 == 1"
    }
    evaluate(found.graph, {"x": np.zeros((2, 2, 3), np.float32)}, check_types=True)


def _many(count: int) -> list[onnx.NodeProto]:
    """One condition whose first branch is wrong, then ``count`` others that do not matter."""
    nodes = [*_halved("z", "hz"), node("Transpose", "hz", "p", perm=[0, 2, 1]),
             *_squeezed("wrong", "p", "s", axis=2)]  # fmt: skip
    for i in range(count):
        nodes += [*_halved(f"x{i}", f"h{i}"), *_squeezed(f"sq{i}", f"h{i}", f"s{i}")]
        nodes += [node("Gemm", f"s{i} w", f"y{i}")]
    return [*nodes, *_conv("s", "y")]


def test_a_failure_turns_the_answer_that_led_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve answers came after it: trying all of theirs would take thousands of imports."""
    monkeypatch.setattr(specialisation, "MAX_IMPORTS", 3)
    names = [f"T{i}" for i in range(12)]
    inputs = [value("z", (5, "T", 1)), *(value(f"x{i}", (2, t, 3)) for i, t in enumerate(names))]
    found = _imported(_many(12), inputs=inputs, outputs=["y", *(f"y{i}" for i in range(12))])
    messages = [str(g.attrs["message"]) for g in _guards(found.graph)]
    assert len(messages) == 13 and [m.endswith("!= 1") for m in messages].count(True) == 1


def test_where_no_branch_fits_the_first_error_stands() -> None:
    nodes = [*_halved("x", "h"), *_squeezed("sq", "h", "s"), node("Det", "s", "y"),
             node("Gemm", "y w", "z"), node("Nope", "z", "q", name="bad")]  # fmt: skip
    error = refusal(model(nodes, [value("x", ("N", "T", 3))], ["q"], W))
    assert [b.op for b in error.blockers] == ["Det", "Nope"]
    assert "of float32[*] is not known; it may help to give the inputs' dim" in error.reason


def test_a_blocker_elsewhere_is_not_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    count = []
    real = specialisation.Importer
    monkeypatch.setattr(specialisation, "Importer", lambda *args: count.append(args) or real(*args))
    nodes = [*_halved("x", "h"), *_squeezed("sq", "h", "s"), GEMM, node("Nope", "x", "q")]
    error = refusal(model(nodes, [value("x", ("N", "T", 3))], ["y", "q"], W))
    assert [b.op for b in error.blockers][-1] == "Nope"
    assert len(count) == 2


def test_guards_stay_in_the_body_that_needs_them() -> None:
    """The outer condition is open, and only one branch assumes something."""
    then = graph([*_halved("x", "h"), *_squeezed("sq", "h", "s"), node("Gemm", "s w", "r")],
                 [], ["r"])  # fmt: skip
    other = graph([node("ReduceSum", "x ax", "f", keepdims=0), node("Gemm", "f w", "r")], [],
                  ["r"], {"ax": np.array([1])})  # fmt: skip
    nodes = [node("If", "c", "y", name="choose", then_branch=then, else_branch=other)]
    found = _imported(nodes, inputs=[value("x", ("N", "T", 3)), value("c", (), BOOL)])
    assert not _guards(found.graph)
    body = found.graph.nodes[-1].attrs["then_branch"]
    assert isinstance(body, Graph) and len(_guards(body)) == 1
    assert len(found.warnings) == 1
    x = np.ones((2, 5, 3), np.float32)
    assert evaluate(found.graph, {"x": x, "c": np.array(False)})[0].shape == (2, 4)
    with pytest.raises(EvaluationError, match="needs axis 1 of 1 element"):
        evaluate(found.graph, {"x": x, "c": np.array(True)})
    assert evaluate(found.graph, {"x": x[:, :2], "c": np.array(True)})[0].shape == (2, 4)


def test_branches_without_values_from_outside_guard_their_results() -> None:
    flat, deep = np.ones((2, 3), np.float32), np.ones((1, 2, 3), np.float32)
    branches = [
        graph([node("RandomNormal", "-", "r", shape=a.shape, dtype=FLOAT)], [], ["r"])
        for a in (flat, deep)
    ]
    nodes = [node("If", "c", "s", name="pick", then_branch=branches[0], else_branch=branches[1])]
    found = _imported([*nodes, GEMM], inputs=[value("c", (), BOOL)])
    assert _ops(found.graph) == ["RandomNormal", "kiln.Require", "Gemm"]
    with pytest.raises(EvaluationError, match="does not hold"):
        evaluate(found.graph, {"c": np.array(False)})


def test_nested_conditions() -> None:
    """The inner question only comes up in a branch of the outer one."""
    inner = _squeezed("inner", "h", "s")
    then = graph([*inner, node("Gemm", "s w", "g"), node("Squeeze", "g zero", "r")], [], ["r"],
                 {"zero": np.array([0])})  # fmt: skip
    other = graph([node("Identity", "h", "r")], [], ["r"])
    nodes = [
        *_halved("x", "h"),
        node("Constant", "-", "first", value_ints=[0]),
        node("Constant", "-", "unit", value_ints=[1]),
        *_halved_rows("x", "rows"),
        node("Shape", "rows", "shape"), node("Gather", "shape first", "n"),
        node("Equal", "n unit", "alone"),
        node("If", "alone", "o", name="outer", then_branch=then, else_branch=other),
        node("Unsqueeze", "o first", "u"), node("Gemm", "u w4", "y"),
    ]  # fmt: skip
    proto = model(nodes, [value("x", ("N", "T", 3))], ["y"],
                  {**W, "w4": np.ones((4, 2), np.float32)})  # fmt: skip
    found = load_model(proto)
    verify(found.graph)
    assert len(_guards(found.graph)) == 1 and len(found.warnings) == 2
    (y,) = evaluate(found.graph, {"x": np.ones((1, 2, 3), np.float32)}, check_types=True)
    assert y.shape == (1, 2)


def _halved_rows(x: str, y: str) -> list[onnx.NodeProto]:
    parts = [node("Constant", "-", f"{y}_{i}", value_ints=[v]) for i, v in enumerate((0, 99, 0, 2))]
    return [*parts, node("Slice", f"{x} {y}_0 {y}_1 {y}_2 {y}_3", y)]


# ---- ops whose rank open dims decide -------------------------------------------------------------


def test_squeeze_without_axes_assumes_that_open_dims_stay() -> None:
    inputs = [value("x", (1, "C", "T", 1))]
    found = _imported([node("Squeeze", "x", "s"), node("Transpose", "s", "y", perm=[1, 0])],
                      inputs=inputs)  # fmt: skip
    assert [w.partition(" for ")[2].partition(";")[0] for w in found.warnings] == [
        "T != 1", "C != 1"
    ]  # fmt: skip
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)
    np.testing.assert_array_equal(evaluate(found.graph, {"x": x})[0], x.reshape(2, 3).T)
    for shape in ((1, 1, 3, 1), (1, 2, 1, 1)):
        with pytest.raises(EvaluationError, match="compiled for . != 1"):
            evaluate(found.graph, {"x": np.ones(shape, np.float32)})


def test_squeeze_without_axes_drops_a_dim_where_only_that_fits() -> None:
    inputs = [value("x", ("N", "C", "T"))]
    found = _imported([node("Squeeze", "x", "s"), node("Transpose", "s", "y", perm=[0])],
                      inputs=inputs)  # fmt: skip
    left = [shape for shape in ((4, 1, 1), (1, 4, 1), (1, 1, 4), (1, 2, 4))
            if _runs(found.graph, np.ones(shape, np.float32))]  # fmt: skip
    assert len(left) == 1


def _runs(graph: Graph, x: np.ndarray) -> bool:
    try:
        return evaluate(graph, {"x": x})[0].shape == np.squeeze(x).shape
    except EvaluationError:
        return False


@pytest.mark.parametrize("opset", [11, 13])
def test_squeeze_without_axes_gives_either_rank_where_nothing_needs_it(opset: int) -> None:
    found = _imported([node("Squeeze", "x", "y")], inputs=[value("x", ("N", 1))], opset=opset)
    for shape, expected in (((4, 1), (4,)), ((1, 1), ()), ((0, 1), (0,))):
        assert evaluate(found.graph, {"x": np.ones(shape, np.float32)})[0].shape == expected


def test_gather_nd_of_open_depth_goes_as_deep_as_it_can() -> None:
    inputs = [value("x", ("N", 3)), value("i", ("K", "R"), INT64)]
    found = _imported([node("GatherND", "x i", "g"), node("Relu", "g", "y")], inputs=inputs)
    assert "R is taken to be 2" in found.warnings[0]
    x, i = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([[1, 2], [0, -1]])
    np.testing.assert_array_equal(evaluate(found.graph, {"x": x, "i": i})[0], [5, 2])


def test_gather_nd_of_open_depth_is_as_deep_as_what_follows_needs() -> None:
    inputs = [value("x", ("N", 3)), value("i", ("K", "R"), INT64)]
    found = _imported([node("GatherND", "x i", "s"), GEMM], inputs=inputs)
    assert "for R != 2" in found.warnings[0]
    x, i = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([[1], [0]])
    np.testing.assert_array_equal(evaluate(found.graph, {"x": x, "i": i})[0], x[[1, 0]] @ W["w"])


def test_gather_nd_of_open_depth_where_nothing_needs_it() -> None:
    inputs = [value("x", (2, 3)), value("i", ("K", "R"), INT64)]
    found = _imported([node("GatherND", "x i", "y")], inputs=inputs)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for i in ([[1, 2], [0, -1]], [[1], [0]]):
        picked = x[tuple(np.array(i).T)]
        np.testing.assert_array_equal(evaluate(found.graph, {"x": x, "i": np.array(i)})[0], picked)
    with pytest.raises(EvaluationError):
        evaluate(found.graph, {"x": x, "i": np.zeros((1, 3), np.int64)})


A = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize(
    ("op", "attrs", "parameters", "compute"),
    [
        ("Reshape", {}, ([12], [2, -1], [1, 3, 2, 2]), lambda v: A.reshape(v)),
        ("Expand", {}, ([4], [3, 4], [2, 1, 4]), lambda v: A + np.zeros(v, np.float32)),
        ("ReduceSum", {"keepdims": 0}, ([0], [1, 0]), lambda v: A.sum(tuple(v))),
        ("ReduceMax", {"keepdims": 0}, ([-1], [0, 1]), lambda v: A.max(tuple(v))),
        ("Unsqueeze", {}, ([0], [1, -1]), lambda v: np.expand_dims(A, tuple(v))),
        ("ConstantOfShape", {"value": np.array([7])}, ([2], [3, 0], [1, 2, 1]),
         lambda v: np.full(v, 7)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("native", [False, True])
def test_a_parameter_of_any_length(
    op: str, attrs: dict[str, Any], parameters: tuple[list[int], ...], compute: Any, native: bool,
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """As many numbers as a run gives, where nothing needs the result's rank."""
    monkeypatch.setenv("GRAPHKILN_CACHE", str(tmp_path))
    given = {k: onnx.numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v
             for k, v in attrs.items()}  # fmt: skip
    names = "p" if op == "ConstantOfShape" else "x p"
    inputs = [value("x", A.shape), value("p", ("K",), INT64)][2 - len(names.split()) :]
    proto = model([node(op, names, "y", **given)], inputs, ["y"], opset=18)
    if native:
        session = graphkiln.compile(proto, jobs=1).session()
    else:
        graph = load_model(proto).graph
    for p in parameters:
        feeds = {"p": np.array(p), **({"x": A} if op != "ConstantOfShape" else {})}
        found = session.run(None, feeds)[0] if native else evaluate(graph, feeds)[0]
        np.testing.assert_array_equal(found, compute(p))


# ---- inputs without a shape ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "outputs", "expected"),
    [
        ([node("Relu", "x", "y")], ["y"], "float32[x_d0]"),
        ([node("Relu", "x", "y")], [value("y", ("A", "B", 3))], "float32[x_d0,x_d1,x_d2]"),
        ([node("Gemm", "x w", "y")], ["y"], "float32[x_d0,3]"),
        (_conv("x", "y"), ["y"], "float32[x_d0,1,x_d2]"),
        ([node("MatMul", "x w", "m"), node("Transpose", "m", "y", perm=[2, 0, 1])], ["y"],
         "float32[x_d0,x_d1,3]"),
    ],
)  # fmt: skip
def test_an_input_without_a_shape_gets_the_first_rank_that_fits(
    nodes: list[onnx.NodeProto], outputs: list[Any], expected: str
) -> None:
    found = _imported(nodes, inputs=[value("x", None)], outputs=outputs)
    assert str(found.graph.inputs[0].type) == expected
    rank = found.graph.inputs[0].rank
    assert f"input 'x' has no shape: it is taken to have {rank} dimensions" in found.warnings[0]


def test_counts_and_conditions_without_a_shape_are_scalars() -> None:
    turn = [value("i", (), INT64), value("go", (), BOOL), value("v")]
    body = graph([node("Add", "v v", "w"), node("Identity", "go", "on")], turn, ["on", "w"])
    loop = node("Loop", "m c x", "l", body=body)
    then, other = (graph([node(op, "x", "r")], [], ["r"]) for op in ("Neg", "Abs"))
    choice = node("If", "k", "h", then_branch=then, else_branch=other)
    inputs = [value("m", None, INT64), value("c", None, BOOL), value("k", None, BOOL), value("x")]
    found = _imported([loop, choice, node("Add", "l h", "y")], inputs=inputs)
    assert [v.rank for v in found.graph.inputs] == [0, 0, 0, 2]


def test_what_computes_with_an_unknown_rank_is_named() -> None:
    elements = onnx.helper.make_tensor_type_proto(FLOAT, None)
    many = onnx.helper.make_value_info("q", onnx.helper.make_sequence_type_proto(elements))
    nodes = [node("SequenceAt", "q i", "t"), node("Relu", "t", "y", name="after")]
    error = refusal(model(nodes, [many, value("i", (), INT64)], ["y"]))
    assert error.node == "after" and "the rank of its input 't' is not known" in error.reason
