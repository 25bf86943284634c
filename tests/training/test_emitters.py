"""Each op in PyTorch: ONNX's node cases against the interpreter, gradients against differences."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.graph_text import graph_of
from support.onnx_cases import assert_same, case_arrays, one_node_cases
from torch.autograd.gradcheck import GradcheckError, gradcheck

from graphkiln.frontend import FrontendError, load_model
from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.training import TrainingError, emits, emitted_ops, module
from graphkiln.training.tensors import to_array, to_tensor

REFUSED = {
    "string|_seq|_opt$|_none": "tensors only",
    "(?i)float8|e4m3|e5m2|float4|castlike.*_to_u?int[24]": "element types without arithmetic",
    "_uint(16|32|64)$|bitwise_not_3d": "element types without arithmetic in PyTorch",
    "training_(mode|dropout)": "the inference form only",
    "not_larger|not_smaller|tf_crop": "is no matrix",
    "argmax_2d_precomputed_strides": "indices by columns",
    "reduce_(max|min)_empty_set": "extremes of nothing",
    "scatternd_(max|min|multiply)": "reductions of slices",
}
"""Patterns of ONNX's cases that do not run in PyTorch, and why: an error says so."""

ONLY_ELSEWHERE = {
    "GlobalLpPool", "ai.onnx.ml.ArrayFeatureExtractor", "com.microsoft.Gelu", "kiln.Assert",
    "kiln.Expand", "kiln.Require", "kiln.Reshape", "kiln.ShapeValue", "kiln.Slice", "kiln.Within",
}  # fmt: skip
"""Ops without a case; tests below have them."""

INTEGER_FORMS = {
    "Cast", "CastLike", "QuantizeLinear", "DequantizeLinear", "Dropout", "Hardmax", "Round", "Sign",
}  # fmt: skip
"""Ops whose gradient is estimated, of no use, or of another type than differences need."""


def _cases(most: int | None = None) -> list[Any]:
    """The cases of all ops, at ``most`` so many of each."""
    count: Counter[str] = Counter()
    found = []
    for case in one_node_cases(*emitted_ops()):
        op = case.model.graph.node[0].op_type
        count[op] += 1
        if most is None or count[op] <= most:
            found.append(case)
    return found


def _graph(case: Any) -> Graph | None:
    try:
        return load_model(case.model).graph
    except FrontendError:
        return None


def _run(graph: Graph, arrays: list[Any]) -> list[Any]:
    results = module(graph)(*(to_tensor(a) for a in arrays))
    return results if isinstance(results, list) else [results]


def _problem(case: Any, graph: Graph) -> str | None:
    """What is wrong with the results of a case, or None; raises ``TrainingError``."""
    names = [v.name for v in graph.inputs]
    for inputs, _ in case.data_sets:
        arrays = case_arrays(inputs)
        results = _run(graph, arrays)
        wanted = evaluate(graph, dict(zip(names, arrays, strict=True)))
        try:
            for got, want in zip(results, wanted, strict=True):
                array = to_array(got)
                # Integers of few bits are held in 8.
                want = want if want.dtype.kind != "V" else want.astype(array.dtype)
                assert_same(array, want, max(case.rtol, 1e-4), 1e-5)
        except AssertionError as e:
            return str(e)
    return None


def _check(cases: list[Any]) -> set[str]:
    """Check the cases; gives the keys of the ops that ran."""
    ops, wrong = set(), []
    for case in cases:
        graph = _graph(case)
        if graph is None:
            continue
        try:
            problem = _problem(case, graph)
        except (TrainingError, AttributeError) as e:
            if any(re.search(pattern, case.name) for pattern in REFUSED):
                continue
            problem = str(e)
        wrong += [] if problem is None else [f"{case.name}: {problem}"]
        ops |= {node.key for node in graph.nodes}
    assert not wrong, "\n".join(wrong)
    return ops


def test_onnx_cases_of_each_op() -> None:
    assert set(emitted_ops()) - _check(_cases(2)) <= ONLY_ELSEWHERE


@pytest.mark.slow
def test_all_onnx_cases() -> None:
    _check(_cases())


def _small(graph: Graph) -> bool:
    types = [v.tensor_type for v in (*graph.inputs, *graph.outputs)]
    return all(t.is_static for t in types) and all(np.prod(t.static_shape) <= 400 for t in types)


def test_gradients_against_differences() -> None:
    """For each op with floats, in float64, at the inputs of a case that are at no kink."""
    checked: set[str] = set()
    wrong: dict[str, str] = {}
    for case in _cases():
        graph = _graph(case)
        if graph is None or len(graph.nodes) != 1:
            continue
        key = graph.nodes[0].key
        if key in checked | INTEGER_FORMS or any(re.search(p, case.name) for p in REFUSED):
            continue
        if not _small(graph):
            continue
        arrays = [to_tensor(a) for a in case_arrays(case.data_sets[0][0])]
        floats = {a.dtype for a in arrays if a.is_floating_point() and a.numel()}
        if floats != {torch.float32}:
            continue
        doubles = [a.double() if a.dtype == torch.float32 else a for a in arrays]
        problem = _gradient_problem(graph, doubles)
        if problem is None:
            checked.add(key)
            wrong.pop(key, None)
        else:
            wrong[key] = f"{case.name}: {problem}"
    assert not wrong, "\n".join(wrong.values())
    assert len(checked) > 80


def _gradient_problem(graph: Graph, inputs: list[torch.Tensor]) -> str | None:
    run = module(graph)
    leaves = [t.clone().requires_grad_(t.is_floating_point()) for t in inputs]

    def floats(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = run(*values)
        results = results if isinstance(results, list) else [results]
        return tuple(r for r in results if r.is_floating_point() and r.requires_grad)

    try:
        if not floats(*leaves):
            return None
        gradcheck(floats, leaves, atol=1e-4, rtol=1e-3, nondet_tol=1e-12)
    except (GradcheckError, TrainingError) as e:
        return str(e)[:300]
    return None


@pytest.mark.parametrize(
    ("params", "lines", "result"),
    [
        ("%x: float32[N,6]", "%y = kiln.Reshape(%x) {shape=[<N>, 2, 3]}", "%y"),
        ("%x: float32[N,1]", "%y = kiln.Expand(%x) {shape=[<N>, 4]}", "%y"),
        ("%x: float32[N,5]",
         "%y = kiln.Slice(%x) {shape=[<N>, 2], starts=[0, 4], steps=[1, -2]}", "%y"),
        ("%x: float32[N,5]",
         "%s = kiln.ShapeValue() {dims=[<N>, 5], dtype=\"int64\", shape=[2]}\n"
         "%z = Cast(%s) {to=1}\n%m = ReduceSum(%z)\n%y = Mul(%x, %m)", "%y"),
        ("%x: float32[N,5]",
         "%w = kiln.Within(%x) {high=100, low=-100}\n"
         "%y = kiln.Require(%x, %w) {message=\"small\"}", "%y"),
        ("%x: float32[N,3,4,4]", "%y = GlobalLpPool(%x) {p=2}", "%y"),
        ("%x: float32[N,3]", "%y = com.microsoft.Gelu(%x)", "%y"),
    ],
)  # fmt: skip
def test_ops_of_the_dialect_and_others(params: str, lines: str, result: str) -> None:
    graph = graph_of(f"graph main({params}) -> (y) {{\n{lines}\nreturn {result}\n}}")
    shape = [2 if not isinstance(d, int) else d for d in graph.inputs[0].shape]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    (want,) = evaluate(graph, {"x": x})
    np.testing.assert_allclose(to_array(_run(graph, [x])[0]), want, rtol=1e-5, atol=1e-6)
    assert _gradient_problem(graph, [to_tensor(x).double()]) is None


def test_checks_of_sizes_and_values_fail() -> None:
    text = """graph main(%x: float32[N]) -> (y) {{
{}
return %y
}}"""
    sizes = graph_of(
        text.format(
            '%y = Relu(%x)\nkiln.Assert() {a=<N>, b=3, message="three", relation="=="} @fits'
        )
    )
    assert module(sizes)(torch.ones(3)).shape == (3,)
    with pytest.raises(TrainingError, match="three"):
        module(sizes)(torch.ones(2))
    values = graph_of(
        text.format('%w = kiln.Within(%x) {low=0}\n%y = kiln.Require(%x, %w) {message="m"}')
    )
    with pytest.raises(TrainingError, match="does not hold"):
        module(values)(-torch.ones(2))


@pytest.mark.parametrize(
    "line",
    ["ReduceL2(%x, %axes)", "ReduceL2(%x) {keepdims=0}", "GlobalLpPool(%x) {p=2}",
     "LpPool(%x) {kernel_shape=[2, 2], p=3}", "LpNormalization(%x) {axis=1}"],
)  # fmt: skip
def test_norms_of_zeros_have_gradients(line: str) -> None:
    graph = graph_of(
        "graph main(%x: float32[1,2,4,4]) -> (y) {\n%axes = constant int64[2] [2, 3]\n"
        f"%y = {line}\nreturn %y\n}}"
    )
    x = torch.zeros(1, 2, 4, 4, requires_grad=True)
    module(graph)(x).sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("exclusive", [0, 1])
def test_sums_along_an_axis_of_infinities(reverse: int, exclusive: int) -> None:
    graph = graph_of(
        "graph main(%x: float32[4]) -> (y) {\n%a = constant int64[] 0\n"
        f"%y = CumSum(%x, %a) {{exclusive={exclusive}, reverse={reverse}}}\nreturn %y\n}}"
    )
    x = np.array([1, np.inf, 2, 3], np.float32)
    (want,) = evaluate(graph, {"x": x})
    np.testing.assert_array_equal(to_array(_run(graph, [x])[0]), want)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["linear", "nearest", "cubic"]),
       st.sampled_from(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]),
       st.tuples(st.integers(1, 9), st.integers(2, 9)))  # fmt: skip
def test_resize_is_a_matrix(seed: int, mode: str, place: str, sizes: tuple[int, int]) -> None:
    have, want = sizes
    graph = graph_of(
        f"graph main(%x: float32[1,2,{have}]) -> (y) {{\n%s = constant int64[3] [1, 2, {want}]\n"
        f'%y = Resize(%x, _, _, %s) {{coordinate_transformation_mode="{place}", mode="{mode}"}}\n'
        "return %y\n}"
    )
    x = np.random.default_rng(seed).normal(size=(1, 2, have)).astype(np.float32)
    (expected,) = evaluate(graph, {"x": x})
    np.testing.assert_allclose(to_array(_run(graph, [x])[0]), expected, rtol=1e-4, atol=1e-5)


def test_a_plugin_registers_an_emitter_once() -> None:
    @emits("test.domain.Square")
    def square(call: Any) -> torch.Tensor:
        return call[0] * call[0]

    assert "test.domain.Square" in emitted_ops()
    with pytest.raises(ValueError, match="has an emitter already"):
        emits("test.domain.Square")(square)
