"""Pipelines as text: phases, edits of pipelines, and options by the types of fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphkiln.ir.graph import Graph
from graphkiln.passes import base
from graphkiln.passes.base import Pass, PassContext, register_pass
from graphkiln.passes.catalog import PIPELINES
from graphkiln.passes.claims import exact
from graphkiln.passes.options import format_option, option_types, parse_option
from graphkiln.passes.pipeline import (
    PipelineError,
    default_pipeline,
    format_pass,
    parse_pipeline,
    print_pipeline,
)


class Way(Enum):
    FAST = "fast"
    SMALL = "small"


@dataclass(frozen=True)
class Optioned(Pass):
    """A pass with an option of each type."""

    name: ClassVar[str] = "optioned"
    claims = {"nothing": exact("x = x", "it changes nothing")}
    on: bool = False
    count: int = 3
    part: float = 0.5
    word: str = "all"
    way: Way = Way.FAST
    axes: tuple[int, ...] = ()
    limit: int | None = None

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        return {}


@pytest.fixture
def optioned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_PASSES", dict(base._PASSES))
    register_pass(Optioned)


def text_of(pipeline: str | None) -> str:
    return print_pipeline(parse_pipeline(pipeline))


DEFAULT = text_of(None)


def test_the_default_pipeline_is_its_phases() -> None:
    phases = PIPELINES["default"].split(",")
    assert ",".join(text_of(p) for p in phases) == DEFAULT == text_of("default")
    assert text_of(None) == print_pipeline(default_pipeline())


@pytest.mark.parametrize(
    ("edit", "old", "new"),
    [
        ("@before(qdq_fuse)=cse", "qdq_fuse,", "cse,qdq_fuse,"),
        ("@before(lower)=(cse,dce)", "dce,promote", "dce,cse,dce,promote"),
        ("@after(fold)=fold{exact=true}", "=true},", "=true},fold{exact=true},"),
        ("@after(integers)=cse", "signedness,", "signedness,cse,"),
        ("@replace(integers)=dce", "qdq_fuse,signedness", "dce"),
        ("@replace(signedness)=()", "signedness,", ""),
        ("@without(integers)", "qdq_fuse,signedness,", ""),
        ("@without(promote)@before(cse)=dce", "cse,dce,promote,", "dce,cse,dce,"),
        ("@before(cse)=lower@without(lower)", "x", "x"),
        (" @ before ( cse ) = dce ", "cse", "dce,cse"),
    ],
)
def test_a_pipeline_is_changed_where_it_is_named(edit: str, old: str, new: str) -> None:
    expected = DEFAULT.replace(old, new)
    if "lower@" in edit:
        expected = DEFAULT.removesuffix(",promote,layout,tabulate,fuse,dce")
    assert text_of(f"default{edit}") == expected
    assert text_of(f"cse,default{edit},dce") == f"cse,{expected},dce"


def test_each_of_several_passes_is_replaced() -> None:
    changed = text_of("default@replace(simplify)=simplify{exact=true}")
    assert changed == DEFAULT.replace("simplify", "simplify{exact=true}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("default@before(qdq_fus)=cse", "default has no 'qdq_fus'; did you mean 'qdq_fuse'"),
        ("default@before(cse)", r"expected = and passes after @before\(cse\)"),
        ("default@before(cse)=", "expected a pass"),
        ("default@before(cse)=(dce", "expected a bracket that closes"),
        ("default@before(cse)=nothing", "there is no pass 'nothing'"),
        ("default@beside(cse)=dce", "expected a pass at position 7"),
        ("fold@without(dce)", "fold is a pass: @without changes pipelines only"),
        ("default{x=1}", "default is a pipeline, which has no options"),
        ("default@before(cse)=" + "(default@before(cse)=" * 40 + "dce", "nested too deeply"),
        ("(cse)", "expected a pass at position 0"),
        ("cse)", "expected a pass at position 3"),
    ],
)
def test_what_is_no_pipeline(text: str, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        parse_pipeline(text)


# ---- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        ("on=true", "on", True),
        ("count=-7", "count", -7),
        ("part=1e-3", "part", 1e-3),
        ("word=some", "word", "some"),
        ("way=small", "way", Way.SMALL),
        ("axes=0+2+-1", "axes", (0, 2, -1)),
        ("axes=", "axes", ()),
        ("limit=12", "limit", 12),
        ("limit=none", "limit", None),
    ],
)
def test_options_have_the_types_of_their_fields(
    optioned: None, options: str, field: str, value: Any
) -> None:
    (found,) = parse_pipeline(f"optioned{{{options}}}")
    assert getattr(found, field) == value and type(getattr(found, field)) is type(value)
    assert parse_pipeline(format_pass(found)) == [found]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("on=yes", "optioned: on is true or false, not 'yes'"),
        ("count=1.5", "optioned: count is an integer, not '1.5'"),
        ("part=x", "optioned: part is a number, not 'x'"),
        ("way=slow", "optioned: way is one of fast, small, not 'slow'"),
        ("axes=0+x", "optioned: axes is an integer, not 'x'"),
        ("limit=x", "optioned: limit is an integer, not 'x'"),
    ],
)
def test_other_values_are_refused(optioned: None, options: str, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        parse_pipeline(f"optioned{{{options}}}")


@given(
    st.builds(
        Optioned,
        on=st.booleans(),
        count=st.integers(),
        part=st.floats(allow_nan=False),
        word=st.text("abc_-", min_size=1),
        way=st.sampled_from(Way),
        axes=st.lists(st.integers()).map(tuple),
        limit=st.none() | st.integers(),
    )  # fmt: skip
)
def test_options_read_back(p: Optioned) -> None:
    for name, kind in option_types(Optioned).items():
        value = getattr(p, name)
        assert parse_option(format_option(value), kind) == value


def test_an_option_without_a_text_form_is_refused_at_once() -> None:
    @dataclass(frozen=True)
    class Odd(Optioned):
        name: ClassVar[str] = "odd"
        table: dict[str, int] | None = None

    with pytest.raises(ValueError, match="pass 'odd': option table is a .*no text form"):
        register_pass(Odd)
