"""The fast check of ``weights.bin`` at load time.

Two algorithms, chosen by size when the artifact is written:

``sha256``    up to 16 MiB: the SHA-256 of the content.
``grid64-1``  above. SHA-256 (1.8 GB/s a core where the CPU has instructions for it) is too slow to
              load 400 MB in 0.1 s, so the content is condensed 59 to 1 by sums, which NumPy forms
              at 13 GB/s a core:

    the content, as little-endian uint64 and zeros to fill up the last block, is cut into blocks of
    63 rows of 1,025 words; of each block the 1,025 sums of its columns and then the 63 sums of its
    rows are taken, modulo 2**64; each 64 blocks are a segment, whose digest is the SHA-256 of all
    its sums in order; the result is the SHA-256 of the segments' digests and the content's size as
    a little-endian uint64.

What ``grid64-1`` detects: every change that touches some row or some column of a block in one
word only, so every flipped bit or byte and every damaged run of up to 8,200 bytes; words, rows,
columns or blocks that changed places; and other damage up to a chance near 2**-64. A pattern that
adds up to zero in every row and every column at once goes unseen, which takes intent. It is no
defence against a forger, who could as well rewrite the hashes in the manifest: an artifact is not
signed. The manifest also holds the full SHA-256 of ``weights.bin``; `graphkiln.runtime.verify`
checks that.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Iterator

import numpy as np

from ..contract import GRID64, GRID_BLOCK, GRID_COLUMNS, GRID_ROWS, GRID_SEGMENT, SHA256

ALGORITHMS = (SHA256, GRID64)

_MAX_THREADS = 4


def weights_digest(data: np.ndarray, algorithm: str, threads: int) -> str:
    """The hexadecimal digest of a uint8 array whose length is a multiple of 8."""
    if algorithm == SHA256:
        return hashlib.sha256(data.data).hexdigest()
    segments = [data[start : start + GRID_SEGMENT] for start in range(0, len(data), GRID_SEGMENT)]
    digests = [b""] * len(segments)
    _spread(segments, digests, min(threads, _MAX_THREADS, len(segments)))
    return hashlib.sha256(b"".join(digests) + struct.pack("<Q", len(data))).hexdigest()


def _spread(segments: list[np.ndarray], digests: list[bytes], threads: int) -> None:
    """Fill ``digests`` in threads: NumPy and hashlib release the interpreter lock."""
    todo = iter(range(len(segments)))
    lock = threading.Lock()
    workers = [
        threading.Thread(target=_work, args=(segments, digests, todo, lock), daemon=True)
        for _ in range(threads - 1)
    ]
    for worker in workers:
        worker.start()
    _work(segments, digests, todo, lock)
    for worker in workers:
        worker.join()


def _work(
    segments: list[np.ndarray], digests: list[bytes], todo: Iterator[int], lock: threading.Lock
) -> None:
    while True:
        with lock:
            index = next(todo, None)
        if index is None:
            return
        digests[index] = _segment_digest(segments[index])


def _segment_digest(segment: np.ndarray) -> bytes:
    blocks = -(-len(segment) // GRID_BLOCK)
    sums = np.empty((blocks, GRID_COLUMNS + GRID_ROWS), np.uint64)
    for index in range(blocks):
        block = segment[index * GRID_BLOCK : (index + 1) * GRID_BLOCK]
        if len(block) < GRID_BLOCK:
            block = np.concatenate([block, np.zeros(GRID_BLOCK - len(block), np.uint8)])
        grid = block.view("<u8").reshape(GRID_ROWS, GRID_COLUMNS)
        np.add.reduce(grid, axis=0, out=sums[index, :GRID_COLUMNS])
        np.add.reduce(grid, axis=1, out=sums[index, GRID_COLUMNS:])
    return hashlib.sha256(sums.data).digest()
