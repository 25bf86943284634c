"""What onnxruntime computes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime


def first_result(model: onnx.ModelProto, x: np.ndarray, optimised: bool = True) -> np.ndarray:
    """onnxruntime's first output for the input ``x``; unoptimised, every op runs as it stands."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])
