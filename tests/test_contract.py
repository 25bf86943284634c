"""What compiled code and the runtime agree on stands once."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import graphkiln
from graphkiln import contract
from graphkiln.contract import FIRST_PORT, Frame
from graphkiln.ir.storage import storage_array, storage_bytes, storage_name
from graphkiln.ir.types import DTYPES, to_numpy_dtype
from graphkiln.runtime.dtypes import KNOWN, STORAGE, public_dtype, to_storage
from graphkiln.targets.tir.numeric import storage_dtype

ROOT = Path(graphkiln.__file__).parent

NAMES = {
    contract.LIBRARY, contract.WEIGHTS, contract.IR_TEXT, contract.REPORT, contract.MANIFEST,
    contract.GRID64, contract.PLAN, contract.RUN, contract.POOL, contract.THREADS, contract.POLL,
    contract.DIM_KERNELS, contract.HOST_FUNCTIONS, contract.BLANK_DIGEST,
}  # fmt: skip


def test_no_name_is_written_a_second_time() -> None:
    wrong = []
    for layer in ("codegen", "runtime", "targets", "cli"):
        for path in (ROOT / layer).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and node.value in NAMES:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}")
    # The linker is told to write a file, which happens to have the member's name.
    assert [w for w in wrong if not w.startswith("codegen/link.py")] == []


def test_the_pool_has_what_the_runtime_asks_for() -> None:
    source = (ROOT / "codegen" / "pool.c").read_text(encoding="utf-8")
    for name in (contract.POOL, contract.THREADS):
        assert f" __tvm_ffi_{name}(" in source
    assert f"MOST_THREADS = {contract.MOST_THREADS}," in source


@pytest.mark.parametrize("name", sorted(DTYPES.keys() - {"string"}))
def test_elements_lie_in_memory_as_everyone_thinks(name: str) -> None:
    """Kernels, the code around them, the writer of weights, and the runtime."""
    stored = STORAGE[name]
    assert storage_dtype(name) == storage_name(name) == stored.name
    assert storage_bytes(name) == stored.itemsize
    assert public_dtype(name) == to_numpy_dtype(name)
    values = np.arange(2).astype(to_numpy_dtype(name))
    weights, fed = storage_array(values), to_storage(values, name)
    assert weights.dtype == fed.dtype == stored
    assert weights.tobytes() == fed.tobytes()


def test_the_runtime_knows_the_element_types_of_the_ir() -> None:
    assert KNOWN == DTYPES.keys()


def test_words_of_a_frame() -> None:
    """Addresses of inputs and outputs, then the dims of both, without a gap."""
    frame = Frame((2, 0, 3), (1, 2))
    words = [frame.input(i) for i in range(3)] + [frame.output(i) for i in range(2)]
    words += [frame.input_dim(i, a) for i, rank in enumerate(frame.inputs) for a in range(rank)]
    words += [frame.output_dim(i, a) for i, rank in enumerate(frame.outputs) for a in range(rank)]
    assert words == list(range(FIRST_PORT, frame.end))


def test_the_digest_covers_what_code_relies_on() -> None:
    manifest = {key: key for key in contract.INTERFACE}
    digest = contract.interface_digest(manifest)
    assert len(digest) == 64 and digest == contract.interface_digest({**manifest, "other": 1})
    for key in contract.INTERFACE:
        assert contract.interface_digest({**manifest, key: None}) != digest
