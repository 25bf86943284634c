"""Topological order of the nodes of a GraphProto."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import onnx

from .errors import ImportFault, shorten, text


def used_names(graph: onnx.GraphProto) -> set[str]:
    """Every name that the nodes or results of a graph use, bodies included."""
    found = {o.name for o in graph.output}
    work = list(graph.node)
    while work:
        node = work.pop()
        found.update(node.input)
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                found.update(o.name for o in body.output)
                work.extend(body.node)
    return found


def sorted_nodes(
    nodes: Sequence[onnx.NodeProto], defined: Callable[[str], bool]
) -> list[onnx.NodeProto]:
    """The nodes in topological order, in the file's order if that is topological.

    Raises :class:`ImportFault` if a value is defined twice (``defined`` tells which ones are
    defined already), or if there is a cycle.
    """
    producer = _producers(nodes, defined)
    needs = [_needs(node, producer, i) for i, node in enumerate(nodes)]
    if all(p < i for i, ps in enumerate(needs) for p in ps):
        return list(nodes)
    waiting = [len(ps) for ps in needs]
    users: list[list[int]] = [[] for _ in nodes]
    for i, ps in enumerate(needs):
        for p in ps:
            users[p].append(i)
    ready = [i for i, n in enumerate(waiting) if n == 0]
    order: list[int] = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for user in users[i]:
            waiting[user] -= 1
            if waiting[user] == 0:
                heapq.heappush(ready, user)
    if len(order) < len(nodes):
        raise ImportFault(_cycle(nodes, needs, waiting))
    return [nodes[i] for i in order]


def _producers(nodes: Sequence[onnx.NodeProto], defined: Callable[[str], bool]) -> dict[str, int]:
    producer: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for label in (node.name, node.op_type, node.domain, node.overload, *node.input):
            text(label)
        for name in node.output:
            if not text(name):
                continue
            if defined(name):
                raise ImportFault(f"node {_title(node)} defines the value {name!r} a second time")
            other = producer.setdefault(name, i)
            if other != i:
                both = f"{_title(nodes[other])} and {_title(node)}"
                raise ImportFault(f"the nodes {both} both define the value {name!r}")
    return producer


def _title(node: onnx.NodeProto) -> str:
    return f"'{shorten(node.name or next((o for o in node.output if o), '?'), 60)}'"


def _needs(node: onnx.NodeProto, producer: dict[str, int], index: int) -> set[int]:
    """The nodes whose results a node uses, also in its bodies."""
    found = {producer[n] for n in node.input if n in producer}
    for attribute in node.attribute:
        if attribute.HasField("g"):
            # The node's own outputs are not visible in its body, where such a name is another
            # value.
            found |= {producer[n] for n in free_names(attribute.g) if n in producer} - {index}
    return found


def free_names(graph: onnx.GraphProto) -> set[str]:
    """The names that a body uses and does not define."""
    bound = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    bound.update(t.values.name for t in graph.sparse_initializer)
    used = {v.name for v in graph.output}
    for node in graph.node:
        bound.update(node.output)
        used.update(node.input)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                used |= free_names(attribute.g)
    return used - bound - {""}


def _cycle(
    nodes: Sequence[onnx.NodeProto], needs: Sequence[set[int]], waiting: Sequence[int]
) -> str:
    """The message that names the nodes of one cycle."""
    at = next(i for i, n in enumerate(waiting) if n)
    path: list[int] = []
    seen: set[int] = set()
    while at not in seen:
        seen.add(at)
        path.append(at)
        at = min(p for p in needs[at] if waiting[p])
    loop = path[path.index(at) :][::-1]
    start = loop.index(min(loop))
    names = [_title(nodes[i]) for i in loop[start:] + loop[:start]]
    return f"the nodes {', '.join(names[:5])}{' ...' if len(names) > 5 else ''} form a cycle"
