"""Nets inside of nets: the bodies of If, Loop and Scan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..net import Net, Unfit, Value, element, needed_nodes

DEEPEST = 2
"""How deep bodies are nested."""


def depth(net: Net) -> int:
    return net.prefix.count("_")


def inner(net: Net, tag: str, parameters: Sequence[np.ndarray] = ()) -> tuple[Net, list[Value]]:
    """A net for a body, which knows values around it, and what stands for its inputs."""
    if depth(net) >= DEEPEST:
        raise Unfit("nested deep enough")
    body = Net(net.rng, opset=net.opset, prefix=f"{net.prefix}{tag}{net.count}_")
    values = [Value(f"{body.prefix}p{i}", a) for i, a in enumerate(parameters)]
    body.values = [*net.values[-6:], *values]
    return body, values


def graph(
    body: Net, name: str, parameters: Sequence[Value], outputs: Sequence[Value],
    others: Sequence[str] = (),
) -> onnx.GraphProto:  # fmt: skip
    """The body as a graph, in which scalars have a shape and other inputs have none.

    It has what its outputs, and ``others`` by name, need: what nothing uses may fail in one
    runtime and not in another. Outputs have names of their own, for onnxruntime loses those that
    are there twice.
    """
    names = [v.name for v in outputs]
    outputs = [body.op("Identity", v) if v.name in names[:i] else v for i, v in enumerate(outputs)]
    return helper.make_graph(
        needed_nodes(body.nodes, {v.name for v in outputs} | set(others)), name,
        [helper.make_tensor_value_info(v.name, element(v.dtype), () if v.rank == 0 else None)
         for v in parameters],
        [helper.make_tensor_value_info(v.name, element(v.dtype), [None] * v.rank)
         for v in outputs],
        [numpy_helper.from_array(a, n) for n, a in body.constants.items()],
    )  # fmt: skip


def made(body: Net) -> list[Value]:
    """What the body's own nodes give."""
    names = {o for n in body.nodes for o in n.output}
    return [v for v in body.values if v.name in names]


def result(body: Net, like: Value) -> Value:
    """One of the body's last results of this type and shape, or such a one made of ``like``."""
    found = [v for v in made(body) if v.dtype == like.dtype and v.shape == like.shape]
    if found and body.chance(0.9):
        return body.op("Identity", found[-1]) if body.chance(0.2) else found[-1]
    return body.op("Identity", like)


__all__ = ["depth", "graph", "inner", "made", "result"]
