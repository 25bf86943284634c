"""Random changes of images that leave what they show: small movements and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

from ..errors import UsageError

Tensor = torch.Tensor


class AugmentError(UsageError):
    """A description of an augmentation makes no sense."""


@dataclass(frozen=True)
class Augmentation:
    """How far images of floats [N, C, H, W] are changed, each by uniformly random amounts.

    ``shift`` is in pixels along both axes, ``rotate`` in degrees, ``scale`` and ``shear`` as a
    share of the image's size; ``noise`` is the standard deviation of what is added to each float.
    Places outside of an image look like its border.
    """

    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    noise: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """``shift=2,rotate=10``; raises :class:`AugmentError`."""
        known = {f.name for f in fields(cls)}
        values: dict[str, float] = {}
        for part in filter(None, text.split(",")):
            name, _, number = part.partition("=")
            try:
                value = float(number)
            except ValueError:
                value = -1.0
            if name not in known or not 0 <= value < math.inf:
                raise AugmentError(
                    f"{part!r} is not NAME=NUMBER, where NAME is one of {', '.join(sorted(known))}"
                )
            values[name] = value
        return cls(**values)

    @property
    def moves(self) -> bool:
        """Does it move what images show?"""
        return any((self.shift, self.rotate, self.scale, self.shear))

    def apply(self, x: Tensor, random: torch.Generator) -> Tensor:
        """The changed batch; tensors that are no images of floats get noise, if floats, only."""
        if not x.is_floating_point():
            return x
        if self.moves and x.dim() == 4:
            grid = F.affine_grid(self._maps(x, random).to(x.dtype), list(x.shape), False)
            x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        if self.noise:
            x = x + self.noise * torch.randn(x.shape, generator=random, dtype=x.dtype)
        return x

    def _maps(self, x: Tensor, random: torch.Generator) -> Tensor:
        """A random affine map [2, 3] of coordinates from -1 to 1 for each image."""
        count, (height, width) = len(x), x.shape[-2:]
        draw = torch.rand((6, count), generator=random, dtype=torch.float64) * 2 - 1
        angle = draw[0] * math.radians(self.rotate)
        size = 1 + draw[1] * self.scale
        across, down = draw[2] * self.shear, draw[3] * self.shear
        cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
        maps = torch.zeros((count, 2, 3), dtype=torch.float64)
        maps[:, 0, 0], maps[:, 0, 1] = cos - sin * down, -sin + cos * across
        maps[:, 1, 0], maps[:, 1, 1] = sin + cos * down, cos + sin * across
        maps[:, 0, 2] = draw[4] * self.shift * 2 / width
        maps[:, 1, 2] = draw[5] * self.shift * 2 / height
        return maps


__all__ = ["AugmentError", "Augmentation"]
