"""Models with If as native code: the same results whichever block runs, and no memory mixed up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import onnx
import pytest
from frontend.build import BOOL, graph, model, node, value
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

import graphkiln
from graphkiln.codegen.frame_code import MOST_BYTES
from graphkiln.contract import SCRATCH_BYTES
from graphkiln.runtime import ExecutionError, InputError, Session
from graphkiln.runtime.direct import Direct

Array = np.ndarray
Feeds = dict[str, Array]


@pytest.fixture(scope="module", autouse=True)
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHKILN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def start(proto: onnx.ModelProto, *, native: bool = True) -> Session:
    """A session, of which it is known whether native code runs in it."""
    session = graphkiln.compile(proto, jobs=1).session(threads=1)
    assert isinstance(session._instances.idle[0], Direct) == native
    return session


def assert_like_reference(
    proto: onnx.ModelProto, cases: Sequence[Feeds], *, native: bool = True
) -> None:
    """Cases give what the reference gives, in turns in one session."""
    session, reference = start(proto, native=native), ReferenceEvaluator(proto)
    for feeds in [*cases, *reversed(cases)]:
        for got, want in zip(session.run(None, feeds), reference.run(None, feeds), strict=True):
            assert got.shape == want.shape and got.dtype == want.dtype
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def choose(cond: str, outs: str, then: Any, orelse: Any) -> onnx.NodeProto:
    return node("If", cond, outs, then_branch=then, else_branch=orelse)


def block(nodes: Sequence[onnx.NodeProto], outs: str, weights: Any = None) -> onnx.GraphProto:
    return graph(nodes, [], outs.split(), weights)


def flags(*names: str) -> Iterator[Feeds]:
    """All values of scalar bool inputs."""
    for bits in product((False, True), repeat=len(names)):
        yield {name: np.array(bit) for name, bit in zip(names, bits, strict=True)}


def rows(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)


X, C, D = value("x", ("N", 8)), value("c", (), BOOL), value("d", (), BOOL)
SOFT = block([node("Softmax", "x", "then_y", axis=1)], "then_y")
SORT = block([node("CumSum", "x one", "else_y")], "else_y", {"one": np.array(1)})


def test_each_block_with_dims_of_the_run() -> None:
    proto = model([choose("c", "y", SOFT, SORT)], [X, C], [value("y", ("N", 8))])
    # Small arrays go through buffers, large ones lie where the caller has them.
    cases = [{"x": rows(n), **f} for n in (1, 5, 4000, 0) for f in flags("c")]
    assert_like_reference(proto, cases)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_condition_may_come_from_outside(shape: tuple[int, ...]) -> None:
    inputs = [X, value("c", shape, BOOL)]
    session = start(model([choose("c", "y", SOFT, SORT)], inputs, [value("y", ("N", 8))]))
    x = rows(3)
    for held in (True, False, True):
        (y,) = session.run(None, {"x": x, "c": np.full(shape, held)})
        wanted = np.exp(x) / np.exp(x).sum(1, keepdims=True) if held else np.cumsum(x, 1)
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)


def test_a_condition_may_be_computed_and_be_a_result_too() -> None:
    nodes = [
        node("ReduceSum", "x", "s", keepdims=0), node("Greater", "s zero", "c"),
        choose("c", "y", SOFT, SORT),
    ]  # fmt: skip
    outputs = [value("y", ("N", 8)), value("c", (), BOOL)]
    proto = model(nodes, [X], outputs, {"zero": np.float32(0)})
    x = np.abs(rows(3))
    assert_like_reference(proto, [{"x": x}, {"x": -x}])


def test_a_condition_lasts_until_its_last_test() -> None:
    nodes = [
        node("ReduceSum", "x", "s", keepdims=0), node("Greater", "s zero", "c"),
        choose("c", "mid", SOFT, SORT), node("MatMul", "mid m", "p"),
        choose("c", "y", block([node("CumSum", "p one", "t")], "t", {"one": np.array(1)}),
               block([node("Softmax", "p", "e")], "e")),
    ]  # fmt: skip
    weights = {"zero": np.float32(0), "m": rows(8)}
    proto = model(nodes, [X], [value("y", ("N", 8))], weights)
    x = np.abs(rows(3))
    assert_like_reference(proto, [{"x": x}, {"x": -x}])


def test_a_block_that_overwrites_its_condition_does_not_run_the_other() -> None:
    """What a then-block computes may lie where the condition was."""
    nodes = [
        node("ReduceSum", "x", "s", keepdims=0), node("Greater", "s zero", "c"),
        choose(
            "c", "y",
            block([node("ReduceMax", "x", "m", keepdims=0), node("Sub", "m m", "o"),
                   node("Softmax", "x", "q"), node("Add", "q o", "t")], "t"),
            block([node("ReduceMin", "x", "n", keepdims=0), node("CumSum", "x one", "k"),
                   node("Add", "k n", "e")], "e", {"one": np.array(1)}),
        ),
    ]  # fmt: skip
    proto = model(nodes, [X], [value("y", ("N", 8))], {"zero": np.float32(0)})
    x = np.abs(rows(3))
    assert_like_reference(proto, [{"x": x}, {"x": -x}])


def test_nested_branches() -> None:
    inner = choose("d", "in", block([node("Softmax", "x", "i1")], "i1"),
                   block([node("CumSum", "x one", "i2")], "i2", {"one": np.array(1)}))  # fmt: skip
    again = choose("d", "im", block([node("MatMul", "x m", "j1")], "j1"),
                   block([node("LpNormalization", "x", "j2", axis=1)], "j2"))  # fmt: skip
    nodes = [
        node("MatMul", "x m", "before"),
        choose("c", "mid", block([inner, node("Add", "in before", "t")], "t"),
               block([again], "im")),
        node("Softmax", "mid", "soft"), node("Sub", "soft before", "y"),
    ]  # fmt: skip
    outputs = [value("y", ("N", 8)), value("mid", ("N", 8))]
    proto = model(nodes, [X, C, D], outputs, {"m": rows(8)})
    assert_like_reference(proto, [{"x": rows(3), **f} for f in flags("c", "d")])


def two_results(then: str, orelse: str) -> onnx.ModelProto:
    """Blocks that give two of their values a, b and e, f; both results are read afterwards."""
    nodes = [
        choose(
            "c", "p q",
            block([node("Softmax", "x", "a"), node("CumSum", "x one", "b")], then,
                  {"one": np.array(1)}),
            block([node("MatMul", "x m", "e"), node("LpNormalization", "x", "f", axis=1)], orelse),
        ),
        node("MatMul", "p m", "u"), node("MatMul", "q w", "v"), node("Sub", "u v", "y"),
    ]  # fmt: skip
    weights = {"m": rows(8), "w": rows(8, seed=1)}
    return model(nodes, [X, C], [value("y", ("N", 8))], weights)


@pytest.mark.parametrize(
    ("then", "orelse", "native"),
    [("a b", "e f", True), ("a b", "f e", True), ("a a", "e e", True),
     ("a a", "e f", False), ("a b", "e e", False)],
)  # fmt: skip
def test_results_share_memory_in_both_blocks_or_in_none(
    then: str, orelse: str, native: bool
) -> None:
    cases = [{"x": rows(3), **f} for f in flags("c")]
    assert_like_reference(two_results(then, orelse), cases, native=native)


def test_results_as_outputs_and_in_kernels_that_follow() -> None:
    proto = two_results("a b", "e f")
    proto.graph.output.extend([value("p", ("N", 8)), value("q", ("N", 8))])
    assert_like_reference(proto, [{"x": rows(n), **f} for n in (3, 3000) for f in flags("c")])


def test_results_of_other_shapes_in_one_block() -> None:
    """Pieces of different sizes, and a view of one."""
    nodes = [
        choose(
            "c", "p q",
            block([node("Softmax", "x", "a"), node("ReduceMax", "x", "b", axes=[1], keepdims=0)],
                  "a b"),
            block([node("CumSum", "x one", "e"), node("ReduceMin", "x", "f", axes=[1]),
                   node("Squeeze", "f axes", "g")], "e g",
                  {"one": np.array(1), "axes": np.array([1])}),
        )
    ]  # fmt: skip
    proto = model(nodes, [X, C], [value("p", ("N", 8)), value("q", ("N",))])
    assert_like_reference(proto, [{"x": rows(3), **f} for f in flags("c")])


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("given", ["x", "before", "held"])
def test_what_has_a_place_already_needs_the_machine(given: str, swapped: bool) -> None:
    """An input, a value from outside and a constant cannot be where the other block computes."""
    blocks = [block([node("Identity", given, "t")], "t"), SORT]
    nodes = [
        node("Softmax", "x", "before"),
        choose("c", "mid", *(reversed(blocks) if swapped else blocks)),
        node("MatMul", "mid m", "u"), node("Add", "u before", "y"),
    ]  # fmt: skip
    weights = {"m": rows(8), "held": rows(3, seed=2)}
    inputs = [value("x", (3, 8)), C]
    proto = model(nodes, inputs, [value("y", (3, 8))], weights)
    assert_like_reference(proto, [{"x": rows(3), **f} for f in flags("c")], native=False)


@pytest.mark.parametrize("grows", [False, True])
def test_loops_whose_shapes_change_need_the_machine(grows: bool) -> None:
    step = node("Concat", "v x", "w", axis=0) if grows else node("Softmax", "v", "w", axis=1)
    body = graph([node("Identity", "k", "k2"), step],
                 [value("i", (), onnx.TensorProto.INT64), value("k", (), BOOL),
                  value("v", ("K", 8))],
                 [value("k2", (), BOOL), value("w", ("L", 8))])  # fmt: skip
    nodes = [node("Loop", "turns more x", "y", body=body)]
    inputs = [X, value("turns", (), onnx.TensorProto.INT64)]
    proto = model(nodes, inputs, [value("y", ("M", 8))], {"more": np.array(True)})
    cases = [{"x": rows(3), "turns": np.array(n)} for n in (0, 2)]
    assert_like_reference(proto, cases, native=not grows)


def test_a_check_that_fails_is_told_by_the_machine() -> None:
    squeezed = block([node("Squeeze", "e axes", "t")], "t", {"axes": np.array([1])})
    nodes = [
        node("Softmax", "x", "e"),
        choose("c", "s", squeezed, block([node("Identity", "e", "u")], "u")),
        node("Gemm", "s m", "y"),
    ]  # fmt: skip
    inputs = [value("x", ("N", 1, 8)), C]
    session = start(model(nodes, inputs, [value("y", ("N", 8))], {"m": rows(8)}))
    feeds = {"x": rows(3)[:, None], "c": np.array(True)}
    (wanted,) = session.run(None, feeds)
    for _ in range(2):
        with pytest.raises(InputError, match="'c' that is true, which does not hold"):
            session.run(None, {**feeds, "c": np.array(False)})
        np.testing.assert_array_equal(session.run(None, feeds)[0], wanted)


def test_blocks_for_other_sizes_cost_nothing() -> None:
    """The outer products of a block that is not taken would fill more memory than there is."""
    big = [node("Mul", "a b", "ab"), node("MatMul", "ab ab", "p"), node("CumSum", "p one", "q"),
           node("Reshape", "q flat", "row"), node("Mul", "row col", "huge"),
           node("CumSum", "huge one", "sums"),
           node("ReduceMax", "sums", "t", keepdims=0)]  # fmt: skip
    nodes = [
        node("Reshape", "x up", "a"), node("Reshape", "x across", "b"),
        choose("c", "y", block(big, "t"), block([node("ReduceMin", "x", "e", keepdims=0)], "e")),
    ]  # fmt: skip
    weights = {"up": np.array([-1, 1]), "across": np.array([1, -1]), "one": np.array(1),
               "flat": np.array([1, -1]), "col": np.ones((1 << 20, 1), np.float32)}  # fmt: skip
    session = start(model(nodes, [value("x", ("N",)), C], [value("y", ())], weights))
    longest = 1 << 20
    assert longest**2 * 4 << 20 > MOST_BYTES
    for count in (3, 1 << 16, longest, 3):
        x = np.linspace(-1, 1, count, dtype=np.float32)
        (y,) = session.run(None, {"x": x, "c": np.array(False)})
        assert y == -1
        # Sizes that are too large must not add up to something small.
        (direct,) = session._instances.idle
        assert isinstance(direct, Direct)
        assert count < longest or direct._frame[SCRATCH_BYTES] >= MOST_BYTES
    x = np.array([1, 2], np.float32)
    (y,) = session.run(None, {"x": x, "c": np.array(True)})
    assert y > 10


CUBE = [
    node("Reshape", "x s1", "a"), node("Reshape", "x s2", "b"), node("Mul", "a b", "ab"),
    node("Reshape", "x s3", "abc"), node("Mul", "ab abc", "cube"), node("CumSum", "cube one", "q"),
    node("ReduceMax", "q", "t", keepdims=0),
]  # fmt: skip
CUBE_WEIGHTS = {
    "s1": np.array([-1, 1, 1]), "s2": np.array([1, -1, 1]), "s3": np.array([1, 1, -1]),
    "one": np.array(1),
}  # fmt: skip


@pytest.mark.parametrize("branch", [False, True])
def test_sizes_that_wrap_around_are_errors(branch: bool) -> None:
    """2^21 cubed floats are 2^65 bytes, in 64 bits none at all."""
    nodes, inputs = CUBE, [value("x", ("N",))]
    if branch:
        smallest = block([node("ReduceMin", "x", "e", keepdims=0)], "e")
        nodes = [choose("c", "t", block(CUBE, "t"), smallest)]
        inputs = [*inputs, C]
    session = start(model(nodes, inputs, [value("t", ())], CUBE_WEIGHTS))
    taken = {"c": np.array(True)} if branch else {}
    small, large = (np.ones(n, np.float32) for n in (3, 1 << 21))
    for _ in range(2):
        with pytest.raises(ExecutionError, match="more memory than there is"):
            session.run(None, {"x": large, **taken})
        assert session.run(None, {"x": small, **taken})[0] == 3
        assert len(session._machines.idle) == 1


def test_a_block_may_divide_by_a_dim_that_is_empty() -> None:
    """The sizes of a block that is not taken are computed, too."""
    nodes = [
        node("Shape", "k", "m"), node("Concat", "rest m", "shape", axis=0),
        choose(
            "c", "y",
            block([node("Reshape", "x shape", "r"), node("CumSum", "r one", "s"),
                   node("ReduceSum", "s", "t", keepdims=0)], "t"),
            block([node("ReduceMin", "x", "e", keepdims=0)], "e"),
        ),
    ]  # fmt: skip
    inputs = [value("x", ("N",)), value("k", ("M",)), C]
    weights = {"rest": np.array([-1]), "one": np.array(1)}
    session = start(model(nodes, inputs, [value("y", ())], weights))
    x = np.arange(6, dtype=np.float32)
    for columns, taken, wanted in ((3, True, 26), (0, False, 0), (2, True, 21)):
        feeds = {"x": x, "k": np.zeros(columns, np.float32), "c": np.array(taken)}
        assert session.run(None, feeds)[0] == wanted


def test_the_profiler_times_the_block_that_runs() -> None:
    session = start(model([choose("c", "y", SOFT, SORT)], [X, C], [value("y", ("N", 8))]))
    for held, op in ((True, "softmax"), (False, "cumsum")):
        profiler = session.profiler({"x": rows(3), "c": np.array(held)})
        profiler.run()
        (call,) = profiler.calls
        assert call.name.startswith(op)


class Scribe:
    """Writes random nodes over arrays of N by 8, each with names and weights of its own."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.weights: dict[str, Array] = {}
        self.count = 0

    def fresh(self, hint: str) -> str:
        self.count += 1
        return f"{hint}{self.count}"

    def pick(self, known: Sequence[str]) -> str:
        """A value, often one that is old."""
        return self.data.draw(st.sampled_from([*known, *known[:2]]))

    def compute(self, known: Sequence[str]) -> tuple[onnx.NodeProto, str]:
        weight, out = self.fresh("w"), self.fresh("v")
        self.weights[weight] = rows(8, seed=self.count) / 4
        return node("MatMul", f"{self.pick(known)} {weight}", out), out

    def branch(self, known: Sequence[str], depth: int) -> tuple[onnx.NodeProto, list[str]]:
        count = self.data.draw(st.integers(1, 2))
        blocks = [self.block(known, depth - 1, count) for _ in range(2)]
        outs = [self.fresh("r") for _ in range(count)]
        return choose(self.data.draw(st.sampled_from("cde")), " ".join(outs), *blocks), outs

    def block(self, known: Sequence[str], depth: int, results: int) -> onnx.GraphProto:
        nodes, known = self.nodes(known, depth)
        outs = []
        for _ in range(results):
            last, out = self.compute(known)
            nodes.append(last)
            outs.append(out)
        return block(nodes, " ".join(outs))

    def nodes(self, known: Sequence[str], depth: int) -> tuple[list[onnx.NodeProto], list[str]]:
        known, nodes = list(known), []
        for _ in range(self.data.draw(st.integers(1, 3))):
            if depth and self.data.draw(st.booleans()):
                new, outs = self.branch(known, depth)
            else:
                new, out = self.compute(known)
                outs = [out]
            nodes.append(new)
            known += outs
        return nodes, known


@settings(max_examples=40)
@given(st.data())
def test_no_value_is_overwritten_before_its_last_use(data: st.DataObject) -> None:
    scribe = Scribe(data)
    nodes, known = scribe.nodes(["x"], 0)
    for _ in range(2):
        chosen, outs = scribe.branch(known, 2)
        more, known = scribe.nodes([*known, *outs], 0)
        nodes += [chosen, *more]
    nodes.append(node("Concat", " ".join(known), "y", axis=1))
    inputs = [X, *(value(name, (), BOOL) for name in "cde")]
    outputs = [value("y", ("N", 8 * len(known))), value(outs[0], ("N", 8))]
    session = start(model(nodes, inputs, outputs, scribe.weights))
    machine = session._model.machine()[1]
    for case in flags("c", "d", "e"):
        feeds = {"x": rows(3), **case}
        for got, want in zip(session.run(None, feeds), machine.run(feeds, range(2)), strict=True):
            np.testing.assert_array_equal(got, want)
