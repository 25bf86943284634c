"""Packing and unpacking of channels: blocks turned in registers, short rows, open extents."""

from __future__ import annotations

import numpy as np
import pytest
from support.cpu_kernels import Kernel, cpus, run

from graphkiln.ir.packing import pack_channels, unpack_channels
from graphkiln.targets.cpu.features import features_of

IMAGES = [(7, 5), (4, 4), (17,), (5, 33), (1, 1), (2, 3)]
CASES: list[tuple[int, dict[int, str]]] = [
    (3, {}), (32, {}), (24, {}), (24, {2: "H"}), (20, {0: "N", 2: "H"}),
]  # fmt: skip
"""Channels, and the dims that are open."""


def values(channels: int, image: tuple[int, ...], kind: str) -> np.ndarray:
    rng = np.random.default_rng(channels)
    return rng.integers(-100, 100, (2, channels, *image)).astype(kind)


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@pytest.mark.parametrize("kind", ["float32", "int8"])
@pytest.mark.parametrize("image", IMAGES)
def test_packs(image: tuple[int, ...], kind: str, cpu: str) -> None:
    block = features_of(cpu).lanes
    for channels, open_dims in CASES:
        k, x = Kernel(), values(channels, image, kind)
        y = k.node("PackChannels", [k.input(x, open_dims)], {"block": block}, "kiln")
        k.want = [pack_channels(x, block)]
        k.finish([y]).check(run(k, cpu))


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@pytest.mark.parametrize("channels", [16, 17])
@pytest.mark.parametrize("last", [4, 9, 16, 32])
def test_volumes_of_known_width_and_open_planes(last: int, channels: int, cpu: str) -> None:
    block, open_dims = features_of(cpu).lanes, {0: "N", 2: "D", 3: "H"}
    x = values(channels, (2, 3, last), "float32")
    k = Kernel()
    y = k.node("PackChannels", [k.input(x, open_dims)], {"block": block}, "kiln")
    k.want = [pack_channels(x, block)]
    k.finish([y]).check(run(k, cpu))
    k = Kernel()
    packed = k.input(pack_channels(x, block), open_dims)
    y = k.node("UnpackChannels", [packed], {"channels": channels}, "kiln")
    k.want = [x]
    k.finish([y]).check(run(k, cpu))


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("image", IMAGES)
def test_unpacks(image: tuple[int, ...], fused: bool, cpu: str) -> None:
    block = features_of(cpu).lanes
    for channels, open_dims in CASES:
        k, plain = Kernel(), values(channels, image, "float32")
        x = k.input(pack_channels(plain, block), open_dims)
        if fused:
            x, plain = k.node("Relu", [x]), np.maximum(plain, 0)
        y = k.node("UnpackChannels", [x], {"channels": channels}, "kiln")
        k.want = [unpack_channels(pack_channels(plain, block), channels)]
        k.finish([y]).check(run(k, cpu))
