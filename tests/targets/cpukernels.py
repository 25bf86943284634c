"""Runs a typed graph as one region by the CPU target's own kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tvm_ffi
from oputil import Array, bind_symbols, build, restored, stored

from graphkiln.ir.dims import evaluate
from graphkiln.ir.graph import Graph
from graphkiln.targets import parse_target
from graphkiln.targets.base import TargetError
from graphkiln.targets.cpu.features import host_features
from graphkiln.targets.generic.region import region_symbols
from graphkiln.targets.tir.numeric import storage_dtype


def cpus() -> list[str]:
    """This machine, and where it has AVX2 also a CPU with no more than that."""
    try:
        native = host_features()
    except TargetError:
        return []
    return ["native", "x86-64-v3"] if native.vector_bytes > 32 else ["native"]


def run_on(cpu: str, graph: Graph, feeds: Sequence[Array]) -> list[Array]:
    """The outputs of ``graph`` by the kernel for ``cpu``."""
    target = parse_target(f"cpu:{cpu}")
    function = target.kernel(graph, "kernel")
    bindings = bind_symbols(graph, feeds)
    outputs = [
        np.zeros([evaluate(d, bindings) for d in v.shape], storage_dtype(v.dtype))
        for v in graph.outputs
    ]
    arrays = [*(stored(a) for a in feeds), *outputs]
    symbols = [bindings[s] for s in region_symbols(graph)]
    kernel = build(function, target.tvm_target())["kernel"]
    kernel(*(tvm_ffi.from_dlpack(a) for a in arrays), *symbols)
    return [restored(o, v.dtype) for o, v in zip(outputs, graph.outputs, strict=True)]
