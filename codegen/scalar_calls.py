"""Kernels on scalars that lowering adds: counters and conditions of loops, sizes as tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir.dims import Dim, is_static
from ..ir.graph import Attr, Graph
from ..ir.infer import infer_types
from ..ir.types import TensorType, tensor
from .kernel_calls import KernelCalls
from .program import Reg

_INT = tensor("int64")


def one_op(op: str, inputs: Sequence[TensorType], attrs: dict[str, Attr] | None = None,
           domain: str = "", constants: Sequence[np.ndarray] = ()) -> Graph:  # fmt: skip
    """A graph of one op whose inputs have the given types, followed by constants."""
    g = Graph("kernel")
    values = [g.add_input("in", t) for t in inputs]
    values += [g.add_constant(c, "c") for c in constants]
    node = g.add_node(op, values, attrs, domain=domain)
    g.set_outputs(list(node.values))
    infer_types(g)
    return g


def constant_scalar(kernels: KernelCalls, value: int | bool) -> Reg:
    """A register that holds a scalar int64 or bool tensor."""
    array = np.array(value, dtype=bool if isinstance(value, bool) else np.int64)
    g = Graph("kernel")
    node = g.add_node("Identity", [g.add_constant(array, "c")], types=[tensor(array.dtype.name)])
    g.set_outputs(list(node.values))
    return kernels.run(g, [])[0]


def dim_scalar(kernels: KernelCalls, d: Dim) -> Reg:
    """A register that holds a dim as a scalar int64 tensor."""
    if is_static(d):
        return constant_scalar(kernels, int(d))
    g = one_op("ShapeValue", [], {"dims": (d,), "shape": (), "dtype": "int64"}, "kiln")
    return kernels.run(g, [])[0]


def dim_list(kernels: KernelCalls, dims: Attr) -> Reg:
    """A register that holds an attribute of dims as an int64 vector."""
    assert isinstance(dims, tuple)
    attrs: dict[str, Attr] = {"dims": dims, "shape": (len(dims),), "dtype": "int64"}
    return kernels.run(one_op("ShapeValue", [], attrs, "kiln"), [])[0]


def difference(kernels: KernelCalls, a: Reg, b: Reg) -> Reg:
    """``a - b`` of int64 scalars."""
    return kernels.run(one_op("Sub", [_INT, _INT]), [a, b])[0]


def clipped(kernels: KernelCalls, number: Reg, low: int, high: int) -> Reg:
    """An int64 scalar, but at least ``low`` and at most ``high``."""
    limits = [np.array(n, np.int64) for n in (low, high)]
    return kernels.run(one_op("Clip", [_INT], constants=limits), [number])[0]


def element(kernels: KernelCalls, t: TensorType, axis: int, source: Reg, index: Reg) -> Reg:
    """``source``, of type ``t``, at one index of an axis."""
    return kernels.run(one_op("Gather", [t, _INT], {"axis": axis}), [source, index])[0]


def copied(kernels: KernelCalls, t: TensorType, source: Reg) -> Reg:
    """A copy of a tensor in memory of its own."""
    copy = Graph("kernel")
    node = copy.add_node("Identity", [copy.add_input("in", t)], types=[t])
    copy.set_outputs(list(node.values))
    return kernels.run(copy, [source])[0]


__all__ = [
    "clipped", "constant_scalar", "copied", "difference", "dim_list", "dim_scalar",
    "element",
]  # fmt: skip
