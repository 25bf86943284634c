"""Native code in place of the virtual machine: the same results for all shapes and memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import graphkiln
from graphkiln.codegen.frame_code import share_memory
from graphkiln.codegen.program import Slot
from graphkiln.codegen.straight_line import Scratch
from graphkiln.runtime import InputError, Session
from graphkiln.runtime.direct import Direct

Array = np.ndarray
FLOAT = TensorProto.FLOAT


@pytest.fixture(scope="module", autouse=True)
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHKILN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def model(
    nodes: list[onnx.NodeProto], inputs: dict[str, list[Any]], outputs: dict[str, list[Any]],
    constants: dict[str, Array] | None = None,
) -> onnx.ModelProto:  # fmt: skip
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(n, FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_a_model_without_inputs_runs() -> None:
    held = np.arange(20, dtype=np.float32).reshape(4, 5)
    node = helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(held))
    session = graphkiln.compile(model([node], {}, {"y": [4, 5]}), jobs=1).session()
    for _ in range(2):
        np.testing.assert_array_equal(session.run(None, {})[0], held)


@pytest.fixture(scope="module")
def session() -> Session:
    """[N, 8, L] through a convolution of stride 2 to three outputs, one of them a view."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[2], pads=[1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["t", "m"], ["p"]),
        helper.make_node("Softmax", ["p"], ["s"], axis=-1),
        helper.make_node("Concat", ["s", "p"], ["both"], axis=1),
        helper.make_node("ReduceSum", ["p", "axes"], ["sum"], keepdims=0),
        helper.make_node("Add", ["p", "bias"], ["q"]),
        helper.make_node("Reshape", ["q", "flat"], ["rows"]),
    ]
    constants = {
        "w": rng.standard_normal((16, 8, 3)).astype(np.float32),
        "m": rng.standard_normal((16, 20)).astype(np.float32),
        "bias": rng.standard_normal(20).astype(np.float32),
        "axes": np.array([1], np.int64),
        "flat": np.array([-1, 20], np.int64),
    }
    outputs = {"both": ["N", "M", 20], "sum": ["N", 20], "rows": ["R", 20]}
    proto = model(nodes, {"x": ["N", 8, "L"]}, outputs, constants)
    return graphkiln.compile(proto, jobs=1).session(threads=1)


def feed(batch: int, length: int, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((batch, 8, length)).astype(np.float32)}


def by_machine(session: Session, feeds: dict[str, Array]) -> list[Array]:
    """What the virtual machine computes."""
    return session._model.machine()[1].run(feeds, range(len(session.get_outputs())))


def assert_same(got: list[Array], want: list[Array]) -> None:
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)


def test_shapes_may_change_from_run_to_run(session: Session) -> None:
    assert isinstance(session._instances.idle[0], Direct)
    for batch, length in [(1, 5), (2, 4), (3, 700), (1, 5), (0, 5), (2, 3000), (1, 1)]:
        feeds = feed(batch, length)
        assert_same(session.run(None, feeds), by_machine(session, feeds))


def test_results_stay_when_the_model_runs_again(session: Session) -> None:
    for length in (6, 2000):  # outputs of both kinds: copied, and written in place
        first = session.run(None, feed(2, length))
        kept = [a.copy() for a in first]
        session.run(None, feed(2, length, seed=1))
        assert_same(first, kept)


def test_an_output_asked_for_twice_comes_in_two_arrays(session: Session) -> None:
    for length in (6, 2000):
        feeds = feed(2, length)
        rows, total, again = session.run(["rows", "sum", "rows"], feeds)
        assert_same([rows, total], [session.run([n], feeds)[0] for n in ("rows", "sum")])
        again[...] = 0
        assert rows.any()


@pytest.mark.parametrize("length", [6, 2000])
def test_arrays_of_any_memory_order(session: Session, length: int) -> None:
    x = feed(2, length)["x"]
    wants = session.run(None, {"x": x})
    swapped = x.astype(">f4")
    turned = np.asfortranarray(x)
    frozen = x.copy()
    frozen.setflags(write=False)
    bytes_ = np.zeros(x.nbytes + 1, np.uint8)
    shifted = bytes_[1:].view(np.float32).reshape(x.shape)
    shifted[...] = x
    for value in (turned, frozen, shifted, swapped, x.tolist(), np.repeat(x, 2, 0)[::2]):
        assert_same(session.run(None, {"x": value}), wants)


def test_wrong_feeds_leave_the_session_usable(session: Session) -> None:
    feeds = feed(2, 6)
    wants = session.run(None, feeds)
    for wrong in ({}, {"y": feeds["x"]}, {"x": feeds["x"][:, :3]}, {"x": feeds["x"].astype("f8")},
                  {**feeds, "y": feeds["x"]}):  # fmt: skip
        with pytest.raises(InputError):
            session.run(None, wrong)
    assert_same(session.run(None, feeds), wants)


def test_threads_run_at_the_same_time(session: Session) -> None:
    cases = [feed(1 + i % 3, 5 + 300 * (i % 4), i) for i in range(24)]
    wants = [session.run(None, c) for c in cases]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(5):
            for got, want in zip(pool.map(lambda c: session.run(None, c), cases), wants,
                                 strict=True):  # fmt: skip
                assert_same(got, want)


def test_inputs_and_constants_as_outputs() -> None:
    nodes = [helper.make_node("Identity", ["x"], ["same"]),
             helper.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0]),
             helper.make_node("Neg", ["x"], ["y"])]  # fmt: skip
    proto = model(nodes, {"x": [3]}, {"same": [3], "c": [2], "y": [3]})
    session = graphkiln.compile(proto, jobs=1).session(threads=1)
    x = np.array([1, 2, 3], np.float32)
    same, c, y = session.run(None, {"x": x})
    same[...] = 0
    np.testing.assert_array_equal(x, [1, 2, 3])
    np.testing.assert_array_equal(c, [1, 2])
    np.testing.assert_array_equal(y, -x)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)), max_size=20))
def test_pieces_in_use_together_have_buffers_of_their_own(
    spans: list[tuple[int, int, int]],
) -> None:
    sizes: list[Any] = [64, 128, Slot(0), Slot(1)]
    pieces = [Scratch(sizes[k], min(a, b), max(a, b)) for a, b, k in spans]
    homes, buffers = share_memory([*pieces, Scratch(64)])
    assert len(homes) == len(pieces)
    for i, p in enumerate(pieces):
        assert p.size in buffers[homes[i]]
        for j, q in enumerate(pieces[:i]):
            assert homes[i] != homes[j] or p.end < q.start or q.end < p.start
