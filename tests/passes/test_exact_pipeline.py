"""``--passes exact``: which rewrites run, and that no bit of a result changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fuzz.families import families
from fuzz.judge import compiled
from fuzz.make import make
from oputil import run_op
from support.hard_values import hard_values, same_bits
from support.onnx_cases import all_cases, case_arrays
from support.pass_checks import run

from graphkiln.ir.graph import Graph
from graphkiln.ir.infer import infer_types
from graphkiln.ir.interpreter import run_node
from graphkiln.ir.onnx_types import element_code
from graphkiln.ir.registry import spec, specs
from graphkiln.ir.traits import Trait
from graphkiln.ir.types import dtype, to_numpy_dtype
from graphkiln.passes.pipeline import PipelineError, parse_pipeline, print_pipeline

MODELS = Path(__file__).parents[1] / "models"

PLAIN = "shapes,dce"
"""What code generation needs: each op of the model is a kernel of its own."""


def test_the_name_stands_for_passes_that_claim_to_be_exact() -> None:
    passes = parse_pipeline("exact")
    assert not {p.name for p in passes} & {"recognize", "fold_affine", "layout", "fuse", "promote"}
    for p in passes:
        inexact = [name for name, claim in type(p).promises() if not claim.is_exact]
        assert not inexact or getattr(p, "exact", False), f"{p.name}: {inexact}"


def test_the_name_is_part_of_a_pipeline() -> None:
    text = print_pipeline(parse_pipeline("exact"))
    assert print_pipeline(parse_pipeline("exact,cse")) == f"{text},cse"
    with pytest.raises(PipelineError, match="no options"):
        parse_pipeline("exact{level=1}")
    with pytest.raises(PipelineError, match="did you mean 'exact'"):
        parse_pipeline("exakt")


# ---- folding -------------------------------------------------------------------------------------

ONE = "Abs Ceil Floor Identity IsInf IsNaN Neg Reciprocal Round Sqrt".split()
TWO = "Add Sub Mul Div Equal Less LessOrEqual Greater GreaterOrEqual".split()
KINDS = ("float16", "float32", "float64")


def _same_as_its_kernel(op: str, inputs: Sequence[np.ndarray], **attrs: Any) -> None:
    found = spec(op)
    assert found is not None and Trait.ROUNDS_ONCE in found.traits
    graph = Graph()
    values = [graph.add_constant(a, f"c{i}") for i, a in enumerate(inputs)]
    domain, _, name = op.rpartition(".")
    node = graph.add_node(name, values, attrs, outputs=1, name="node", domain=domain)
    with np.errstate(all="ignore"):
        folded = run_node(node, list(inputs))[0]
    same_bits(run_op(name, inputs, attrs, domain)[0], np.asarray(folded))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", ONE)
def test_folding_gives_the_bits_of_kernels(op: str, kind: str) -> None:
    _same_as_its_kernel(op, [hard_values(kind)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", TWO)
def test_folding_of_two_operands_gives_the_bits_of_kernels(op: str, kind: str) -> None:
    x = hard_values(kind)
    _same_as_its_kernel(op, [x[:, None], x[None, :]])


CASTS = ("bool", "int8", "uint8", "int32", "uint32", "int64", "uint64", "bfloat16", *KINDS)


@pytest.mark.parametrize("source", CASTS)
def test_folding_of_casts_gives_the_bits_of_kernels(source: str) -> None:
    x = hard_values("float32" if source == "bfloat16" else source)
    x = x.astype(to_numpy_dtype(source))
    for target in CASTS:
        given = x
        if dtype(source).is_float and dtype(target).is_integer:
            # What an integer type does not hold has no defined value, and stays.
            assert not _folds(x, target)
            low = 0 if dtype(target).kind == "u" else -100
            wide = x.astype(np.float64)
            given = x[(wide >= low) & (wide <= 100)]
        assert _folds(given, target)
        _same_as_its_kernel("Cast", [given], to=element_code(target))


def _folds(x: np.ndarray, target: str) -> bool:
    graph = Graph()
    node = graph.add_node("Cast", [graph.add_constant(x, "x")], {"to": element_code(target)})
    graph.set_outputs([node.out()])
    infer_types(graph)
    with np.errstate(all="ignore"):
        run(graph, "fold{exact=true,max-bytes=100000},dce")
    return not list(graph.topological())


def test_folding_of_joined_sums_gives_the_bits_of_kernels() -> None:
    ends = np.iinfo(np.int32)
    x = np.array([ends.min, -(2**24) - 1, -1, 0, 1, 255, 2**24 + 1, 2**31 - 129, ends.max])
    high, low = np.meshgrid(x.astype(np.int32), x.astype(np.int32))
    _same_as_its_kernel("kiln.JoinSums", [high, low])


def test_all_ops_that_round_once_are_compared() -> None:
    compared = {*ONE, *TWO, "Cast", "CastLike", "BitCast", "Where", "ConstantOfShape"}
    compared.add("kiln.JoinSums")
    assert {s.key for s in specs() if Trait.ROUNDS_ONCE in s.traits} == compared


# ---- constants that rewrites bring to light ------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exponent", [1, 2, 3, 4, -1, -2, 0.5, 0, 2.5])
def test_powers_do_not_depend_on_who_knows_the_exponent(kind: str, exponent: float) -> None:
    random = np.random.default_rng(1).normal(size=2000) * 10
    x = np.concatenate([hard_values(kind), random.astype(kind)])
    y = np.array(exponent, kind)
    same_bits(run_op("Pow", [x, y])[0], run_op("Pow", [x, y], const_inputs={1})[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op, place", [("Max", 0), ("Max", 1), ("Min", 0), ("Min", 1), ("Clip", 1)])
@pytest.mark.parametrize("bound", [0.0, -0.0, 2.5])
def test_bounds_do_not_depend_on_who_knows_them(
    op: str, place: int, bound: float, kind: str
) -> None:
    inputs = [hard_values(kind), np.array(bound, kind)]
    if not place:
        inputs.reverse()
    same_bits(run_op(op, inputs)[0], run_op(op, inputs, const_inputs={place})[0])


# ---- whole models --------------------------------------------------------------------------------


def _outcome(model: Any, passes: str, feeds: Sequence[Any]) -> list[Any]:
    """The results for each feed; the error where there is none."""
    session = compiled(model, passes)
    found: list[Any] = []
    for f in feeds:
        try:
            found.append(session.run(None, dict(f)))
        except Exception as e:
            found.append(type(e))
    return found


def _assert_same(exact: Any, plain: Any) -> None:
    """The same bits, through lists."""
    if isinstance(plain, list | tuple):
        for a, b in zip(exact, plain, strict=True):
            _assert_same(a, b)
    elif isinstance(plain, np.ndarray):
        same_bits(exact, plain)
    else:
        assert exact == plain


def _check(model: Any, feeds: Sequence[Any]) -> None:
    _assert_same(_outcome(model, "exact", feeds), _outcome(model, PLAIN, feeds))


LONG = "basic_pitch_cnn"


@pytest.mark.parametrize("name", [
    *sorted(p.stem for p in MODELS.glob("*.onnx") if p.stem != LONG),
    pytest.param(LONG, marks=pytest.mark.slow),
])  # fmt: skip
def test_models_keep_their_bits(name: str) -> None:
    model = onnx.load(MODELS / f"{name}.onnx")
    random = np.random.default_rng(5)
    constants = {i.name for i in model.graph.initializer}
    feeds = {}
    for i in model.graph.input:
        if i.name not in constants:
            shape = [d.dim_value or 1 for d in i.type.tensor_type.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type)
            feeds[i.name] = random.random(shape).astype(dtype)
    _check(model, [feeds])


@pytest.mark.parametrize("family", sorted(families()))
@pytest.mark.parametrize("seed", [*range(1000, 1004), *(
    pytest.param(s, marks=pytest.mark.slow) for s in range(1004, 1060)
)])  # fmt: skip
def test_random_graphs_keep_their_bits(family: str, seed: int) -> None:
    subject = make(family, seed)
    _check(subject.model, subject.feeds)


EVERY = 25
"""The step through ONNX's own cases; the slow test takes all of them."""


def _cases(start: int, step: int) -> list[Any]:
    found = sorted(all_cases(), key=lambda case: str(case.name))
    return [c for c in found[start::step] if "random" not in c.name and "bernoulli" not in c.name]


@pytest.mark.parametrize("case", _cases(3, EVERY), ids=lambda c: c.name)
def test_cases_of_onnx_keep_their_bits(case: Any) -> None:
    _check_case(case)


@pytest.mark.slow
def test_all_cases_of_onnx_keep_their_bits() -> None:
    for case in _cases(0, 1):
        _check_case(case)


def _check_case(case: Any) -> None:
    names = [i.name for i in case.model.graph.input]
    feeds = [dict(zip(names, case_arrays(data[0]), strict=True)) for data in case.data_sets]
    _check(case.model, feeds)
