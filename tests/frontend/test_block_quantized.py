"""GatherBlockQuantized, expanded at import, against onnxruntime."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from frontend.build import INT64, model, node, refusal, value

import graphkiln
from graphkiln.frontend import load_model
from graphkiln.ir.interpreter import evaluate

ROWS, WIDTH, BLOCK = 5, 48, 16
RNG = np.random.default_rng(5)
INDICES = np.array([[4, 0], [1, 4], [2, 2]])


def embedding(table: np.ndarray, zeros: np.ndarray | None, **attrs: Any) -> onnx.ModelProto:
    blocks = -(-WIDTH // attrs.get("block_size", BLOCK))
    scales = RNG.uniform(0.5, 2, (ROWS, blocks)).astype(np.float32)
    constants = {"t": table, "s": scales, **({} if zeros is None else {"z": zeros})}
    attrs = {"block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1, **attrs}
    made = node("GatherBlockQuantized", "t i s z" if zeros is not None else "t i s", "y",
                domain="com.microsoft", **attrs)  # fmt: skip
    return model([made], [value("i", ("B", 2), INT64)], ["y"], constants, opset=21, com_microsoft=1)


def bytes_(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def small(kind: Any, low: int, *shape: int) -> np.ndarray:
    return RNG.integers(low, low + 16, shape).astype(kind)


CASES: dict[str, tuple[np.ndarray, np.ndarray | None, dict[str, Any]]] = {
    "4 bits in bytes": (bytes_(ROWS, WIDTH // 2), bytes_(ROWS, 2), {"bits": 4}),
    "4 bits in bytes, no zero points": (bytes_(ROWS, WIDTH // 2), None, {"bits": 4}),
    "8 bits": (bytes_(ROWS, WIDTH), bytes_(ROWS, 3), {"bits": 8}),
    "uint4": (small(ml_dtypes.uint4, 0, ROWS, WIDTH), small(ml_dtypes.uint4, 0, ROWS, 3), {}),
    "int4": (small(ml_dtypes.int4, -8, ROWS, WIDTH), None, {}),
    "a short last block": (bytes_(ROWS, WIDTH // 2), bytes_(ROWS, 1), {"block_size": 32}),
}


@pytest.mark.parametrize("name", CASES)
def test_rows(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHKILN_CACHE", str(tmp_path))
    table, zeros, attrs = CASES[name]
    proto = embedding(table, zeros, **attrs)
    feeds = {"i": INDICES}
    expected = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feeds)[0]
    for ours in (evaluate(load_model(proto).graph, feeds),
                 graphkiln.compile(proto, jobs=1).session().run(None, feeds)):  # fmt: skip
        np.testing.assert_allclose(ours[0], expected, rtol=1e-6)


def test_what_does_not_fit() -> None:
    table = bytes_(ROWS, WIDTH // 2)
    assert "must differ" in refusal(embedding(table, None, quantize_axis=0)).reason
    assert "2, 4 or 8, not 3" in refusal(embedding(table, None, bits=3)).reason
    assert "out of range" in refusal(embedding(table, None, gather_axis=2)).reason
