"""Element-wise ops of com.microsoft against their formulas in float64."""

from math import erf

import numpy as np
import pytest
from targets.oputil import run_op

from graphkiln.ir.graph import Graph
from graphkiln.ir.infer import infer_types
from graphkiln.ir.interpreter import run_node
from graphkiln.ir.registry import InferenceError
from graphkiln.ir.types import tensor

DOMAIN = "com.microsoft"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 8)).astype(np.float32) * 3
BIAS = RNG.normal(size=8).astype(np.float32)


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def run(op, *inputs, **attrs):
    """The compiled result, which is the reference's."""
    (got,) = run_op(op, list(inputs), attrs, domain=DOMAIN, symbolic=True)
    node = Graph().add_node(op, [], attrs, outputs=1, domain=DOMAIN)
    close(got, run_node(node, list(inputs))[0])
    return got


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)


def test_gelu_and_its_forms_with_bias():
    x, biased = X.astype(np.float64), X.astype(np.float64) + BIAS
    close(run("Gelu", X), gelu(x))
    close(run("BiasGelu", X, BIAS), gelu(biased))
    close(run("FastGelu", X), gelu_tanh(x))
    close(run("FastGelu", X, BIAS), gelu_tanh(biased))


@pytest.mark.parametrize("alpha", [None, 1.0, 2.0])
def test_quick_gelu(alpha):
    attrs = {} if alpha is None else {"alpha": alpha}
    x = X.astype(np.float64)
    close(run("QuickGelu", X, **attrs), x / (1 + np.exp(-x * (alpha or 1.702))))


def test_bias_add():
    skip = RNG.normal(size=X.shape).astype(np.float32)
    close(run("BiasAdd", X, BIAS, skip), X + BIAS + skip)


def test_bias_split_gelu():
    left, right = np.split(X.astype(np.float64) + BIAS, 2, axis=-1)
    close(run("BiasSplitGelu", X, BIAS), left * gelu(right))


@pytest.mark.parametrize("op", ["FastGelu", "BiasGelu"])
@pytest.mark.parametrize("bias", [(1,), (1, 8), ()])
def test_a_bias_has_a_number_for_each_place(op, bias):
    graph = Graph()
    x = graph.add_input("x", tensor("float32", 2, 8))
    b = graph.add_input("b", tensor("float32", *bias))
    graph.set_outputs([graph.add_node(op, [x, b], domain=DOMAIN).out()])
    with pytest.raises(InferenceError, match="bias"):
        infer_types(graph)
