"""Patterns of sparsity: which weights of a layer may become zero together.

Weights are ``[groups, inputs, outputs, positions]`` (see `fold_affine.linear`), and a pattern looks
at each group and position of a window by itself:

    1x1     single weights
    16x1    blocks of 16 outputs by 1 input: a vector of sums by one operand, as register tiles of
            floats take them; dot products of bytes take 16x4
    2:4     of each 4 neighbouring inputs of an output, 2 stay (A. Mishra and others, *Accelerating
            Sparse Deep Neural Networks*, 2021)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

_BLOCK = re.compile(r"([1-9]\d{0,3})x([1-9]\d{0,3})")
_SHARE = re.compile(r"([1-9]\d{0,3}):([1-9]\d{0,3})")


@dataclass(frozen=True)
class Blocks:
    """Blocks of ``outputs`` by ``inputs``; those at the end may be smaller."""

    outputs: int
    inputs: int

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """The root of the mean square of each block ``[groups, blocks, blocks, positions]``."""
        padded = self._split(weights * weights)
        sizes = self._split(np.ones(weights.shape))
        return np.asarray(np.sqrt(padded.sum(axis=(2, 4)) / sizes.sum(axis=(2, 4))))

    def spread(self, blocks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """A number for each block as one for each weight, in weights of ``shape``."""
        every = blocks.repeat(self.inputs, axis=1).repeat(self.outputs, axis=2)
        return every[:, : shape[1], : shape[2]]

    def _split(self, weights: np.ndarray) -> np.ndarray:
        groups, inputs, outputs, positions = weights.shape
        down, along = -(-inputs // self.inputs), -(-outputs // self.outputs)
        padded = np.zeros((groups, down * self.inputs, along * self.outputs, positions))
        padded[:, :inputs, :outputs] = weights
        return padded.reshape(groups, down, self.inputs, along, self.outputs, positions)


@dataclass(frozen=True)
class OfEach:
    """Of each ``of`` neighbouring inputs, ``kept`` stay; of fewer at the end as many."""

    kept: int
    of: int

    def mask(self, weights: np.ndarray) -> np.ndarray:
        """Which weights stay: the largest; of equal ones, the first."""
        groups, inputs, outputs, positions = weights.shape
        parts = -(-inputs // self.of)
        padded = np.full((groups, parts * self.of, outputs, positions), -1.0)
        padded[:, :inputs] = np.abs(weights)
        split = padded.reshape(groups, parts, self.of, outputs, positions)
        order = np.argsort(-split, axis=2, kind="stable")
        rank = np.argsort(order, axis=2, kind="stable")
        return (rank < self.kept).reshape(padded.shape)[:, :inputs]


Pattern: TypeAlias = "Blocks | OfEach"


def parse_pattern(text: str) -> Pattern:
    """The pattern of a text such as ``1x1``, ``16x1`` or ``2:4``.

    Raises ``ValueError`` for others.
    """
    block, share = _BLOCK.fullmatch(text), _SHARE.fullmatch(text)
    if block:
        return Blocks(int(block[1]), int(block[2]))
    if share and int(share[1]) < int(share[2]):
        return OfEach(int(share[1]), int(share[2]))
    raise ValueError(f"{text!r} is no pattern: 1x1, blocks of outputs by inputs (16x1), or 2:4")


__all__ = ["Blocks", "OfEach", "Pattern", "parse_pattern"]
