"""ONNX's own cases for gathers, scatters, orders and generators."""

from __future__ import annotations

from typing import Any

import pytest
from oputil import backend_cases, run_case

CASES = backend_cases(
    "BlackmanWindow", "Compress", "CumProd", "CumSum", "EyeLike", "Gather", "GatherElements",
    "GatherND", "HammingWindow", "HannWindow", "MelWeightMatrix", "NonZero", "OneHot", "Range",
    "ScatterElements", "ScatterND", "TensorScatter", "TopK", "ai.onnx.ml.ArrayFeatureExtractor",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_onnx_case(case: Any) -> None:
    run_case(case)
