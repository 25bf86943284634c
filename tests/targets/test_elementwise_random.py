"""Random numbers: the generator's published vectors, distributions, and repeatable streams."""

import numpy as np
import pytest
import tvm_ffi
from targets.oputil import build, run_graph, run_op

from graphkiln.ir.graph import Graph
from graphkiln.ir.infer import infer_types
from graphkiln.ir.onnx_types import element_code
from graphkiln.ir.types import tensor
from graphkiln.targets.tir.builder import Builder
from graphkiln.targets.tir.cpu_loops import CpuLoops
from graphkiln.targets.tir.random import philox

SHAPE = (100, 1000)


def draw(op, attrs, shape=SHAPE, name="node"):
    graph = Graph()
    node = graph.add_node(op, [], {"shape": shape, **attrs}, name=name)
    graph.set_outputs([node.out()])
    infer_types(graph)
    return run_graph(graph, [])[0]


def test_philox_gives_its_published_numbers():
    """Known answers of Random123 for a counter and a key of zeros, and of ones in the low words."""
    b = Builder(CpuLoops(1))
    out = b.argument("out", (2, 4), "uint32")
    counters = b.argument("counters", (2,), "int64")
    with b.loop(1):
        for row, key in enumerate((0, 0)):
            for i, word in enumerate(philox(b, key, counters[row])):
                out.store((row, i), word)
    got = np.zeros((2, 4), np.uint32)
    build(b.finish("f"))["f"](
        tvm_ffi.from_dlpack(got), tvm_ffi.from_dlpack(np.array([0, 1], np.int64))
    )
    assert [hex(v) for v in got[0]] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
    assert len(set(got.ravel().tolist())) == 8


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_uniform(dtype):
    attrs = {"low": -2.0, "high": 3.0, "dtype": element_code(dtype), "seed": 7.0}
    x = draw("RandomUniform", attrs).astype(np.float64)
    assert -2 <= x.min() and x.max() <= 3
    counts, _ = np.histogram(x, bins=20, range=(-2, 3))
    assert np.abs(counts / x.size - 0.05).max() < 0.01


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal(dtype):
    x = draw("RandomNormal", {"mean": 1.0, "scale": 2.0, "dtype": element_code(dtype), "seed": 1.0})
    z = (x.astype(np.float64) - 1) / 2
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02
    assert abs((z**3).mean()) < 0.05 and abs((z**4).mean() - 3) < 0.15
    assert np.isfinite(z).all()
    assert abs(np.corrcoef(z.ravel()[:-1], z.ravel()[1:])[0, 1]) < 0.02


def test_streams():
    """Equal seeds give equal numbers; without a seed the node's name makes the difference."""
    first = draw("RandomUniform", {"seed": 1.0})
    np.testing.assert_array_equal(first, draw("RandomUniform", {"seed": 1.0}, name="other"))
    assert (first != draw("RandomUniform", {"seed": 2.0})).mean() > 0.9
    unnamed = draw("RandomUniform", {})
    np.testing.assert_array_equal(unnamed, draw("RandomUniform", {}))
    assert (unnamed != draw("RandomUniform", {}, name="other")).mean() > 0.9


def test_like_takes_shape_and_type():
    x = np.zeros((3, 5), np.float64)
    assert run_op("RandomNormalLike", [x], symbolic=True)[0].dtype == np.float64
    assert run_op("RandomUniformLike", [x], {"dtype": 1})[0].dtype == np.float32


@pytest.mark.parametrize("dtype", [None, "int64", "bool", "float16"])
def test_bernoulli(dtype):
    p = np.repeat(np.array([[0.0], [0.2], [0.9], [1.0]], np.float32), 20_000, axis=1)
    attrs = {} if dtype is None else {"dtype": element_code(dtype)}
    (got,) = run_op("Bernoulli", [p], attrs)
    assert got.dtype == np.dtype(dtype or "float32")
    np.testing.assert_allclose(got.astype(float).mean(axis=1), [0, 0.2, 0.9, 1], atol=0.015)


def test_multinomial():
    p = np.array([[0.1, 0.2, 0.7], [0.5, 0.0, 0.5]])
    with np.errstate(divide="ignore"):
        logs = np.log(p).astype(np.float32)
    (got,) = run_op("Multinomial", [logs], {"sample_size": 20_000, "dtype": element_code("int64")})
    assert got.shape == (2, 20_000) and got.dtype == np.int64
    found = np.stack([np.bincount(row, minlength=3) for row in got]) / 20_000
    np.testing.assert_allclose(found, p, atol=0.015)
    assert found[1, 1] == 0


# ---- Dropout -------------------------------------------------------------------------------------

X = np.linspace(1, 2, 20_000, dtype=np.float32).reshape(100, 200)


@pytest.mark.parametrize("training", [None, False])
@pytest.mark.parametrize("const", [set(), {1, 2}])
def test_dropout_at_inference(training, const):
    mode = None if training is None else np.array(training)
    inputs = [X, np.array(0.4, np.float32), mode]
    y, mask = run_op(
        "Dropout", inputs, num_outputs=2, const_inputs=const - ({2} if mode is None else set())
    )
    np.testing.assert_array_equal(y, X)
    assert mask.all()


def test_dropout_in_training():
    y, mask = run_op("Dropout", [X, np.array(0.4, np.float32), np.array(True)], num_outputs=2)
    np.testing.assert_allclose(y, np.where(mask, X / np.float32(0.6), 0), rtol=1e-6)
    assert abs(mask.mean() - 0.6) < 0.02
    y, mask = run_op("Dropout", [X, None, np.array(True)], num_outputs=2)
    assert abs(mask.mean() - 0.5) < 0.02


def test_dropout_of_nothing_keeps_everything():
    y, mask = run_op("Dropout", [X, np.array(0.0, np.float32), np.array(True)], num_outputs=2)
    np.testing.assert_array_equal(y, X)
    assert mask.all()


def test_stochastic_ops_fuse_with_their_consumers():
    graph = Graph()
    x = graph.add_input("x", tensor("float32", 10, 7))
    noise = graph.add_node("RandomNormalLike", [x], {"seed": 3.0})
    graph.set_outputs([graph.add_node("Add", [x, noise.out()]).out(), noise.out()])
    infer_types(graph)
    a = np.ones((10, 7), np.float32)
    total, drawn = run_graph(graph, [a])
    np.testing.assert_array_equal(total, a + drawn)
