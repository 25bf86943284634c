"""Runs single ops and small graphs through inference, the generic lowerings and TVM."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import tvm
import tvm_ffi

from graphkiln.codegen.build import build_module
from graphkiln.ir.dims import Dim, evaluate, free_symbols, sym
from graphkiln.ir.graph import Graph, Node, Value
from graphkiln.ir.infer import infer_types
from graphkiln.ir.types import TensorType, array_type, to_numpy_dtype
from graphkiln.targets import parse_target
from graphkiln.targets.generic.region import (
    fresh_symbols,
    input_symbols,
    lower_region,
    lower_sizes,
    region_symbols,
)
from graphkiln.targets.tir.builder import LoopStrategy
from graphkiln.targets.tir.cpu_loops import CpuLoops
from graphkiln.targets.tir.numeric import storage_dtype

Array = np.ndarray


@cache
def native_target() -> tvm.target.Target:
    """The CPU that ``cpu`` stands for, as a TVM target."""
    return parse_target("cpu").tvm_target()


def build(function: Any, target: tvm.target.Target | None = None) -> Any:
    """A PrimFunc as a runtime module."""
    name = str(function.attrs["global_symbol"])
    checks = parse_target("cpu").checks_bounds
    return build_module(tvm.IRModule({name: function}), target or native_target(), checks)


def run_op(
    op: str,
    inputs: Sequence[Array | None],
    attrs: Mapping[str, Any] | None = None,
    domain: str = "",
    num_outputs: int = 1,
    symbolic: bool | str = False,
    const_inputs: Collection[int] = (),
) -> list[Array]:
    """The outputs of one op on ``inputs``, by compiled code.

    ``symbolic=True`` replaces every input extent above 1 by a symbol, one for each distinct
    extent; ``"distinct"`` gives every dim of every input a symbol of its own. Inputs whose index
    is in ``const_inputs`` are constants that the compiler knows.
    """
    graph = one_node(op, inputs, attrs, domain, num_outputs, symbolic, const_inputs)
    feeds = [a for i, a in enumerate(inputs) if a is not None and i not in const_inputs]
    return run_graph(graph, feeds)


def one_node(
    op: str,
    inputs: Sequence[Array | None],
    attrs: Mapping[str, Any] | None = None,
    domain: str = "",
    num_outputs: int = 1,
    symbolic: bool | str = False,
    const_inputs: Collection[int] = (),
) -> Graph:
    """The typed graph that :func:`run_op` runs."""
    graph = Graph()
    values: list[Value | None] = []
    for i, a in enumerate(inputs):
        if a is None:
            values.append(None)
        elif i in const_inputs:
            values.append(graph.add_constant(a, f"c{i}"))
        else:
            values.append(graph.add_input(f"x{i}", input_type(a, i, symbolic)))
    node = graph.add_node(op, values, attrs, outputs=num_outputs, domain=domain, name="node")
    graph.set_outputs(list(node.values))
    infer_types(graph)
    return graph


def input_type(a: Array, i: int, symbolic: bool | str) -> TensorType:
    """The type of an input, symbolic as :func:`run_op` says."""
    t = array_type(np.asarray(a))
    if not symbolic:
        return t
    if symbolic == "distinct":
        return t.with_shape(tuple(sym(f"s{i}_{k}") for k in range(t.rank)))
    return t.with_shape(tuple(sym(f"n{d}") if d > 1 else d for d in t.static_shape))


def run_graph(
    graph: Graph, feeds: Sequence[Array], loops: LoopStrategy | None = None
) -> list[Array]:
    """Lower a typed graph as one region, build it and run it on ``feeds``."""
    loops = loops or CpuLoops(2)
    bindings = bind_symbols(graph, feeds)
    _bind_fresh(graph, feeds, bindings, loops)
    arrays = [stored(a) for a in feeds]
    outputs = [np.zeros(_extents(v, bindings), storage_dtype(v.dtype)) for v in graph.outputs]
    symbols = [bindings[s] for s in region_symbols(graph)]
    _call(lower_region(graph, "kernel", loops), [*arrays, *outputs], symbols)
    return [restored(o, v.dtype) for o, v in zip(outputs, graph.outputs, strict=True)]


def bind_symbols(graph: Graph, feeds: Sequence[Array]) -> dict[str, int]:
    """The symbols that the inputs' shapes give."""
    bindings: dict[str, int] = {}
    for v, a in zip(graph.inputs, feeds, strict=True):
        for d, extent in zip(v.shape, np.shape(a), strict=True):
            for name in free_symbols(d) if d == _symbol_of(d) else ():
                assert bindings.setdefault(name, extent) == extent, f"{name} is ambiguous"
    return bindings


def _symbol_of(d: Dim) -> Dim | None:
    names = free_symbols(d)
    return sym(next(iter(names))) if len(names) == 1 else None


def _fresh(graph: Graph, node: Node) -> list[str]:
    inputs = [None if v is None else v.type for v in graph.inputs_of(node)]
    return fresh_symbols([o.type for o in node.outputs], inputs)


def _bind_fresh(
    graph: Graph, feeds: Sequence[Array], bindings: dict[str, int], loops: LoopStrategy
) -> None:
    fresh = [s for n in graph.nodes for s in _fresh(graph, n)]
    if not fresh:
        return
    sizes = np.zeros(len(fresh), np.int64)
    function = lower_sizes(graph, "sizes", loops)
    symbols = [bindings[s] for s in input_symbols(graph)]
    _call(function, [*(stored(a) for a in feeds), sizes], symbols)
    bindings.update(zip(fresh, sizes.tolist(), strict=True))


def _extents(v: Value, bindings: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(evaluate(d, bindings) for d in v.shape)


def _call(function: Any, arrays: Sequence[Array], symbols: Sequence[int]) -> None:
    tensors = [tvm_ffi.from_dlpack(a) for a in arrays]
    build(function)[str(function.attrs["global_symbol"])](*tensors, *symbols)


def stored(a: Array) -> Array:
    """An array as kernels keep it: narrow floats as bit patterns, narrow ints one a byte."""
    a = np.array(a, order="C")
    name = array_type(a).dtype.name
    to = np.dtype(storage_dtype(name))
    if a.dtype == to:
        return a
    return a.astype(to) if name.startswith(("int", "uint")) else a.view(to)


def restored(a: Array, name: str) -> Array:
    """The reverse of :func:`stored`."""
    to = to_numpy_dtype(name)
    if a.dtype == to:
        return a
    return a.astype(to) if name.startswith(("int", "uint")) else a.view(to)


def assert_close(got: Array, want: Array, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Same dtype, same shape and close values; NaN equals NaN."""
    want = np.asarray(want)
    assert got.dtype == want.dtype, f"dtype {got.dtype}, wanted {want.dtype}"
    assert got.shape == want.shape, f"shape {got.shape}, wanted {want.shape}"
    if want.dtype.kind in "biu":
        np.testing.assert_array_equal(got, want)
        return
    wide = np.float32 if want.dtype.itemsize < 4 else want.dtype
    np.testing.assert_allclose(got.astype(wide), want.astype(wide), rtol=rtol, atol=atol)


# ---- the ONNX project's own node cases -----------------------------------------------------------


@cache
def _all_cases() -> tuple[Any, ...]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():  # making the data overflows on purpose
        warnings.simplefilter("ignore", RuntimeWarning)
        return tuple(collect_testcases(None))


def backend_cases(*keys: str) -> list[Any]:
    """ONNX's node test cases whose model is exactly one node of these ops, by name.

    A key is an op's name, with its domain where that is not ai.onnx (``ai.onnx.ml.Scaler``).
    """
    found = {}
    for case in _all_cases():
        nodes = case.model.graph.node if case.model is not None else []
        if len(nodes) == 1 and not case.model.functions:
            domain = "" if nodes[0].domain == "ai.onnx" else nodes[0].domain
            if (f"{domain}." if domain else "") + nodes[0].op_type in keys:
                found[case.name] = case
    return [found[name] for name in sorted(found)]


def sampled_cases(*keys: str) -> list[Any]:
    """Pytest parameters for :func:`backend_cases`: every fourth case; the others are slow tests."""
    import pytest

    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if i % 4 else [])
        for i, case in enumerate(backend_cases(*keys))
    ]


def run_case(case: Any) -> None:
    """Run a case with all graph inputs given at run time; raises where a result is off."""
    for inputs, outputs in case.data_sets:
        graph, feeds = case_graph(case.model, inputs)
        for got, want in zip(run_graph(graph, feeds), outputs, strict=True):
            assert_close(got, case_array(want), case.rtol, case.atol)


def case_graph(model: Any, arrays: Sequence[Any]) -> tuple[Graph, list[Array]]:
    """The typed graph of a one-node model, and what to feed it."""
    import onnx

    (proto,) = model.graph.node
    graph = Graph()
    values: dict[str, Value | None] = {"": None}
    for t in model.graph.initializer:
        values[t.name] = graph.add_constant(onnx.numpy_helper.to_array(t), t.name)
    feeds = []
    names = [i.name for i in model.graph.input if i.name not in values]
    for name, a in zip(names, arrays, strict=True):
        if a is not None:
            feeds.append(case_array(a))
            values[name] = graph.add_input(name, array_type(feeds[-1]))
    attrs = {a.name: attribute_value(a) for a in proto.attribute}
    outputs = list(proto.output)
    node = graph.add_node(
        proto.op_type, [values[n] for n in proto.input], attrs, outputs=outputs,
        domain=proto.domain, name="node",
    )  # fmt: skip
    graph.set_outputs([v for v, n in zip(node.values, outputs, strict=True) if n])
    infer_types(graph)
    return graph, feeds


def case_array(value: Any) -> Array:
    """A case's input or output, which may be a TensorProto, as an array."""
    import onnx

    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value)


def attribute_value(proto: Any) -> Any:
    """An AttributeProto as the IR holds it; raises ``TypeError`` for a graph."""
    import onnx

    value = onnx.helper.get_attribute_value(proto)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, onnx.GraphProto):
        raise TypeError("one-node cases hold no bodies")
    return tuple(v.decode() if isinstance(v, bytes) else v for v in value)
