"""Whether TVM can turn a loop into vector code."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx


def vectorizes(loop: Any) -> bool:
    """Whether the body of a ``vectorized`` loop survives TVM's vectoriser.

    A store with a call that has no vector form is turned into a scalar loop of its own, which
    loses the variables bound before it; some bodies (vectors of bool) are rejected outright.
    """
    function = tirx.PrimFunc([], loop)
    try:
        result = tirx.transform.VectorizeLoop()(tvm.IRModule({"probe": function}))["probe"].body
    except (RuntimeError, ValueError, TypeError):
        return False
    return len(tirx.analysis.undefined_vars(result, [])) == len(
        tirx.analysis.undefined_vars(loop, [])
    )
