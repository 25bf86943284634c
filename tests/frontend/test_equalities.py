"""Dims that must be equal: what import concludes from them about the inputs' symbols."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from frontend.build import BOOL, graph, model, node, refusal, value

from graphkiln.frontend import Imported, load_model
from graphkiln.ir.interpreter import EvaluationError, evaluate
from graphkiln.ir.verify import verify

HIDDEN, FEATURES = 4, 3


def _layer(op: str, inputs: str, infos: list[Any], **attrs: Any) -> onnx.ModelProto:
    """A recurrent layer; ``inputs`` names what comes after X, W and R."""
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    weights = {
        "w": np.ones((1, gates * HIDDEN, FEATURES), np.float32),
        "r": np.ones((1, gates * HIDDEN, HIDDEN), np.float32),
    }
    layer = node(op, f"x w r {inputs}", "y", name="layer", hidden_size=HIDDEN, **attrs)
    return model([layer], infos, ["y"], weights)


def _loaded(proto: onnx.ModelProto, **options: Any) -> Imported:
    found = load_model(proto, **options)
    verify(found.graph)
    return found


def _inputs(found: Imported) -> list[str]:
    return [str(v.type) for v in found.graph.inputs]


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_the_batch_of_a_state_is_that_of_the_input(op: str) -> None:
    infos = [value("x", ("T", "batch", FEATURES)), value("h", (1, 2, HIDDEN))]
    found = _loaded(_layer(op, "- - h", infos))
    assert _inputs(found) == ["float32[T,2,3]", "float32[1,2,4]"]
    assert found.warnings == [
        f"input 'x': dimension batch is taken to be 2, because node 'layer' ({op}) needs X and "
        "initial_h of one batch size"
    ]
    feeds = {"x": np.ones((5, 3, FEATURES), np.float32), "h": np.ones((1, 2, 4), np.float32)}
    with pytest.raises(EvaluationError, match="input 'x': expected float32.T,2,3"):
        evaluate(found.graph, feeds)


def test_every_input_of_a_layer_counts() -> None:
    infos = [
        value("x", ("T", "a", "f")), value("n", ("b",), onnx.TensorProto.INT32),
        value("h", (1, "c", "d")), value("c0", (1, 6, HIDDEN)),
    ]  # fmt: skip
    found = _loaded(_layer("LSTM", "- n h c0", infos))
    assert _inputs(found) == ["float32[T,6,3]", "int32[6]", "float32[1,6,4]", "float32[1,6,4]"]
    assert len(found.warnings) == 5


def test_the_batch_stands_first_in_the_other_layout() -> None:
    infos = [value("x", ("batch", "T", FEATURES)), value("h", (7, 1, HIDDEN))]
    found = _loaded(_layer("GRU", "- - h", infos, layout=1))
    assert _inputs(found) == ["float32[7,T,3]", "float32[7,1,4]"]


def test_two_names_of_one_size_become_one() -> None:
    infos = [value("x", ("T", "batch", FEATURES)), value("h", (1, None, HIDDEN))]
    found = _loaded(_layer("GRU", "- - h", infos))
    assert _inputs(found) == ["float32[T,batch,3]", "float32[1,batch,4]"]
    assert "input 'h': dimension h_d1 is taken to be batch" in found.warnings[0]


def test_one_name_for_one_size_says_nothing() -> None:
    infos = [value("x", ("T", "batch", FEATURES)), value("h", (1, "batch", HIDDEN))]
    found = _loaded(_layer("GRU", "- - h", infos))
    assert _inputs(found)[0] == "float32[T,batch,3]" and not found.warnings


def test_sizes_that_contradict_each_other_are_an_error() -> None:
    infos = [value("x", ("T", 5, FEATURES)), value("h", (1, 2, HIDDEN))]
    error = refusal(_layer("GRU", "- - h", infos))
    assert (error.node, error.op) == ("layer", "GRU")
    assert error.reason == "needs X and initial_h of one batch size, not 5 and 2"
    pinned = refusal(
        _layer("GRU", "- - h", [value("x", ("T", "batch", FEATURES)), infos[1]]),
        shapes={"x": ("T", 5, FEATURES)},
    )
    assert pinned.reason == error.reason


W = {"w": np.ones((3, 4), np.float32), "v": np.ones((5, 4), np.float32)}


def _small(nodes: list[onnx.NodeProto], *shapes: tuple[Any, ...]) -> Imported:
    infos = [value(name, shape) for name, shape in zip("xz", shapes, strict=False)]
    return _loaded(model(nodes, infos, ["y"], W))


def test_products_and_concatenations() -> None:
    assert _inputs(_small([node("Gemm", "x w", "y")], ("N", "K"))) == ["float32[N,3]"]
    assert _inputs(_small([node("MatMul", "x w", "y")], ("N", 2, "K"))) == ["float32[N,2,3]"]
    assert _inputs(_small([node("MatMul", "x w", "y")], ("K",))) == ["float32[3]"]
    joined = [node("Concat", "x w", "y", axis=0)]
    assert _inputs(_small(joined, ("N", "K"))) == ["float32[N,4]"]
    both_open = [node("MatMul", "x z", "y")]
    assert _inputs(_small(both_open, ("N", "K"), ("L", 2))) == ["float32[N,K]", "float32[K,2]"]


def test_expressions_of_one_symbol_are_solved() -> None:
    doubled = [node("Concat", "x x", "d", axis=1), node("Gemm", "d w", "y", transB=1)]
    assert _inputs(_small(doubled, (7, "K"))) == ["float32[7,2]"]
    odd = [node("Concat", "x x", "d", axis=1), node("Gemm", "d w", "y")]
    found = _small(odd, (7, "K"))
    assert _inputs(found) == ["float32[7,K]"] and not found.warnings


def test_one_conclusion_leads_to_the_next() -> None:
    """The product comes into sight once the batch, and with it a rank, is known."""
    infos = [value("x", (2, "batch", FEATURES)), value("h", (1, 1, HIDDEN)), value("z", (5, "K"))]
    proto = _layer("GRU", "- - h", infos)
    proto.graph.node[0].output[0] = "all"
    proto.graph.node.extend([node("Squeeze", "all", "s"), node("MatMul", "z s", "y")])
    found = _loaded(proto)
    assert _inputs(found) == ["float32[2,1,3]", "float32[1,1,4]", "float32[5,2]"]
    assert [str(v.type) for v in found.graph.outputs] == ["float32[5,4]"]


def test_what_a_branch_needs_is_not_needed_elsewhere() -> None:
    then = graph([node("Gemm", "x w", "r")], [], ["r"])
    other = graph([node("Gemm", "x v", "r")], [], ["r"])
    nodes = [node("If", "c", "y", then_branch=then, else_branch=other)]
    found = _loaded(model(nodes, [value("x", ("N", "K")), value("c", (), BOOL)], ["y"], W))
    assert _inputs(found) == ["float32[N,K]", "bool[]"] and not found.warnings


@pytest.mark.parametrize(
    ("made", "length"),
    [
        (node("Split", "x p", "y z", axis=0), 2),
        (node("Tile", "x p", "y"), 2),
        (node("Pad", "x p", "y"), 4),
    ],
)
def test_lengths_of_parameters_are_solved(made: onnx.NodeProto, length: int) -> None:
    """Outputs or the rank say how many numbers a parameter of the run holds."""
    infos = [value("x", ("A", "B")), value("p", ("K",), onnx.TensorProto.INT64)]
    found = load_model(model([made], infos, list(made.output)))
    assert str(found.graph.inputs[1].type) == f"int64[{length}]"
