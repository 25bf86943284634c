"""The lowering passes of TVM that kernels need, and no others.

Kernels come as plain loops over buffers: there are no schedule blocks, virtual threads or
cooperative copies to lower, and the passes for those cost most of TVM's default pipeline's time.
"""

from __future__ import annotations

from functools import cache
from typing import Any

NAME = "graphkiln"


@cache
def register_pipeline() -> str:
    """Register the pipeline with TVM (once); returns its name."""
    from tvm.tirx import compilation_pipeline as stock

    def factory() -> Any:
        return _pipeline(), stock.finalize_host_passes, stock.finalize_device_passes

    stock.register_tir_pipeline(NAME, factory)
    return NAME


def _pipeline() -> Any:
    import tvm
    from tvm import tirx
    from tvm.s_tir import transform as s_tir

    @tvm.transform.module_pass(opt_level=0)
    def lower(module: Any, _context: Any) -> Any:
        passes = [
            s_tir.UnifyThreadBinding(),
            tirx.transform.StmtSimplify(),
            tirx.transform.FlattenBuffer(),
            tirx.transform.NarrowDataType(32),
            tirx.transform.VectorizeLoop(True),
            tirx.transform.StorageRewrite(),
            tirx.transform.UnrollLoop(),
            tirx.transform.StmtSimplify(),
            tirx.transform.RemoveNoOp(),
            s_tir.RewriteUnsafeSelect(),
            tirx.transform.CommonSubexprElim(),
            tirx.transform.VerifyMemory(),
            tirx.transform.AnnotateEntryFunc(),
            tirx.transform.SplitHostDevice(),
            tirx.transform.MakePackedAPI(),
        ]
        return tvm.transform.Sequential(passes)(module)

    return lower
