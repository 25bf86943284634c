"""The hardware protocol: the questions that passes may ask about a target.

A target answers them (``Target.hardware``), and the driver gives the answers to passes, so that
passes and targets do not import each other. Questions that permit something are answered by None
for yes, or by the reason why not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from .choices import Choice, KernelShape
from .costs import Rates
from .elementwise import is_elementwise
from .graph import Graph, Node
from .layer_work import LayerWork
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
        """Products that a dot product of 8-bit integers sums; 1 if there is no such instruction."""
        ...

    @property
    def winograd_depth(self) -> int:
        """The same for Winograd convolutions of 8-bit integers, whose operands have more bits."""
        ...

    @property
    def depthwise_depth(self) -> int:
        """Neighbouring columns that one step of a depthwise kernel of 8-bit integers takes."""
        ...

    @property
    def activation(self) -> str | None:
        """The 8-bit type that dot products take beside int8 weights; None if they take either."""
        ...

    @property
    def pair_limit(self) -> int | None:
        """The largest magnitude of the sum of two neighbouring weights with which dot products of
        8-bit integers are exact; None if they always are.
        """
        ...

    @property
    def fewest_filters(self) -> int:
        """The fewest filters for which blocks, which may be mostly padding, are faster than plain
        ones.
        """
        ...

    def lists_steps(self, shape: KernelShape, share: float) -> bool:
        """Is a product or convolution faster by a list of steps (see :mod:`.split_weights`) where
        only a ``share`` of the steps of all vectors, 0 to 1, has weights that are not zero?
        """
        ...

    def recurrent_tile(self, gates: int, hidden: int, batch: int) -> int:
        """Hidden elements in a block of a recurrent layer's weights, a multiple of ``block``.

        A step computes ``gates`` sums for each of the ``hidden`` elements of ``batch`` sequences.
        """
        ...

    def choose(self, shape: KernelShape) -> Choice:
        """Tile and algorithm of a convolution or product; a convolution's tile is whole blocks."""
        ...


class Hardware(Protocol):
    """The questions that passes ask; every target answers them."""

    @property
    def layouts(self) -> Layouts | None:
        """The target's blocked layouts; None where it has none."""
        ...

    def wants(self, op_key: str) -> bool:
        """Does the target have a kernel for this op, which is faster than decomposing it?"""
        ...

    def fusible_epilogue(
        self, graph: Graph, anchor: Node, moved: Node | None, node: Node
    ) -> str | None:
        """May ``node`` be part of the epilogue of ``anchor``, computed before its result is stored?

        ``moved`` is the movement op that the anchor's result goes through before ``node``, if any.
        Fusion asks as a region grows, and code generation when it looks for the region's template.
        """
        ...

    def fusible_prologue(self, graph: Graph, anchor: Node, node: Node) -> str | None:
        """May ``node``, which is cheap, be part of the prologue of ``anchor``?"""
        ...

    def cheap(self, node: Node) -> bool:
        """Is it better to compute an element of ``node`` several times than to store it?"""
        ...

    @property
    def cores(self) -> int:
        """The number of cores that share the work."""
        ...

    def seconds(self, region: Graph) -> float:
        """The estimated time of the kernel of a closed region on one core, in seconds.

        Unknown sizes count as :data:`.costs.USUAL`.
        """
        ...

    def layer_seconds(self, work: LayerWork) -> float | None:
        """The estimated time of a layer on one core, in floats or 8-bit integers; None where the
        target does not know.
        """
        ...

    def rounding_seconds(self, elements: int) -> float | None:
        """The estimated time, on one core, by which the kernel that computes so many numbers takes
        longer if it rounds them to 8-bit integers; None where the target does not know.
        """
        ...

    def joining_seconds(self, elements: int) -> float | None:
        """The estimated time, on one core, to store so many sums of products by one byte of an
        operand, and to join them with those of the other byte; None where the target does not know.
        """
        ...

    def with_layouts(self, layouts: Layouts) -> Hardware:
        """The same hardware with other ``layouts``, such as those with measured choices."""
        ...


_RATES = Rates({"float32": 16e9, "float64": 8e9, "int8": 16e9}, 4e9, 10e9)
"""Approximate rates of one core with registers of four floats."""


@dataclass(frozen=True)
class GenericHardware:
    """Answers for any processor, with the generic schedule only.

    A target with templates inherits from this class and overrides answers. ``rates`` are those of
    the generic schedule.
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
        """Can the kernel of ``anchor`` read and write rows at any strides?"""
        return False

    def seconds(self, region: Graph) -> float:
        return self.rates.seconds(region)

    def layer_seconds(self, work: LayerWork) -> float | None:
        return None

    def rounding_seconds(self, elements: int) -> float | None:
        return None

    def joining_seconds(self, elements: int) -> float | None:
        return None

    def with_layouts(self, layouts: Layouts) -> GenericHardware:
        return replace(self, layouts=layouts)

    def cheap(self, node: Node) -> bool:
        return has_trait(node, Trait.CHEAP) or has_trait(node, Trait.INJECTIVE)


def keeps_rows(graph: Graph, node: Node) -> bool:
    """Does ``node`` move whole rows, or contiguous parts of rows?"""
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
