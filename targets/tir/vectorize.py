"""Whether TVM can turn a loop into vector code."""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

# LLVM can round vectors, but TVM does not know. The level is above that of its own attributes.
tvm.ir.register_op_attr("tirx.nearbyint", "TVectorizable", True, level=11)


def vectorizes(loop: Any) -> bool:
    """Can TVM's vectoriser handle the body of a ``vectorized`` loop?

    It puts a statement with a call that has no vector form into a scalar loop of its own, in which
    a variable is lost to the statements after it. So the answer is no if any loop is left after it.
    Other bodies, those with vectors of bool, it rejects.
    """
    function = tirx.PrimFunc([], loop)
    try:
        module = tirx.transform.VectorizeLoop()(tvm.IRModule({"probe": function}))
        tirx.transform.StmtSimplify()(module)
    except (RuntimeError, ValueError, TypeError):
        return False
    body = module["probe"].body
    return _count_loops(body) < _count_loops(loop) and not _reads_unguarded(body)


def _reads_unguarded(statement: Any) -> bool:
    """Does a ``Select`` by the index choose between elements in memory, in a vector?

    A vector select reads both sides, but the simplifier has used its condition to drop the clamps
    that kept indices in bounds. In a scalar loop such a select becomes a branch.
    """
    found = tvm_ffi.structural_walk(statement, [(tirx.Select, _stop_at_unguarded)])
    return found is not None


def _stop_at_unguarded(select: Any) -> Any:
    sides = (select.true_value, select.false_value)
    if not _has_load(select.condition) and any(map(_has_load, sides)):
        return tvm_ffi.VisitInterrupt(True)
    return None


def _has_load(expression: Any) -> bool:
    def stop(_load: Any) -> Any:
        return tvm_ffi.VisitInterrupt(True)

    return tvm_ffi.structural_walk(expression, [(tvm.ir.TensorLoad, stop)]) is not None


def _count_loops(statement: Any) -> int:
    if isinstance(statement, tirx.SeqStmt):
        return sum(_count_loops(s) for s in statement.seq)
    if isinstance(statement, tirx.For):
        return 1 + _count_loops(statement.body)
    if isinstance(statement, tirx.IfThenElse):
        branches = (statement.then_case, statement.else_case)
        return sum(_count_loops(s) for s in branches if s is not None)
    if isinstance(statement, tirx.While | tirx.AttrStmt):
        return _count_loops(statement.body)
    return 0
