"""Blocked memory layouts of activations and weights, as NumPy functions and their inverses.

Activations in ``NCx{b}c`` have channels in blocks of ``b``, innermost; the last block is padded
with zeros: ``[1, 20, 7, 7]`` becomes ``[1, 2, 7, 7, 16]`` for ``b`` = 16. Convolution weights ``[M,
C/g, *K]`` become ``[g, Mt, Cb, *K, c, t]``: innermost the ``t`` output channels of one register
tile, then the ``c`` input channels of one block. Matmul weights ``[K, N]`` become ``[Nt, K, t]``,
with ``t`` columns of one register tile innermost.

Gates of recurrent layers ``[D, gates*H, ..]`` become ``[D, B, gates, t, ..]``: blocks of ``t``
hidden elements with all of their gates.

Dot products of integers sum ``d`` neighbouring products of the reduction at once (``depth``, 4 for
most instructions). Packed weights then end in ``[.., c/d, t*d]``, with those neighbours innermost:
input channels of one position of the window, rows of a matrix. An odd one out stands beside a zero.
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


def _interleave(w: np.ndarray, depth: int) -> np.ndarray:
    """``[.., c, t]`` -> ``[.., c/depth, t*depth]``."""
    *lead, c, t = w.shape
    split = w.reshape(*lead, c // depth, depth, t)
    return np.ascontiguousarray(split.swapaxes(-1, -2)).reshape(*lead, c // depth, t * depth)


def _separate(w: np.ndarray, depth: int) -> np.ndarray:
    """The inverse of :func:`_interleave`."""
    *lead, c, t = w.shape
    split = w.reshape(*lead, c, t // depth, depth)
    return np.ascontiguousarray(split.swapaxes(-1, -2)).reshape(*lead, c * depth, t // depth)


def pack_conv_weight(
    w: np.ndarray, group: int, in_block: int, tile: int, depth: int = 1
) -> np.ndarray:
    """``[M, C/g, *K]`` -> ``[g, ceil(M/g/tile), ceil(C/g/in_block), *K, in_block, tile]``."""
    m, c, *kernel = w.shape
    per_group = m // group
    tiles, blocks = _blocks(per_group, tile), _blocks(c, in_block)
    w = _pad_axis(w.reshape(group, per_group, c, *kernel), 1, tiles * tile)
    w = _pad_axis(w, 2, blocks * in_block)
    w = w.reshape(group, tiles, tile, blocks, in_block, *kernel)
    # g Mt t Cb c *K -> g Mt Cb *K c t
    order = (0, 1, 3, *range(5, w.ndim), 4, 2)
    return _interleave(np.ascontiguousarray(w.transpose(order)), depth)


def unpack_conv_weight(
    w: np.ndarray, out_channels: int, in_channels: int, depth: int = 1
) -> np.ndarray:
    """The inverse of :func:`pack_conv_weight`; ``in_channels`` is per group."""
    w = _separate(w, depth)
    group, tiles, blocks, *kernel, in_block, tile = w.shape
    back = (0, 1, w.ndim - 1, 2, w.ndim - 2, *range(3, w.ndim - 2))
    w = w.transpose(back).reshape(group, tiles * tile, blocks * in_block, *kernel)
    w = w[:, : out_channels // group, :in_channels]
    return np.ascontiguousarray(w.reshape(out_channels, in_channels, *kernel))


def pack_depthwise_weight(w: np.ndarray, block: int, depth: int = 1) -> np.ndarray:
    """``[C, 1, *K]`` -> ``[ceil(C/block), *K, block]``.

    With a depth, that many neighbours along the last dim of the kernel are one step:
    ``[ceil(C/block), .., ceil(K/depth), block*depth]``.
    """
    w = _pad_axis(w, w.ndim - 1, _blocks(w.shape[-1], depth) * depth)
    packed = pack_channels(w.transpose(1, 0, *range(2, w.ndim)), block)[0]
    return _interleave(packed, depth)


def unpack_depthwise_weight(
    w: np.ndarray, channels: int, depth: int = 1, width: int | None = None
) -> np.ndarray:
    """The inverse of :func:`pack_depthwise_weight`; ``width`` is the kernel's last extent."""
    w = unpack_channels(_separate(w, depth)[None], channels)[..., :width]
    return np.ascontiguousarray(w.transpose(1, 0, *range(2, w.ndim)))


def pack_matmul_weight(w: np.ndarray, tile: int, depth: int = 1) -> np.ndarray:
    """``[K, N]`` -> ``[ceil(N/tile), K, tile]``; rows are padded to whole dot products."""
    n = w.shape[1]
    tiles, steps = _blocks(n, tile), _blocks(w.shape[0], depth)
    padded = _pad_axis(_pad_axis(w, 0, steps * depth), 1, tiles * tile)
    packed = padded.reshape(steps * depth, tiles, tile).transpose(1, 0, 2)
    return _interleave(np.ascontiguousarray(packed), depth)


def unpack_matmul_weight(
    w: np.ndarray, columns: int, rows: int | None = None, depth: int = 1
) -> np.ndarray:
    """The inverse of :func:`pack_matmul_weight`; ``rows`` is K where it was padded."""
    w = _separate(w, depth)
    tiles, k, tile = w.shape
    plain = w.transpose(1, 0, 2).reshape(k, tiles * tile)
    return np.ascontiguousarray(plain[:rows, :columns])


def pack_gates(x: np.ndarray, gates: int, tile: int) -> np.ndarray:
    """``[D, gates*H, *rest]`` -> ``[D, ceil(H/tile), gates, tile, *rest]``."""
    directions, width, *rest = x.shape
    blocks = _blocks(width // gates, tile)
    split = x.reshape(directions, gates, width // gates, *rest)
    padded = _pad_axis(split, 2, blocks * tile).reshape(directions, gates, blocks, tile, *rest)
    return np.ascontiguousarray(padded.swapaxes(1, 2))


def unpack_gates(x: np.ndarray, hidden: int) -> np.ndarray:
    """The inverse of :func:`pack_gates`."""
    directions, blocks, gates, tile, *rest = x.shape
    merged = x.swapaxes(1, 2).reshape(directions, gates, blocks * tile, *rest)[:, :, :hidden]
    return np.ascontiguousarray(merged.reshape(directions, gates * hidden, *rest))


def pack_recurrent_weight(r: np.ndarray, gates: int, tile: int) -> np.ndarray:
    """``[D, gates*H, H]`` -> ``[D, ceil(H/tile), H, gates*tile]``."""
    packed = np.moveaxis(pack_gates(r, gates, tile), -1, 2)
    return np.ascontiguousarray(packed).reshape(*packed.shape[:3], gates * tile)


def unpack_recurrent_weight(r: np.ndarray, gates: int) -> np.ndarray:
    """The inverse of :func:`pack_recurrent_weight`."""
    directions, blocks, hidden, width = r.shape
    split = r.reshape(directions, blocks, hidden, gates, width // gates)
    return unpack_gates(np.moveaxis(split, 2, -1), hidden)
