"""Weights that are mostly zero: stored without their zeros, and put back when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.artifacts import contents, rewrite

from graphkiln.codegen.artifact import write_artifact
from graphkiln.codegen.compact import compact
from graphkiln.runtime import ArtifactError, read_artifact, verify
from graphkiln.runtime.compact import expanded
from graphkiln.runtime.manifest import WeightSpec

SPARSE = np.zeros((64, 100), np.float32)
SPARSE[::7, 3::10] = np.arange(100).reshape(10, 10) - 50.5
SPARSE[1, 1] = -0.0


def mixed() -> list[tuple[str, np.ndarray]]:
    bytes_ = np.where(np.arange(9001) % 11, 0, 7).astype(np.int8)
    return [("a", np.arange(5, dtype=np.float32)), ("s", SPARSE), ("b", bytes_),
            ("c", np.ones(2000, np.int16)), ("z", np.zeros((3, 0, 5), np.float64)),
            ("n", np.zeros(5000, np.int64))]  # fmt: skip


@pytest.mark.parametrize("folder", [False, True])
def test_weights_that_are_mostly_zero_are_stored_without_zeros(
    tmp_path: Path, folder: bool
) -> None:
    path = tmp_path / "model.kiln"
    write_artifact(contents(mixed()), path, folder)
    artifact = read_artifact(path, full=True)
    for (_, array), spec in zip(mixed(), artifact.manifest.weights, strict=True):
        found = artifact.weight(spec)
        assert found.tobytes() == array.tobytes() and found.shape == array.shape
        assert found.ctypes.data % 64 == 0
    compact = [spec.name for spec in artifact.manifest.weights if spec.nonzeros is not None]
    assert compact == ["s", "b", "n"]
    # A bit for each element, and the 101 that are not all zero bits.
    used = artifact.manifest.files["weights.bin"].size
    assert used < 64 + (800 + 4 * 101) + (1128 + 819) + 4000 + 632 + 6 * 64
    assert artifact.weights.nbytes == artifact.manifest.expanded > 3 * used
    verify(path)


@given(
    st.sampled_from(["bool", "int8", "float16", "float32", "int64", "complex64"]),
    st.integers(0, 3000), st.floats(0, 1), st.integers(0, 9),
)  # fmt: skip
def test_compact_weights_come_back(kind: str, size: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    array = (rng.integers(1, 100, 8 * size) * (rng.random(8 * size) < share)).astype(kind)
    found = compact(array)
    if found is None:
        return
    data, nonzeros = found
    assert data.nbytes <= 0.6 * array.nbytes
    blob = np.zeros(64 + data.nbytes, np.uint8)
    blob[64:] = data
    spec = WeightSpec("w", kind, array.shape, 0, array.nbytes, stored=64, nonzeros=nonzeros)
    assert expanded(blob, [spec], array.nbytes).tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("nonzeros", 100, "another number of elements"),
        ("nonzeros", 1 << 40, "outside weights.bin"),
        ("stored", 63, "not aligned"),
        ("offset", 1 << 40, "outside weights.bin"),
        ("expanded_bytes", 1 << 50, "bytes stored"),
        ("expanded_bytes", 0, "bytes stored|outside weights.bin"),
    ],
)
def test_compact_weights_that_do_not_fit(
    tmp_path: Path, field: str, value: int, message: str
) -> None:
    path = tmp_path / "model.kiln"
    write_artifact(contents(mixed()), path, folder=True)

    def change(manifest: dict[str, Any]) -> None:
        place = manifest if field in manifest else manifest["weights"][1]
        place[field] = value

    rewrite(path, change)
    with pytest.raises(ArtifactError, match=message):
        read_artifact(path)
