"""Compiles kernels: each distinct one once, in parallel, cached on disk."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import Blocker, GraphkilnError
from ..ir.graph import Graph
from ..ir.parser import parse_graph
from ..targets import is_foreign, parse_target
from ..targets.base import LLVM_LEVEL, Kernel, Target, targets_of
from ..targets.generic.registry import foreign_digest, foreign_keys
from .kernels import KernelSpec
from .objects import ObjectCache
from .tvm_passes import register_pipeline
from .workers import IN_PROCESS_LIMIT, Result, Workers

_ROOT = Path(__file__).parent.parent

_NOT_FOREIGN = {__name__.partition(".")[0], "builtins", "typing", "abc"}
"""Top-level modules whose classes are not a plugin's."""

Progress = Callable[[int, int], None]


class BuildError(GraphkilnError):
    """Kernels could not be built; ``blockers`` names each one's node and ops, and the reason."""


@cache
def compiler_version() -> str:
    """A digest of everything kernel code depends on: TVM's version and :func:`kernel_sources`."""
    import tvm

    digest = hashlib.sha256(str(tvm.__version__).encode())
    for path in kernel_sources():
        digest.update(path.relative_to(_ROOT).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def kernel_version(target: Target) -> str:
    """A digest of everything kernels of ``target`` depend on, what plugins brought included."""
    return compiler_version() + foreign_digest() + foreign_code(targets_of(target).values())


def foreign_code(targets: Iterable[Target]) -> str:
    """A digest of the files of targets that come from outside; empty if there are none.

    Of a class in a package all the package's files count, as its kernels may be in any of them.
    """
    files: set[Path] = set()
    for made in {cls for target in targets for cls in type(target).__mro__}:
        package, dot, _ = made.__module__.partition(".")
        source = inspect.getsourcefile(made) if package not in _NOT_FOREIGN else None
        if source is not None:
            is_package = Path(source).name == "__init__.py"
            above = made.__module__.count(".") - (not is_package)
            whole = dot or is_package
            files |= {*Path(source).parents[above].rglob("*.py")} if whole else {Path(source)}
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16] if files else ""


def kernel_sources() -> list[Path]:
    """The files that say what a kernel's region becomes: its code, and how it is lowered."""
    found = [_ROOT / name for name in ("contract.py", "codegen/build.py", "codegen/tvm_passes.py")]
    for folder in ("targets", "ir"):
        found += sorted((_ROOT / folder).rglob("*.py"))
    return found


def build_object(spec: Kernel, name: str, target: Target) -> bytes:
    """What ``target`` makes of one kernel, compiled in this process."""
    return target.compile_kernel(name, kernel_function(spec, name, target), TvmCompiler())


def kernel_function(spec: Kernel, name: str, target: Target) -> Any:
    """The PrimFunc of one kernel; raises :class:`.LoweringError` where there is no rule for it."""
    make = target.sizes_kernel if spec.role == "sizes" else target.kernel
    return make(parse_graph(spec.text), name)


def lowering_failures(
    kernels: Mapping[str, KernelSpec], target: Target, cache_folder: str | None = None
) -> list[Blocker]:
    """Every kernel that cannot be compiled, as far as is known without machine code, and why.

    Those that were built before can.
    """
    store = ObjectCache(cache_folder)
    failures, targets = [], targets_of(target)
    for name, spec in kernels.items():
        if store.get(name) is None:
            try:
                target = targets[spec.device]
                target.check_kernel(name, kernel_function(spec, name, target), TvmCompiler())
            except Exception as e:  # whatever stops a kernel's rule stops the compilation
                failures.append(failure(spec, e))
    return sorted(failures, key=str)


def jit_kernel(region: Graph, target: Target) -> Any:
    """The kernel of a region as a function of this process."""
    import tvm

    module = tvm.IRModule({"kernel": target.kernel(region, "kernel")})
    return build_module(module, target.tvm_target(), target.checks_bounds)["kernel"]


def object_of(module: object, target: Target, *, asserts: bool = False) -> bytes:
    """The object file of an ``IRModule`` of PrimFuncs, with their own assertions if wanted."""
    return object_file(
        build_module(module, target.tvm_target(), target.checks_bounds, asserts=asserts)
    )


def object_file(library: Any) -> bytes:
    """The object file of a ``tvm.runtime.Module`` of host code."""
    # In memory: LLVM ends the process where a disk is full.
    descriptor = os.memfd_create("kernel")
    with open(descriptor, "rb") as file:
        library.write_to_file(f"/proc/self/fd/{descriptor}", "o")
        return file.read()


def build_module(
    module: object, target: Any, check_bounds: bool = False, *, asserts: bool = False
) -> Any:
    """An ``IRModule`` of PrimFuncs as a ``tvm.runtime.Module``; ``target`` is one of TVM's."""
    import tvm

    # Shapes are the compiler's own; the checks that TVM adds to each call would double the code.
    config = {"tirx.disable_assert": not (asserts or check_bounds)}
    pipeline = register_pipeline(check_bounds, target.kind.name != "llvm", asserts)
    with tvm.transform.PassContext(config=config):
        return tvm.tirx.build(module, target=target, pipeline=pipeline)


class TvmCompiler:
    """The :class:`~graphkiln.targets.base.KernelCompiler` of this process."""

    def compile(self, functions: Mapping[str, Any], target: Target, level: int = LLVM_LEVEL) -> Any:
        import tvm

        module, own = tvm.IRModule(dict(functions)), target.tvm_target()
        if own.kind.name == "llvm" and level != LLVM_LEVEL:
            own = tvm.target.Target({**own.export(), "opt-level": level})
        return build_module(module, own, target.checks_bounds)

    def object_file(self, library: Any) -> bytes:
        return object_file(library)


@dataclass(frozen=True)
class BuildServices:
    """The :class:`~graphkiln.targets.base.Services` of one compilation.

    ``workers`` compile (None: this process); ``progress`` is told how many kernels are done.
    """

    workers: Workers | None = None
    progress: Progress | None = None

    def compile_kernels(self, kernels: Mapping[str, Kernel], target: Target) -> dict[str, bytes]:
        return build_kernels(kernels, target, workers=self.workers, progress=self.progress)


def build_kernels(
    kernels: Mapping[str, Kernel],
    target: Target,
    *,
    workers: Workers | None = None,
    cache_folder: str | None = None,
    progress: Progress | None = None,
) -> dict[str, bytes]:
    """What ``target`` makes of each kernel, by name.

    ``workers`` (None: this process) build what the cache does not hold. Raises
    :class:`BuildError` with one line for every kernel that cannot be built.
    """
    store = ObjectCache(cache_folder)
    found: dict[str, bytes] = {}
    missing: list[str] = []
    for name in kernels:
        held = store.get(name)
        if held is None:
            missing.append(name)
        else:
            found[name] = held
    total = len(kernels)
    report = progress or (lambda done, total: None)
    report(len(found), total)
    failures = []
    for result in _build_missing(missing, kernels, target, workers):
        if result.content is None:
            failures.append(blocker(kernels[result.name], result.reason))
            continue
        found[result.name] = result.content
        store.put(result.name, result.content)
        report(len(found), total)
    if failures:
        raise BuildError(*sorted(failures, key=str))
    return {name: found[name] for name in kernels}


def _build_missing(
    missing: list[str], kernels: Mapping[str, Kernel], target: Target, workers: Workers | None
) -> Iterable[Result]:
    if len(missing) <= IN_PROCESS_LIMIT or is_foreign(target.spec):
        workers = None
    foreign = foreign_keys()
    here = [n for n in missing if workers is None or _uses(kernels[n], foreign)]
    for name in here:
        yield _build_here(name, kernels[name], target)
    if workers is not None:
        others = set(missing) - set(here)
        yield from workers.compile({n: kernels[n] for n in missing if n in others}, target)


def _uses(spec: Kernel, keys: Iterable[str]) -> bool:
    """Does a kernel hold one of these ops? Workers do not know those that users registered."""
    return any(f"= {key}(" in spec.text for key in keys)


def _build_here(name: str, spec: Kernel, target: Target) -> Result:
    try:
        return Result(name, build_object(spec, name, target), "")
    except Exception as e:
        return Result(name, None, reason_of(e))


def failure(spec: Kernel, error: BaseException) -> Blocker:
    """Which node's kernel failed and why."""
    return blocker(spec, reason_of(error))


def blocker(spec: Kernel, reason: str) -> Blocker:
    """What is wrong with a kernel."""
    return Blocker(reason, spec.node, spec.op, kernel=True)


def reason_of(error: BaseException) -> str:
    """Why a kernel failed, in one line; a node that the error names is the kernel's own.

    Of what a library says, the line that a person should read: TVM states the check that failed and
    prints pages of code after it, others say at last what they mean.
    """
    if isinstance(error, GraphkilnError):
        return error.reason
    lines = [line for line in str(error).splitlines() if line.strip()]
    checks = [line for line in lines if line.startswith("Check failed")]
    return (checks or lines[-1:] or [type(error).__name__])[0]


__all__ = [
    "BuildError", "BuildServices", "TvmCompiler", "build_kernels", "build_module", "build_object",
    "compiler_version", "jit_kernel", "object_of", "parse_target",
]  # fmt: skip
