"""What quantizing one layer does to its result, for all layers at once."""

from __future__ import annotations

import numpy as np
import pytest
from support.graph_text import constant_lines, graph_of

from graphkiln.ir.graph import Graph
from graphkiln.passes.base import PassContext
from graphkiln.passes.quantize import Quantize
from graphkiln.passes.quantize.places import places_of

RNG = np.random.default_rng(2)
A, B = (RNG.standard_normal(s).astype(np.float32) for s in ((8, 8), (8, 8)))
C = B.copy()
C[0] = 0
LINES, ARRAYS = constant_lines({"a": A, "b": B, "c": C})
NET = f"""graph main(%x: float32[4,8], %z: float32[4,8]) -> (o) {{
{LINES}
%p = MatMul(%x, %a)
%r = Relu(%p)
%q = MatMul(%r, %b)
%s = Mul(%q, %z)
%t = MatMul(%s, %c)
return %t
}}"""


def net() -> Graph:
    return graph_of(NET, ARRAYS)


def samples(outlier: float) -> list[dict[str, np.ndarray]]:
    """The last product has an operand that few large numbers stretch, which do not count in it."""
    rng = np.random.default_rng(4)
    found = []
    for _ in range(6):
        x, z = (rng.standard_normal((4, 8)).astype(np.float32) for _ in range(2))
        z[0, 0] = outlier
        found.append({"x": x, "z": z, "label": np.array(1)})
    return found


def by_hand(x: np.ndarray, w: np.ndarray) -> float:
    """The ratio for a product with the whole range of ``x`` in 255 steps."""
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    step = (high - low) / 255
    zero = np.round(-low / step)
    q = (np.clip(np.round(x / step) + zero, 0, 255) - zero) * step
    scale = np.abs(w).max(0) / 127
    r = np.round(w / scale) * scale
    right = x.astype(np.float64) @ w
    return float(10 * np.log10(np.sum(right**2) / np.sum((q @ r - right) ** 2)))


def test_ratios_are_those_of_each_layer_alone() -> None:
    data = samples(1.0)
    noise = Quantize().noise(net(), PassContext(data=data))
    x = np.concatenate([s["x"] for s in data])
    z = np.concatenate([s["z"] for s in data])
    r = np.maximum(x @ A, 0)
    wanted = [by_hand(x, A), by_hand(r, B), by_hand((r @ B) * z, C)]
    assert list(noise.values()) == pytest.approx(wanted, abs=0.1)


def test_the_layer_that_suffers_most_is_left() -> None:
    used = PassContext(data=samples(3000.0))
    noise = Quantize().noise(net(), used)
    worst = min(noise, key=lambda name: noise[name] or np.inf)
    graph = net()
    context = PassContext(data=samples(3000.0))
    Quantize(exclude_worst=1).run(graph, context)
    (left,) = (row for row in context.tables["layers"] if row["scheme"] == "float")
    assert left["layer"] == worst == list(noise)[2]
    assert left["reason"] == "among the 1 layers that suffer most"
    told = [row["tensor"] for row in context.tables["tensors"]]
    assert told == [v.name for v in places_of(net()).tensors if v.name != "s"]
    assert {row["by"] for row in context.tables["tensors"]} == {"sample data"}
