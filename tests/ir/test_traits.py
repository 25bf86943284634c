"""Traits of ops are checked where an op is registered."""

from __future__ import annotations

import re

import pytest

from graphkiln.ir.registry import InferContext, OpSpec, op, register, spec, specs
from graphkiln.ir.traits import Trait
from graphkiln.ir.types import Type


def _same(ctx: InferContext) -> list[Type]:
    return [ctx.tensor(0)]


def test_traits_may_be_given_by_name() -> None:
    op("ByName", domain="test.traits", traits=("elementwise", Trait.IDEMPOTENT))(_same)
    found = spec("test.traits.ByName")
    assert found is not None
    assert found.traits == {Trait.ELEMENTWISE, Trait.IDEMPOTENT}
    assert all(isinstance(t, Trait) for t in found.traits)


@pytest.mark.parametrize(
    ("wrong", "near"), [("elementwize", "elementwise"), ("Comutative", "commutative")]
)
def test_an_unknown_trait_is_refused_with_the_closest_one(wrong: str, near: str) -> None:
    said = re.escape(f"op test.traits.Wrong: {wrong!r} is not a trait; the closest one is {near!r}")
    with pytest.raises(ValueError, match=said):
        op("Wrong", domain="test.traits", traits=(wrong,))(_same)
    with pytest.raises(ValueError, match=said):
        register(OpSpec("Wrong", "test.traits", _same, traits=frozenset({wrong})))
    assert spec("test.traits.Wrong") is None


def test_a_string_in_place_of_traits_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a trait"):
        op("Wrong", domain="test.traits", traits="elementwise")(_same)


def test_all_registered_traits_are_members_with_a_meaning() -> None:
    assert all(isinstance(t, Trait) for s in specs() for t in s.traits)
    assert all(t.meaning for t in Trait)
    assert len({t.meaning for t in Trait}) == len(Trait)
