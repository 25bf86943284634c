"""Blocked memory layouts of activations and weights, as NumPy functions and their inverses.

``NCx{b}c``: channels in blocks of ``b``, the block innermost; the last block is padded with zeros.
Convolution weights ``[M, C/g, *K]`` become ``[g, Mt, Cb, *K, c, t]``: ``t`` output channels of one
register tile innermost, below them the ``c`` input channels of one block of the input's layout.
Matmul weights ``[K, N]`` become ``[Nt, K, t]``.
"""

from __future__ import annotations

import numpy as np


def _blocks(size: int, block: int) -> int:
    return -(-size // block)


def _pad_axis(x: np.ndarray, axis: int, size: int) -> np.ndarray:
    if x.shape[axis] == size:
        return x
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, size - x.shape[axis])
    return np.pad(x, widths)


def pack_channels(x: np.ndarray, block: int) -> np.ndarray:
    """``[N, C, *S]`` -> ``[N, ceil(C/block), *S, block]``."""
    n, c, *spatial = x.shape
    blocks = _blocks(c, block)
    padded = _pad_axis(x, 1, blocks * block).reshape(n, blocks, block, *spatial)
    return np.ascontiguousarray(np.moveaxis(padded, 2, -1))


def unpack_channels(x: np.ndarray, channels: int) -> np.ndarray:
    """``[N, Cb, *S, block]`` -> ``[N, channels, *S]``."""
    n, blocks, *spatial, block = x.shape
    merged = np.moveaxis(x, -1, 2).reshape(n, blocks * block, *spatial)
    return np.ascontiguousarray(merged[:, :channels])


def pack_conv_weight(w: np.ndarray, group: int, in_block: int, tile: int) -> np.ndarray:
    """``[M, C/g, *K]`` -> ``[g, ceil(M/g/tile), ceil(C/g/in_block), *K, in_block, tile]``."""
    m, c, *kernel = w.shape
    per_group = m // group
    tiles, blocks = _blocks(per_group, tile), _blocks(c, in_block)
    w = _pad_axis(w.reshape(group, per_group, c, *kernel), 1, tiles * tile)
    w = _pad_axis(w, 2, blocks * in_block)
    w = w.reshape(group, tiles, tile, blocks, in_block, *kernel)
    # g Mt t Cb c *K -> g Mt Cb *K c t
    order = (0, 1, 3, *range(5, w.ndim), 4, 2)
    return np.ascontiguousarray(w.transpose(order))


def unpack_conv_weight(w: np.ndarray, out_channels: int, in_channels: int) -> np.ndarray:
    """The inverse of :func:`pack_conv_weight`; ``in_channels`` is per group."""
    group, tiles, blocks, *kernel, in_block, tile = w.shape
    back = (0, 1, w.ndim - 1, 2, w.ndim - 2, *range(3, w.ndim - 2))
    w = w.transpose(back).reshape(group, tiles * tile, blocks * in_block, *kernel)
    w = w[:, : out_channels // group, :in_channels]
    return np.ascontiguousarray(w.reshape(out_channels, in_channels, *kernel))


def pack_depthwise_weight(w: np.ndarray, block: int) -> np.ndarray:
    """``[C, 1, *K]`` -> ``[ceil(C/block), *K, block]``."""
    return pack_channels(w.transpose(1, 0, *range(2, w.ndim)), block)[0]


def unpack_depthwise_weight(w: np.ndarray, channels: int) -> np.ndarray:
    """The inverse of :func:`pack_depthwise_weight`."""
    return np.ascontiguousarray(
        unpack_channels(w[None], channels).transpose(1, 0, *range(2, w.ndim))
    )


def pack_matmul_weight(w: np.ndarray, tile: int) -> np.ndarray:
    """``[K, N]`` -> ``[ceil(N/tile), K, tile]``."""
    k, n = w.shape
    tiles = _blocks(n, tile)
    padded = _pad_axis(w, 1, tiles * tile)
    return np.ascontiguousarray(padded.reshape(k, tiles, tile).transpose(1, 0, 2))


def unpack_matmul_weight(w: np.ndarray, columns: int) -> np.ndarray:
    """The inverse of :func:`pack_matmul_weight`."""
    tiles, k, tile = w.shape
    return np.ascontiguousarray(w.transpose(1, 0, 2).reshape(k, tiles * tile)[:, :columns])
