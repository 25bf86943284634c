"""Axis maps as text, close to the notation of einsum.

``[a, (b, c)] [(b, d), c] -> [a, (b, d)]; c reduced by sum`` is a grouped product: ``(b, c)`` is an
axis made of two factors, ``b`` outermost. ``1`` is an axis that broadcasts, ``a | b`` two pieces
end to end, ``a@2`` a piece that starts at position 2, ``a*2`` one that takes every second position
and ``a~3`` one of windows of 3. Factors whose kind is not told are mapped.
"""

from __future__ import annotations

from .map import Axes, Axis, AxisMap, Factor, Kind, Piece


def axis_text(axis: Axis) -> str:
    """One axis: ``(b, c)``, or ``a@2`` for a piece that starts at position 2."""
    return " | ".join(_piece(piece) for piece in axis)


def map_text(axes: AxisMap) -> str:
    """The map on one line; ``_`` is an omitted input, ``?`` a result of which nothing is said."""
    operands = [_tensor(t, "_") for t in axes.operands]
    results = [_tensor(t, "?") for t in axes.results]
    kinds = [
        f"{_letter(f)} {_kind(factor)}"
        for f, factor in enumerate(axes.factors)
        if factor.kind is not Kind.MAPPED or factor.fixed
    ]
    return "; ".join([f"{' '.join(operands)} -> {' '.join(results)}", *kinds])


def _kind(factor: Factor) -> str:
    by = "" if factor.combine is None else f" by {factor.combine.value}"
    return f"{'fixed, ' if factor.fixed else ''}{factor.kind.value}{by}"


def _tensor(axes: Axes | None, missing: str) -> str:
    return missing if axes is None else f"[{', '.join(map(axis_text, axes))}]"


def _piece(piece: Piece) -> str:
    letters = [_letter(f) for f in piece.factors]
    text = f"({', '.join(letters)})" if len(letters) > 1 else letters[0] if letters else "1"
    marks = (("@", piece.start, 0), ("*", piece.step, 1), ("~", piece.reach, 1))
    return text + "".join(f"{mark}{value}" for mark, value, usual in marks if value != usual)


def _letter(f: int) -> str:
    """a to z, then a1, b1 ..."""
    cycle, letter = divmod(f, 26)
    return chr(ord("a") + letter) + (str(cycle) if cycle else "")


__all__ = ["axis_text", "map_text"]
