"""Axis maps: each claim of every op's map against the reference evaluator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import hypothesis
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from support.axis_cases import CASES, Case, cases
from support.axis_checks import cuts, evaluate, problems

from graphkiln.ir import dims
from graphkiln.ir.axes.map import Axes, AxisMap, Combine, Factor, Kind, Piece
from graphkiln.ir.axes.query import axes_of, is_pointwise
from graphkiln.ir.bindings import bind_type
from graphkiln.ir.dims import Dim, sym
from graphkiln.ir.registry import InferenceError, spec, specs

_SHAPES = "reads shapes or numbers, no elements along axes"
_SIZES = "the size of its result depends on data"
_DRAWS = "draws numbers by position"
_LISTS = "takes or gives lists and optionals"
_BODIES = "holds bodies"
_TEXT = "a host function of whole strings"

OPAQUE = {
    **dict.fromkeys(
        ["BlackmanWindow", "ConstantOfShape", "EyeLike", "HammingWindow", "HannWindow",
         "MelWeightMatrix", "Range", "Shape", "Size", "com.microsoft.Range", "kiln.ShapeValue"],
        _SHAPES,
    ),
    **dict.fromkeys(
        ["NonZero", "Unique", "com.microsoft.Unique", "kiln.BoxRows", "kiln.KeptBoxes"],
        _SIZES,
    ),
    **dict.fromkeys(
        ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
         "RandomUniformLike"],
        _DRAWS,
    ),
    **dict.fromkeys(
        ["ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement",
         "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert",
         "SequenceLength", "SplitToSequence"],
        _LISTS,
    ),
    **dict.fromkeys(["If", "Loop", "Scan", "kiln.Region"], _BODIES),
    **dict.fromkeys(["StringNormalizer", "StringSplit", "TfIdfVectorizer"], _TEXT),
    "ImageDecoder": "takes a compressed file",
    "MaxUnpool": "its indices count through the whole tensor",
    "kiln.Assert": "has no result",
    "kiln.Observe": "the index of its counts is what the numbers are, not where they are",
    "kiln.Within": "numbers of several columns and their differences make one answer",
}  # fmt: skip
"""Ops without an axis map, and why."""

NO_REFERENCE = {"MaxRoiPool"}
"""Ops that onnx cannot evaluate; RoiAlign has the same rule."""

_SEARCH = settings(max_examples=300, phases=[hypothesis.Phase.generate])
"""Any example will do: none is made smaller."""

DESCRIBED = [s.key for s in specs() if s.axes is not None or "elementwise" in s.traits]


def map_of(case: Case) -> AxisMap | None:
    graph, node = case.build(case.inputs)
    return axes_of(graph, node)


def test_every_op_has_a_map_or_a_reason() -> None:
    built_in = [s.key for s in specs() if s.domain in ("", "ai.onnx.ml", "com.microsoft", "kiln")]
    assert {k for k in built_in if k not in DESCRIBED} == set(OPAQUE)
    assert set(CASES) >= {k for k in built_in if k in DESCRIBED} - NO_REFERENCE


@pytest.mark.parametrize("key", [k for k in DESCRIBED if k in CASES])
@settings(max_examples=15)
@given(data=st.data())
def test_maps_hold(key: str, data: st.DataObject) -> None:
    case = data.draw(cases(key))
    axes = map_of(case)
    if axes is not None:
        random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        assert problems(axes, case, random) == [], axes


@pytest.mark.parametrize("key", [k for k in DESCRIBED if k in CASES])
@settings(max_examples=8)
@given(data=st.data())
def test_maps_of_open_dims_hold(key: str, data: st.DataObject) -> None:
    """What a map says of symbols holds for the sizes that they stand for."""
    case = data.draw(cases(key))
    open_sizes = data.draw(st.sets(st.integers(2, 6), min_size=1))
    try:
        graph, node = case.build(case.inputs, lambda d: sym(f"s{d}") if d in open_sizes else d)
    except InferenceError:  # it needs to know a size
        return
    axes = axes_of(graph, node)
    if axes is not None:
        bindings = {f"s{d}": d for d in open_sizes}
        for value, result in zip(node.values, evaluate(case, case.inputs), strict=True):
            bind_type(value.type, result, bindings)
        random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        assert problems(_closed(axes, bindings), case, random) == [], axes


def _closed(axes: AxisMap, bindings: dict[str, int]) -> AxisMap:
    """The map with numbers for symbols."""

    def number(d: Dim) -> int:
        return dims.evaluate(d, bindings)

    def piece(p: Piece) -> Piece:
        return Piece(p.factors, number(p.start), number(p.step), number(p.reach))

    def closed(found: Axes | None) -> Axes | None:
        return None if found is None else tuple(tuple(map(piece, axis)) for axis in found)

    return replace(
        axes,
        factors=tuple(replace(f, size=number(f.size)) for f in axes.factors),
        operands=tuple(map(closed, axes.operands)),
        results=tuple(map(closed, axes.results)),
    )


@pytest.mark.parametrize("key", sorted(CASES))
def test_maps_say_something(key: str) -> None:
    def says(case: Case) -> bool:
        axes = map_of(case)
        kinds = {f.kind for f in axes.factors if f.size != 1} if axes is not None else set()
        return not kinds <= {Kind.OPAQUE}

    hypothesis.find(cases(key), says, settings=_SEARCH)


@pytest.mark.parametrize("key", [k for k in DESCRIBED if k in CASES])
@settings(max_examples=8)
@given(data=st.data())
def test_nodes_run_in_parts(key: str, data: st.DataObject) -> None:
    case = data.draw(cases(key))
    axes = map_of(case)
    if axes is not None and case.resizable and case.shape_at is None:
        assert cuts(axes, case) == [], axes


# ---- wrong maps ----------------------------------------------------------------------------------


def _operand(axes: AxisMap, i: int, change: Callable[[Axes], Axes]) -> AxisMap:
    found = axes.operands[i]
    assert found is not None
    return replace(axes, operands=(*axes.operands[:i], change(found), *axes.operands[i + 1 :]))


def _kinds(axes: AxisMap, old: Kind, new: Kind) -> AxisMap:
    changed = (replace(f, kind=new) if f.kind is old else f for f in axes.factors)
    return replace(axes, factors=tuple(changed))


def _pieces(axes: AxisMap, change: Callable[[Piece], Piece]) -> AxisMap:
    """Every piece of the operands changed."""

    def each(found: Axes | None) -> Axes | None:
        return None if found is None else tuple(tuple(map(change, axis)) for axis in found)

    return replace(axes, operands=tuple(map(each, axes.operands)))


def _turned(piece: Piece) -> Piece:
    return replace(piece, factors=piece.factors[::-1])


def _late(piece: Piece) -> Piece:
    return replace(piece, start=piece.start + 1) if piece.start != 0 else piece


def _narrow(piece: Piece) -> Piece:
    return replace(piece, reach=piece.reach - 1) if piece.reach != 1 else piece


def _combine(axes: AxisMap, combine: Combine) -> AxisMap:
    changed = (replace(f, combine=combine) if f.kind is Kind.REDUCED else f for f in axes.factors)
    return replace(axes, factors=tuple(changed))


def _alone(axes: AxisMap, i: int) -> AxisMap:
    """Operand ``i`` shares no factor with any other tensor."""
    first, found = len(axes.factors), axes.operands[i]
    assert found is not None
    twins = tuple(Factor(axes.factors[f].size) for axis in found for p in axis for f in p.factors)
    numbers = iter(range(first, first + len(twins)))
    own = tuple(
        tuple(replace(p, factors=tuple(next(numbers) for _ in p.factors)) for p in axis)
        for axis in found
    )
    return replace(_operand(axes, i, lambda _: own), factors=(*axes.factors, *twins))


WRONG: list[tuple[str, str, Callable[[AxisMap], AxisMap]]] = [
    ("Conv", "weights by channel, not by filter",
     lambda m: _operand(m, 1, lambda a: (a[1], a[0], *a[2:]))),
    ("Conv", "groups inside of channels", lambda m: _pieces(m, _turned)),
    ("Conv", "a bias for each position", lambda m: replace(m, addends=frozenset())),
    ("Conv", "windows that are too short", lambda m: _pieces(m, _narrow)),
    ("ConvTranspose", "windows that start late",
     lambda m: replace(m, results=tuple(
         None if r is None else tuple(tuple(map(_late, axis)) for axis in r) for r in m.results))),
    ("MatMul", "columns that sum up", lambda m: _kinds(m, Kind.REDUCED, Kind.MAPPED)),
    ("MatMul", "a right operand of its own", lambda m: _alone(m, 1)),
    ("Gemm", "the bias added twice", lambda m: replace(m, addends=frozenset())),
    ("QLinearMatMul", "rounded parts that add up", lambda m: _combine(m, Combine.SUM)),
    ("Softmax", "elements apart", lambda m: _kinds(m, Kind.NORMALIZED, Kind.MAPPED)),
    ("LayerNormalization", "a scale of its own", lambda m: _alone(m, 1)),
    ("GroupNormalization", "groups inside of channels", lambda m: _pieces(m, _turned)),
    ("GroupNormalization", "groups that are not counted", lambda m: replace(m, counts=())),
    ("CumSum", "an order that does not count", lambda m: _kinds(m, Kind.OPAQUE, Kind.MAPPED)),
    ("ReduceMax", "parts that add up", lambda m: _combine(m, Combine.SUM)),
    ("ReduceL2", "parts that add up", lambda m: _combine(m, Combine.SUM)),
    ("Split", "pieces one later", lambda m: _pieces(m, _late)),
    ("kiln.Slice", "elements one later", lambda m: _pieces(m, _late)),
    ("kiln.Reshape", "factors from the inside", lambda m: _pieces(m, _turned)),
    ("LSTM", "gates inside of hidden elements", lambda m: _pieces(m, _turned)),
    ("GRU", "hidden elements apart", lambda m: _kinds(m, Kind.NORMALIZED, Kind.MAPPED)),
    ("Attention", "heads inside of groups", lambda m: _operand(m, 0, lambda a: tuple(
        tuple(map(_turned, axis)) for axis in a))),
    ("QuantizeLinear", "a scale of its own", lambda m: _alone(m, 1)),
    ("Add", "an operand of its own", lambda m: _alone(m, 1)),
    ("Gather", "indices that are all the same", lambda m: _alone(m, 1)),
    ("DepthToSpace", "blocks inside of channels", lambda m: _pieces(m, _turned)),
]  # fmt: skip


@pytest.mark.parametrize("key, what, wrong", WRONG, ids=[f"{k}: {what}" for k, what, _ in WRONG])
def test_wrong_maps_are_caught(key: str, what: str, wrong: Callable[[AxisMap], AxisMap]) -> None:
    def caught(drawn: tuple[Case, int]) -> bool:
        case, seed = drawn
        axes = map_of(case)
        if axes is None or wrong(axes) == axes:
            return False
        return bool(problems(wrong(axes), case, np.random.default_rng(seed)))

    try:
        drawn = st.tuples(cases(key), st.integers(0, 2**32 - 1))
        hypothesis.find(drawn, caught, settings=_SEARCH)
    except NoSuchExample:
        pytest.fail(f"no case of {key} contradicts {what}")


# ---- pointwise -----------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.data())
def test_elementwise_ops_are_pointwise(data: st.DataObject) -> None:
    key = data.draw(st.sampled_from([k for k in DESCRIBED if "elementwise" in spec(k).traits]))
    case = data.draw(cases(key))
    axes = map_of(case)
    assert axes is not None and (is_pointwise(axes) or key == "CastLike")


@pytest.mark.parametrize("key", ["Softmax", "MatMul", "Gather", "Concat", "LRN", "CumSum"])
def test_others_are_not(key: str) -> None:
    def is_not(case: Case) -> bool:
        axes = map_of(case)
        return axes is not None and not is_pointwise(axes)

    hypothesis.find(cases(key), is_not, settings=_SEARCH)
