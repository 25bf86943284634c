"""Real models: every one imports, verifies, and keeps the names of its inputs and outputs."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from graphkiln.frontend import load_model
from graphkiln.ir.verify import verify


@pytest.mark.models
def test_real_models_import(models_folder: Path) -> None:
    paths = sorted(models_folder.glob("*.onnx"))
    assert paths
    for path in paths:
        graph = load_model(path).graph
        verify(graph)
        declared = onnx.load(path, load_external_data=False).graph
        weights = {t.name for t in declared.initializer}
        inputs = [v.name for v in declared.input if v.name not in weights]
        assert [v.name for v in graph.inputs] == inputs, path.stem
        assert list(graph.output_names) == [v.name for v in declared.output], path.stem
