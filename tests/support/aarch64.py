"""Kernels for aarch64, cross-compiled and run by qemu-user."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tvm
import tvm_ffi

from graphkiln.codegen.build import object_of
from graphkiln.targets import parse_target

from .cpu_kernels import Array, Kernel, lowered

COMPILER = "aarch64-linux-gnu-gcc"
MACHINE = "qemu-aarch64"
_RUNNER = Path(__file__).with_name("kernel_runner.c")
_CODES = {"i": 0, "u": 1, "f": 2}


def needs_aarch64() -> pytest.MarkDecorator:
    """Skips where the cross compiler or the machine's emulation is missing."""
    missing = [tool for tool in (COMPILER, MACHINE) if shutil.which(tool) is None]
    reason = (
        f"{' and '.join(missing)} not found (Debian: apt-get install qemu-user "
        "gcc-aarch64-linux-gnu)"
    )
    return pytest.mark.skipif(bool(missing), reason=reason)


def run_all(kernels: Sequence[Kernel], cpu: str, folder: Path) -> list[list[Array]]:
    """The results of kernels, built into one program that qemu runs."""
    target = parse_target(f"cpu:{cpu}")
    calls, objects = [], []
    for i, kernel in enumerate(kernels):
        function, symbols = lowered(kernel, target, f"kernel_{i}")
        path = folder / f"{i}.o"
        path.write_bytes(object_of(tvm.IRModule({f"kernel_{i}": function}), target))
        objects.append(path)
        calls.append(_call(i, kernel, symbols))
    words = np.array([len(calls)], np.int64).tobytes()
    (folder / "calls").write_bytes(words + b"".join(calls))
    _link(objects, folder)
    output = _output([MACHINE, "-cpu", "max", str(folder / "runner"), str(folder / "calls")])
    return _results(kernels, output)


def _call(i: int, kernel: Kernel, symbols: list[int]) -> bytes:
    results = kernel.empty_results()
    tensors = [*kernel.feeds, *results]
    words = [i, len(tensors), len(results), len(symbols)]
    parts = [np.array(words, np.int64).tobytes(), *map(_tensor, tensors)]
    return b"".join([*parts, np.array(symbols, np.int64).tobytes()])


def _tensor(a: Array) -> bytes:
    words = [_CODES[a.dtype.kind], 8 * a.itemsize, a.ndim, *a.shape, a.nbytes]
    return np.array(words, np.int64).tobytes() + a.tobytes()


def _link(objects: Sequence[Path], folder: Path) -> None:
    names = [f"__tvm_ffi_kernel_{i}" for i in range(len(objects))]
    table = "typedef int (*Kernel)(void*, const void*, int, void*);\n"
    table += "".join(f"int {n}(void*, const void*, int, void*);\n" for n in names)
    table += f"Kernel kernel_table[] = {{{', '.join(names)}}};\n"
    (folder / "table.c").write_text(table)
    command = [COMPILER, "-O1", "-static", *_includes(), "-o", folder / "runner"]
    _output([*map(str, [*command, _RUNNER, folder / "table.c", *objects]), "-lm"])


@cache
def _includes() -> tuple[str, ...]:
    info = tvm_ffi.libinfo
    return (f"-I{info.find_include_path()}", f"-I{info.find_dlpack_include_path()}")


def _output(command: Sequence[str]) -> bytes:
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()
        raise AssertionError(f"{command[0]} ended with {done.returncode}: {message}")
    return done.stdout


def _results(kernels: Sequence[Kernel], output: bytes) -> list[list[Array]]:
    found, at = [], 0
    for kernel in kernels:
        arrays = []
        for a in kernel.empty_results():
            data = np.frombuffer(output, a.dtype, a.size, at)
            arrays.append(data.reshape(a.shape))
            at += a.nbytes
        found.append(arrays)
    assert at == len(output)
    return found
