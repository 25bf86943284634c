"""Element-wise ops by compiled code: ONNX's own cases, broadcasting, and values where C differs."""

import numpy as np
import pytest
from targets.oputil import assert_close, backend_cases, run_case, run_graph, run_op

from graphkiln.ir.dims import sym
from graphkiln.ir.graph import Graph
from graphkiln.ir.infer import infer_types
from graphkiln.ir.types import tensor, to_numpy_dtype

KEYS = """
Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor
Ceil Celu Clip Cos Cosh Div Dropout Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid
HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or
PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum
SwiGLU Swish Tan Tanh ThresholdedRelu Where Xor
""".split()
RANDOM = ("test_training_dropout_default", "test_training_dropout_default_mask",
          "test_training_dropout", "test_training_dropout_mask")  # fmt: skip


def compiled_cases(*keys):
    """The cases that can be compiled; all but one of each op are slow tests."""
    seen, params = set(), []
    for case in backend_cases(*keys):
        if case.name in RANDOM or "string" in case.name:
            continue
        op = case.model.graph.node[0].op_type
        params.append(
            pytest.param(case, marks=[pytest.mark.slow] if op in seen else [], id=case.name)
        )
        seen.add(op)
    return params


@pytest.mark.parametrize("case", compiled_cases(*KEYS))
def test_onnx_case(case):
    run_case(case)


# ---- broadcasting --------------------------------------------------------------------------------

SHAPES = [
    ((), ()), ((3,), ()), ((2, 3), (3,)), ((2, 1), (1, 3)), ((4, 2, 3), (4, 1, 1)), ((0, 3), (3,)),
    ((1, 1), (5,)),
]  # fmt: skip


@pytest.mark.parametrize("symbolic", [False, True, "distinct"])
@pytest.mark.parametrize("a, b", SHAPES)
def test_broadcasting(a, b, symbolic):
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=s).astype(np.float32) for s in (a, b))
    if symbolic == "distinct" and 0 in a:
        pytest.skip("an extent of 0 against 1 is beyond symbols that may differ")
    (got,) = run_op("Sub", [x, y], symbolic=symbolic)
    np.testing.assert_array_equal(got, x - y)


def test_large_tensors_are_computed_in_tasks():
    rng = np.random.default_rng(0)
    x, y = (
        rng.normal(size=(3, 50_000)).astype(np.float32),
        rng.normal(size=(3, 1)).astype(np.float32),
    )
    np.testing.assert_array_equal(run_op("Mul", [x, y], symbolic=True)[0], x * y)


# ---- integers ------------------------------------------------------------------------------------

INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


def extremes(name):
    info = np.iinfo(name)
    values = [info.min, info.min + 1, -7, -2, -1, 0, 1, 2, 5, 7, info.max - 1, info.max]
    return np.array([v for v in values if info.min <= v <= info.max], dtype=name)


def pairs(name):
    a, b = np.meshgrid(extremes(name), extremes(name))
    return a.ravel(), b.ravel()


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize(
    "op, function", [("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply)]
)
def test_integers_wrap_around(op, function, name):
    a, b = pairs(name)
    np.testing.assert_array_equal(run_op(op, [a, b])[0], function(a, b))


@pytest.mark.parametrize("name", INTEGERS)
def test_integer_division_truncates_and_never_traps(name):
    a, b = pairs(name)
    exact = [0 if d == 0 else abs(n) // abs(d) * (1 if (n < 0) == (d < 0) else -1)
             for n, d in zip(a.tolist(), b.tolist(), strict=True)]  # fmt: skip
    want = np.array([v & (2 ** (8 * a.itemsize) - 1) for v in exact], f"u{a.itemsize}").view(name)
    np.testing.assert_array_equal(run_op("Div", [a, b])[0], want)


@pytest.mark.parametrize("fmod", [0, 1])
@pytest.mark.parametrize("name", INTEGERS)
def test_integer_remainders(name, fmod):
    a, b = pairs(name)
    with np.errstate(divide="ignore"):
        want = np.fmod(a, b) if fmod else np.mod(a, b)
    np.testing.assert_array_equal(run_op("Mod", [a, b], {"fmod": fmod})[0], want)


@pytest.mark.parametrize("divisor", [3, -3, 1, -1, 0])
def test_integer_division_by_constants(divisor):
    a = extremes("int32")
    want = (
        np.zeros_like(a)
        if divisor == 0
        else np.trunc(a / divisor).astype(np.int64).astype(np.int32)
    )
    got = run_op("Div", [a, np.array(divisor, np.int32)], const_inputs={1})[0]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_shifts_by_too_much(name, direction):
    bits = np.iinfo(name).bits
    x = extremes(name)
    amounts = [0, 1, bits - 1, bits, min(bits + 5, np.iinfo(name).max)]
    a, s = (v.ravel() for v in np.meshgrid(x, np.array(amounts, dtype=name)))
    shift = np.left_shift if direction == "LEFT" else np.right_shift
    want = shift(a, np.minimum(s, bits - 1))
    outside = 0 if direction == "LEFT" or name.startswith("u") else np.where(a < 0, -1, 0)
    want = np.where(s >= bits, np.array(outside, dtype=name), want)
    np.testing.assert_array_equal(run_op("BitShift", [a, s], {"direction": direction})[0], want)


@pytest.mark.parametrize("op, want", [("Abs", [128, 1, 0, 127]), ("Neg", [128, 1, 0, 129])])
def test_the_least_integer_has_no_opposite(op, want):
    x = np.array([-128, -1, 0, 127], np.int8)
    np.testing.assert_array_equal(run_op(op, [x])[0].view(np.uint8), want)


# ---- powers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [1, 2, 3, 4, -1, -2, 0.5, 0, 2.5, -0.5])
@pytest.mark.parametrize("name", ["float32", "float64", "float16"])
def test_constant_exponents(name, exponent):
    x = np.array([0.0, 0.25, 1.5, 3.0, 100.0, np.inf, np.nan], name)
    with np.errstate(all="ignore"):
        want = np.power(x, np.array(exponent, name))
    (got,) = run_op("Pow", [x, np.array(exponent, name)], const_inputs={1})
    assert_close(got, want, 1e-3 if name == "float16" else 1e-6)


def test_a_root_by_power_of_minus_infinity():
    x = np.array([-np.inf, -1.0], np.float32)
    (got,) = run_op("Pow", [x, np.array(0.5, np.float32)], const_inputs={1})
    assert got[0] == np.inf and np.isnan(got[1])


@pytest.mark.parametrize("base", ["float32", "float64", "float16", "int32", "int64"])
@pytest.mark.parametrize(
    "kind",
    ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32",
     "float64"],
)  # fmt: skip
def test_powers_of_any_two_types(base: str, kind: str) -> None:
    x = np.array([1, 2, 3, 0, 2], base)
    y = np.array([0, 3, 2, 1, 4], kind)
    (got,) = run_op("Pow", [x, y])
    np.testing.assert_allclose(got.astype(np.float64), [1, 8, 9, 0, 16], rtol=1e-6)


def test_integer_powers():
    x, y = (
        v.ravel() for v in np.meshgrid(np.arange(-5, 6), np.array([0, 1, 2, 5, 13, 40, 63, 90]))
    )
    with np.errstate(over="ignore"):
        want = np.power(x, y)
    np.testing.assert_array_equal(run_op("Pow", [x, y])[0], want)
    np.testing.assert_array_equal(
        run_op("Pow", [x.astype(np.int32), y.astype(np.uint8)])[0], want.astype(np.int32)
    )


def test_negative_integer_exponents_divide_one():
    x = np.array([-2, -1, -1, 0, 1, 2])
    y = np.array([-1, -2, -3, -1, -5, -1])
    assert run_op("Pow", [x, y])[0].tolist() == [0, 1, -1, 0, 1, 0]


MIXED = [("int32", "float32"), ("int64", "float64"), ("float32", "int64"), ("float64", "float32")]


@pytest.mark.parametrize("base, exponent", MIXED)
def test_powers_of_mixed_types(base, exponent):
    x, y = np.array([1, 2, 3, 9], base), np.array([0, 2, 3, 2], exponent)
    (got,) = run_op("Pow", [x, y])
    assert got.dtype == base
    np.testing.assert_allclose(got, np.power(x.astype(float), y.astype(float)), rtol=1e-6)


# ---- floats --------------------------------------------------------------------------------------

NAN = np.array([np.nan, 1.0, np.nan, -np.inf, np.inf], np.float32)
OTHER = np.array([0.0, np.nan, np.nan, np.nan, 5.0], np.float32)


@pytest.mark.parametrize("op, function", [("Max", np.maximum), ("Min", np.minimum)])
@pytest.mark.parametrize("const", [set(), {1}])
def test_extrema_propagate_nan(op, function, const):
    (got,) = run_op(op, [NAN, OTHER], const_inputs=const)
    np.testing.assert_array_equal(got, function(NAN, OTHER))
    low = np.array(0.5, np.float32)
    (got,) = run_op(op, [NAN, low], const_inputs={1} if const else ())
    np.testing.assert_array_equal(got, function(NAN, low))


def test_relu_and_clip_propagate_nan():
    np.testing.assert_array_equal(run_op("Relu", [NAN])[0], np.maximum(NAN, 0))
    low, high = np.array(-1, np.float32), np.array(1, np.float32)
    for const in ((), {1, 2}):
        np.testing.assert_array_equal(
            run_op("Clip", [NAN, low, high], const_inputs=const)[0], np.clip(NAN, -1, 1)
        )


def test_clip_with_crossed_bounds_gives_the_upper_one():
    x = np.array([0, 5, 10], np.int8)
    low, high = np.array(8, np.int8), np.array(3, np.int8)
    assert run_op("Clip", [x, low, high])[0].tolist() == [3, 3, 3]
    assert run_op("Clip", [x, None, high])[0].tolist() == [0, 3, 3]
    assert run_op("Clip", [x, low])[0].tolist() == [8, 8, 10]


@pytest.mark.parametrize("value, name", [(0.0, "zero"), (-0.0, "minus zero")])
def test_products_with_constant_zeros_keep_nan(value, name):
    (got,) = run_op("Mul", [NAN, np.array(value, np.float32)], const_inputs={1})
    assert np.isnan(got[[0, 2, 3, 4]]).all() and got[1] == 0


def two_inputs():
    graph = Graph()
    return (
        graph,
        graph.add_input("x", tensor("float32", 5)),
        graph.add_input("y", tensor("float32", 5)),
    )


def test_sums_are_not_cancelled_symbolically():
    """(x + y) - y rounds twice, which is how models round to integers."""
    graph, x, y = two_inputs()
    total = graph.add_node("Add", [x, y]).out()
    graph.set_outputs(
        [graph.add_node("Sub", [total, y]).out(), graph.add_node("Sub", [x, x]).out()]
    )
    infer_types(graph)
    a = np.array([0.4, 1.5, 2.5, np.inf, np.nan], np.float32)
    rounded, nothing = run_graph(graph, [a, np.full(5, 12582912.0, np.float32)])
    np.testing.assert_array_equal(rounded, [0, 2, 2, np.inf, np.nan])
    np.testing.assert_array_equal(nothing, [0, 0, 0, np.nan, np.nan])


def test_nan_differs_from_itself():
    graph, x, _ = two_inputs()
    graph.set_outputs([graph.add_node("Equal", [x, x]).out()])
    infer_types(graph)
    (got,) = run_graph(graph, [NAN, NAN])
    np.testing.assert_array_equal(got, NAN == NAN)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize(
    "op", ["Exp", "Tanh", "Sigmoid", "Sqrt", "Softplus", "Mish", "HardSwish", "Round"]
)
def test_other_float_types(op, name):
    kind = to_numpy_dtype(name)
    x = np.linspace(-4, 4, 101).astype(np.float32).astype(kind)
    x = np.abs(x) if op == "Sqrt" else x
    wide = run_op(op, [x.astype(np.float64)])[0].astype(kind)
    assert_close(run_op(op, [x])[0], wide, {"bfloat16": 8e-3, "float16": 1e-3}.get(name, 0))


def test_the_slope_of_hard_swish_is_a_float32_for_float64_too():
    x = np.linspace(-4, 4, 101)
    slope = np.float64(np.float32(1 / 6))
    assert_close(run_op("HardSwish", [x])[0], x * np.clip(slope * x + 0.5, 0, 1), 1e-14, 0)


def test_rounding_is_half_to_even():
    x = np.array([0.5, 1.5, 2.5, -0.5, -2.5, 8388609.0, np.inf], np.float32)
    np.testing.assert_array_equal(run_op("Round", [x])[0], np.rint(x))


SMOOTH = ["Softplus", "Sigmoid", "Mish", "Swish", "Gelu", "Elu", "Celu", "Selu"]


@pytest.mark.parametrize(
    "op, attrs", [*((op, {}) for op in SMOOTH), ("Gelu", {"approximate": "tanh"})]
)
def test_activations_at_the_ends(op, attrs):
    x = np.array([-1e30, -200, 200, 1e30, np.nan], np.float32)
    (got,) = run_op(op, [x], attrs)
    assert np.isfinite(got[:4]).all()
    assert np.isnan(got[4])
    if op != "Selu":
        np.testing.assert_allclose(got[2:4], [1, 1] if op == "Sigmoid" else x[2:4], rtol=1e-6)


def test_mish_is_not_zero_before_its_result_is():
    x = np.linspace(-91, -80, 1001).astype(np.float32)
    want = x.astype(np.float64) * np.exp(x.astype(np.float64))
    assert np.all(np.abs(want) > np.finfo(np.float32).tiny)
    np.testing.assert_allclose(run_op("Mish", [x])[0], want, rtol=1e-4)


def test_shrink_of_integers():
    x = np.array([-3, -2, -1, 0, 1, 2, 3], np.int32)
    got = run_op("Shrink", [x], {"lambd": 1.5, "bias": 1.0})[0]
    assert got.tolist() == [-2, -1, 0, 0, 0, 1, 2]


def test_symbols_that_may_differ_broadcast_at_run_time():
    graph = Graph()
    x = graph.add_input("x", tensor("float32", sym("N")))
    y = graph.add_input("y", tensor("float32", sym("M")))
    graph.set_outputs([graph.add_node("Mul", [x, y]).out()])
    infer_types(graph)
    a = np.arange(4, dtype=np.float32)
    for b in (np.array([3], np.float32), a):
        np.testing.assert_array_equal(run_graph(graph, [a, b])[0], a * b)
        np.testing.assert_array_equal(run_graph(graph, [b, a])[0], a * b)
