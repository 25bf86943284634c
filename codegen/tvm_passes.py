"""The pipeline of TVM's TensorIR passes that kernels go through.

Kernels are plain loops over buffers. They have no schedule blocks, virtual threads or cooperative
copies, whose lowering takes most of the time of TVM's default pipeline, so those passes are left
out. One of them, which makes buffers smaller where it can, would give workspace of open sizes
extents that TVM cannot compile. On hosts LLVM does what others would do: it removes what is
computed twice or never.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

NAME = "graphkiln"


@cache
def register_pipeline(check_bounds: bool, threads: bool = False, asserts: bool = False) -> str:
    """Register a pipeline with TVM (once), perhaps with bounds checks; returns its name.

    One for ``threads`` lowers loops that are bound to threads of another device. One for functions
    with ``asserts`` of their own drops those that TVM adds for arguments.
    """
    from tvm.tirx import compilation_pipeline as stock

    def factory() -> Any:
        passes = _pipeline(check_bounds, threads, asserts)
        return passes, stock.finalize_host_passes, stock.finalize_device_passes

    traits = {"_checked": check_bounds, "_threads": threads, "_asserts": asserts}
    name = NAME + "".join(trait for trait, holds in traits.items() if holds)
    stock.register_tir_pipeline(name, factory)
    return name


def _pipeline(check_bounds: bool, threads: bool, asserts: bool) -> Any:
    import tvm
    from tvm import tirx
    from tvm.s_tir import transform as s_tir

    from ..targets.tir.bounds import check_bounds as add_checks
    from ..targets.tir.bounds import drop_argument_checks
    from ..targets.tir.byte_tables import replace_look_ups

    share = [tirx.transform.StorageRewrite()]
    settle = [
        tirx.transform.UnrollLoop(),
        tirx.transform.StmtSimplify(),
        *((tirx.transform.RemoveNoOp(),) if threads else ()),
        s_tir.RewriteUnsafeSelect(),
    ]
    # Bounds checks are added after simplification, so that they check what is executed, and before
    # StorageRewrite merges buffers, while each still has an extent of its own.
    checked = [*settle, _module_pass(add_checks), *share]

    @tvm.transform.module_pass(opt_level=0)
    def lower(module: Any, _context: Any) -> Any:
        passes = [
            s_tir.UnifyThreadBinding(),
            *((tirx.transform.StmtSimplify(), s_tir.LowerOpaqueBlock()) if threads else ()),
            tirx.transform.NarrowDataType(32),
            tirx.transform.VectorizeLoop(True),
            _module_pass(replace_look_ups),
            *(checked if check_bounds else (*share, *settle)),
            *((tirx.transform.CommonSubexprElim(),) if threads else ()),
            tirx.transform.VerifyMemory(),
            tirx.transform.AnnotateEntryFunc(),
            tirx.transform.SplitHostDevice(),
            tirx.transform.MakePackedAPI(),
            *((_module_pass(drop_argument_checks),) if check_bounds or asserts else ()),
        ]
        return tvm.transform.Sequential(passes)(module)

    return lower


def _module_pass(change: Callable[[Any], Any]) -> Any:
    """A function of an ``IRModule`` as a pass of TVM's."""
    import tvm

    @tvm.transform.module_pass(opt_level=0)
    def apply(module: Any, _context: Any) -> Any:
        return change(module)

    return apply
