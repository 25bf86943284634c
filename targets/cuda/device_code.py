"""Device code of CUDA kernels as bytes: made by nvcc, and kept and loaded as TVM's modules are.

Where there is no GPU, TVM leaves kernels as source text, which whoever runs them would have to
compile. Here nvcc makes a fat binary instead: machine code for the architecture that was asked for,
and PTX, from which the driver of a newer GPU makes its own.

TVM writes a module of its kind ``cuda`` as

- a text, the format of the code: ``cuda`` for source, else ``fatbin`` and others;
- what each kernel takes, and how it is launched;
- a text, the code.

A text is as :func:`graphkiln.contract.join_texts` writes it.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ...contract import first_text, join_texts
from ...errors import GraphkilnError

_KIND = b"cuda"
_OPTIONS = (
    "--fatbin", "-O3", "--expt-relaxed-constexpr", "-U__CUDA_NO_HALF_OPERATORS__",
    "-U__CUDA_NO_HALF_CONVERSIONS__", "-U__CUDA_NO_BFLOAT16_OPERATORS__",
    "-U__CUDA_NO_BFLOAT16_CONVERSIONS__", "-U__CUDA_NO_BFLOAT162_OPERATORS__",
    "-U__CUDA_NO_BFLOAT162_CONVERSIONS__",
)  # fmt: skip
"""What code of TVM's needs: operators of small floats. Not fast-math, which changes numbers."""


class DeviceCodeError(GraphkilnError):
    """nvcc fails; the text is what it says of the first error."""


def device_code(library: Any, arch: str) -> list[bytes]:
    """The modules that host code imports, as machine code for ``arch``, such as ``sm_90``.

    There is one, or none where a kernel has nothing to do. Raises :class:`DeviceCodeError` where
    nvcc cannot compile it.
    """
    sources = [module.inspect_source().encode() for module in library.imports]
    return [_compiled(_written(library), source, arch) for source in sources]


def _written(library: Any) -> bytes:
    """The module that ``library`` imports, as TVM writes it."""
    from tvm.runtime import _ffi_api

    packed = bytes(_ffi_api.ModulePackImportsToTensor(library).numpy())
    # It is the last of the modules, behind its kind and its length.
    kind = join_texts([_KIND])
    module, rest = first_text(packed[packed.index(kind) + len(kind) :])
    if rest:
        raise DeviceCodeError("TVM wrote more than one module of device code")
    return module


def _compiled(module: bytes, source: bytes, arch: str) -> bytes:
    """A module of source as one of machine code; others stay as they are."""
    form, rest = first_text(module)
    if form != _KIND:
        return module
    about = rest.removesuffix(join_texts([source]))
    if about == rest:
        raise DeviceCodeError("TVM wrote other source than it shows")
    return join_texts([b"fatbin"]) + about + join_texts([_fat_binary(source, arch)])


def _fat_binary(source: bytes, arch: str) -> bytes:
    version = arch.removeprefix("sm_")
    code = f"arch=compute_{version},code=[sm_{version},compute_{version}]"
    with tempfile.TemporaryDirectory() as folder:
        text, out = Path(folder) / "kernel.cu", Path(folder) / "kernel.fatbin"
        text.write_bytes(source)
        command = ["nvcc", *_OPTIONS, "-gencode", code, str(text), "-o", str(out)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            lines = [line for line in (run.stderr + run.stdout).splitlines() if line.strip()]
            said = [line for line in lines if "error" in line] or lines
            raise DeviceCodeError(f"nvcc: {said[0].strip() if said else 'it gives no reason'}")
        return out.read_bytes()


__all__ = ["DeviceCodeError", "device_code"]
