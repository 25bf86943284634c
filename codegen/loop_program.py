"""Loops and scans as native code: one function runs all iterations.

Lowering writes each loop as instructions for the virtual machine (:mod:`.control`). Where shapes
are the same in every iteration, and the body is a straight-line program (:mod:`.straight_line`),
it becomes a function too, by :mod:`.loops` and :mod:`.loop_code`, which the program calls as a
kernel:

* Its arguments are what the loop reads, and memory for its results and for all values of the body,
  which is allocated once, not in each iteration.
* What an iteration hands on to the next is written to one of two buffers while the other is read.
  One of them is the memory of the loop's result. Initial values are read where they are.
* Slices of scanned inputs are read, and rows of scan outputs written, where they lie in the whole,
  if they are contiguous and aligned there; others are copied.
* Where the number of iterations is not known beforehand, the function returns when scan outputs are
  full, and goes on when it is called with larger ones.

Where something does not hold, or a kernel fails, the virtual machine runs the loop again from its
start, since the function writes to none of its inputs.

In bodies, the kind of a :class:`~.straight_line.Memory` may also be ``argument`` (of the function),
``carried`` (a value that the iteration before left), ``turned`` (one that this iteration leaves),
``row`` (of a scan output), ``slice`` (of a scanned input), ``iteration`` and ``condition``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..ir.dims import Dim, SymExpr
from ..ir.storage import storage_bytes
from ..ir.types import TensorType
from .program import DimSlot, Instruction, Reg
from .straight_line import Extent, Memory, StraightLine, Tensor


@dataclass(frozen=True)
class Carry:
    """What a loop carries: where it begins, and where an iteration leaves it.

    ``initial`` and ``result`` are arguments. ``turned`` is what the next iteration gets. Where that
    is computed in memory of its own, ``spare`` is a second buffer for it, and the two take turns;
    otherwise it is copied to the result, by way of ``staged`` where it may be in another result.
    """

    initial: Tensor
    result: Tensor
    turned: Tensor
    spare: Tensor | None = None
    staged: Tensor | None = None


@dataclass(frozen=True)
class ScanInput:
    """An input that is scanned along ``axis``, perhaps ``backwards``, of which an iteration gets
    ``part``.
    """

    whole: Tensor
    part: Tensor
    axis: int
    backwards: bool


@dataclass(frozen=True)
class ScanOutput:
    """An output that is stacked along ``axis``, perhaps ``backwards``, of what iterations leave in
    ``part``.

    ``before`` is the memory that held it when the function returned with a full one.
    """

    whole: Tensor
    part: Tensor
    axis: int
    backwards: bool
    before: Tensor | None = None


@dataclass
class LoopProgram:
    """A loop for which there is native code, the function ``name``.

    ``arguments`` are its tensors. ``limit`` is the number of iterations and ``start`` the condition
    before the first, ``going`` the one after each; None where nothing ends it. ``rows`` is how many
    parts ``outputs`` have room for.
    """

    name: str
    body: StraightLine
    arguments: list[Tensor] = field(default_factory=list)
    limit: Tensor | DimSlot | None = None
    start: Tensor | None = None
    going: Tensor | None = None
    carries: list[Carry] = field(default_factory=list)
    inputs: list[ScanInput] = field(default_factory=list)
    outputs: list[ScanOutput] = field(default_factory=list)
    rows: DimSlot | None = None

    @property
    def grows(self) -> bool:
        """May ``outputs`` have room for fewer parts than there are iterations?"""
        return any(o.before is not None for o in self.outputs)

    def argument(self, shape: tuple[Extent, ...], dtype: str) -> Tensor:
        """One more argument."""
        t = Tensor(Memory("argument", len(self.arguments)), shape, dtype)
        self.arguments.append(t)
        return t


@dataclass
class Scanned:
    """A value that is cut into parts along an axis, or stacked of them: registers and types.

    ``whole`` is the register of what is cut, and None for what is stacked.
    """

    part: Reg
    part_type: TensorType
    whole_type: TensorType
    axis: int
    backwards: bool
    whole: Reg | None = None


@dataclass
class LoopForm:
    """A loop as lowering wrote it.

    ``block`` are the instructions of the body. They read ``iteration`` and ``condition``, which a
    scan has not, ``carried`` and ``captured`` values and parts of ``cut`` ones, and leave
    ``turned`` and ``stacked`` values, and ``going``, the condition of the next iteration. Without
    ``limit``, ``start`` or ``going`` there is no such condition. ``types`` are those of what is
    carried. ``rows`` is how many parts are stacked, None where only a run tells.
    """

    block: Sequence[Instruction]
    limit: Reg | Dim | None
    start: Reg | None
    carried: list[Reg]
    initial: list[Reg]
    turned: list[Reg]
    types: list[TensorType]
    captured: list[tuple[Reg, TensorType]]
    stacked: list[Scanned]
    rows: Dim | None
    cut: list[Scanned] = field(default_factory=list)
    iteration: Reg | None = None
    condition: Reg | None = None
    going: Reg | None = None

    @property
    def is_steady(self) -> bool:
        """Do shapes alone tell the number of iterations?"""
        return self.going is None and isinstance(self.limit, int | SymExpr)


def item_bytes(dtype: str) -> int:
    """Bytes of an element of a TVM dtype."""
    return storage_bytes(dtype)


__all__ = [
    "Carry", "LoopForm", "LoopProgram", "ScanInput", "ScanOutput", "Scanned", "item_bytes",
]  # fmt: skip
