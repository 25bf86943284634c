"""Links kernels and bytecode into one shared library."""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..contract import DIM_KERNELS
from ..errors import GraphkilnError
from ..targets.base import Target
from .build import object_of
from .dim_code import decide
from .dim_slots import DimKernel
from .native import FUNCTIONS, Native
from .pool import FUNCTIONS as POOL_FUNCTIONS
from .pool import pool_object
from .program import Program
from .signals import POLL, STEP, poll_object, polling
from .vm import assemble

NOTHING = f"{DIM_KERNELS}none"


class LinkError(GraphkilnError):
    """The system's linker is missing or failed."""


def dim_object(kernels: Sequence[DimKernel], slots: int, target: Target) -> bytes:
    """One object file with all dim kernels of a program.

    A program without any gets one that does nothing, since TVM exports no library without code.
    """
    import tvm

    chosen = kernels or [DimKernel(NOTHING, (), ())]
    functions = {k.name: dim_function(k, slots) for k in chosen}
    return object_of(tvm.IRModule(functions), target.host)


def dim_function(kernel: DimKernel, slots: int) -> Any:
    """A dim kernel's function of the table of dims: it computes some slots from others."""
    from ..targets.tir.builder import Builder
    from ..targets.tir.cpu_loops import CpuLoops
    from ..targets.tir.extents import index
    from ..targets.tir.saturated_dim import saturated_dim

    b = Builder(CpuLoops(1))
    table = b.argument("dims", (slots,), "int64")
    values = {name: b.let(table[slot], "s") for name, slot in kernel.symbols}
    for slot, expression in kernel.targets:
        table.store((index(slot),), saturated_dim(b, expression, values.__getitem__))
    if kernel.verdict is not None:
        found = decide(b, kernel.verdict, values.__getitem__)
        places = (kernel.verdict.slot, kernel.verdict.a, kernel.verdict.b)
        for slot, value in zip(places, found, strict=True):
            table.store((index(slot),), value)
    return b.finish(kernel.name)


def link(
    program: Program,
    objects: Mapping[str, bytes],
    dims: Sequence[DimKernel],
    target: Target,
    tools: Tools,
    native: Native | None = None,
    loops: Mapping[str, bytes] | None = None,
) -> bytes:
    """The shared library: bytecode, kernels and their thread pool.

    ``native`` is the native code that calls kernels without the virtual machine, ``loops`` are the
    object files of loops by the names of their functions.

    Raises :class:`LinkError` when it fails.
    """
    import tvm

    polls = polling(program) is not None
    executable = assemble(program, polls)
    try:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            parts = dict(objects)
            if dims or not objects:
                parts["dims"] = dim_object(dims, program.slots, target)
            symbols = {name: [name] for name in parts}
            symbols["dims"] = [d.name for d in dims] or [NOTHING]
            if polls:
                parts["poll"], symbols["poll"] = poll_object(target), [POLL, STEP]
            parts["pool"], symbols["pool"] = tools.pool, list(POOL_FUNCTIONS)
            if native is not None:
                parts["native"], symbols["native"] = native.content, list(FUNCTIONS)
            for name, content in (loops or {}).items():
                parts[name], symbols[name] = content, [name]
            for name, content in parts.items():
                path = root / f"{name}.o"
                path.write_bytes(content)
                part = tvm.runtime.load_static_library(str(path), symbols[name])
                executable.mod.import_module(part)
            return _export(executable, root, tools.driver, target.host)
    except OSError as e:
        reason = e.strerror or e
        raise LinkError(f"cannot write temporary files in {tempfile.gettempdir()}: {reason}") from e


@dataclass(frozen=True)
class Tools:
    """What linking for a machine takes: a C compiler, and the thread pool as an object file."""

    driver: str
    pool: bytes


def find_tools(name: str | None, arch: str) -> Tools:
    """The linker (see :func:`find_linker`), and the thread pool compiled by it.

    Raises :class:`LinkError`, and :class:`graphkiln.codegen.pool.PoolError` where it compiles
    nothing.
    """
    driver = find_linker(name, arch)
    return Tools(driver, pool_object(driver, arch))


def find_linker(name: str | None, arch: str) -> str:
    """The C compiler driver called ``name``, or the system's for this machine's own code.

    Raises :class:`LinkError` where there is none, or one that links for another machine.
    """
    driver = _find(name, arch)
    try:
        command = [driver, "-dumpmachine"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, ValueError, subprocess.SubprocessError) as e:
        raise LinkError(f"the linker {driver!r} is no C compiler that can be run ({e})") from e
    links = said.stdout.strip().partition("-")[0]
    if links != arch:
        raise LinkError(f"the linker {driver!r} is for {links or 'no known machine'}, not {arch}")
    return driver


def _find(name: str | None, arch: str) -> str:
    if name is None and arch != platform.machine():
        raise LinkError(
            f"linking for {arch} needs a C compiler for it: give one with --linker, such as"
            f" {arch}-linux-gnu-gcc"
        )
    for candidate in (name,) if name else ("cc", "gcc", "clang"):
        found = shutil.which(candidate)
        if found is not None:
            return found
    if name:
        raise LinkError(f"the linker {name!r} is not a program that can be run")
    raise LinkError("no C compiler found to link with; install gcc or clang")


def _export(executable: Any, root: Path, driver: str, host: Target) -> bytes:
    out, place = root / "library.so", root / "link"
    place.mkdir()
    options = ["-s", "-Wl,--build-id=none"]
    try:
        executable.export_library(
            str(out), workspace_dir=str(place), cc=driver, options=options,
            fpack_imports=partial(_pack, host),
        )  # fmt: skip
    except RuntimeError as e:
        raise LinkError(f"linking with {driver} failed: {linker_reason(str(e))}") from e
    return out.read_bytes()


def _pack(host: Target, module: Any, is_system_lib: bool, prefix: str, folder: str) -> str:
    """Pack the bytecode into an object file for the target's machine.

    TVM's own function does so for the machine that compiles.
    """
    from tvm.runtime import _ffi_api

    path = str(Path(folder) / "devc.o")
    spec = str(host.tvm_target())
    packed = _ffi_api.ModulePackImportsToLLVM(module, is_system_lib, spec, prefix)
    packed.write_to_file(path, "o")
    return path


def linker_reason(text: str) -> str:
    """The last line of TVM's error text that the linker wrote, rather than TVM or the driver."""
    others = ("Command line:", "Compilation error:", "collect2:")
    lines = [line.strip() for line in text.splitlines()]
    said = [line for line in lines if line and not line.startswith(others)]
    return said[-1] if said else "it gives no reason"
