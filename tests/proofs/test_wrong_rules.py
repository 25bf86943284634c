"""Rewrites that are wrong: the proofs must find what they break."""

from __future__ import annotations

import pytest
from support.graph_text import graph_of
from support.smt import refute_difference

WRONG = {
    "a start that forgets the step": (
        "%a = kiln.Slice(%x) {starts=[1, 0, 0], steps=[2, 1, 1], shape=[3, <M>, <K>]}\n"
        "%y = kiln.Slice(%a) {starts=[1, 0, 0], steps=[1, 1, 1], shape=[2, <M>, <K>]}",
        "%y = kiln.Slice(%x) {starts=[2, 0, 0], steps=[2, 1, 1], shape=[2, <M>, <K>]}",
    ),
    "a view that transposes": (
        "%y = kiln.Reshape(%x) {shape=[<M>, <N>, <K>]}",
        "%y = Transpose(%x) {perm=[1, 0, 2]}",
    ),
    "parts in the other order": (
        "%y = Concat(%x, %z) {axis=0}",
        "%y = Concat(%z, %x) {axis=0}",
    ),
    "a part with a view of another block": (
        "%a = kiln.Reshape(%x) {shape=[<N>, <M*K>]}\n%b = kiln.Reshape(%z) {shape=[<N>, <M*K>]}\n"
        "%c = Concat(%a, %b) {axis=0}\n%y = kiln.Reshape(%c) {shape=[<2*N>, <M>, <K>]}",
        "%a = kiln.Reshape(%x) {shape=[<N>, <M>, <K>]}\n%y = Concat(%a, %a) {axis=0}",
    ),
    "an index from the front": (
        "%i = constant int64[1] [-2]\n%y = Gather(%x, %i) {axis=0}",
        "%y = kiln.Slice(%x) {starts=[2, 0, 0], steps=[1, 1, 1], shape=[1, <M>, <K>]}",
    ),
    "an elementwise op that is lost": ("%a = Exp(%x)\n%y = Relu(%a)", "%y = Relu(%x)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_movements_are_refuted(name: str) -> None:
    head = "graph main(%x: float32[N,M,K], %z: float32[N,M,K]) -> (y) {\n"
    before, after = (graph_of(f"{head}{lines}\nreturn %y\n}}") for lines in WRONG[name])
    with pytest.raises(AssertionError, match="sat"):
        refute_difference(before, after, name, moving=True)


@pytest.mark.parametrize("before, after", [
    ("%c = constant float32[] 3.0\n%y = Div(%x, %c)",
     "%c = constant float32[] 0.3333333432674408\n%y = Mul(%x, %c)"),
    ("%c = constant float32[] 0.0\n%y = Add(%x, %c)", "%y = Identity(%x)"),
])  # fmt: skip
def test_wrong_arithmetic_is_refuted(before: str, after: str) -> None:
    head = "graph main(%x: float32[N]) -> (y) {\n"
    graphs = [graph_of(f"{head}{lines}\nreturn %y\n}}") for lines in (before, after)]
    with pytest.raises(AssertionError, match="sat"):
        refute_difference(graphs[0], graphs[1], "arithmetic", moving=False)
