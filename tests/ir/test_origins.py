"""Which ONNX nodes a node stands for: the set of names itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from graphkiln.ir.origins import NONE, Origins

names = st.lists(st.sampled_from("abcdef"))


def test_names_stand_once_in_the_order_in_which_they_came() -> None:
    both = Origins.union([Origins(["b", "a"]), NONE, Origins(["c", "a"])])
    assert both.names == ("b", "a", "c")
    assert len(both) == 3 and list(both) == ["b", "a", "c"]


@given(st.lists(names))
def test_a_union_holds_the_names_of_its_parts(parts: list[list[str]]) -> None:
    union = Origins.union(Origins(p) for p in parts)
    assert union.names == tuple(dict.fromkeys(n for p in parts for n in p))
    assert bool(union) == any(parts)


@given(names, names)
def test_equal_names_are_equal(a: list[str], b: list[str]) -> None:
    one, other = Origins(a), Origins.union([Origins(a), Origins(b)])
    assert (one == other) == (one.names == other.names)
    assert one != other or hash(one) == hash(other)


def test_merging_one_by_one_stays_linear() -> None:
    """Each union shares the one before it: this would be 5e9 names in tuples."""
    merged = NONE
    for i in range(100_000):
        merged = Origins.union([merged, Origins([str(i)])])
    assert len(merged) == 100_000 and merged.names[-1] == "99999"


def test_shared_parts_are_read_once() -> None:
    """Every step doubles the paths to the first part: only parts are counted, not paths."""
    merged = Origins(["x"])
    for i in range(200):
        merged = Origins.union([Origins.union([merged, Origins([f"a{i}"])]), merged])
    assert len(merged) == 201
