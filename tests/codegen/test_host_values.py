"""What runs on the host: strings that move at any sizes, and the order of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import onnx
import pytest
from frontend.build import model, node, value

import graphkiln
from graphkiln.runtime import InputError

STRING = onnx.TensorProto.STRING
X = np.array([[["a", "b", ""], ["d", "é", "f"]]], object)  # [1, 2, 3]

Shape = Sequence[int | str]

MOVES = {
    # nodes, constants, the result
    "split": ([node("Split", "x", "p y", axis=1, num_outputs=2)], {}, X[:, 1:]),
    "split in two": ([node("Split", "x", "p y", axis=1)], {}, X[:, 1:]),
    "slice": ([node("Slice", "x a b c s", "y")],
              {"a": [-1], "b": [-9], "c": [2], "s": [-1]}, X[:, :, ::-1]),
    "slices": ([node("Slice", "x a b c", "h"), node("Slice", "h a b c", "y")],
               {"a": [1], "b": [9], "c": [2]}, X[:, :, 2:]),
    "gather": ([node("Gather", "x a", "y", axis=2)], {"a": [0, 2]}, X[:, :, ::2]),
    "squeeze": ([node("Squeeze", "x a", "y")], {"a": [0]}, X[0]),
    "unsqueeze": ([node("Unsqueeze", "x a", "y")], {"a": [1]}, X[:, None]),
    "flatten": ([node("Flatten", "x", "y", axis=2)], {}, X.reshape(2, 3)),
    "reshape": ([node("Reshape", "x a", "y")], {"a": [0, -1]}, X.reshape(1, 6)),
    "expand": ([node("Expand", "x a", "y")], {"a": [2, 1, 1]}, np.concatenate([X, X])),
    "turned": ([node("Transpose", "x", "t", perm=[1, 0, 2])], {}, X.transpose(1, 0, 2)),
}  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 2, 3), ("N", "M", 3), ("N", 2, "K"), ("N", "M", "K")],
                         ids=str)  # fmt: skip
@pytest.mark.parametrize("name", MOVES)
def test_strings_move(name: str, shape: Shape) -> None:
    nodes, constants, wanted = MOVES[name]
    weights = {k: np.array(v) for k, v in constants.items()}
    proto = model(nodes, [value("x", shape, STRING)], [nodes[-1].output[-1]], weights, opset=18)
    for passes in (None, ""):
        (got,) = graphkiln.compile(proto, passes=passes).session().run(None, {"x": X})
        assert got.tolist() == wanted.tolist()


@pytest.mark.parametrize("axis", [None, 0])
def test_unique_numbers_have_the_order_of_their_type(axis: int | None) -> None:
    """Also on the host, where bfloat16 is 16 bits."""
    bfloat16 = onnx.TensorProto.BFLOAT16
    attrs = {} if axis is None else {"axis": axis}
    proto = model([node("Unique", "x", "y i v c", **attrs)], [value("x", ("N",), bfloat16)],
                  list("yivc"), opset=28)  # fmt: skip
    x = np.array([7, -8, 2, -6, 2, -0.0, 0.0], ml_dtypes.bfloat16)
    y, i, v, c = graphkiln.compile(proto).session().run(None, {"x": x})
    assert y.dtype == x.dtype
    assert y.astype(float).tolist() == [-8, -6, 0, 2, 7]
    assert (i.tolist(), v.tolist(), c.tolist()) == (
        [1, 3, 5, 2, 0], [4, 0, 3, 1, 3, 2, 2], [1, 1, 2, 2, 1]
    )  # fmt: skip


def test_sizes_of_strings_are_checked() -> None:
    """Also where the host's own function would do something with what does not fit."""
    nodes = [node("Equal", "x z", "same"), node("And", "same m", "y")]
    inputs = [value("x", ("N",), STRING), value("z", ("M",), STRING),
              value("m", ("K",), onnx.TensorProto.BOOL)]  # fmt: skip
    session = graphkiln.compile(model(nodes, inputs, ["y"])).session()
    a, b = np.array(["a", "b"], object), np.array(["a"], object)
    yes = np.ones(2, bool)
    assert session.run(None, {"x": a, "z": b, "m": yes})[0].tolist() == [True, False]
    with pytest.raises(InputError, match="N is 2 and M is 3"):
        session.run(None, {"x": a, "z": np.array(["a", "b", "c"], object), "m": yes})


@pytest.mark.parametrize("passes", [None, "", "shapes,fold,dce"])
def test_optionals_that_are_plain_tensors(passes: str | None) -> None:
    """Also where no pass replaces what the operations give for a tensor, or for nothing."""
    nodes = [
        node("OptionalHasElement", "x", "there"), node("OptionalHasElement", "", "nothing"),
        node("OptionalGetElement", "x", "same"), node("Neg", "same", "y"),
    ]  # fmt: skip
    proto = model(nodes, [value("x", ("N",))], ["there", "nothing", "same", "y"], opset=18)
    x = np.array([1, -2, 3], np.float32)
    there, nothing, same, y = graphkiln.compile(proto, passes=passes).session().run(None, {"x": x})
    assert there and not nothing
    assert (same.tolist(), y.tolist()) == (x.tolist(), (-x).tolist())
