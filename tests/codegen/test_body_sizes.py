"""Bodies that mention a size which only the data of the graph around them tells."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

import graphkiln

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'

WIDE = """
  v = If (wide) <
    then_branch = twice () => (float[?,?] a) { a = Concat <axis = 1> (x, x) },
    else_branch = once () => (float[?,?] b) { b = Abs (x) }>
"""
BRANCH = """
  y = If (go) <
    then_branch = count () => (bool c) { s = Size (v) c = Greater (s, k) },
    else_branch = none () => (bool d) { r = ReduceSum <keepdims = 0> (x) d = Less (r, r) }>
"""
MODELS = {
    "branch": f"g (float[N,M] x, bool wide, bool go) => (bool y) <int64 k = {{7}}> "
              f"{{{WIDE}{BRANCH}}}",
    "known branch": "g (float[N,M] x, bool wide) => (bool y) <int64 k = {7}, bool go = {1}> "
                    f"{{{WIDE}{BRANCH}}}",
    "nested": f"""g (float[N,M] x, bool wide, bool go) => (bool y) <int64 k = {{7}}> {{{WIDE}
  y = If (go) <
    then_branch = inner () => (bool e) {{
      e = If (wide) <
        then_branch = count () => (bool c) {{ s = Size (v) c = Greater (s, k) }},
        else_branch = same () => (bool d) {{ t = Size (v) d = Equal (t, k) }}> }},
    else_branch = none () => (bool f) {{ r = ReduceSum <keepdims = 0> (x) f = Less (r, r) }}> }}""",
    "loop": """g (float[N,M] x) => (int64 y) <int64 n = {2}, bool go = {1}, int64 zero = {0}> {
  v = NonZero (x)
  y, w = Loop (n, go, zero, v) <body = b (int64 i, bool on, int64 t, int64[?,?] u)
    => (bool more, int64 t2, int64[?,?] u2) {
      more = Identity (on) s = Size (u) t2 = Add (t, s) u2 = Concat <axis = 1> (u, u) }> }""",
}  # fmt: skip


def expected(name: str, feeds: dict[str, np.ndarray]) -> Any:
    x = feeds["x"]
    if name == "loop":
        found = np.count_nonzero(x)
        return 2 * found + 4 * found
    if not feeds.get("go", True):
        return False
    size = x.size * (2 if feeds["wide"] else 1)
    return size == 7 if name == "nested" and not feeds["wide"] else size > 7


@pytest.mark.parametrize("passes", [
    None, "shapes,dce", "shapes,dce,fold,unroll,dce", "fold,unroll,shapes,dce,fuse",
])  # fmt: skip
@pytest.mark.parametrize("name", MODELS)
def test_sizes_reach_bodies(name: str, passes: str | None) -> None:
    model = parser.parse_model(HEAD + MODELS[name])
    onnx.checker.check_model(model)
    session = graphkiln.compile(model, passes=passes, jobs=1).session(threads=1)
    names = {i.name for i in model.graph.input}
    for rows in (1, 3, 7):
        for wide, go in ((True, True), (False, True), (True, False)):
            x = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2) % 3
            feeds = {"x": x, "wide": np.array(wide), "go": np.array(go)}
            feeds = {n: a for n, a in feeds.items() if n in names}
            (got,) = session.run(None, feeds)
            assert got == expected(name, feeds)


def test_results_of_no_turns() -> None:
    """They have the sizes that are known without a turn, and 0 for what only a turn tells."""
    model = parser.parse_model(
        HEAD
        + """
g (float[N,M] x, int64 n) => (float[?,?,?] y, int64[?,?,?] z) <bool go = {1}> {
  y, z = Loop (n, go) <body = b (int64 i, bool on) => (bool more, float[?,?] a, int64[?,?] w) {
      more = Identity (on) a = Transpose <perm = [1, 0]> (x) w = NonZero (x) }> }"""
    )
    session = graphkiln.compile(model, jobs=1).session(threads=1)
    x = np.ones((2, 3), np.float32)
    y, z = session.run(None, {"x": x, "n": np.array(0)})
    assert y.shape == (0, 3, 2) and z.shape == (0, 2, 0)
    y, z = session.run(None, {"x": x, "n": np.array(2)})
    np.testing.assert_array_equal(y, np.stack([x.T, x.T]))
    assert z.shape == (2, 2, 6)


_GROW = """
      q = Loop (k, go, u) <body = turn (int64 j, bool o, float[?,?] p) => (bool n, float[?,?] r) {
          n = Identity (o) d = Concat <axis = 1> (p, p) s = Shape (d)
          m = Constant <value = int64[1] {-1}> ()
          f = Reshape (d, m) e = Neg (f) r = Reshape (e, s) }>
"""
_CHOOSE = """
      wide = Less (i, k)
      q = If (wide) <
        then_branch = some () => (float[?,?] a) { a = Concat <axis = 0> (u, u) },
        else_branch = those () => (float[?,?] b) {
          z = Constant <value = float {0}> () c = Greater (u, z)
          h = Reshape (c, m) b = Compress <axis = 0> (u, h) }>
"""


def _repeated(lines: str) -> onnx.ModelProto:
    """A loop of two iterations, which is unrolled, so the graph has ``lines`` twice."""
    return parser.parse_model(
        f"""{HEAD}
g (float[N,M] x, int64 k) => (float[?,?] y)
  <int64 n = {{2}}, bool go = {{1}}, int64[1] m = {{-1}}> {{
  y = Loop (n, go, x) <body = b (int64 i, bool on, float[?,?] u) => (bool more, float[?,?] v) {{
      more = Identity (on) {lines} v = Concat <axis = 0> (q, q) }}> }}"""
    )


def test_copies_of_a_loop_have_sizes_of_their_own() -> None:
    session = graphkiln.compile(_repeated(_GROW), jobs=1).session(threads=1)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for turns in range(4):
        (got,) = session.run(None, {"x": x, "k": np.array(turns)})
        np.testing.assert_array_equal(got, np.tile(x, (4, 4**turns)))


def test_copies_of_a_branch_have_sizes_of_their_own() -> None:
    session = graphkiln.compile(_repeated(_CHOOSE), jobs=1).session(threads=1)
    x = np.array([[1], [-2], [3], [-4]], np.float32)
    for wide in range(3):
        (got,) = session.run(None, {"x": x, "k": np.array(wide)})
        want = x
        for i in range(2):
            part = np.tile(want, (2, 1)) if i < wide else want[want[:, 0] > 0]
            want = np.tile(part, (2, 1))
        np.testing.assert_array_equal(got, want)
