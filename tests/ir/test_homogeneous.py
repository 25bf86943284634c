"""Inputs that multiply a result when they are multiplied, against the reference evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.axis_cases import CASES, Case, cases
from support.axis_checks import evaluate

from graphkiln.ir.axes.map import Axes, AxisMap, Kind
from graphkiln.ir.axes.query import axes_of, factors_of
from graphkiln.ir.registry import homogeneous_inputs, spec, specs
from graphkiln.ir.traits import Trait

MOVES = {Trait.PICKS, Trait.VIEW}
KEYS = [s.key for s in specs() if s.key in CASES and (s.homogeneous or s.traits & MOVES)]
INDEPENDENT = (Kind.MAPPED, Kind.NORMALIZED)


def scaled(tensor: np.ndarray, axes: Axes, factor: int, by: np.ndarray, sizes: list[int]):
    """A tensor whose parts at the indices of a factor are multiplied."""
    split: list[int] = []
    shape: list[int] = []
    for size, axis in zip(tensor.shape, axes, strict=True):
        inside = factors_of(axis)
        split += [sizes[f] for f in inside] if factor in inside else [size]
        shape += [sizes[f] if f == factor else 1 for f in inside] if factor in inside else [1]
    parts = tensor.reshape(split) * by.reshape(shape)
    return parts.astype(tensor.dtype).reshape(tensor.shape)


def is_plain(axes: Axes, factor: int) -> bool:
    """Is the factor in an axis that is a whole product of factors?"""
    inside = [axis for axis in axes if factor in factors_of(axis)]
    return len(inside) == 1 and len(inside[0]) == 1 and inside[0][0].is_plain


def shared(axes: AxisMap, given: list[int]) -> Iterator[int]:
    """The factors that the inputs and the result have."""
    result = axes.results[0]
    for f, factor in enumerate(axes.factors):
        tensors = [result, *(axes.operands[i] for i in given)]
        if factor.kind in INDEPENDENT and all(t is not None and is_plain(t, f) for t in tensors):
            yield f


@pytest.mark.parametrize("key", KEYS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_factor_of_the_inputs_is_one_of_the_result(key: str, data: st.DataObject) -> None:
    case: Case = data.draw(cases(key))
    graph, node = case.build(case.inputs)
    axes, results = axes_of(graph, node), evaluate(case, case.inputs)
    assert axes is not None
    assume(results[0].dtype == np.float32 and results[0].size)
    for group in homogeneous_inputs(node):
        some = [i for i in group if i < len(case.inputs) and case.inputs[i] is not None]
        multiplied = [x * np.float32(3) if i in some else x for i, x in enumerate(case.inputs)]
        close(evaluate(case, multiplied)[0], results[0] * 3)
        for f in shared(axes, some):
            sizes = [int(factor.size) for factor in axes.factors]  # type: ignore[call-overload]
            by = np.random.default_rng(0).uniform(0.25, 4, sizes[f])
            inputs = list(case.inputs)
            for i in some:
                inputs[i] = scaled(inputs[i], axes.operands[i], f, by, sizes)  # type: ignore[arg-type]
            close(evaluate(case, inputs)[0], scaled(results[0], axes.results[0], f, by, sizes))  # type: ignore[arg-type]


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    size = float(np.max(np.abs(wanted))) if wanted.size else 0.0
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * size + 1e-30)


def test_moves_need_no_declaration() -> None:
    assert not spec("Transpose").homogeneous  # type: ignore[union-attr]
    graph, node = Case("Transpose", [np.zeros((2, 3), np.float32)]).build(
        [np.zeros((2, 3), np.float32)]
    )
    assert homogeneous_inputs(node) == ((0,),)


@pytest.mark.parametrize("key", ["Sigmoid", "Clip", "Softmax"])
def test_other_functions_have_none(key: str) -> None:
    assert not spec(key).homogeneous  # type: ignore[union-attr]
