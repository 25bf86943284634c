"""Ops that move elements or change shapes."""

from __future__ import annotations

import numpy as np

from .base import MS, Case, Draw, case, i64

# ---- movement ------------------------------------------------------------------------------------


@case("Transpose")
def transpose(d: Draw, key: str) -> Case:
    shape = d.shape(0, 4)
    attrs = {"perm": tuple(d.permutation(len(shape)))} if d.flag() else {}
    return Case(key, [d.floats(*shape)], attrs)


@case("Expand")
def expand(d: Draw, key: str) -> Case:
    shape = d.shape(1)
    x = d.floats(*d.squeezed(shape))
    return Case(key, [x, i64(*shape)], constants=(1,), shape_at=1)


@case("kiln.Expand")
def kiln_expand(d: Draw, key: str) -> Case:
    shape = d.shape(1)
    return Case(key, [d.floats(*d.squeezed(shape))], {"shape": shape}, shape_at="shape")


@case("Tile")
def tile(d: Draw, key: str) -> Case:
    shape = d.shape(1)
    return Case(key, [d.floats(*shape), i64(*(d.dim(1, 3) for _ in shape))], constants=(1,))


@case("Concat", MS + "QLinearConcat")
def concat(d: Draw, key: str) -> Case:
    shape = list(d.shape(1))
    at = d.dim(0, len(shape) - 1)
    shapes = [[*shape[:at], d.dim(), *shape[at + 1 :]] for _ in range(d.dim(1, 3))]
    axis = {"axis": at - d.pick(0, len(shape))}
    if key == "Concat":
        return Case(key, [d.floats(*s) for s in shapes], axis)
    parts = [(d.bytes(*s), np.float32(0.1), np.uint8(7)) for s in shapes]
    return Case(key, [np.float32(0.2), np.uint8(9), *(x for part in parts for x in part)], axis)


@case("Split")
def split(d: Draw, key: str) -> Case:
    sizes = [d.dim() for _ in range(d.dim(1, 3))]
    shape = list(d.shape(1))
    at = d.dim(0, len(shape) - 1)
    shape[at] = sum(sizes)
    x = d.floats(*shape)
    return Case(key, [x, i64(*sizes)], {"axis": at}, len(sizes), constants=(1,), resizable=False)


@case("Slice")
def slice_(d: Draw, key: str) -> Case:
    x = d.floats(*(d.dim(1, 6) for _ in range(d.dim(1, 3))))
    axes = d.permutation(x.ndim)[: d.dim(1, x.ndim)]
    steps = [d.pick(1, 1, 2, 3, -1, -2) for _ in axes]
    front, back = [d.dim(0, 2) for _ in axes], [d.pick(-1, -2, 4, 99) for _ in axes]
    starts = [f if s > 0 else b for s, f, b in zip(steps, front, back, strict=True)]
    ends = [b if s > 0 else f for s, f, b in zip(steps, front, back, strict=True)]
    parameters = [i64(*starts), i64(*ends), i64(*axes), i64(*steps)]
    return Case(key, [x, *parameters], constants=(1, 2, 3, 4), resizable=False)


@case("kiln.Slice")
def kiln_slice(d: Draw, key: str) -> Case:
    steps = [d.pick(1, 2, -1) for _ in range(d.dim(1, 3))]
    shape = [d.dim() for _ in steps]
    before = [d.dim(0, 2) for _ in steps]
    starts = [f + (n - 1 if s < 0 else 0) for f, n, s in zip(before, shape, steps, strict=True)]
    sizes = [
        f + (n - 1) * abs(s) + 1 + d.dim(0, 2) for f, n, s in zip(before, shape, steps, strict=True)
    ]
    attrs = {"starts": tuple(starts), "steps": tuple(steps), "shape": tuple(shape)}
    return Case(key, [d.floats(*sizes)], attrs, resizable=False)


@case("Pad", MS + "Pad")
def pad(d: Draw, key: str) -> Case:
    shape = [d.dim(2, 5) for _ in range(d.dim(1, 3))]
    mode = d.pick("constant", "constant", "edge", "wrap")
    low = -1 if mode == "constant" else 0
    pads = [d.dim(low, 2) for _ in range(2 * len(shape))]
    return Case(key, [d.floats(*shape), i64(*pads)], {"mode": mode}, constants=(1,))


@case("CenterCropPad")
def center_crop_pad(d: Draw, key: str) -> Case:
    x = d.floats(*(d.dim(1, 6) for _ in range(d.dim(1, 3))))
    axes = tuple(d.permutation(x.ndim)[: d.dim(1, x.ndim)])
    target = i64(*(d.dim(1, 6) for _ in axes))
    return Case(key, [x, target], {"axes": axes}, constants=(1,), resizable=False)


@case("ReverseSequence")
def reverse_sequence(d: Draw, key: str) -> Case:
    batch, time = d.dim(), d.dim()
    first = d.dim(0, 1)
    shape = (batch, time) if first == 0 else (time, batch)
    x, lengths = d.floats(*shape, *d.shape(0, 2)), d.ints(1, time + 1, batch)
    return Case(key, [x, lengths], {"batch_axis": first, "time_axis": 1 - first})


@case("Trilu", MS + "Trilu")
def triangle(d: Draw, key: str) -> Case:
    return Case(key, [d.floats(*d.shape(2, 4))], {"upper": d.dim(0, 1)})


@case("DepthToSpace")
def depth_to_space(d: Draw, key: str) -> Case:
    size = d.dim(1, 3)
    x = d.floats(d.dim(), d.dim() * size * size, d.dim(), d.dim())
    return Case(key, [x], {"blocksize": size, "mode": d.pick("DCR", "CRD")})


@case("SpaceToDepth")
def space_to_depth(d: Draw, key: str) -> Case:
    size = d.dim(1, 3)
    x = d.floats(d.dim(), d.dim(), d.dim() * size, d.dim() * size)
    return Case(key, [x], {"blocksize": size})


@case("kiln.DepthToSpaceBlocked")
def depth_to_space_blocked(d: Draw, key: str) -> Case:
    kh, kw = d.dim(1, 3), d.dim(1, 3)
    x = d.floats(d.dim(), d.dim() * kh * kw, d.dim(), d.dim(), d.dim())
    return Case(key, [x], {"window": (kh, kw)})


@case("Col2Im")
def col2im(d: Draw, key: str) -> Case:
    n, c, h, w = (d.dim(1, 3) for _ in range(4))
    x = d.floats(n, c * 4, h * w)
    return Case(key, [x, i64(h + 1, w + 1), i64(2, 2)], constants=(1, 2))


@case("kiln.PackChannels")
def pack(d: Draw, key: str) -> Case:
    block = d.pick(2, 4)
    x = d.floats(d.dim(), d.pick(block, 2 * block, 3), d.dim(), d.dim())
    return Case(key, [x], {"block": block})


@case("kiln.UnpackChannels")
def unpack(d: Draw, key: str) -> Case:
    block, blocks = d.pick(2, 4), d.dim(1, 3)
    x = d.floats(d.dim(), blocks, d.dim(), d.dim(), block)
    channels = blocks * block - d.dim(0, 1)
    return Case(key, [x], {"channels": channels})


@case("kiln.SelectChannels")
def select(d: Draw, key: str) -> Case:
    n, h = d.dim(), d.dim()
    inputs = [d.floats(n, 2, h, 4), d.floats(n, 1, h, 4)]
    return Case(key, inputs, {"block": 4, "runs": (1, 0, 2, 2, 0, 3, 1, 4)})


# ---- views ---------------------------------------------------------------------------------------


def _regrouped(d: Draw) -> tuple[list[int], list[int]]:
    """Two shapes of as many elements."""
    factors = [d.dim(1, 3) for _ in range(d.dim(1, 4))]

    def grouped() -> list[int]:
        out = [factors[0]]
        for f in factors[1:]:
            if d.flag():
                out.append(f)
            else:
                out[-1] *= f
            out += [1] * (d.dim(0, 5) == 0)
        return out

    return grouped(), grouped()


@case("Reshape")
def reshape(d: Draw, key: str) -> Case:
    before, after = _regrouped(d)
    return Case(key, [d.floats(*before), i64(*after)], constants=(1,), shape_at=1)


@case("kiln.Reshape")
def kiln_reshape(d: Draw, key: str) -> Case:
    before, after = d.pick(_regrouped(d), _regrouped(d), ([6, 4], [4, 6]), ([2, 6, 4], [4, 6, 2]))
    return Case(key, [d.floats(*before)], {"shape": tuple(after)}, shape_at="shape")


@case("Flatten")
def flatten(d: Draw, key: str) -> Case:
    shape = d.shape(0, 4)
    return Case(key, [d.floats(*shape)], {"axis": d.dim(0, len(shape))})


@case("Squeeze")
def squeeze(d: Draw, key: str) -> Case:
    shape = d.shape(1)
    at = d.dim(0, len(shape))
    return Case(key, [d.floats(*shape[:at], 1, *shape[at:]), i64(at)], constants=(1,))


@case("Unsqueeze")
def unsqueeze(d: Draw, key: str) -> Case:
    shape = d.shape(1)
    return Case(key, [d.floats(*shape), i64(d.dim(0, len(shape)))], constants=(1,))


@case(MS + "ExpandDims")
def expand_dims(d: Draw, key: str) -> Case:
    shape = d.shape(1)
    at = np.array(d.dim(0, len(shape)), np.int64)
    return Case(key, [d.floats(*shape), at], constants=(1,))
