"""Whether TVM can turn a loop into vector code."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx


def vectorizes(loop: Any) -> bool:
    """Whether the body of a ``vectorized`` loop survives TVM's vectoriser.

    A statement with a call that has no vector form is put into a scalar loop of its own. A
    variable is then lost to the statements after it, so nothing of the loop may be left. Other
    bodies (vectors of bool) are rejected outright.
    """
    function = tirx.PrimFunc([], loop)
    try:
        module = tirx.transform.VectorizeLoop()(tvm.IRModule({"probe": function}))
        tirx.transform.StmtSimplify()(module)
    except (RuntimeError, ValueError, TypeError):
        return False
    return _count_loops(module["probe"].body) < _count_loops(loop)


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
