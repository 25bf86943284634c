"""Movement of elements, reductions, and arithmetic on shapes."""

from __future__ import annotations

import numpy as np

from ..net import Net, Unfit, Value
from . import Step, grow
from .elementwise import FLOAT_STEPS, INTEGER_STEPS, cast, dims, floats, inputs, tame


def ranked(low: int = 1):  # noqa: ANN201 - a predicate
    return lambda v: v.rank >= low and v.array.size > 0


def transpose(net: Net) -> None:
    v = net.pick(ranked(2))
    net.op("Transpose", v, perm=[int(a) for a in net.rng.permutation(v.rank)])


def reshape(net: Net) -> None:
    """To known dims, with 0 for those that stay and -1 for one of them."""
    v = net.pick(ranked())
    shape = list(v.shape)
    if net.chance(0.5) and len(shape) > 1:
        at = net.between(0, len(shape) - 2)
        shape[at : at + 2] = [shape[at] * shape[at + 1]]
    else:
        at = net.between(0, len(shape) - 1)
        factor = net.choose([f for f in range(1, shape[at] + 1) if shape[at] % f == 0])
        shape[at : at + 1] = [factor, shape[at] // factor]
    if net.chance(0.8):
        shape[net.between(0, len(shape) - 1)] = -1
    for axis in range(min(len(shape), v.rank)):
        if shape[axis] == v.shape[axis] and net.chance(0.5):
            shape[axis] = 0
    net.op("Reshape", v, net.ints(*shape))


def computed_reshape(net: Net) -> None:
    """A shape taken apart and put together again, as exporters write it."""
    v = net.pick(ranked(2))
    sizes = net.op("Shape", v)
    axis = net.between(0, v.rank - 2)
    first = net.op("Gather", sizes, net.ints(axis))
    second = net.op("Gather", sizes, net.ints(axis + 1))
    joined = net.op("Mul", first, second)
    parts = [net.op("Slice", sizes, net.ints(0), net.ints(axis))] if axis else []
    parts.append(joined if net.chance(0.6) else net.ints(-1))
    if axis + 2 < v.rank:
        parts.append(net.op("Slice", sizes, net.ints(axis + 2), net.ints(2**31)))
    target = net.op("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]
    flat = net.op("Reshape", v, target)
    if net.chance(0.5):
        net.op("Reshape", net.op("Identity", flat), sizes)


def shape_arithmetic(net: Net) -> None:
    """Sizes in sums, products and quotients, cast there and back."""
    v = net.pick(ranked())
    size = net.op("Gather", net.op("Shape", v), net.constant(net.between(0, v.rank - 1), np.int64))
    for _ in range(net.between(1, 4)):
        kind = net.choose(("Add", "Mul", "Div", "Sub", "Max", "Mod"))
        other = net.constant(net.choose((1, 2, 3, 4)), np.int64)
        size = net.op(kind, size, other)
    if net.chance(0.3):
        size = net.op("Cast", net.op("Cast", size, to=1), to=7)
    flat = net.op("Unsqueeze", net.op("Max", size, net.constant(1, np.int64)), net.ints(0))
    if flat.array[0] > 64:
        raise Unfit("large")
    use = net.between(0, 3)
    if use == 0:
        net.op("ConstantOfShape", flat)
    elif use == 1:
        zero, one = net.constant(0, np.int64), net.constant(1, np.int64)
        net.op("Range", zero, net.op("Squeeze", flat, net.ints(0)), one)
    elif use == 2:
        net.op("Slice", v, net.ints(0), flat, net.ints(0))
    else:
        net.op("Tile", v, net.op("Concat", flat, *[net.ints(1)] * (v.rank - 1), axis=0))


def slices(net: Net) -> None:
    v = net.pick(ranked())
    count = net.between(1, v.rank)
    axes = [int(a) for a in net.rng.permutation(v.rank)[:count]]
    starts, ends, steps = [], [], []
    for axis in axes:
        step = net.choose((1, 1, 1, 2, -1, 3))
        low = net.between(-v.shape[axis], max(v.shape[axis] - 1, 0))
        starts.append(-1 if step < 0 else low)
        ends.append(-(2**62) if step < 0 else net.choose((2**62, v.shape[axis], -1)))
        steps.append(step)
    at = [a - v.rank if net.chance(0.4) else a for a in axes]
    net.op("Slice", v, net.ints(*starts), net.ints(*ends), net.ints(*at), net.ints(*steps))


def concat(net: Net) -> None:
    v = net.pick(ranked())
    axis = net.between(0, v.rank - 1)

    def fits(w: Value) -> bool:
        others = w.rank == v.rank and w.dtype == v.dtype
        return others and all(w.shape[a] == v.shape[a] for a in range(v.rank) if a != axis)

    parts = [net.pick(fits) for _ in range(net.between(1, 3))]
    net.op("Concat", v, *parts, axis=axis - v.rank if net.chance(0.3) else axis)


def split(net: Net) -> None:
    v = net.pick(ranked())
    axis = net.between(0, v.rank - 1)
    if v.shape[axis] < 2:
        raise Unfit("too small")
    count = net.between(2, min(3, v.shape[axis]))
    cuts = sorted(int(c) for c in net.rng.choice(np.arange(1, v.shape[axis]), count - 1, False))
    sizes = np.diff([0, *cuts, v.shape[axis]])
    net.ops("Split", count, v, net.ints(*map(int, sizes)), axis=axis)


def pad(net: Net) -> None:
    v = net.pick(lambda v: v.rank > 0 and v.array.size > 0 and v.dtype == np.float32)
    mode = net.choose(("constant", "reflect", "edge", "wrap"))
    amounts = [net.between(0, max(0, min(2, d - 1))) for d in v.shape] * 2
    if mode == "constant" and net.chance(0.3):
        amounts[0] = -net.between(0, v.shape[0] - 1)
    number = net.constant(0.5, v.dtype) if mode == "constant" and net.chance(0.5) else None
    net.op("Pad", v, net.ints(*amounts), *([number] if number else []), mode=mode)


def squeeze(net: Net) -> None:
    v = net.pick()
    ones = [a for a, d in enumerate(v.shape) if d == 1]
    if ones and net.chance(0.6):
        net.op("Squeeze", v, net.ints(net.choose(ones)))
    elif v.rank < 5:
        net.op("Unsqueeze", v, net.ints(net.between(-v.rank - 1, v.rank)))


def expand(net: Net) -> None:
    v = net.pick(lambda v: v.rank < 5)
    shape = [net.between(2, 4) if d == 1 and net.chance(0.7) else d for d in v.shape]
    if net.chance(0.3):
        shape.insert(0, net.between(1, 3))
    other = [w for w in net.values if list(w.shape) == shape]
    target = net.op("Shape", other[0]) if other and net.chance(0.6) else net.ints(*shape)
    if net.chance(0.3):
        net.op("Tile", v, net.ints(*(net.between(1, 2) for _ in v.shape)))
    else:
        net.op("Expand", v, target)


def gather(net: Net) -> None:
    v = net.pick(ranked())
    axis = net.between(0, v.rank - 1)
    size = v.shape[axis]
    shape = tuple(net.between(1, 4) for _ in range(net.between(0, 2)))
    at = net.random(net.choose((np.int64, np.int32)), shape, -size, size - 1)
    kind = net.between(0, 3)
    if kind == 0:
        shape = tuple(net.between(1, d) for d in v.shape)
        net.op("GatherElements", v, net.random(np.int64, shape, -size, size - 1), axis=axis)
    elif kind == 1:
        depth = net.between(1, v.rank)
        columns = [net.rng.integers(-d, d, (3, 1)) for d in v.shape[:depth]]
        net.op("GatherND", v, net.constant(np.concatenate(columns, 1), np.int64))
    else:
        net.op("Gather", v, at, axis=axis)


def scatter(net: Net) -> None:
    """To places that are all different, for the order of writes is not defined."""
    v = net.pick(ranked())
    axis = net.between(0, v.rank - 1)
    if net.chance(0.5):
        order = np.argsort(net.rng.random(v.shape), axis).astype(np.int64)
        keep = [slice(None)] * v.rank
        keep[axis] = slice(0, net.between(1, v.shape[axis]))
        at = np.ascontiguousarray(order[tuple(keep)])
        updates = net.random(v.dtype, at.shape, net.choose((-3, 0)), 3)
        net.op("ScatterElements", v, net.constant(at), updates, axis=axis)
    else:
        count = net.between(1, v.shape[0])
        rows = net.rng.permutation(v.shape[0])[:count].astype(np.int64)[:, None]
        updates = net.random(v.dtype, (count, *v.shape[1:]), 0, 3)
        net.op("ScatterND", v, net.constant(rows), updates)


def reduce(net: Net) -> None:
    v = tame(net, net.pick(lambda v: v.rank > 0 and v.array.size > 0 and v.dtype != np.bool_))
    kinds = ["ReduceMax", "ReduceMin", "ReduceSum"]
    if v.is_float:
        kinds += ["ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"]
    count = net.between(0, v.rank)
    chosen = net.rng.permutation(v.rank)[:count]
    axes = [int(a) - (v.rank if net.chance(0.3) else 0) for a in chosen]
    last = [net.ints(*axes)] if axes else []
    net.op(net.choose(kinds), v, *last, keepdims=net.between(0, 1))


def choose_extreme(net: Net) -> None:
    v = net.pick(lambda v: v.rank > 0 and v.array.size > 0 and v.dtype in (np.float32, np.int32))
    axis = net.between(-v.rank, v.rank - 1)
    if net.chance(0.4):
        k = net.ints(net.between(1, v.shape[axis]))
        net.ops("TopK", 2, v, k, axis=axis, largest=net.between(0, 1))
    else:
        net.op(net.choose(("ArgMax", "ArgMin")), v, axis=axis, keepdims=net.between(0, 1),
               select_last_index=net.between(0, 1))  # fmt: skip


def along(net: Net) -> None:
    v = tame(net, net.pick(lambda v: v.rank > 0 and v.array.size > 0 and floats(v)))
    axis = net.between(-v.rank, v.rank - 1)
    if net.chance(0.4):
        at = net.constant(axis, np.int64)
        net.op("CumSum", v, at, exclusive=net.between(0, 1), reverse=net.between(0, 1))
    else:
        net.op(net.choose(("Softmax", "LogSoftmax")), v, axis=axis)


def places(net: Net) -> None:
    """Results whose size depends on data."""
    v = net.pick(lambda v: v.rank > 0)
    if net.chance(0.5):
        net.op("NonZero", v)
        return
    axis = net.between(0, v.rank - 1)
    mask = net.random(np.bool_, (v.shape[axis],))
    net.op("Compress", v, mask, axis=axis)


def others(net: Net) -> None:
    kind = net.choose(("Trilu", "OneHot", "Flatten", "Size", "DepthToSpace", "ReverseSequence"))
    if kind == "Trilu":
        v = net.pick(ranked(2))
        net.op("Trilu", v, net.constant(net.between(-2, 2), np.int64), upper=net.between(0, 1))
    elif kind == "OneHot":
        v = net.pick(lambda v: v.dtype in (np.int64, np.int32))
        values = net.constant([0.0, 1.0], np.float32)
        net.op("OneHot", v, net.constant(5, np.int64), values, axis=-1)
    elif kind == "Flatten":
        v = net.pick()
        net.op("Flatten", v, axis=net.between(-v.rank, v.rank))
    elif kind == "DepthToSpace":
        v = net.pick(lambda v: v.rank == 4 and v.shape[1] % 4 == 0)
        net.op("DepthToSpace", v, blocksize=2, mode=net.choose(("DCR", "CRD")))
    elif kind == "ReverseSequence":
        v = net.pick(lambda v: v.rank >= 2 and v.shape[0] > 0 and v.shape[1] > 0)
        lengths = net.random(np.int64, (v.shape[1],), 1, v.shape[0])
        net.op("ReverseSequence", v, lengths, time_axis=0, batch_axis=1)
    else:
        net.op("Size", net.pick())


MOVEMENT: list[Step] = [
    transpose, transpose, reshape, reshape, computed_reshape, slices, slices, concat, concat,
    split, pad, squeeze, expand, gather, scatter, others,
]  # fmt: skip
REDUCTION: list[Step] = [reduce, reduce, choose_extreme, along]


def movement(net: Net) -> None:
    dtype = net.choose((np.float32, np.float32, np.float32, np.int64, np.int32, np.float64))
    inputs(net, dtype, 9)
    grow(net, [*MOVEMENT, *MOVEMENT, *FLOAT_STEPS[:6], cast, places], net.between(2, 9))


def reductions(net: Net) -> None:
    inputs(net, net.choose((np.float32, np.float32, np.float32, np.float16, np.float64)))
    grow(net, [*REDUCTION, *REDUCTION, *MOVEMENT[:9], *FLOAT_STEPS], net.between(2, 9))


def sizes(net: Net) -> None:
    """Graphs whose sizes are computed, mostly of open dims."""
    rank = net.between(1, 4)
    net.input(np.float32, ["NMKL"[a] if net.chance(0.75) else 4 for a in range(rank)])
    if net.chance(0.5):
        net.input(np.float32, dims(net, net.between(1, 3)))
    own: list[Step] = [shape_arithmetic, shape_arithmetic, computed_reshape, computed_reshape]
    grow(net, [*own, *MOVEMENT, *FLOAT_STEPS[:4], *INTEGER_STEPS[:2]], net.between(2, 9))


FAMILIES = {"movement": movement, "reductions": reductions, "sizes": sizes}

__all__ = ["FAMILIES", "MOVEMENT", "REDUCTION"]
