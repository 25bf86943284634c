"""Gathers, scatters and transforms."""

from __future__ import annotations

import numpy as np

from .base import MS, Case, Draw, case, i64


@case("Gather")
def gather(d: Draw, key: str) -> Case:
    x = d.floats(*d.shape(1))
    axis = d.dim(0, x.ndim - 1)
    return Case(key, [x, d.ints(0, x.shape[axis], *d.shape(0, 2))], {"axis": axis})


@case("GatherElements", "ScatterElements")
def elements(d: Draw, key: str) -> Case:
    x = d.floats(*d.shape(1))
    axis = d.dim(0, x.ndim - 1)
    shape = [d.dim(1, n) for n in x.shape]
    indices = d.ints(0, x.shape[axis], *shape)
    if key.startswith("Gather"):
        return Case(key, [x, indices], {"axis": axis})
    reduction = d.pick("none", "add", "max")
    return Case(key, [x, indices, d.floats(*shape)], {"axis": axis, "reduction": reduction})


@case("GatherND", MS + "GatherND")
def gather_nd(d: Draw, key: str) -> Case:
    x = d.floats(*(d.dim(2, 4) for _ in range(3)))
    batch = d.dim(0, 1) if key == "GatherND" else 0
    depth = d.dim(1, 3 - batch)
    indices = d.ints(0, 2, *x.shape[:batch], *d.shape(1, 2), depth)
    return Case(key, [x, indices], {"batch_dims": batch} if key == "GatherND" else {})


@case("ScatterND")
def scatter_nd(d: Draw, key: str) -> Case:
    x, depth, places = d.floats(2, 2, d.dim()), d.dim(1, 2), d.shape(1, 2)
    indices = d.ints(0, 2, *places, depth)
    return Case(key, [x, indices, d.floats(*places, *x.shape[depth:])])


@case("ai.onnx.ml.ArrayFeatureExtractor")
def pick_features(d: Draw, key: str) -> Case:
    x = d.floats(*d.shape(1))
    return Case(key, [x, d.ints(0, x.shape[-1], d.dim())])


@case("TensorScatter")
def tensor_scatter(d: Draw, key: str) -> Case:
    n, h, room, w = (d.dim(2) for _ in range(4))
    length = d.dim(1, room)
    inputs = [d.floats(n, h, room, w), d.floats(n, h, length, w)]
    return Case(key, [*inputs, d.ints(0, room - length + 1, n)], {"axis": 2})


@case("OneHot")
def one_hot(d: Draw, key: str) -> Case:
    indices = d.ints(0, 3, *d.shape(1))
    attrs = {"axis": d.dim(0, indices.ndim)}
    return Case(key, [indices, i64(3), np.float32([-1, 1])], attrs, constants=(1,))


@case("Compress")
def compress(d: Draw, key: str) -> Case:
    x = d.floats(*d.shape(1))
    axis = d.dim(0, x.ndim - 1)
    return Case(key, [x, d.bools(x.shape[axis])], {"axis": axis}, constants=(1,))


@case("DFT")
def dft(d: Draw, key: str) -> Case:
    x = d.floats(*d.shape(1, 2), d.dim(2, 4), d.dim(1, 2))
    axis = np.array(d.dim(0, x.ndim - 2), np.int64)
    return Case(key, [x, None, axis], constants=(2,))


@case("STFT")
def stft(d: Draw, key: str) -> Case:
    x = d.floats(d.dim(), 8, 1)
    return Case(key, [x, i64(2).reshape(()), None, i64(4).reshape(())], constants=(1, 3))
