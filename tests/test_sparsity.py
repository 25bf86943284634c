"""Sparse models from samples to the artifact that is loaded and run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphkiln

RNG = np.random.default_rng(0)
WEIGHTS = [RNG.normal(0, 256**-0.5, (256, 256)).astype(np.float32) for _ in range(3)]
SAMPLES = [{"x": RNG.normal(size=(8, 256)).astype(np.float32)} for _ in range(4)]


def model() -> onnx.ModelProto:
    nodes, last = [], "x"
    for i in range(len(WEIGHTS)):
        nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"h{i}"]))
        nodes.append(helper.make_node("Tanh", [f"h{i}"], [f"t{i}"]))
        last = f"t{i}"
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [8, 256]) for n in ("x", last))
    held = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(WEIGHTS)]
    graph = helper.make_graph(nodes, "net", [x], [y], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def compiled(options: str, tmp_path: Path) -> tuple[graphkiln.Artifact, Path]:
    passes = f"default@before(integers)=sparsify{{{options}}}" if options else None
    artifact = graphkiln.compile(model(), passes=passes, data=SAMPLES if options else ())
    path = tmp_path / "model.kiln"
    artifact.save(path)
    return artifact, path


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ("zeros=0.9,criterion=wanda", 0.15), ("zeros=0.9,adjust=true,pattern=16x1", 0.15),
        ("pattern=2:4,adjust=true", 0.56),
    ],
)  # fmt: skip
def test_artifacts_of_sparse_models_are_small_and_right(
    options: str, share: float, tmp_path: Path
) -> None:
    artifact, path = compiled(options, tmp_path)
    dense = sum(w.nbytes for w in WEIGHTS)
    stored = graphkiln.runtime.read_artifact(path, full=True).manifest.files["weights.bin"].size
    assert stored < share * dense + 4096
    rows = artifact.report["passes"]
    (found,) = (r["tables"]["sparse"] for r in rows if r["pass"].startswith("sparsify"))
    assert len(found) == 3 and all(row["decibels"] > 1 for row in found)
    feeds = SAMPLES[0]
    (before,), (after,) = artifact.session().run(None, feeds), graphkiln.load(path).run(None, feeds)
    np.testing.assert_array_equal(before, after)
    reference = compiled("", tmp_path)[0].session().run(None, feeds)[0]
    assert 0 < np.abs(after - reference).mean() < 0.5
