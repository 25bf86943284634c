"""Loops as functions of their own: results of others, no writes to inputs, errors as before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from frontend.build import BOOL, INT64, graph, model, node, run, value

import graphkiln
from graphkiln.codegen import loop_calls
from graphkiln.codegen.lower import lower_graph
from graphkiln.runtime import InputError, Session
from graphkiln.runtime.direct import Direct
from graphkiln.targets import parse_target

Array = np.ndarray
Feeds = dict[str, Array]

N, C = value("n", (), INT64), value("c", (), BOOL)


@pytest.fixture(scope="module", autouse=True)
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHKILN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def functions(proto: onnx.ModelProto) -> int:
    """How many loops of a model are functions of their own."""
    target = parse_target("cpu")
    return len(lower_graph(graphkiln.optimize(proto, "cpu"), target, "").loops)


def peer(proto: onnx.ModelProto) -> Callable[[Feeds], list[Array]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return lambda feeds: session.run(None, feeds)


def assert_like_peers(
    proto: onnx.ModelProto, cases: Sequence[Feeds], loops: int = 1,
    others: Sequence[Callable[[Feeds], list[Array]]] = (),
) -> Session:  # fmt: skip
    """Cases give what others give, in turns in one session, and no input is written."""
    assert functions(proto) == loops
    session = graphkiln.compile(proto, jobs=1).session(threads=1)
    others = others or [peer(proto), partial(run, proto)]
    for feeds in [*cases, *reversed(cases)]:
        before = {name: array.copy() for name, array in feeds.items()}
        found = session.run(None, feeds)
        for name, array in feeds.items():
            np.testing.assert_array_equal(array, before[name])
        for other in others:
            for got, want in zip(found, other(feeds), strict=True):
                assert got.shape == want.shape and got.dtype == want.dtype
                np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    return session


def looping(
    nodes: Sequence[onnx.NodeProto], carried: Sequence[Any], outs: str, *, initial: str = "x",
    going: str = "on", rows: str = "", results: str = "y", ends: str = "n -",
    weights: Any = None, mark: str = "",
) -> onnx.NodeProto:  # fmt: skip
    """A Loop whose body carries ``carried`` on as ``outs`` and stacks ``rows``.

    ``mark`` is behind the names of the body's number and condition.
    """
    turn, go = value(f"i{mark}", (), INT64), value(f"go{mark}", (), BOOL)
    going += mark
    names = [going, *outs.split(), *rows.split()]
    still = [node("Identity", go.name, going)] if going == f"on{mark}" else []
    body = graph([*still, *nodes], [turn, go, *carried], names, weights, name="turn")
    return node("Loop", f"{ends} {initial}", results, body=body)


ADD = node("Add", "v x", "w")


def counts(x: Array, *trips: int) -> list[Feeds]:
    return [{"x": x, "n": np.array(n)} for n in trips]


@pytest.mark.parametrize("size", [4, 32, 20_000])
def test_a_sum(size: int) -> None:
    """Small inputs go through buffers, large ones lie where the caller has them."""
    loop = looping([ADD], [value("v", (size,))], "w")
    proto = model([loop], [value("x", (size,)), N], [value("y", (size,))])
    session = assert_like_peers(proto, counts(numbers(size), 0, 1, 2, 5, -3))
    assert isinstance(session._instances.idle[0], Direct)


def test_open_dims() -> None:
    loop = looping([ADD, node("Softmax", "w", "u", axis=-1)], [value("v", ("N", "K"))], "u")
    proto = model([loop], [value("x", ("N", "K")), N], [value("y", ("N", "K"))])
    cases = [{"x": numbers(*s), "n": np.array(t)}
             for s in ((2, 3), (1, 16), (0, 4), (40, 300)) for t in (0, 1, 3)]  # fmt: skip
    assert_like_peers(proto, cases)


ENDS: dict[str, tuple[str, list[Any]]] = {
    "count": ("n -", [N]), "condition": ("- c", [C]), "both": ("n c", [N, C]), "none": ("- -", []),
}  # fmt: skip


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("stacked", [False, True])
def test_what_ends_a_loop(ends: str, stacked: bool) -> None:
    names, inputs = ENDS[ends]
    nodes = [ADD, node("ReduceMax", "w", "top", keepdims=0), node("Less", "top end", "on2")]
    loop = looping(nodes, [value("v", (4,))], "w", going="on2", ends=names,
                   rows="w v top" if stacked else "", results="y a b t" if stacked else "y",
                   weights={"end": np.float32(3)})  # fmt: skip
    outputs = [value("y", (4,)), value("a", None), value("b", None), value("t", None)]
    proto = model([loop], [value("x", (4,)), *inputs], outputs[: 4 if stacked else 1])
    cases = [
        {"x": np.full(4, step, np.float32)}
        | ({"n": np.array(n)} if N in inputs else {})
        | ({"c": np.array(c)} if C in inputs else {})
        for step in (0.25, 10) for n in (0, 2, 1000) for c in (True, False)
    ]  # fmt: skip
    assert_like_peers(proto, cases)


@pytest.mark.parametrize(
    ("outs", "size"),
    [("b a", 4), ("b w", 4), ("a b", 4), ("w w", 4), ("a a", 4), ("w a", 4), ("one w", 4),
     ("b w", 64), ("w u", 64)],
)  # fmt: skip
def test_what_is_carried_may_be_anything(outs: str, size: int) -> None:
    """Other values of the last iteration, one twice, values from outside, constants."""
    nodes = [node("Sub", "a b", "w"), node("Mul", "a x", "u")]
    loop = looping(nodes, [value("a", (size,)), value("b", (size,))], outs, initial="x z",
                   results="p q", rows="a w", weights={"one": numbers(size)})  # fmt: skip
    loop.output.extend(["s", "t"])
    outputs = [value("p", (size,)), value("q", (size,)), value("s", None), value("t", None)]
    proto = model([loop], [value("x", (size,)), value("z", (size,)), N], outputs)
    cases = [{"x": numbers(size), "z": numbers(size, seed=1), "n": np.array(n)}
             for n in (0, 1, 2, 3, 4, 7)]  # fmt: skip
    assert_like_peers(proto, cases)


def test_three_values_in_turn() -> None:
    carried = [value(n, (4,)) for n in "abd"]
    nodes = [node("Add", "a x", "w")]
    loop = looping(nodes, carried, "b d w", initial="x x x", results="p q r")
    proto = model([loop], [value("x", (4,)), N], [value(n, (4,)) for n in "pqr"])
    assert_like_peers(proto, counts(numbers(4), 0, 1, 2, 3, 4, 5, 6, 7))


def test_the_number_and_the_condition_are_values() -> None:
    carried = [value("k", (), INT64), value("f", (), BOOL)]
    nodes = [node("Less", "i three", "on2")]
    loop = looping(nodes, carried, "i on2", initial="n t", going="on2", results="p q", rows="i go",
                   weights={"three": np.array(3)})  # fmt: skip
    loop.output.extend(["a", "b"])
    outputs = [value("p", (), INT64), value("q", (), BOOL), value("a", None, INT64),
               value("b", None, BOOL)]  # fmt: skip
    proto = model([loop], [N], outputs, {"t": np.array(True)})
    # onnxruntime gives the next iteration's number where the number itself is stacked.
    cases = [{"n": np.array(n)} for n in (0, 1, 3, 9)]
    assert_like_peers(proto, cases, others=[partial(run, proto)])


@pytest.mark.parametrize("width", [1, 4, 16, 48])
@pytest.mark.parametrize("known", [False, True])
def test_rows_are_stacked(width: int, known: bool) -> None:
    """In place where they are aligned, also where a row is carried or stacked twice."""
    nodes = [ADD, node("Neg", "w", "u"), node("Tanh", "v", "r")]
    loop = looping(nodes, [value("v", (2, width))], "w", rows="u w r u v", results="y a b d e f")
    outputs = [value("y", (2, width)), *(value(n, None) for n in "abdef")]
    x = numbers(2, width)
    if known:
        held = {"n": np.array(20)}
        proto = model([loop], [value("x", (2, width))], outputs, held)
        assert_like_peers(proto, [{"x": x}])
    else:
        proto = model([loop], [value("x", (2, width)), N], outputs)
        assert_like_peers(proto, counts(x, 1, 2, 0, 20))


@pytest.mark.parametrize("width", [3, 16])
def test_outputs_grow(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_calls, "MOST_ROOM", 128)
    nodes = [ADD, node("Neg", "w", "u"), node("Neg", "i", "k")]
    loop = looping(nodes, [value("v", (width,))], "w", rows="u k", results="y a b")
    outputs = [value("y", (width,)), value("a", None), value("b", None, INT64)]
    proto = model([loop], [value("x", (width,)), N], outputs)
    trips = (1, 0, 2, 3, 4, 5, 16, 17, 100)
    assert_like_peers(proto, counts(numbers(width), *trips))


def test_outputs_of_open_dims_grow() -> None:
    loop = looping([ADD, node("Neg", "w", "u")], [value("v", ("N",))], "w", rows="u", results="y a")
    outputs = [value("y", ("N",)), value("a", None)]
    proto = model([loop], [value("x", ("N",)), N], outputs)
    cases = [{"x": numbers(s), "n": np.array(n)} for s in (3, 16, 0) for n in (1, 64, 65, 200)]
    assert_like_peers(proto, cases)


def scanning(shape: Sequence[int | str], axes: Sequence[int], backwards: Sequence[int]) -> Any:
    """A Scan of one state, an input along an axis, and an output along another."""
    part = [d for i, d in enumerate(shape) if i != axes[0] % len(shape)]
    body = graph([node("Add", "h e", "w"), node("Mul", "w e", "u")],
                 [value("h", part), value("e", part)],
                 [value("w", part), value("u", part)])  # fmt: skip
    scan = node("Scan", "h0 x", "last all", body=body, num_scan_inputs=1,
                scan_input_axes=[axes[0]], scan_output_axes=[axes[1]],
                scan_input_directions=[backwards[0]],
                scan_output_directions=[backwards[1]])  # fmt: skip
    return model([scan], [value("h0", part), value("x", shape)],
                 [value("last", None), value("all", None)])  # fmt: skip


@pytest.mark.parametrize("axes", [(0, 0), (1, 0), (0, 1), (2, -1), (-2, 2)])
@pytest.mark.parametrize("backwards", [(0, 0), (1, 0), (0, 1)])
@pytest.mark.parametrize("opened", [False, True])
def test_scans(axes: tuple[int, int], backwards: tuple[int, int], opened: bool) -> None:
    shape = (3, 4, 16)
    proto = scanning("TBK" if opened else shape, axes, backwards)
    sizes = [shape, (1, 1, 1), (5, 2, 32)] if opened else [shape]
    cases = []
    for size in sizes:
        part = [d for i, d in enumerate(size) if i != axes[0] % 3]
        cases.append({"x": numbers(*size), "h0": numbers(*part, seed=1)})
    assert_like_peers(proto, cases)


@pytest.mark.parametrize("size", [(2, 0, 3), (1, 2, 0), (0, 2, 3)])
def test_scans_of_nothing(size: tuple[int, ...]) -> None:
    """onnxruntime divides by zero there."""
    proto = scanning("TBK", (0, 1), (0, 0))
    feeds = {"x": numbers(*size), "h0": numbers(*size[1:], seed=1)}
    assert_like_peers(proto, [feeds], others=[partial(run, proto)])


@pytest.mark.parametrize("kind", ["FLOAT16", "DOUBLE", "INT8", "INT64", "BOOL"])
def test_element_types(kind: str) -> None:
    number = onnx.TensorProto.DataType.Value(kind)
    step = node("Xor" if kind == "BOOL" else "Add", "v x", "w")
    loop = looping([step], [value("v", (5,), number)], "w", rows="w v", results="y a b")
    proto = model([loop], [value("x", (5,), number), N], [value(n, None, number) for n in "yab"])
    x = np.arange(5).astype(onnx.helper.tensor_dtype_to_np_dtype(number))
    # onnxruntime has no Add of int8.
    assert_like_peers(proto, counts(x, 3, 0, 1), others=[partial(run, proto)])


def test_a_branch_in_a_body() -> None:
    then = graph([node("Softmax", "v", "t")], [], ["t"])
    other = graph([node("CumSum", "v zero", "e")], [], ["e"], {"zero": np.array(0)})
    nodes = [node("Mod", "i two", "m"), node("Cast", "m", "odd", to=BOOL),
             node("If", "odd", "w", then_branch=then, else_branch=other)]  # fmt: skip
    loop = looping(nodes, [value("v", (4,))], "w", rows="w", results="y a",
                   weights={"two": np.array(2)})  # fmt: skip
    proto = model([loop], [value("x", (4,)), N], [value("y", (4,)), value("a", None)])
    assert_like_peers(proto, counts(numbers(4), 1, 0, 2, 5))


def test_a_branch_in_a_body_of_open_dims() -> None:
    """The machine allocates for the branch that is taken."""
    zero = {"zero": np.array(0)}
    then = graph([node("CumSum", "v zero", "p"), node("CumSum", "p zero", "t")], [], ["t"], zero)
    other = graph([node("Softmax", "v", "e")], [], ["e"])
    nodes = [node("Mod", "i two", "m"), node("Cast", "m", "odd", to=BOOL),
             node("If", "odd", "w", then_branch=then, else_branch=other)]  # fmt: skip
    loop = looping(nodes, [value("v", ("K",))], "w", weights={"two": np.array(2)})
    proto = model([loop], [value("x", ("K",)), N], [value("y", ("K",))])
    assert_like_peers(proto, counts(numbers(4), 1, 0, 2, 5), loops=0)


def test_a_loop_in_a_loop() -> None:
    inner = looping([node("Add", "u v", "w")], [value("u", (4,))], "w", initial="v", results="r",
                    ends="i -", mark="_in")  # fmt: skip
    loop = looping([inner, node("Tanh", "r", "s")], [value("v", (4,))], "s", rows="r",
                   results="y b")  # fmt: skip
    proto = model([loop], [value("x", (4,)), N], [value("y", (4,)), value("b", None)])
    assert_like_peers(proto, counts(numbers(4), 1, 2, 5), loops=2)


def test_a_loop_that_stacks_in_a_loop() -> None:
    """Of the inner one the number of rows is the outer's turn, which only the machine knows."""
    inner = looping([node("Add", "u v", "w")], [value("u", (4,))], "w", initial="v", rows="w",
                    results="r a", ends="i -", mark="_in")  # fmt: skip
    nodes = [inner, node("ReduceSum", "a axes", "s", keepdims=0), node("Tanh", "s", "t")]
    loop = looping(nodes, [value("v", (4,))], "t", weights={"axes": np.array([0])})
    proto = model([loop], [value("x", (4,)), N], [value("y", (4,))])
    assert_like_peers(proto, counts(numbers(4), 1, 0, 2, 5))


def test_a_loop_in_a_branch() -> None:
    then = graph([looping([ADD], [value("v", (4,))], "w", results="t")], [], ["t"])
    other = graph([node("Neg", "x", "e")], [], ["e"])
    proto = model([node("If", "c", "y", then_branch=then, else_branch=other)],
                  [value("x", (4,)), N, C], [value("y", (4,))])  # fmt: skip
    cases = [{**f, "c": np.array(c)} for f in counts(numbers(4), 0, 3) for c in (True, False)]
    session = assert_like_peers(proto, cases)
    assert isinstance(session._instances.idle[0], Direct)


def test_values_from_outside_stay() -> None:
    """What a loop begins with and captures is read behind it, and between two loops."""
    loops = [looping([node("Mul", "v e", "w")], [value("v", (4,))], "w", initial="e", results=r)
             for r in ("p", "q")]  # fmt: skip
    nodes = [node("Exp", "x", "e"), *loops, node("Sub", "p e", "y"), node("Add", "q e", "z")]
    proto = model(nodes, [value("x", (4,)), N], [value("y", (4,)), value("z", (4,))])
    assert_like_peers(proto, counts(numbers(4), 0, 1, 2), loops=2)


def test_shapes_that_change_need_the_machine() -> None:
    loop = looping([node("Concat", "v x", "w", axis=0)], [value("v", ("K",))], "w")
    proto = model([loop], [value("x", ("K",)), N], [value("y", None)])
    assert_like_peers(proto, counts(numbers(3), 0, 1, 4), loops=0)


def test_the_number_of_an_iteration_that_the_machine_runs() -> None:
    """The next overwrites it, unless something keeps it: a result, a view, a branch."""
    then = graph([node("Identity", "i", "t")], [], ["t"])
    other = graph([node("Neg", "i", "e")], [], ["e"])
    nodes = [node("Concat", "v x", "w", axis=0), node("Identity", "i", "k"),
             node("Reshape", "i one", "r"), node("If", "go", "b", then_branch=then,
                                                 else_branch=other)]  # fmt: skip
    carried = [value("v", ("K",)), value("a", (), INT64), value("c", (1,), INT64),
               value("d", (), INT64)]  # fmt: skip
    loop = looping(nodes, carried, "w k r b", initial="x zero zeros zero", results="y p q s t u",
                   rows="k r", weights={"one": np.array([1])})  # fmt: skip
    outputs = [value("y", None), *(value(n, None, INT64) for n in "pqstu")]
    held = {"zero": np.array(7), "zeros": np.array([7])}
    proto = model([loop], [value("x", ("K",)), N], outputs, held)
    assert_like_peers(proto, counts(numbers(3), 1, 2, 4), loops=0, others=[partial(run, proto)])


def test_large_kernels_on_threads() -> None:
    loop = looping([node("MatMul", "v x", "m"), node("Tanh", "m", "w")],
                   [value("v", (300, 300))], "w")  # fmt: skip
    proto = model([loop], [value("x", (300, 300)), N], [value("y", (300, 300))])
    feeds = {"x": numbers(300, 300) / 20, "n": np.array(5)}
    session = graphkiln.compile(proto, jobs=1).session(threads=2)
    (wanted,) = peer(proto)(feeds)
    for _ in range(3):
        np.testing.assert_allclose(session.run(None, feeds)[0], wanted, rtol=1e-3, atol=1e-4)


def test_checks_of_a_body_are_told() -> None:
    """They end the run where the body runs, with the message of the machine."""
    nodes = [node("Squeeze", "e axes", "s"), node("Add", "v s", "w")]
    loop = looping(nodes, [value("v", ("K",))], "w", weights={"axes": np.array([1])})
    inputs = [value("x", ("K",)), value("e", ("K", "L")), N]
    proto = model([loop], inputs, [value("y", ("K",))])
    session = graphkiln.compile(proto, jobs=1).session(threads=1)
    assert functions(proto) == 1
    x = numbers(3)
    for _ in range(2):
        fits = {"x": x, "e": numbers(3, 1), "n": np.array(2)}
        np.testing.assert_allclose(session.run(None, fits)[0], x + 2 * fits["e"][:, 0], rtol=1e-5)
        with pytest.raises(InputError, match=r"'Squeeze_s' .* needs axis 1 of 1 element: L is 2"):
            session.run(None, {**fits, "e": numbers(3, 2)})
        # A body that does not run checks nothing.
        unused = {**fits, "e": numbers(3, 2), "n": np.array(0)}
        np.testing.assert_array_equal(session.run(None, unused)[0], x)


@pytest.mark.parametrize("stacked", [False, True])
def test_a_kernel_that_fails_is_told(stacked: bool) -> None:
    nodes = [node("Gather", "x i", "e"), node("Add", "v e", "w")]
    loop = looping(nodes, [value("v", ())], "w", initial="zero", rows="e" if stacked else "",
                   results="y a" if stacked else "y")  # fmt: skip
    outputs = [value("y", ()), value("a", None)][: 1 + stacked]
    proto = model([loop], [value("x", ("K",)), N], outputs, {"zero": np.float32(0)})
    session = graphkiln.compile(proto, "cpu:,check=bounds", jobs=1).session(threads=1)
    x = numbers(3)
    for _ in range(2):
        (y, *_) = session.run(None, {"x": x, "n": np.array(3)})
        np.testing.assert_allclose(y, x.sum(), rtol=1e-5)
        # Memory of an earlier run is not taken for what the function says of this one.
        with pytest.raises(InputError, match="'Gather_e' .* needs indices within an axis of K"):
            session.run(None, {"x": x, "n": np.array(5)})


def test_the_profiler_times_the_kernels() -> None:
    loop = looping([ADD, node("Softmax", "w", "u")], [value("v", (4,))], "u")
    proto = model([loop], [value("x", (4,)), N], [value("y", (4,))])
    session = graphkiln.compile(proto, jobs=1).session(threads=1)
    profiler = session.profiler({"x": numbers(4), "n": np.array(3)})
    profiler.run()
    assert sum(call.name.startswith("add_softmax") for call in profiler.calls) == 3
