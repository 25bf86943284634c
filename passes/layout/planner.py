"""The state that the rules of the layout pass share, and the edits that they are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ...ir.dims import Dim
from ...ir.edit import Editor
from ...ir.graph import Attr, Node, Value
from ...ir.hardware import Layouts
from ..pattern import Explain


class Planner:
    """The state of the pass on one graph.

    Each rule is called after :meth:`begin`, so that the nodes it adds get its node's origins.

    ``blocked`` maps a plain value to its blocked form. ``picks`` maps the result of a
    ``kiln.SelectChannels`` to the source of each of its channels (see :mod:`.channels`).
    ``converted`` maps each node that was replaced to the new one; the old nodes are removed at the
    end, when nothing uses them. ``packed`` holds constants by key, to make equal ones once.
    """

    def __init__(self, editor: Editor, layouts: Layouts, explain: Explain | None = None) -> None:
        self.editor = editor
        self.graph = editor.graph
        self.layouts = layouts
        self.block = layouts.block
        self._explain = explain
        self.blocked: dict[Value, Value] = {}
        self.picks: dict[Value, list[tuple[Value, int]]] = {}
        self.converted: dict[Node, Node] = {}
        self.packed: dict[tuple[object, ...], Value] = {}
        self.counts: Counter[str] = Counter()

    def finish(self) -> Mapping[str, int]:
        """Unpack what plain readers are left with, and remove replaced nodes.

        Returns how often each kind of change was made.
        """
        self.unpack_rest()
        self.editor.remove_replaced(self.converted)
        return self.counts

    def begin(self, node: Node) -> None:
        """Nodes that are added from now on stand for the ONNX nodes of ``node``."""
        self.editor.begin("layout", node)

    def keep(self, node: Node, reason: str) -> None:
        """Report why a node stays as it is, where somebody asked."""
        if self._explain is not None:
            self._explain("layout", node, reason)

    def add(
        self, op: str, inputs: Sequence[Value | None], attrs: Mapping[str, Attr] | None = None,
        *, domain: str = "kiln", like: Node | None = None, count: int = 1,
    ) -> Value:  # fmt: skip
        """The first result of a new node, which is named after ``like`` where that is given."""
        name = like.outputs[0].name if like is not None else op.lower()
        return self.editor.node(
            op, inputs, dict(attrs or {}), outputs=[name] * count, domain=domain,
            name="" if like is None else like.name,
        ).out()  # fmt: skip

    def constant(self, key: tuple[object, ...], array: np.ndarray, name: str) -> Value:
        """A constant; the same one for the same ``key``, which must determine ``array``."""
        held = self.packed.get(key)
        if held is None:
            held = self.packed[key] = self.editor.constant(array, name)
        elif not _is_equal(held.constant, array):
            raise AssertionError(f"two constants that differ are both called {key[1:]}")
        return held

    def convert(self, node: Node, result: Value, kind: str) -> None:
        """The node is replaced by that of ``result``, the blocked form of its first output."""
        self.blocked[node.out()] = result
        self.converted[node] = result.node
        self.counts[kind] += 1

    def replace(self, node: Node, result: Value, kind: str) -> None:
        """The node is replaced by that of ``result``, which is plain as its first output was."""
        self.editor.replace_uses(node.out(), result)
        self.converted[node] = result.node
        self.counts[kind] += 1

    def as_blocked(self, value: Value) -> Value:
        """The blocked form of a value, by a new ``kiln.PackChannels`` where it has none yet."""
        found = self.blocked.get(value)
        if found is None:
            found = self.add("PackChannels", [value], {"block": self.block})
            self.blocked[value] = found
            self.counts["packs"] += 1
        return found

    def unpack_rest(self) -> None:
        """Insert ``kiln.UnpackChannels`` where nodes that stay read values that are blocked now."""
        for plain, blocked in list(self.blocked.items()):
            if plain.node not in self.converted:
                continue
            readers = {n for n, _ in self.graph.uses(plain) if n not in self.converted}
            if readers:
                self.begin(plain.node)
                shape = plain.shape
                if self.is_flat(plain):
                    result = self.add("Reshape", [blocked], {"shape": shape})
                else:
                    result = self.add("UnpackChannels", [blocked], {"channels": shape[1]})
                    self.counts["unpacks"] += 1
                self.editor.replace_uses(plain, result, readers)

    def is_flat(self, value: Value) -> bool:
        """Is the blocked form the same memory as the plain one?

        It is for one position and whole blocks: ``[N, C, 1, 1]`` and ``[N, C/b, 1, 1, b]``.
        """
        _, channels, *spatial = value.shape
        return all(d == 1 for d in spatial) and whole(channels, self.block)


def whole(channels: Dim, block: int) -> bool:
    """Do ``channels`` fill blocks exactly?"""
    return isinstance(channels, int) and channels % block == 0


def _is_equal(a: np.ndarray | None, b: np.ndarray) -> bool:
    return a is not None and (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()
