"""Which ONNX nodes a node of the graph stands for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Origins:
    """Names of imported ONNX nodes, each once, in the order in which they were added.

    Immutable. A union takes constant time; names are only collected when they are read. So a pass
    that merges many nodes into one, one after the other, takes linear time.
    """

    __slots__ = ("_names", "_parts")

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names: tuple[str, ...] | None = tuple(dict.fromkeys(names))
        self._parts: tuple[Origins, ...] = ()

    @staticmethod
    def union(many: Iterable[Origins]) -> Origins:
        """All names of ``many``."""
        parts = tuple({id(o): o for o in many if o}.values())
        if len(parts) <= 1:
            return parts[0] if parts else NONE
        out = Origins()
        out._names, out._parts = None, parts
        return out

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the ONNX nodes, each once."""
        if self._names is None:
            self._names = tuple(dict.fromkeys(self._collected()))
            self._parts = ()
        return self._names

    def _collected(self) -> Iterator[str]:
        """The names of all parts; parts that others share are read once."""
        seen: set[int] = set()
        stack = [self]
        while stack:
            part = stack.pop()
            if id(part) in seen:
                continue
            seen.add(id(part))
            if part._names is None:
                stack.extend(reversed(part._parts))
            else:
                yield from part._names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __bool__(self) -> bool:
        # Parts are never empty, so this collects nothing.
        return self._names is None or bool(self._names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origins) and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        return f"Origins({list(self.names)})"


NONE = Origins()
"""The origins of a node that stands for no ONNX node."""


__all__ = ["NONE", "Origins"]
