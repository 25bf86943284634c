"""Reductions and normalizations."""

from __future__ import annotations

import numpy as np

from .base import MS, Case, Draw, case, i64

# ---- reductions and normalizations ---------------------------------------------------------------


@case(
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare",
)  # fmt: skip
def reduction(d: Draw, key: str) -> Case:
    x = d.positive(*d.shape(1, 4))
    axes = d.permutation(x.ndim)[: d.dim(0, x.ndim)]
    attrs = {"keepdims": d.dim(0, 1), "noop_with_empty_axes": d.dim(0, 1)}
    return Case(key, [x, i64(*axes)], attrs, constants=(1,))


def _axis(d: Draw, rank: int) -> int:
    return d.dim(-rank, rank - 1)


@case("ArgMax", "ArgMin", "Softmax", "LogSoftmax", "Hardmax", "LpNormalization")
def along(d: Draw, key: str) -> Case:
    x = d.floats(*d.shape(1, 4))
    attrs = {"axis": _axis(d, x.ndim)}
    return Case(key, [x], {**attrs, "keepdims": d.dim(0, 1)} if key.startswith("Arg") else attrs)


@case(MS + "QLinearSoftmax")
def quantized_softmax(d: Draw, key: str) -> Case:
    x = d.bytes(*d.shape(1, 4))
    rest = [np.float32(0.02), np.uint8(0), np.float32(1 / 256), np.uint8(0)]
    return Case(key, [x, *rest], {"axis": _axis(d, x.ndim), "opset": d.pick(12, 13)})


@case("CumSum", "CumProd")
def cumulative(d: Draw, key: str) -> Case:
    x = d.floats(*d.shape(1))
    return Case(key, [x, i64(_axis(d, x.ndim)).reshape(())], constants=(1,))


@case("TopK")
def top_k(d: Draw, key: str) -> Case:
    x = d.floats(*(d.dim(2, 4) for _ in range(d.dim(1, 3))))
    return Case(key, [x, i64(2)], {"axis": _axis(d, x.ndim)}, 2, constants=(1,))


@case("MeanVarianceNormalization")
def mean_variance(d: Draw, key: str) -> Case:
    x = d.floats(*d.shape(2, 4))
    return Case(key, [x], {"axes": tuple(d.permutation(x.ndim)[: d.dim(1, x.ndim)])})


@case("LRN")
def lrn(d: Draw, key: str) -> Case:
    return Case(key, [d.floats(d.dim(), d.dim(1, 8), d.dim(), d.dim())], {"size": d.dim(1, 5)})


@case("InstanceNormalization")
def instance_norm(d: Draw, key: str) -> Case:
    x = d.floats(*d.shape(3, 4))
    return Case(key, [x, d.floats(x.shape[1]), d.floats(x.shape[1])])


@case("GroupNormalization")
def group_norm(d: Draw, key: str) -> Case:
    groups, each = d.dim(1, 3), d.dim(1, 3)
    c = groups * each
    x = d.floats(d.dim(), c, *d.shape(1, 2))
    return Case(key, [x, d.floats(c), d.floats(c)], {"num_groups": groups})


@case("BatchNormalization")
def batch_norm(d: Draw, key: str) -> Case:
    shape = d.shape(2, 4)
    c = shape[1]
    training = d.dim(0, 1)
    inputs = [d.floats(*shape), d.floats(c), d.floats(c), d.floats(c), d.positive(c)]
    return Case(key, inputs, {"training_mode": training}, 3 if training else 1)


@case(
    "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization",
    MS + "SimplifiedLayerNormalization",
)  # fmt: skip
def layer_norm(d: Draw, key: str) -> Case:
    x = d.floats(*d.shape(1, 4))
    axis = d.dim(0, x.ndim - 1)
    scale = [d.floats(*x.shape[axis:]) for _ in range(2 if key == "LayerNormalization" else 1)]
    outputs = d.dim(1, 3) if key == "LayerNormalization" else 1
    return Case(key, [x, *scale], {"axis": axis}, outputs)


@case(MS + "SkipLayerNormalization", MS + "SkipSimplifiedLayerNormalization")
def skip_norm(d: Draw, key: str) -> Case:
    x = d.floats(d.dim(), d.dim(), d.dim(2, 4))
    count = 3 if key.endswith("SkipLayerNormalization") else 2
    skip = d.floats(*(x.shape if d.flag() else x.shape[1:]))
    return Case(key, [x, skip, *(d.floats(x.shape[-1]) for _ in range(count))], outputs=4)


@case(MS + "EmbedLayerNormalization")
def embed_norm(d: Draw, key: str) -> Case:
    n, s, w = d.dim(), d.dim(), d.dim(2, 4)
    ids = [d.ints(0, high, n, s, dtype="int32") for high in (5, 2, 2, 6)]
    tables = [d.floats(5, w), d.floats(6, w), d.floats(2, w), d.floats(w), d.floats(w)]
    inputs = [ids[0], ids[1], *tables, ids[2], *([ids[3]] if d.flag() else [])]
    return Case(key, inputs, outputs=d.dim(1, 3))
