"""Real models: every one imports, verifies, and keeps the names of its inputs and outputs."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from graphkiln.frontend import load_model
from graphkiln.ir.verify import verify

# Where the rank of a value depends on the size of an open dimension.
_PINS = {
    "aecmos_crnn_gru": {"input": (1, 3, "frames", 160)},
    "silero_vad_16k_op15": {"input": ("batch", 576)},
}


@pytest.mark.models
def test_real_models_import(models_folder: Path) -> None:
    paths = sorted(models_folder.glob("*.onnx"))
    assert paths
    for path in paths:
        graph = load_model(path, shapes=_PINS.get(path.stem)).graph
        verify(graph)
        declared = onnx.load(path, load_external_data=False).graph
        weights = {t.name for t in declared.initializer}
        inputs = [v.name for v in declared.input if v.name not in weights]
        assert [v.name for v in graph.inputs] == inputs, path.stem
        assert list(graph.output_names) == [v.name for v in declared.output], path.stem
