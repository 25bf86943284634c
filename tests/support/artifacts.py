"""Artifacts of no model, and manifests that a forger changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from graphkiln.codegen.artifact import ArtifactContents


def contents(
    weights: list[tuple[str, np.ndarray]] | None = None, **changes: Any
) -> ArtifactContents:
    machine = os.uname().machine
    manifest = {
        "producer": {"graphkiln": "0.1.0", "tvm": "0.27.0"},
        "target": {
            "kind": "cpu",
            "name": "cpu",
            "triple": f"{machine}-linux-gnu",
            "arch": machine,
            "features": [],
        },
        "inputs": [{"name": "x", "kind": "tensor", "dtype": "float32", "shape": ["N", 3]}],
        "outputs": [{"name": "y", "kind": "tensor", "dtype": "float32", "shape": None}],
        "provenance": {"sha256": "0" * 64},
        **changes,
    }
    if weights is None:
        weights = [("a", np.arange(5, dtype=np.float32)), ("b", np.ones((2, 3), np.int8))]
    return ArtifactContents(manifest, b"\x7fELF library", weights, "graph é\n", {"seconds": 1.5})


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes a folder's manifest as a forger would, with a right hash."""
    file = path / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    manifest["self_sha256"] = "0" * 64
    data = json.dumps(manifest, sort_keys=True).encode()
    digest = hashlib.sha256(data).hexdigest().encode()
    file.write_bytes(data.replace(b'"self_sha256": "' + b"0" * 64, b'"self_sha256": "' + digest))
