"""Type inference and compile-time values of element-wise ops."""

import numpy as np
import pytest

from graphkiln.ir.dims import dim_broadcast, dim_max, sym
from graphkiln.ir.graph import Graph
from graphkiln.ir.infer import infer_types
from graphkiln.ir.onnx_types import element_code
from graphkiln.ir.registry import InferenceError, has_trait, spec
from graphkiln.ir.traits import Trait
from graphkiln.ir.types import SequenceType, TensorType, dtype, tensor

N, M = sym("N"), sym("M")


def infer(op, *types, domain="", outputs=1, **attrs):
    graph = Graph()
    inputs = [None if t is None else graph.add_input("x", t) for t in types]
    node = graph.add_node(op, inputs, attrs, domain=domain, outputs=outputs, name="here")
    graph.set_outputs(list(node.values))
    infer_types(graph)
    types = [v.type for v in node.values]
    return types[0] if outputs == 1 else types


def test_unary_ops_keep_the_type():
    assert infer("Exp", tensor("float16", N, 3)) == tensor("float16", N, 3)
    assert infer("IsNaN", tensor("float32", N)) == tensor("bool", N)
    assert infer("Relu", TensorType(dtype("float32"), None)).shape is None


def test_broadcasting():
    assert infer("Add", tensor("float32", N, 1), tensor("float32", 3)) == tensor("float32", N, 3)
    assert infer("Max", tensor("int32", 2, 1), tensor("int32", 1, 3), tensor("int32")) == tensor(
        "int32", 2, 3
    )
    assert infer("Mul", tensor("int8", N), tensor("int8", M)) == tensor("int8", dim_broadcast(N, M))
    assert infer("Less", tensor("int64", 4, 1), tensor("int64", N)) == tensor("bool", 4, N)
    assert infer("Add", TensorType(dtype("int8"), None), tensor("int8", 3)).shape is None


def test_where_broadcasts_three():
    got = infer("Where", tensor("bool", 2, 1), tensor("float32", 3), tensor("float32"))
    assert got == tensor("float32", 2, 3)


def test_pow_keeps_the_type_of_its_base():
    assert infer("Pow", tensor("int32", 2), tensor("float32")) == tensor("int32", 2)


def test_casts():
    assert infer("Cast", tensor("float32", N), to=element_code("int4")) == tensor("int4", N)
    assert infer("CastLike", tensor("float32", N), tensor("bool")) == tensor("bool", N)
    assert infer("BitCast", tensor("bool", 2), to=element_code("uint8")) == tensor("uint8", 2)


def test_identity_of_a_sequence():
    t = SequenceType(tensor("float32", N))
    assert infer("Identity", t) == t


def test_dropout_has_a_mask():
    x = tensor("float16", N)
    assert infer("Dropout", x, outputs=2) == [x, tensor("bool", N)]


def test_random_ops():
    assert infer("RandomNormal", shape=(2, 3)) == tensor("float32", 2, 3)
    assert infer("RandomUniformLike", tensor("float16", N)) == tensor("float16", N)
    assert infer("Bernoulli", tensor("float32", N), dtype=9) == tensor("bool", N)
    assert infer("Multinomial", tensor("float32", N, 5), sample_size=4) == tensor("int32", N, 4)


@pytest.mark.parametrize(
    "op, types, attrs, message",
    [
        ("Add", [tensor("float32", 2), tensor("float64", 2)], {}, "input 1 float64"),
        ("Add", [tensor("float32", 2), tensor("float32", 3)], {}, "do not broadcast"),
        ("Sin", [tensor("int32", 2)], {}, "floats, not int32"),
        ("And", [tensor("int8"), tensor("int8")], {}, "must be bool"),
        ("BitwiseAnd", [tensor("float32"), tensor("float32")], {}, "integers, not float32"),
        ("PRelu", [tensor("float32", 2), tensor("float32", 3, 2)], {}, "does not broadcast"),
        ("BitCast", [tensor("float32")], {"to": element_code("int64")}, "do not make"),
        ("Cast", [tensor("float32")], {"to": 99}, "99"),
        ("Multinomial", [tensor("float32", 3)], {}, "rank 2"),
        ("Clip", [tensor("float32"), tensor("int32")], {}, "min holds int32"),
    ],
)
def test_errors_name_the_node(op, types, attrs, message):
    with pytest.raises(InferenceError, match=message) as e:
        infer(op, *types, **attrs)
    assert "'here'" in str(e.value)


# ---- values --------------------------------------------------------------------------------------


def values(op, *arrays, **attrs):
    """What is known at compile time of ``op`` on symbolic values ([N, 2N+1] as x.shape)."""
    graph = Graph()
    known, inputs = {}, []
    for a in arrays:
        if a.dtype == object:
            v = graph.add_input("x", tensor("int64", *a.shape))
            known[v] = a
        else:
            v = graph.add_constant(a)
        inputs.append(v)
    node = graph.add_node(op, inputs, attrs)
    graph.set_outputs([node.out()])
    found = infer_types(graph, known).get(node.out())
    return None if found is None else found.tolist()


SIZES = np.array([N, 2 * N + 1], dtype=object)
TWO = np.array([2, 2])


@pytest.mark.parametrize(
    "op, arrays, want",
    [
        ("Add", [SIZES, TWO], [N + 2, 2 * N + 3]),
        ("Sub", [SIZES, TWO], [N - 2, 2 * N - 1]),
        ("Mul", [SIZES, TWO], [2 * N, 4 * N + 2]),
        ("Div", [SIZES, TWO], [N // 2, (2 * N + 1) // 2]),
        ("Mod", [SIZES, TWO], [N % 2, 1]),
        ("Neg", [SIZES], [-N, -2 * N - 1]),
        ("Max", [SIZES, TWO], [dim_max(N, 2), dim_max(2 * N + 1, 2)]),
        ("Equal", [SIZES, np.array([-1, -1])], [False, False]),
        ("Equal", [SIZES, SIZES], [True, True]),
        ("Equal", [SIZES, TWO], None),
        ("Less", [SIZES, np.array([0, 0])], [False, False]),
        ("Greater", [SIZES, np.array([-1, 0])], [True, True]),
        ("Where", [np.array([True, False]), SIZES, TWO], [N, 2]),
        ("Div", [-1 * SIZES, TWO], None),
        ("Div", [np.array([-7, 7]), TWO], [-3, 3]),
        ("Div", [np.array([7, 7]), np.array([2, 0])], None),
        ("Mod", [np.array([-7, 7]), TWO], [1, 1]),
        ("Identity", [SIZES], [N, 2 * N + 1]),
        ("Not", [np.array([True, False])], [False, True]),
        ("Floor", [np.array([1.5, -1.5], np.float32)], [1.0, -2.0]),
    ],
)
def test_values(op, arrays, want):
    assert values(op, *arrays) == want


def test_values_of_casts():
    to = element_code
    assert values("Cast", SIZES, to=to("int32")) == [N, 2 * N + 1]
    assert values("Cast", SIZES, to=to("float32")) is None
    assert values("Cast", SIZES + 1, to=to("bool")) == [True, True]
    assert values("Cast", np.array([2, 3]), to=to("float32")) == [2.0, 3.0]
    assert values("Cast", np.array([2.7]), to=to("int64")) == [2]


@pytest.mark.parametrize("entries", [[N, -1], [N, 2**40], [N - 1, 1]])
def test_a_narrower_type_wraps_and_then_nothing_is_known(entries):
    array = np.array(entries, dtype=object)
    assert values("Cast", array, to=element_code("uint32")) is None
    assert values("Cast", array, to=element_code("int64")) == entries


def test_known_floats_keep_their_type():
    """[4.0, 2.0] / 8.0 is not integer division."""
    assert values("Div", np.array([4.0, 2.0], np.float32), np.array(8.0, np.float32)) == [0.5, 0.25]


def test_traits():
    graph = Graph()
    x = graph.add_input("x", tensor("float32", 2))
    assert has_trait(graph.add_node("Add", [x, x]), Trait.COMMUTATIVE)
    assert not has_trait(graph.add_node("Sub", [x, x]), Trait.COMMUTATIVE)
    noise = spec("RandomNormalLike")
    assert noise is not None and Trait.STOCHASTIC in noise.traits
    assert Trait.ELEMENTWISE not in noise.traits
