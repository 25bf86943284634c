"""Decomposition, and that the target is asked first."""

from __future__ import annotations

from support.graph_text import graph_of
from support.pass_checks import Golden, check, run

from graphkiln.ir.hardware import GenericHardware
from graphkiln.ir.text import print_graph
from graphkiln.passes.base import PassContext

CHAINS = """
graph main(%x: float32[2,3], %y: float32[3], %z: float32[2,1]) -> (a, b, c) {
  %a = Sum(%x, %y, %z)
  %b = Mean(%x, %y)
  %c = Max(%x, %y, %z)
  return %a, %b, %c
}
"""

SPLIT = """
graph main(%x: float32[N,7]) -> (a, b) {
  %sizes = constant int64[3] [2, 4, 1]
  %a, %unused, %b = Split(%x, %sizes) {axis=1}
  return %a, %b
}
"""

NORM = """
graph main(%x: float32[N,2,3], %s: float32[2], %b: float32[2], %m: float32[2]) -> (y) {
  %v = Mul(%m, %m)
  %y = BatchNormalization(%x, %s, %b, %m, %v)
  return %y
}
"""

FUSED = """
graph main(%x: float32[1,2,3,3], %w: float32[2,2,1,1], %b: float32[2]) -> (y) {
  %g = com.microsoft.FastGelu(%x)
  %q = com.microsoft.QuickGelu(%g)
  %y = com.microsoft.FusedConv(%q, %w, %b) {activation="LeakyRelu", activation_params=[0.25]}
  return %y
}
"""


def test_chains(golden: Golden) -> None:
    check(golden, "decompose_chains", CHAINS, "decompose,dce")


def test_split(golden: Golden) -> None:
    check(golden, "decompose_split", SPLIT, "decompose,dce")


def test_batch_norm_with_run_time_parameters(golden: Golden) -> None:
    check(golden, "decompose_norm", NORM, "decompose,dce")


def test_fused_ops(golden: Golden) -> None:
    graph = graph_of(FUSED)
    run(graph, "decompose,dce")
    golden("decompose_fused", print_graph(graph))


class _Wants(GenericHardware):
    def wants(self, op_key: str) -> bool:
        return op_key == "Sum"


def test_what_the_target_wants_stays() -> None:
    graph = graph_of(CHAINS)
    run(graph, "decompose", PassContext(_Wants()))
    assert [n.op for n in graph.topological() if n.op in ("Sum", "Mean")] == ["Sum"]
