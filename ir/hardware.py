"""What passes may ask about the hardware: the one page that passes and targets share.

A target answers (``Target.hardware``), the driver hands the answers to passes, and neither knows
the other. Questions of the form "may you" are answered by None for yes, or by the reason why not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from .choices import Choice, KernelShape
from .costs import Rates
from .elementwise import is_elementwise
from .graph import Graph, Node
from .registry import attribute, has_trait
from .traits import Trait


class Layouts(Protocol):
    """Blocked layouts that a target has kernels for."""

    @property
    def block(self) -> int:
        """Channels of one block."""
        ...

    @property
    def storage_types(self) -> tuple[str, ...]:
        """Float types that kernels only load and store, computing in float32."""
        ...

    @property
    def dot_depth(self) -> int:
        """Neighbours that a dot product of 8-bit integers takes; 1 where there is none."""
        ...

    @property
    def depthwise_depth(self) -> int:
        """Neighbours along a row that a depthwise kernel of 8-bit integers takes at once."""
        ...

    @property
    def activation(self) -> str | None:
        """The 8-bit type that dot products take beside int8 weights; None: they take either."""
        ...

    @property
    def fewest_filters(self) -> int:
        """Filters below which plain convolutions are faster than blocks that are mostly empty."""
        ...

    def recurrent_tile(self, gates: int, hidden: int, batch: int) -> int:
        """Hidden elements of a block of a recurrent layer's weights: whole blocks of channels.

        A step computes ``gates`` sums for each of the ``hidden`` elements of ``batch`` sequences.
        """
        ...

    def choose(self, shape: KernelShape) -> Choice:
        """How a convolution or product is computed; tiles of convolutions are whole blocks."""
        ...


class Hardware(Protocol):
    """The questions that passes ask."""

    @property
    def layouts(self) -> Layouts | None:
        """The target's blocked layouts; None where it has none."""
        ...

    def wants(self, op_key: str) -> bool:
        """Does the target have a kernel of its own for this op, so that taking it apart loses?"""
        ...

    def fusible_epilogue(
        self, graph: Graph, anchor: Node, moved: Node | None, node: Node
    ) -> str | None:
        """May ``node`` run in the kernel of ``anchor``, before that stores its result?

        It reads what the anchor made, of which ``moved`` is the movement that it went through.
        Fusion asks while a kernel's region grows, the target whether a region is such a kernel.
        """
        ...

    def fusible_prologue(self, graph: Graph, anchor: Node, node: Node) -> str | None:
        """May ``node`` (cheap) be computed where the kernel of ``anchor`` reads its inputs?"""
        ...

    def cheap(self, node: Node) -> bool:
        """May an element of ``node`` be computed several times rather than stored?"""
        ...

    @property
    def cores(self) -> int:
        """How many cores share the work."""
        ...

    def seconds(self, region: Graph) -> float:
        """About how long the kernel of a closed region takes on one core.

        Open sizes count as :data:`.costs.USUAL`.
        """
        ...

    def with_layouts(self, layouts: Layouts) -> Hardware:
        """The same hardware with other ``layouts``: those that were timed, say."""
        ...


_RATES = Rates({"float32": 16e9, "float64": 8e9, "int8": 16e9}, 4e9, 10e9)
"""A core of a processor with registers of four floats, about."""


@dataclass(frozen=True)
class GenericHardware:
    """Answers that suit any processor with the generic schedule.

    A target with kernels of its own inherits from this and says more. ``rates`` are those of its
    generic schedule.
    """

    layouts: Layouts | None = None
    cores: int = 1
    rates: Rates = _RATES

    def wants(self, op_key: str) -> bool:
        return False

    def fusible_epilogue(
        self, graph: Graph, anchor: Node, moved: Node | None, node: Node
    ) -> str | None:
        elementwise = is_elementwise(node, graph.inputs_of(node))
        if moved is not None and (moved.key == "Transpose" or not elementwise):
            return "the result has been moved"
        if elementwise:
            same = node.out().shape == (moved or anchor).out().shape
            return None if same else "its shape is not that of the anchor"
        if node.key == "Transpose" and self.strides_rows(anchor) and keeps_rows(graph, node):
            return None
        if node.key == "kiln.DepthToSpaceBlocked" and anchor.key == "kiln.ConvBlocked":
            return None
        return "not elementwise, and not a move that this kernel does where it stores"

    def fusible_prologue(self, graph: Graph, anchor: Node, node: Node) -> str | None:
        views = self.strides_rows(anchor) and keeps_rows(graph, node)
        if has_trait(anchor, Trait.REDUCTION) or views:
            return None
        return f"{anchor.op} reads its inputs many times"

    def strides_rows(self, anchor: Node) -> bool:
        """Does the kernel of ``anchor`` read and write rows of any strides?"""
        return False

    def seconds(self, region: Graph) -> float:
        return self.rates.seconds(region)

    def with_layouts(self, layouts: Layouts) -> GenericHardware:
        return replace(self, layouts=layouts)

    def cheap(self, node: Node) -> bool:
        return has_trait(node, Trait.CHEAP) or has_trait(node, Trait.INJECTIVE)


def keeps_rows(graph: Graph, node: Node) -> bool:
    """Does ``node`` only move rows about, or parts of rows, whose elements stay neighbours?"""
    if node.key == "Transpose":
        rank = node.out().rank
        perm = attribute(node, "perm")
        return perm is not None and perm[-1] % rank == rank - 1
    if node.key == "kiln.Slice":
        return attribute(node, "steps")[-1] == 1
    if node.key == "kiln.Reshape":
        x = graph.required_inputs(node)[0]
        return bool(x.rank and node.out().rank) and x.shape[-1] == node.out().shape[-1]
    return False


__all__ = ["GenericHardware", "Hardware", "Layouts", "keeps_rows"]
