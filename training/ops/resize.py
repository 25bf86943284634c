"""Resize: along each axis a product with a matrix, which the reference computes once.

Nearest, linear and cubic interpolation are linear in the elements and act on one axis after the
other, whatever the coordinates' transformation is. Column j of an axis's matrix is what the
reference makes of the j-th unit vector.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ...errors import OperandError
from ...ir.graph import Graph
from ...ir.interpreter import run_node
from ..emit import Call, Tensor, emits
from ..tensors import to_tensor

_GIVEN = (
    "antialias", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside", "mode",
    "nearest_mode",
)  # fmt: skip


@emits("Resize")
def resize(call: Call) -> Tensor:
    """Resize-19 by scales or sizes; not with ``tf_crop_and_resize`` or a kept aspect ratio."""
    x = call[0]
    if call.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise OperandError("a resize that crops does not run in PyTorch")
    if call.attr("keep_aspect_ratio_policy") != "stretch":
        raise OperandError("a resize that keeps the aspect ratio does not run in PyTorch")
    axes = [a % x.dim() for a in call.attr("axes") or range(x.dim())]
    scales = call.get(2)
    if scales is not None and scales.numel():
        numbers = [float(s) for s in scales.reshape(-1).tolist()]
        targets = [int(np.floor(s * x.shape[a])) for s, a in zip(numbers, axes, strict=True)]
    else:
        targets = call.ints(3) or []
        numbers = [t / x.shape[a] for t, a in zip(targets, axes, strict=True)]
    attrs = call.node.attrs
    given = tuple((name, attrs[name]) for name in _GIVEN if name in attrs)
    for axis, scale, target in zip(axes, numbers, targets, strict=True):
        if scale != 1:
            matrix = _matrix(given, x.shape[axis], scale, target).to(x.device, x.dtype)
            x = torch.tensordot(x, matrix, ([axis], [0])).movedim(-1, axis)
    return x


@lru_cache(maxsize=256)
def _matrix(given: tuple[tuple[str, Any], ...], size: int, scale: float, target: int) -> Tensor:
    """The matrix [size, target] of one axis, for the attributes ``given``."""
    alone = Graph().add_node("Resize", [], {**dict(given), "axes": (1,)})
    by_size = abs(scale * size - target) < 1e-6
    sizes = np.array([target], np.int64) if by_size else None
    scales = None if by_size else np.array([scale], np.float32)
    found = run_node(alone, [np.eye(size, dtype=np.float32), None, scales, sizes])[0]
    return to_tensor(found)
