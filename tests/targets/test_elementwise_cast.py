"""Conversions between all element types, reinterpretation and identity, by compiled code."""

import numpy as np
import pytest
from targets.oputil import assert_close, backend_cases, restored, run_case, run_op, stored

from graphkiln.ir.onnx_types import element_code
from graphkiln.ir.types import DTYPES, to_numpy_dtype

NUMERIC = [n for n, t in DTYPES.items() if t.kind in "fiub"]
F8 = ["float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"]


def cases(*keys):
    """Every case for the rarer types would take long: all but a few are slow tests."""
    few = ("BFLOAT16", "FLOAT8E5M2FNUZ_to_FLOAT", "FLOAT_to_INT4", "e8m0", "FLOAT_to_FLOAT4E2M1")
    return [
        pytest.param(c, id=c.name, marks=[] if any(f in c.name for f in few) else pytest.mark.slow)
        for c in backend_cases(*keys)
    ]


@pytest.mark.parametrize("case", [*cases("Cast", "CastLike"), *backend_cases("BitCast")],
                         ids=lambda c: c.name)  # fmt: skip
def test_onnx_case(case):
    run_case(case)


def small_values(name):
    """Values that every type can take, in ``name``; with fractions and signs where it has them."""
    t = DTYPES[name]
    if t.kind == "b":
        return np.array([False, True])
    values = [0.0, 1.0, 0.5, 1.5, -1.0, -0.5] if t.is_float else [0, 1, -1]
    if t.name == "float8e8m0":
        values = [0.5, 1.0, 2.0]
    if t.kind == "u":
        values = [v for v in values if v >= 0]
    return np.array(values, np.float32).astype(to_numpy_dtype(name))


def expected(x, target):
    if target == "bool":
        return x.astype(np.float32) != 0
    if target == "float8e8m0":
        import onnx

        return onnx.numpy_helper.to_float8e8m0(np.abs(x.astype(np.float32)), True, "up")
    wide = x.astype(np.float64)
    kind = to_numpy_dtype(target)
    if DTYPES[target].is_float:
        return wide.astype(np.float32).astype(kind) if target != "float64" else wide
    return np.trunc(wide).astype(np.int64).astype(kind)


@pytest.mark.parametrize("source", NUMERIC)
def test_every_pair_of_types(source):
    from targets.oputil import run_graph

    from graphkiln.ir.graph import Graph
    from graphkiln.ir.infer import infer_types
    from graphkiln.ir.types import array_type

    x = small_values(source)
    graph = Graph()
    v = graph.add_input("x", array_type(x))
    targets = [t for t in NUMERIC if t != source]
    nodes = [graph.add_node("Cast", [v], {"to": element_code(t)}) for t in targets]
    graph.set_outputs([n.out() for n in nodes])
    infer_types(graph)
    for target, got in zip(targets, run_graph(graph, [x]), strict=True):
        keep = x.astype(np.float32) >= 0 if target == "float8e8m0" else slice(None)
        want = expected(x, target)
        if target.startswith("uint"):
            keep = x.astype(np.float32) > -1
        assert_close(got[keep], want[keep], 0, 0)


@pytest.mark.parametrize(
    "target", ["int8", "uint8", "int16", "uint16", "uint32", "int4", "uint4", "int2"]
)
def test_integers_keep_their_low_bits(target):
    x = np.array([-70000, -129, -1, 0, 7, 8, 15, 16, 200, 70000], np.int64)
    (got,) = run_op("Cast", [x], {"to": element_code(target)})
    bits = DTYPES[target].bits
    want = x & (2**bits - 1)
    if target.startswith("int"):
        want = np.where(want >= 2 ** (bits - 1), want - 2**bits, want)
    np.testing.assert_array_equal(got.astype(np.int64), want)


@pytest.mark.parametrize("target", F8)
@pytest.mark.parametrize("saturate", [0, 1])
def test_float8_overflow(target, saturate):
    x = np.array([1e6, -1e6, np.inf, -np.inf, np.nan, 463.0, 465.0, 1.0], np.float32)
    (got,) = run_op("Cast", [x], {"to": element_code(target), "saturate": saturate})
    kind = to_numpy_dtype(target)
    want = x.astype(kind)
    if saturate:
        import onnx

        want = onnx.numpy_helper.saturate_cast(x, kind)
    assert_close(got, want, 0, 0)


def test_a_cast_to_float16_rounds_inside_a_fused_chain():
    from targets.oputil import run_graph

    from graphkiln.ir.graph import Graph
    from graphkiln.ir.infer import infer_types
    from graphkiln.ir.types import tensor

    graph = Graph()
    x = graph.add_input("x", tensor("float32", 100))
    values = [x]
    for name in ("float16", "float32", "bfloat16", "float32", "float8e5m2", "float32"):
        values.append(graph.add_node("Cast", [values[-1]], {"to": element_code(name)}).out())
    graph.set_outputs([values[2], values[4], values[6]])
    infer_types(graph)
    a = np.linspace(-3, 3, 100).astype(np.float32)
    half = a.astype(np.float16).astype(np.float32)
    brain = half.astype(to_numpy_dtype("bfloat16")).astype(np.float32)
    small = brain.astype(to_numpy_dtype("float8e5m2")).astype(np.float32)
    for got, want in zip(run_graph(graph, [a]), (half, brain, small), strict=True):
        np.testing.assert_array_equal(got, want)


def test_float64_rounds_once_to_float16():
    x = np.array([1 + 2**-11 + 2**-40, 1 + 2**-11])  # a hair above halfway, and halfway
    (got,) = run_op("Cast", [x], {"to": element_code("float16")})
    np.testing.assert_array_equal(got, x.astype(np.float16))


SAME_WIDTH = [
    ("float16", "uint16"), ("uint16", "float16"), ("bfloat16", "int16"), ("float16", "bfloat16"),
    ("float8e4m3fn", "uint8"), ("uint8", "float8e5m2"), ("float4e2m1", "uint4"), ("int4", "uint4"),
    ("uint4", "int4"), ("uint4", "float4e2m1"), ("uint2", "int2"), ("float64", "uint64"),
    ("bool", "int8"),
]  # fmt: skip


@pytest.mark.parametrize("source, target", SAME_WIDTH)
def test_bit_casts_keep_every_bit(source, target):
    bits = DTYPES[source].bits if source != "bool" else 1
    unsigned = f"uint{max(8, bits)}"
    raw = np.arange(2 ** min(bits, 16), dtype=unsigned)
    if bits == 64:
        raw = raw * np.uint64(0x9E3779B97F4A7C15)  # any spread of patterns
    x = as_type(raw, source)
    (got,) = run_op("BitCast", [x], {"to": element_code(target)})
    mask = np.array(2**bits - 1, raw.dtype)
    np.testing.assert_array_equal(as_bits(got, target) & mask, raw)


def as_type(raw, name):
    if name.startswith(("int", "uint")) and DTYPES[name].bits < 8:
        bits = DTYPES[name].bits
        wide = raw.astype(np.int16)
        signed = np.where(wide >= 2 ** (bits - 1), wide - 2**bits, wide)
        return (wide if name[0] == "u" else signed).astype(to_numpy_dtype(name))
    return raw.view(to_numpy_dtype(name))


def as_bits(values, name):
    flat = stored(values)
    return flat.view(f"u{flat.itemsize}")


def test_storing_and_restoring_is_the_identity():
    for name in NUMERIC:
        x = small_values(name)
        np.testing.assert_array_equal(restored(stored(x), name).astype(float), x.astype(float))


@pytest.mark.parametrize("name", ["float32", "bfloat16", "bool", "int4"])
def test_identity(name):
    x = small_values(name)
    assert_close(run_op("Identity", [x])[0], x, 0, 0)
