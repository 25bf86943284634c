"""Single CPU kernels: small regions, what they should compute, and how to run them here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import tvm
import tvm_ffi

from graphkiln.codegen.build import build_module
from graphkiln.codegen.kernels import canonical
from graphkiln.ir.dims import Dim, evaluate, sym
from graphkiln.ir.graph import Graph, Value
from graphkiln.ir.infer import infer_types
from graphkiln.ir.split_weights import list_steps, split_pairs
from graphkiln.ir.types import TensorType, dtype
from graphkiln.machine import cpu_features
from graphkiln.targets import Target, parse_target
from graphkiln.targets.cpu.features import features_of
from graphkiln.targets.cpu.layouts import CpuLayouts
from graphkiln.targets.generic.region import region_symbols

Array = np.ndarray
Sizes = dict[str, int]


def cpus(*names: str) -> list[Any]:
    """Pytest parameters for CPUs that this machine may run code for; others are skipped."""
    return [pytest.param(name, id=name or "native", marks=_marks(name)) for name in names]


def _marks(name: str) -> list[Any]:
    missing = set(features_of(name).required) - cpu_features()
    reason = f"this CPU lacks {', '.join(sorted(missing))}"
    return [pytest.mark.skip(reason=reason)] if missing else []


@dataclass
class Kernel:
    """One region with its arguments, and the results that are expected of it.

    ``view`` takes from a result what counts: padded channels do not.
    """

    graph: Graph = field(default_factory=lambda: Graph("kernel"))
    feeds: list[Array] = field(default_factory=list)
    sizes: Sizes = field(default_factory=dict)
    want: list[Array] = field(default_factory=list)
    view: Callable[[Array], Array] = lambda a: a
    rtol: float = 1e-4
    atol: float = 1e-4

    def input(self, array: Array, open_dims: dict[int, str] | None = None) -> Value:
        """A run-time argument; ``open_dims`` names the dims that are symbols."""
        shape: list[Dim] = list(array.shape)
        for i, name in (open_dims or {}).items():
            shape[i] = sym(name)
            assert self.sizes.setdefault(name, array.shape[i]) == array.shape[i]
        return self.typed(array, TensorType(dtype(str(array.dtype)), tuple(shape)))

    def typed(self, array: Array, t: TensorType) -> Value:
        """A run-time argument of a type."""
        self.feeds.append(np.array(array, order="C"))
        return self.graph.add_input(f"x{len(self.feeds)}", t)

    def constant(self, value: Any, kind: str = "float32") -> Value:
        return self.graph.add_constant(np.array(value, kind), "c")

    def node(self, op: str, inputs: Sequence[Value | None], attrs: dict[str, Any] | None = None,
             domain: str = "") -> Value:  # fmt: skip
        """A node's first output, with its type."""
        value = self.graph.add_node(op, inputs, attrs, domain=domain).out()
        infer_types(self.graph)
        return value

    def finish(self, results: Sequence[Value]) -> Kernel:
        self.graph.set_outputs(list(results), [f"y{i}" for i in range(len(results))])
        infer_types(self.graph)
        return self

    def empty_results(self) -> list[Array]:
        """Arrays for the results, filled with what must not stay."""
        shapes = [tuple(evaluate(d, self.sizes) for d in v.shape) for v in self.graph.outputs]
        return [np.full(s, 77, v.dtype) for s, v in zip(shapes, self.graph.outputs, strict=True)]

    def check(self, results: Sequence[Array]) -> None:
        """Compare results with what is expected; where that is finite, all of them must be."""
        for got, want in zip(results, self.want, strict=True):
            assert np.isfinite(got).all() or not np.isfinite(want).all()
            viewed = self.view(got)
            assert viewed.shape == want.shape
            if got.dtype.kind in "iu":
                np.testing.assert_array_equal(viewed, want)
            else:
                np.testing.assert_allclose(viewed, want, rtol=self.rtol, atol=self.atol)


def int8_weights(rng: np.random.Generator, shape: Sequence[int], fixed: int | None) -> Array:
    """Random weights, or all ``fixed``: some with as many large ones as small ones, some trained
    networks', most of which are small.
    """
    if fixed is not None:
        return np.full(shape, fixed, np.int8)
    if rng.random() < 0.5:
        return rng.integers(-128, 128, shape).astype(np.int8)
    return rng.normal(0, 40, shape).clip(-128, 127).astype(np.int8)


def without_blocks(
    rng: np.random.Generator, w: Array, blocks: Sequence[int], share: float | None
) -> Array:
    """``w`` with a ``share`` of its blocks of so many elements along each axis kept, others 0."""
    if share is None:
        return w
    grid = [-(-size // block) for size, block in zip(w.shape, blocks, strict=True)]
    kept = rng.random(grid) < share
    for axis, block in enumerate(blocks):
        kept = np.repeat(kept, block, axis=axis)
    return w * kept[tuple(slice(size) for size in w.shape)].astype(w.dtype)


def packed_inputs(
    kernel: Kernel, weight: Array, bias: Array | None, layouts: CpuLayouts, depth: int, tiles: int,
    listed: bool = False,
) -> list[Value | None]:  # fmt: skip
    """Packed weights, whose first ``tiles`` dims count tiles, and a bias as arguments.

    The weights are split in two where the CPU's dot products need it; all steps of ``listed`` ones,
    whose tiles are one vector, are in a list.
    """
    split, vector = None, layouts.block * depth
    limit = layouts.pair_limit if depth == layouts.dot_depth else None
    if listed:
        split = list_steps(weight, tiles, vector, limit)
    elif limit is not None:
        split = split_pairs(weight, tiles, vector, limit)
    if split is None:
        return [kernel.input(a) for a in (weight, bias) if a is not None]
    start = None if bias is None else kernel.input(bias)
    rest = [kernel.input(a) for a in (split.residual, split.steps, split.starts)]
    return [kernel.input(split.main), start, *rest]


def lowered(kernel: Kernel, target: Target, name: str) -> tuple[Any, list[int]]:
    """The PrimFunc of a kernel as the compiler makes it, and the values of its symbols."""
    region = kernel.graph.copy()
    originals = canonical(region)
    symbols = [evaluate(originals[s], kernel.sizes) for s in region_symbols(region)]
    return target.kernel(region, name), symbols


def run(kernel: Kernel, cpu: str) -> list[Array]:
    """The results of a kernel built for a CPU that this machine can stand in for."""
    target = parse_target(f"cpu:{cpu}")
    function, symbols = lowered(kernel, target, "kernel")
    module = tvm.IRModule({"kernel": function})
    library = build_module(module, target.tvm_target(), target.checks_bounds)
    results = kernel.empty_results()
    library["kernel"](*(tvm_ffi.from_dlpack(a) for a in (*kernel.feeds, *results)), *symbols)
    return results
