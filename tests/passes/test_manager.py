"""The manager: order, dumps, stopping, records, errors; pipelines as text; bisection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.graph_text import graph_of

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.passes.base import Pass, PassContext, PassError
from graphkiln.passes.bisect import bisect
from graphkiln.passes.catalog import LEVELS
from graphkiln.passes.claims import lossy
from graphkiln.passes.dce import DeadCode
from graphkiln.passes.facts import NO_DEAD_NODES
from graphkiln.passes.fold import Fold
from graphkiln.passes.manager import PassManager
from graphkiln.passes.pipeline import (
    PipelineError,
    default_pipeline,
    format_pass,
    parse_pipeline,
    print_pipeline,
)

TEXT = """
graph main(%x: float32[N,4]) -> (y) {
  %one = constant float32[] 1.0
  %two = constant float32[] 2.0
  %three = Add(%one, %two)
  %dead = Exp(%x)
  %y = Mul(%x, %three)
  return %y
}
"""


@dataclass(frozen=True)
class Wrong(Pass):
    """Adds one to the first output: a miscompiling pass."""

    name = "wrong"

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        one = graph.add_constant(np.float32(1))
        value = graph.outputs[0]
        added = graph.add_node("Add", [value, one])
        graph.set_outputs([added.out()], graph.output_names)
        return {"wrong": 1}


@dataclass(frozen=True)
class Failing(Pass):
    """Leaves a node without an input that its op requires."""

    name = "failing"

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        graph.set_input(graph.nodes[-1], 0, None)
        return {"failing": 1}


@dataclass(frozen=True)
class Needs(Pass):
    name = "needs"
    requires = (NO_DEAD_NODES,)

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        return {}


def test_records_count_nodes_and_changes() -> None:
    graph = graph_of(TEXT)
    heard: list[tuple[str, int, int]] = []
    manager = PassManager(
        parse_pipeline("fold,dce"), on_pass=lambda n, done, total: heard.append((n, done, total))
    )
    result = manager.run(graph)
    assert result.graph is graph
    assert [(r.name, r.nodes_before, r.nodes_after, r.changes) for r in result.records] == [
        ("fold", 3, 2, 1),
        ("dce", 2, 1, 1),
    ]
    assert heard == [("fold", 1, 2), ("dce", 2, 2)]
    assert result.records[0].to_report()["details"] == {"Add": 1}


def test_dumps_are_numbered(tmp_path: Path) -> None:
    PassManager(parse_pipeline("fold,dce"), dump_dir=tmp_path / "ir").run(graph_of(TEXT))
    names = sorted(p.name for p in (tmp_path / "ir").iterdir())
    assert names == ["00_import.txt", "01_fold.txt", "02_dce.txt"]
    assert "Exp" not in (tmp_path / "ir" / "02_dce.txt").read_text()


@pytest.mark.parametrize("stop", ["fold", 1, "1"])
def test_stop_after(stop: str | int) -> None:
    result = PassManager(parse_pipeline("fold,dce"), stop_after=stop).run(graph_of(TEXT))
    assert [r.name for r in result.records] == ["fold"]


def test_stop_after_an_unknown_pass() -> None:
    with pytest.raises(ValueError, match="the passes are fold, dce"):
        PassManager(parse_pipeline("fold,dce"), stop_after="cse")
    with pytest.raises(ValueError, match="there are 2"):
        PassManager(parse_pipeline("fold,dce"), stop_after=3)


def test_a_failing_pass_is_named_with_those_before_it() -> None:
    manager = PassManager([Fold(max_bytes=7), Failing()])
    with pytest.raises(PassError, match=r"pass failing failed: .*before: fold\{max-bytes=7\}"):
        manager.run(graph_of(TEXT))


DEAD = "graph g(%x: float32[2]) -> (y) {\n%d = Neg(%x)\n%y = Abs(%x)\nreturn %y\n}"


def test_what_a_pass_requires_is_checked_before_it_runs() -> None:
    told = r"pass needs failed: it needs a graph with no dead nodes, and nothing uses node 'd' " \
        r"\(Neg\); run dce before it \(passes run before: none\)"  # fmt: skip
    with pytest.raises(PassError, match=told):
        PassManager([Needs()]).run(graph_of(DEAD))
    PassManager([DeadCode(), Needs()]).run(graph_of(DEAD))


def test_what_a_pass_ensures_is_checked_after_it() -> None:
    @dataclass(frozen=True)
    class Boasts(Needs):
        name = "boasts"
        requires = ()
        ensures = (NO_DEAD_NODES,)

    with pytest.raises(PassError, match="says that it leaves no dead nodes, but nothing uses"):
        PassManager([Boasts()]).run(graph_of(DEAD))


def test_fusing_a_graph_with_dead_nodes_says_what_to_do() -> None:
    with pytest.raises(PassError, match="pass fuse failed: .*run dce before it"):
        PassManager(parse_pipeline("fuse")).run(graph_of(DEAD))


@dataclass(frozen=True)
class Halve(Pass):
    """Halves the result: a lossy pass, which measures what it does to the data it is given."""

    name = "halve"
    claims = {"halved": lossy("y = y / 2", "half of y")}

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        editor = context.editor(graph)
        value = graph.outputs[0]
        before = context.runner(graph)
        editor.begin("halved", value.node)
        half = editor.op("Mul", value, editor.scalar(0.5, value))
        graph.set_outputs([half], graph.output_names)
        after = context.runner(graph)
        worst = max(float(np.abs(before(f)[0] - after(f)[0]).max()) for f in context.data)
        context.measure("worst difference", worst)
        context.measure("drawn", context.random.random())
        return {"halved": 1}


def test_a_pass_measures_on_data_by_a_runner() -> None:
    data = [{"x": np.full((2, 4), n, np.float32)} for n in (1, 3)]
    first, second = (
        PassManager([Halve()], data=data).run(graph_of(TEXT)).records[0] for _ in range(2)
    )
    expected = max(float(np.abs(evaluate(graph_of(TEXT), f)[0]).max()) for f in data) / 2
    assert first.numbers["worst difference"] == pytest.approx(expected)
    assert first.to_report()["numbers"] == second.to_report()["numbers"]
    assert first.edits["halved"].inserted == 2
    assert Halve.is_lossy() and not Fold.is_lossy()


def test_the_runner_of_the_manager_is_handed_out() -> None:
    ran: list[int] = []

    def runner(graph: Graph) -> Callable[[Mapping[str, Any]], list[Any]]:
        ran.append(len(graph))
        return lambda feeds: list(evaluate(graph, feeds))

    PassManager([Halve()], data=[{"x": np.ones((2, 4), np.float32)}], runner=runner).run(
        graph_of(TEXT)
    )
    assert len(ran) == 2 and ran[1] == ran[0] + 1


def test_bisection_takes_lossy_passes_as_they_are() -> None:
    feeds = {"x": np.ones((2, 4), np.float32)}
    halve = [p for p in (Fold(), Measureless(), DeadCode())]
    assert bisect(graph_of(TEXT), halve, feeds) is None
    found = bisect(graph_of(TEXT), [*halve, Wrong()], feeds)
    assert found is not None and (found.index, found.text) == (4, "wrong")


@dataclass(frozen=True)
class Measureless(Halve):
    """:class:`Halve` without data."""

    name = "measureless"

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        value = graph.outputs[0]
        editor = context.editor(graph)
        editor.begin("halved", value.node)
        half = editor.op("Mul", value, editor.scalar(0.5, value))
        graph.set_outputs([half], graph.output_names)
        return {"halved": 1}


def test_bisection_finds_the_first_wrong_pass() -> None:
    graph = graph_of(TEXT)
    feeds = {"x": np.ones((2, 4), np.float32)}
    found = bisect(graph, [Fold(), DeadCode(), Wrong(), Wrong()], feeds)
    assert found is not None
    assert (found.index, found.text, found.output) == (3, "wrong", "y")
    assert found.difference == 1.0
    assert len(found.after) == len(found.before) + 1


def test_bisection_of_right_passes_leaves_the_graph_alone() -> None:
    graph = graph_of(TEXT)
    feeds = {"x": np.ones((2, 4), np.float32)}
    assert bisect(graph, default_pipeline(), feeds) is None
    assert len(graph) == 3


# ---- pipelines -----------------------------------------------------------------------------------


def test_pipelines_round_trip() -> None:
    text = "fold{max-bytes=1024},cse,fuse{max-nodes=8,max-inputs=4}"
    passes = parse_pipeline(text)
    assert passes[0] == Fold(max_bytes=1024)
    assert print_pipeline(passes) == text
    assert parse_pipeline(print_pipeline(default_pipeline())) == default_pipeline()


def test_pipeline_spellings() -> None:
    assert parse_pipeline(" fold { max-bytes = 3 } , dce ") == [Fold(max_bytes=3), DeadCode()]
    assert parse_pipeline("") == []
    assert format_pass(Fold()) == "fold"


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_exists(level: int) -> None:
    assert parse_pipeline(print_pipeline(default_pipeline(level))) == default_pipeline(level)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flod", "there is no pass 'flod'; did you mean 'fold'"),
        ("fold{max-byte=1}", "no option 'max-byte'; did you mean 'max-bytes'"),
        ("fold{max-bytes=many}", "max-bytes is an integer, not 'many'"),
        ("fold{max-bytes}", "needs a value"),
        ("fold{max-bytes=1,max-bytes=2}", "stands there twice"),
        ("cse{x=1}", "there is no option 'x'; it has none"),
        ("recognize{attention=maybe}", "attention is true or false"),
        ("fold,,cse", "expected a pass at position 5"),
        ("fold,", "a pass must follow the last comma"),
        ("fold}", "expected a pass"),
    ],
)
def test_pipeline_errors(text: str, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        parse_pipeline(text)


def test_levels_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="the levels are 0 to"):
        default_pipeline(99)
