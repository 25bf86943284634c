"""Weights that make up for channels which are dropped."""

from __future__ import annotations

import numpy as np
import pytest
from support.prune_zoo import ZOO
from support.pruning import Net, array

from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.verify import verify
from graphkiln.passes.base import PassContext
from graphkiln.passes.prune import Prune
from graphkiln.passes.prune.reconstruct import DAMPING, corrected


def test_the_solution_is_that_of_least_squares() -> None:
    """The damped problem, as rows that are added to it."""
    random = np.random.default_rng(0)
    x, weights = random.standard_normal((50, 6)), random.standard_normal((6, 3))
    gone = np.array([False, True, False, False, True, False])
    found = corrected(weights[None], (x.T @ x)[None], gone[None])[0]
    kept = x[:, ~gone]
    rows = np.sqrt(DAMPING * np.square(kept).sum(0).mean()) * np.eye(4)
    target = np.concatenate([x[:, gone] @ weights[gone], np.zeros((4, 3))])
    wanted, *_ = np.linalg.lstsq(np.concatenate([kept, rows]), target, rcond=None)
    np.testing.assert_allclose(found[~gone], weights[~gone] + wanted, 1e-8)
    assert not found[gone].any()


def test_groups_that_go_whole_stay() -> None:
    weights, gram = np.ones((2, 3, 2)), np.stack([np.eye(3)] * 2)
    gone = np.array([[True, True, True], [False, False, False]])
    assert (corrected(weights, gram, gone) == weights).all()


def samples(net: Net, seed: int, count: int) -> list[dict[str, np.ndarray]]:
    (x,) = net.graph().inputs
    shape = [d for d in x.shape if isinstance(d, int)]
    mix = array(shape[1], shape[1], seed=9)
    # Channels that depend on each other, as those of real data do.
    return [
        {"x": np.einsum("nc...,cd->nd...", array(*shape, seed=seed + i), mix)}
        for i in range(count)
    ]  # fmt: skip


def error(net: Net, seen: list[dict[str, np.ndarray]], reconstruct: bool) -> float:
    """The sum of squares of what a pruned net's results are off on samples of their own."""
    graph = net.graph()
    original, context = graph.copy(), PassContext(data=seen)
    context.refresh(graph)
    Prune(0.4, multiple=1, reconstruct=reconstruct).run(graph, context)
    context.refresh(graph)
    verify(graph)
    total = 0.0
    for sample in samples(net, 100, 4):
        (wanted, *_), (found, *_) = evaluate(original, sample), evaluate(graph, sample)
        total += float(np.square(wanted - found).sum())
    return total


@pytest.mark.parametrize(
    "name",
    ["a chain", "a flattened image", "a concatenation", "two groups", "a depthwise convolution",
     "squeeze and excitation"],
)  # fmt: skip
def test_less_is_lost_on_samples_that_it_did_not_see(name: str) -> None:
    net = ZOO[name]
    seen = samples(net, 1, 12)
    assert error(net, seen, reconstruct=True) < 0.95 * error(net, [], reconstruct=False)
