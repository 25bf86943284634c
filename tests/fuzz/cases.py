"""Failing graphs as folders: the model, its inputs, what is expected, and a note."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from graphkiln.ir.interpreter import evaluate

from .hunt import Found
from .judge import Subject, peer_results


def save(out: Path, found: Found) -> Path:
    """Write the case below ``out``; returns its folder."""
    subject, finding = found.subject, found.finding
    assert subject is not None and finding is not None
    folder = out / f"{found.item.family}-{found.item.seed}-{finding.kind}"
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(subject.model, folder / "model.onnx")
    np.savez(folder / "inputs.npz", **{n: _plain(a) for n, a in subject.feeds[0].items()})
    expected = None if finding.kind == "crash" else _expected(subject)
    names = [o.name for o in subject.model.graph.output]
    if expected is not None:
        arrays = zip(names, expected, strict=True)
        np.savez(folder / "expected.npz", **{n: _plain(np.asarray(a)) for n, a in arrays})
    passes = "" if finding.passes is None else f"\n--passes '{finding.passes}'"
    ops = " ".join(n.op_type for n in subject.model.graph.node)
    source = f"python -m tests.fuzz --family {found.item.family} --seed {found.item.seed} --count 1"
    told = f"{finding.kind}: {finding.message}{passes}"
    (folder / "note.txt").write_text(f"{told}\n{ops}\n{source}\n")
    return folder


def _expected(subject: Subject) -> list[Any] | None:
    """onnxruntime's results, else the reference's; None where a refusal is expected."""
    (peer,) = peer_results(subject.model, subject.feeds[:1])
    if isinstance(peer, list):
        return peer
    try:
        return evaluate(subject.graph.copy(), subject.feeds[0])
    except Exception:
        return None


def _plain(array: np.ndarray) -> np.ndarray:
    """What NumPy can store: types of ml_dtypes as float32."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array
