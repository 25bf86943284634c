"""Guards: conditions on sizes and values that cannot be proved become checks of the run.

Inference of a finished graph records the conditions that it cannot prove. Those on sizes become

    kiln.Assert{a, relation, b}

which is checked as soon as a run knows both sizes. Those on the elements of an input become

    Op(x, i)  ->  Op(x, kiln.Require(i, kiln.Within{low, high}(i)))
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from ..errors import node_text, shorten
from ..ir.conditions import Condition, multiple_that_fits
from ..ir.dims import lower_bound, upper_bound
from ..ir.graph import Attr, Graph, Node, Value
from ..ir.infer import infer_node, infer_types
from ..ir.origins import Origins
from ..ir.registry import Needs, ValueNeed, has_trait
from ..ir.traits import Trait


def add_guards(graph: Graph, inputs_of: Mapping[str, str]) -> None:
    """Add the checks of a whole model, those of its bodies included.

    ``inputs_of`` maps each symbol of the model's inputs to the name of an input that has it.
    """
    collect: dict[Graph, Needs] = {}
    infer_types(graph, None, collect)
    for inner, needs in collect.items():
        _Guards(inner, inputs_of).add(needs)


def add_assert(graph: Graph, c: Condition, hint: str = "") -> None:
    """Add the check of one condition between sizes."""
    attrs = {
        "a": c.a, "relation": c.relation.value, "b": c.b,
        "message": shorten(f"{c.node} needs {c.why}"),
    }  # fmt: skip
    if hint:
        attrs["hint"] = shorten(hint)
    name = graph.unique_name("assert")
    made = graph.add_node(
        "Assert", [], attrs, outputs=0, domain="kiln", name=name, origins=c.origins
    )
    infer_node(graph, made, {})


class _Guards:
    def __init__(self, graph: Graph, inputs_of: Mapping[str, str]) -> None:
        self._graph = graph
        self._inputs_of = inputs_of
        self._made: dict[tuple[object, ...], Value] = {}

    def add(self, needs: Needs) -> None:
        asked = {(c.relation, c.a, c.b): c for c in reversed(needs.conditions)}
        hints = self._hints(list(asked.values()))
        for condition in reversed(asked.values()):
            alone = len(condition.symbols) == 1
            hint = hints.get(min(condition.symbols), "") if alone else ""
            add_assert(self._graph, condition, hint)
        for need in needs.values:
            self._require(need)

    def _hints(self, conditions: list[Condition]) -> dict[str, str]:
        """A hint about the sizes that fit an input's symbol, if these are multiples of a number."""
        alone: dict[str, list[Condition]] = defaultdict(list)
        for c in conditions:
            if len(c.symbols) == 1:
                alone[min(c.symbols)].append(c)
        hints = {}
        for symbol, own in alone.items():
            step = multiple_that_fits(own, symbol) if symbol in self._inputs_of else None
            if step is not None:
                source = self._inputs_of[symbol]
                hints[symbol] = f"{symbol!r} of input {source!r} should be a multiple of {step}"
        return hints

    def _require(self, need: ValueNeed) -> None:
        value = self._graph.input(need.node, need.index)
        at = need.index if need.at is None else need.at
        guarded = self._graph.input(need.node, at)
        if value is None or guarded is None or _always_fits(self._graph, value, need):
            return
        why = f"{node_text(need.node.name, need.node.key)} needs {need.why}"
        asked = _within(need)
        key = (value, guarded, *asked.items())
        if key not in self._made:
            origins = need.node.origins
            fits = self._node("Within", [value], asked, f"{value.name}_fits", origins).out()
            attrs = {"message": shorten(why)}
            name = f"{guarded.name}_checked"
            node = self._node("Require", [guarded, fits], attrs, name, origins)
            self._made[key] = node.out()
        self._graph.set_input(need.node, at, self._made[key])

    def _node(
        self, op: str, inputs: list[Value], attrs: Mapping[str, Attr], name: str,
        origins: Origins,
    ) -> Node:  # fmt: skip
        made = self._graph.add_node(
            op,
            inputs,
            attrs,
            outputs=[name],
            domain="kiln",
            origins=origins,
        )
        infer_node(self._graph, made, {})
        return made


def _always_fits(graph: Graph, value: Value, need: ValueNeed) -> bool:
    """Are values picked from a constant all of whose elements fulfil the condition?

    Position ids are, for example, if they are sliced from a constant table to the length of the
    run.
    """
    if value.is_constant:
        return True  # inference has tested them
    while has_trait(value.node, Trait.PICKS) and (first := graph.input(value.node, 0)) is not None:
        value = first
    array = value.constant
    if array is None or array.size == 0 or array.dtype.kind not in "iu":
        return False
    if need.below is not None or need.apart is not None:
        return False  # of floats, or of elements that differ, which may be picked twice
    low = None if need.low is None else upper_bound(need.low)
    high = None if need.high is None else lower_bound(need.high)
    return (
        (need.low is None or (low is not None and int(array.min()) >= low))
        and (need.high is None or (high is not None and int(array.max()) <= high))
        and (not need.nonzero or bool(array.all()))
    )


def _within(need: ValueNeed) -> dict[str, Attr]:
    """The attributes of the ``kiln.Within`` that tests the condition."""
    usual = {
        "low": None, "high": None, "below": None, "nonzero": False, "or_one": False, "apart": None,
        "stride": 1, "offset": 0,
    }  # fmt: skip
    return {k: v for k, usually in usual.items() if (v := getattr(need, k)) != usually}
