"""ONNX's own cases for movement and shape ops."""

from __future__ import annotations

from typing import Any

import pytest
from oputil import backend_cases, run_case

CASES = backend_cases(
    "CenterCropPad", "Col2Im", "Concat", "ConstantOfShape", "DepthToSpace", "Expand", "Flatten",
    "Pad", "Reshape", "ReverseSequence", "Shape", "Size", "Slice", "SpaceToDepth", "Split",
    "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_onnx_case(case: Any) -> None:
    run_case(case)
