"""What an axis map claims of a node, checked by the reference evaluator.

Each check returns what it found wrong, as text; an empty list is a map that holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from support.axis_cases import Case

from graphkiln.ir.axes.map import Axes, Axis, AxisMap, Combine, Factor, Kind
from graphkiln.ir.axes.query import AxisOf, Cut, cut_along, piece_grid, positions
from graphkiln.ir.graph import GraphError
from graphkiln.ir.interpreter import run_node

Array = np.ndarray
Tensors = Sequence[Array | None]


def problems(axes: AxisMap, case: Case, random: np.random.Generator) -> list[str]:
    """Everything that a map says wrongly of a case, as far as the checks see it."""
    results = evaluate(case, case.inputs)
    found = list(shapes(axes, case, results))
    if found:
        return found
    for f, factor in enumerate(axes.factors):
        try:
            found += _problems_of(axes, case, results, f, random) if factor.size != 0 else []
        except GraphError as e:  # the node does not take what the map made of its operands
            found.append(f"factor {f}: {e}")
    return found


def _problems_of(
    axes: AxisMap, case: Case, results: Sequence[Array], f: int, random: np.random.Generator
) -> list[str]:
    factor, found = axes.factors[f], []
    if factor.kind is Kind.WINDOWED:
        found += window(axes, case, results, f, random)
    elif factor.kind is not Kind.OPAQUE:
        found += selection(axes, case, results, f, random)
    if factor.kind is Kind.MAPPED and case.resizable and not factor.fixed:
        found += dropping(axes, case, results, f, random)
    if factor.kind is Kind.REDUCED and factor.combine is not None and case.resizable:
        found += parts(axes, case, results, f)
    return found


def evaluate(case: Case, inputs: Tensors, attrs: dict[str, Any] | None = None) -> list[Array]:
    """The results of the case's node on other inputs."""
    other = case if attrs is None else replace(case, attrs=attrs)
    _, node = other.build(inputs)
    return [np.asarray(y) for y in run_node(node, list(inputs))]


# ---- shapes --------------------------------------------------------------------------------------


def shapes(axes: AxisMap, case: Case, results: Sequence[Array]) -> Iterator[str]:
    """Axes are as many as the tensors have, pieces lie within them, and counts are right."""
    for name, tensors, described in (
        ("operand", case.inputs, axes.operands),
        ("result", results, axes.results),
    ):
        if len(described) > len(tensors):
            yield f"{len(described)} {name}s described, {len(tensors)} there"
            return
        for i, (tensor, found) in enumerate(zip(tensors, described, strict=False)):
            if found is None or tensor is None:
                continue
            if len(found) != tensor.ndim:
                yield f"{name} {i} has {tensor.ndim} axes, not {len(found)}"
                continue
            for a, axis in enumerate(found):
                yield from _within(axes, axis, tensor.shape[a], f"{name} {i}, axis {a}")
    for attribute, factors in axes.counts:
        size = prod(int(axes.factors[f].size) for f in factors)  # type: ignore[arg-type]
        if case.attrs.get(attribute, 1) != size:
            yield f"{attribute} is {case.attrs.get(attribute)}, not {size}"


def _within(axes: AxisMap, axis: Axis, size: int, where: str) -> Iterator[str]:
    taken: list[int] = []
    for piece in axis:
        if all(axes.factors[f].kind is not Kind.WINDOWED for f in piece.factors):
            if piece.reach != 1:
                yield f"{where}: only windows reach"
            taken += piece_grid(axes, piece).reshape(-1).tolist()
    if len(set(taken)) != len(taken) or any(not 0 <= p < size for p in taken):
        yield f"{where}: positions {taken} of {size}"


# ---- picking indices -----------------------------------------------------------------------------


def selection(
    axes: AxisMap, case: Case, results: Sequence[Array], f: int, random: np.random.Generator
) -> list[str]:
    """Picking indices of all operands (permuting them, if not mapped) picks those of results."""
    factor = axes.factors[f]
    size = int(factor.size)  # type: ignore[call-overload]
    mapped = factor.kind is Kind.MAPPED
    order = random.integers(0, size, size) if mapped else random.permutation(size)
    if factor.kind is Kind.REDUCED and any(_has(axes, r, f) for r in axes.results):
        return [f"factor {f} is reduced, but a result has it"]
    moved = _each(axes.operands, case.inputs, lambda axis: _picked(axes, axis, f, order))
    wanted = _each(axes.results, results, lambda axis: _picked(axes, axis, f, order))
    return _compare(axes, f, "picking", evaluate(case, moved), wanted)


def _has(axes: AxisMap, described: Axes | None, f: int) -> bool:
    return any(f in piece.factors for axis in described or () for piece in axis)


def _each(
    described: Sequence[Axes | None], tensors: Tensors, pick: Callable[[Axis], Any]
) -> list[Array | None]:
    """Tensors with positions of each axis picked, None for all as they are."""
    out: list[Array | None] = []
    for i, tensor in enumerate(tensors):
        found = described[i] if i < len(described) else None
        for a, axis in enumerate(found or ()):
            picked = pick(axis)
            if tensor is not None and picked is not None:
                tensor = np.take(tensor, _in_full(picked, tensor.shape[a]), axis=a)
        out.append(tensor)
    return out


def _in_full(picked: Any, size: int) -> Any:
    return picked(size) if callable(picked) else picked


def _picked(axes: AxisMap, axis: Axis, f: int, order: Array) -> Any:
    pieces = [p for p in axis if f in p.factors]
    if not pieces:
        return None

    def source(size: int) -> Array:
        found = np.arange(size)
        for piece in pieces:
            grid = piece_grid(axes, piece)
            found[grid] = np.take(grid, order, axis=piece.factors.index(f))
        return found

    return source


# ---- dropping indices ----------------------------------------------------------------------------


def dropping(
    axes: AxisMap, case: Case, results: Sequence[Array], f: int, random: np.random.Generator
) -> list[str]:
    """Dropping indices of all operands, and of counting attributes, drops those of results."""
    size = int(axes.factors[f].size)  # type: ignore[call-overload]
    if size < 2 or not any(_has(axes, o, f) for o in axes.operands) or _steps(axes, f):
        return []
    gone = np.flatnonzero(random.random(size) < 0.5)[: size - 1]
    left = _each(axes.operands, case.inputs, lambda axis: _kept(axes, axis, f, gone))
    wanted = _each(axes.results, results, lambda axis: _kept(axes, axis, f, gone))
    attrs = _recounted(axes, case, f, size - len(gone))
    shape = () if wanted[0] is None else wanted[0].shape
    if isinstance(case.shape_at, str):
        attrs[case.shape_at] = shape
    elif case.shape_at is not None:
        left[case.shape_at] = np.array(shape, np.int64)
    got = evaluate(case, left, attrs)
    return _compare(axes, f, "dropping", got, wanted)


def _steps(axes: AxisMap, f: int) -> bool:
    """Are there positions between the indices of a factor, that would be left alone?"""
    tensors = [axis for t in (*axes.operands, *axes.results) for axis in t or ()]
    return any(p.step != 1 for axis in tensors for p in axis if f in p.factors)


def _kept(axes: AxisMap, axis: Axis, f: int, gone: Array) -> Any:
    lost = positions(axes, axis, f, gone.tolist())
    return (lambda size: [p for p in range(size) if p not in lost]) if lost else None


def _recounted(axes: AxisMap, case: Case, f: int, size: int) -> dict[str, Any]:
    attrs = dict(case.attrs)
    for name, factors in axes.counts:
        if f in factors and name in attrs:
            attrs[name] = attrs[name] // int(axes.factors[f].size) * size  # type: ignore[call-overload]
    return attrs


# ---- parts of sums -------------------------------------------------------------------------------


_JOIN: dict[Combine, Callable[[Array, Array], Array]] = {
    Combine.SUM: np.add, Combine.PRODUCT: np.multiply, Combine.MAX: np.maximum,
    Combine.MIN: np.minimum, Combine.MEAN: lambda a, b: (a + b) / 2,
}  # fmt: skip


def parts(axes: AxisMap, case: Case, results: Sequence[Array], f: int) -> list[str]:
    """Results over two halves of a factor make up the whole; one of them has the addends."""
    factor = axes.factors[f]
    size = int(factor.size)  # type: ignore[call-overload]
    if size < 2 or size % 2 and factor.combine is Combine.MEAN:
        return []
    halves = []
    for part in (range(size // 2), range(size // 2, size)):
        gone = np.array([i for i in range(size) if i not in part])
        inputs = _each(axes.operands, case.inputs, lambda axis, g=gone: _kept(axes, axis, f, g))
        if halves:
            inputs = [
                np.zeros_like(x) if i in axes.addends and x is not None else x
                for i, x in enumerate(inputs)
            ]
        halves.append(evaluate(case, inputs, _recounted(axes, case, f, len(part))))
    join = _JOIN[factor.combine]  # type: ignore[index]
    whole = [join(a, b) for a, b in zip(*halves, strict=True)]
    return _compare(axes, f, "combining", whole, list(results))


# ---- cuts ----------------------------------------------------------------------------------------


def cuts(axes: AxisMap, case: Case) -> list[str]:
    """Every axis of an operand that can be cut, in two: the parts make up the results."""
    results, found = evaluate(case, case.inputs), []
    for i, described in enumerate(axes.operands):
        for a, axis in enumerate(described or ()):
            cut = cut_along(axes, AxisOf(i, a))
            f = axis[0].factors[0] if axis[0].factors else None
            if cut is not None and f is not None and axes.factors[f].size in (2, 4):
                found += _in_two(axes, case, results, f, cut)
    return found


def _in_two(axes: AxisMap, case: Case, results: Sequence[Array], f: int, cut: Cut) -> list[str]:
    halves = []
    for part in range(2):
        inputs = list(case.inputs)
        for place in cut.cut:
            x = inputs[place.tensor] if place.is_operand else None
            if x is not None:
                inputs[place.tensor] = np.split(x, 2, place.axis)[part]
        for i in cut.once if part else ():
            x = inputs[i]
            inputs[i] = None if x is None else np.zeros_like(x)
        half = int(axes.factors[f].size) // 2  # type: ignore[call-overload]
        halves.append(evaluate(case, inputs, _recounted(axes, case, f, half)))
    whole = list(halves[0])
    for place in cut.cut:
        if not place.is_operand:
            parts = [half[place.tensor] for half in halves]
            whole[place.tensor] = np.concatenate(parts, place.axis)
    for k in cut.partial:
        whole[k] = _JOIN[cut.combine](halves[0][k], halves[1][k])  # type: ignore[index]
    return _compare(axes, f, "cutting", whole, list(results))


# ---- windows -------------------------------------------------------------------------------------


def window(
    axes: AxisMap, case: Case, results: Sequence[Array], f: int, random: np.random.Generator
) -> list[str]:
    """A position of a result does not change with what its windows do not reach."""
    at = [place for place in axes.axes_with(f) if place[0]]
    out = [place for place in axes.axes_with(f) if not place[0]]
    if len(at) != 1 or len(out) != 1:
        return [f"factor {f} is a window over {len(at)} operands and {len(out)} results"]
    (_, i, a), (_, k, c) = at[0], out[0]
    operand = case.inputs[i]
    assert operand is not None
    place = int(random.integers(results[k].shape[c]))
    read = _reached(axes, f, (i, a), (k, c), place)
    changed = operand.copy()
    for p in set(range(operand.shape[a])) - read:
        row = [slice(None)] * operand.ndim
        row[a] = p  # type: ignore[call-overload]
        changed[tuple(row)] = np.flip(operand.reshape(-1))[0] + 1
    got = evaluate(case, [changed if j == i else x for j, x in enumerate(case.inputs)])
    if np.array_equal(np.take(got[k], place, c), np.take(results[k], place, c), equal_nan=True):
        return []
    return [f"factor {f}: position {place} reads more than {sorted(read)}"]


def _reached(
    axes: AxisMap, f: int, operand: tuple[int, int], result: tuple[int, int], place: int
) -> set[int]:
    def covers(tensors: Sequence[Axes | None], at: tuple[int, int]) -> list[range]:
        found = tensors[at[0]]
        assert found is not None
        (piece,) = found[at[1]]
        assert isinstance(piece.reach, int)
        return [range(int(p), int(p) + piece.reach) for p in piece_grid(axes, piece).reshape(-1)]

    pairs = zip(covers(axes.operands, operand), covers(axes.results, result), strict=True)
    return {p for source, target in pairs if place in target for p in source}


# ---- comparing -----------------------------------------------------------------------------------


def _compare(axes: AxisMap, f: int, what: str, got: Sequence[Array], wanted: Tensors) -> list[str]:
    factor: Factor = axes.factors[f]
    for k, (a, b) in enumerate(zip(got, wanted, strict=True)):
        if axes.results[k] is not None and not _alike(a, b, factor.kind):
            return [f"{what} along factor {f} ({factor.kind.value}): result {k} differs"]
    return []


def _alike(a: Array, b: Array | None, kind: Kind) -> bool:
    """Equal up to rounding; codes may then be one step apart."""
    if b is None or a.shape != b.shape:
        return False
    if a.dtype.kind not in "fiu":
        return bool(np.array_equal(a, b))
    if a.dtype.kind in "iu":
        step = 0 if kind is Kind.MAPPED or a.dtype.itemsize > 1 else 1
        return bool(np.all(np.abs(a.astype(np.int64) - b.astype(np.int64)) <= step))
    return bool(np.allclose(a, b, rtol=1e-4, atol=1e-4, equal_nan=True))
