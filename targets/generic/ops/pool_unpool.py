"""Lowerings of MaxUnpool."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from ....ir.windows import unpool_shape
from ...tir.builder import Expr, TensorExpr
from ...tir.extents import index, unflatten
from ..registry import LowerContext, lowering, sizes


@lowering("MaxUnpool")
def lower_max_unpool(c: LowerContext) -> TensorExpr:
    """MaxUnpool-22: values at the indices they were pooled from, zeros elsewhere.

    Indices are flat indices into the shape that the window implies, as in onnx.reference, even if
    ``output_shape`` is larger.
    """
    b, x, places, out = c.b, c.buffered(0), c.buffered(1), c.result()
    source = c.input_types[0]
    assert source is not None
    implied = [b.dim(d) for d in unpool_shape(c.node, source.dims)]
    b.nest(out.shape, lambda at: out.store(at, tirx.const(0, out.compute_dtype)))

    def body(plane: tuple[Expr, ...]) -> None:
        with b.grid(*x.shape[2:]) as rest:
            at = (*plane, *rest)
            where = [b.let(i) for i in unflatten(places[at], implied)]
            fits = [
                t for i, e in zip(where, out.shape, strict=True) for t in (i >= 0, i < index(e))
            ]
            with b.when(tirx.all(*fits)):
                out.store(where, x[at])

    b.nest(x.shape[:2], body, cost=1 << 12, sequential_last=True)
    return out


@sizes("MaxUnpool")
def max_unpool_sizes(c: LowerContext) -> Sequence[Expr]:
    """The entries of ``output_shape``."""
    shape = c.input(2)
    return [shape[i] for i in range(c.input(0).rank)]
