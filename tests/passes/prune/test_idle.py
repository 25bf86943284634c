"""Channels that do nothing are removed, and the numbers stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.pass_checks import random_feeds, run, same
from support.prune_zoo import C1, C3, ZOO
from support.pruning import Net, array

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.passes.prune.constant_channels import zero_positions

W1, B1, W2 = array(8, 3, 3, 3, seed=0), array(8, seed=1), array(5, 8, 3, 3, seed=2)
LINES = f"""%c = Conv(%x, %w1, %b1) {C3}
    %r = Sigmoid(%c)
    %y = Conv(%r, %w2) {C3}
    %y"""


def without(array: np.ndarray, axis: int, *positions: int) -> np.ndarray:
    """The array with zeros at some positions."""
    found = array.copy()
    np.moveaxis(found, axis, 0)[list(positions)] = 0
    return found


def width(graph: Graph, name: str) -> int:
    (found,) = (v for n in graph.nx for v in n.values if v.name == name)
    size = found.shape[1]
    assert isinstance(size, int)
    return size


def checked(lines: str, arrays: dict[str, np.ndarray], x: str = "%x: float32[2,3,6,6]") -> Graph:
    """The graph without idle channels, which computes the same."""
    graph = Net(lines, {}, {}, x, arrays).graph()
    feeds = random_feeds(graph)
    expected = evaluate(graph, feeds)
    run(graph, "idle,dce")
    same(evaluate(graph, feeds, check_types=True), expected)
    return graph


def test_channels_that_nobody_reads_go() -> None:
    graph = checked(LINES, {"w1": W1, "b1": B1, "w2": without(W2, 1, 1, 4, 7)})
    assert width(graph, "c") == 5


def test_nothing_goes_without_zeros() -> None:
    assert width(checked(LINES, {"w1": W1, "b1": B1, "w2": W2}), "c") == 8


def test_zero_channels_go() -> None:
    """Relu of a bias below 0 is 0, Sigmoid of 0 is not."""
    bias = B1.copy()
    bias[[2, 5]] = [-0.5, 0.5]
    arrays = {"w1": without(W1, 0, 2, 5), "b1": bias, "w2": W2}
    assert width(checked(LINES.replace("Sigmoid", "Relu"), arrays), "c") == 7
    assert width(checked(LINES, arrays), "c") == 8


def test_constant_channels_become_biases() -> None:
    """Without padding, what reads a constant has a larger bias."""
    lines = LINES.replace(f"%w2) {C3}", "%w2, %b2) {kernel_shape=[3, 3]}")
    arrays = {"w1": without(W1, 0, 2, 5), "b1": B1, "w2": W2, "b2": array(5, seed=3)}
    assert width(checked(lines, arrays), "c") == 6
    assert width(checked(lines.replace(", %b2", ""), arrays), "c") == 6


def test_constant_units_of_a_gemm() -> None:
    lines = """%a = Gemm(%x, %w1, %b1)
        %s = Mul(%a, %two)
        %t = Tanh(%s)
        %y = Gemm(%t, %w2, %b2) {alpha=0.5, transB=1}
        %y"""
    arrays = {
        "w1": without(array(6, 8), 1, 0, 3), "b1": B1, "w2": array(4, 8), "b2": array(4),
        "two": np.full((1, 8), 2, np.float32),
    }  # fmt: skip
    assert width(checked(lines, arrays, "%x: float32[3,6]"), "a") == 6


def test_gated_zeros_go() -> None:
    """0 times a gate is 0, whatever the gate."""
    lines = f"""%c = Conv(%x, %w1) {C1}
        %g = Conv(%x, %w3) {C1}
        %h = Sigmoid(%g)
        %m = Mul(%c, %h)
        %y = Conv(%m, %w2) {C3}
        %y"""
    arrays = {"w1": without(array(8, 3, 1, 1), 0, 6), "w3": array(8, 3, 1, 1, seed=5), "w2": W2}
    graph = checked(lines, arrays)
    assert width(graph, "c") == width(graph, "g") == 7


def test_what_is_idle_without_idle_channels() -> None:
    """The reader of the first channels goes, as its own result is not read."""
    lines = f"""%c = Conv(%x, %w1) {C1}
        %d = Conv(%c, %w3) {C1}
        %y = Conv(%d, %w2) {C1}
        %y"""
    second = array(8, 8, 1, 1, seed=4)
    second[:, 3] = 0
    second[2, 3] = 1
    arrays = {
        "w1": array(8, 3, 1, 1), "w3": second, "w2": without(array(5, 8, 1, 1), 1, 2)
    }  # fmt: skip
    graph = checked(lines, arrays)
    assert width(graph, "d") == width(graph, "c") == 7


def test_one_channel_stays() -> None:
    arrays = {"w1": np.zeros_like(W1), "b1": np.zeros_like(B1), "w2": np.zeros_like(W2)}
    assert width(checked(LINES, arrays), "c") == 1


@pytest.mark.parametrize("name", [n for n, net in ZOO.items() if net.groups])
@settings(max_examples=3)
@given(data=st.data())
def test_any_net_with_zeros_keeps_its_numbers(name: str, data: st.DataObject) -> None:
    net = ZOO[name]
    held = {n: array(*s, seed=i) for i, (n, s) in enumerate(net.shapes.items())}
    for weight, zeroed in held.items():
        for axis in range(min(zeroed.ndim, 2)):
            places = data.draw(st.sets(st.integers(0, zeroed.shape[axis] - 1), max_size=4))
            held[weight] = zeroed = without(zeroed, axis, *places)
    checked(net.lines, {**held, **net.arrays}, net.x)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2))
def test_positions_of_zeros(seed: int, axis: int) -> None:
    found = np.random.default_rng(seed).integers(0, 2, (3, 2, 2))
    others = tuple(a for a in range(3) if a != axis)
    assert (zero_positions(found, axis) == (found == 0).all(others)).all()
