"""Axis maps of attention: batch, heads, sequences and widths.

Query heads are (key head, query head of its group); inputs of three axes have (heads, width) in the
last. The order of keys does not count, unless something counts positions, as causal masks and
lengths do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..dims import Dim, known_equal
from .build import Builder, rule
from .map import UNIT, Axis, AxisMap, Kind, Piece, whole


@dataclass
class _Heads:
    """The factors of an attention node."""

    batch: int
    kv: int
    group: int
    queries: int
    keys: list[int]
    """Those of the past come first, if there is one."""
    key_sizes: list[Dim]
    depth: int
    width: int

    def key_axis(self) -> Axis:
        """The axis of past and new keys."""
        pieces: list[Piece] = []
        start: Dim = 0
        for f, size in zip(self.keys, self.key_sizes, strict=True):
            pieces.append(Piece((f,), start))
            start = start + size
        return tuple(pieces)

    def query(self, rank: int, width: int) -> list[Axis]:
        """Axes of queries or results."""
        return _packed(rank, self.batch, (self.kv, self.group), self.queries, width)

    def key(self, rank: int, width: int) -> list[Axis]:
        """Axes of new keys or values."""
        return _packed(rank, self.batch, (self.kv,), self.keys[-1], width)

    def cached(self, keys: Axis, width: int) -> list[Axis]:
        return [whole(self.batch), whole(self.kv), keys, whole(width)]

    def scores(self) -> list[Axis]:
        return [
            whole(self.batch), whole(self.kv, self.group), whole(self.queries), self.key_axis(),
        ]  # fmt: skip


def _packed(rank: int, batch: int, heads: tuple[int, ...], length: int, width: int) -> list[Axis]:
    if rank == 4:
        return [whole(batch), whole(*heads), whole(length), whole(width)]
    return [whole(batch), whole(length), whole(*heads, width)]


def _sizes(b: Builder, i: int, heads: int) -> tuple[Dim, Dim, Dim, Dim]:
    """Operand ``i`` as batch, heads, length and width."""
    shape = b.shape(i)
    if len(shape) == 4:
        return shape[0], shape[1], shape[2], shape[3]
    return shape[0], heads, shape[1], shape[2] // heads


def _heads(b: Builder, heads: int, kv_heads: int, past: int, ordered: bool) -> _Heads:
    """The factors for queries, keys and values at 0 to 2, and past keys at ``past``."""
    batch, count, length, depth = _sizes(b, 0, heads)
    _, kv, new, _ = _sizes(b, 1, kv_heads)
    *_, width = _sizes(b, 2, kv_heads)
    apart = len(b.node.outputs) == 1 and not b.has(past)
    # Present keys and values are results, too, which keep the axis that the first result sums over.
    summed = Kind.REDUCED if apart else Kind.NORMALIZED
    sizes = [b.shape(past)[2], new] if b.has(past) else [new]
    keyed = Kind.OPAQUE if ordered else summed
    return _Heads(
        b.factor(batch), b.factor(kv), b.factor(count // kv),
        b.factor(length, Kind.OPAQUE if ordered else Kind.MAPPED),
        [b.factor(d, keyed) for d in sizes], sizes, b.factor(depth, summed), b.factor(width),
    )  # fmt: skip


def _describe(b: Builder, h: _Heads, past: int) -> None:
    """Queries, keys, values, the past, and the first three results."""
    b.take(0, h.query(len(b.shape(0)), h.depth))
    b.take(1, h.key(len(b.shape(1)), h.depth))
    b.take(2, h.key(len(b.shape(2)), h.width))
    for i, width in ((past, h.depth), (past + 1, h.width)):
        b.take(i, h.cached(whole(h.keys[0]), width))
    b.give(h.query(len(b.out()), h.width))
    for k, width in ((1, h.depth), (2, h.width)):
        b.give(h.cached(h.key_axis(), width), k)


def _score_shape(b: Builder, h: _Heads, heads: int) -> list[Dim]:
    batch, count, length, _ = _sizes(b, 0, heads)
    total: Dim = 0
    for size in h.key_sizes:
        total = total + size
    return [batch, count, length, total]


@rule
def attention(b: Builder) -> AxisMap | None:
    """``Attention`` of ai.onnx, with grouped queries, a mask, a past and lengths."""
    heads, kv_heads = int(b.attr("q_num_heads") or 0), int(b.attr("kv_num_heads") or 0)
    ordered = bool(b.attr("is_causal")) or b.has(6)
    h = _heads(b, heads, kv_heads, 4, ordered)
    _describe(b, h, 4)
    shape = _score_shape(b, h, heads)
    if b.has(3) and not known_equal(b.shape(3)[-1], shape[-1]):
        # A mask may be shorter than the keys; keys past its end are masked.
        for f in h.keys:
            b.withdraw(whole(f))
    b.broadcast(3, h.scores(), shape)
    b.take(6, [whole(h.batch)])
    b.give(h.scores(), 3)
    counts = {"q_num_heads": (h.kv, h.group), "kv_num_heads": (h.kv,)}
    return b.build(counts={k: v for k, v in counts.items() if b.attr(k)})


@rule
def dialect_attention(b: Builder) -> AxisMap | None:
    """``kiln.Attention``: ``[B, H, S, D]`` each, with a float mask that broadcasts."""
    if not known_equal(b.shape(0)[1], b.shape(1)[1]):
        return None
    heads = _heads(b, 0, 0, past=4, ordered=False)
    _describe(b, heads, 4)
    b.broadcast(3, heads.scores(), _score_shape(b, heads, 0))
    return b.build()


@rule
def multi_head(b: Builder) -> AxisMap | None:
    """``MultiHeadAttention``: the bias is that of queries, of keys and of values, in a row."""
    heads = int(b.attr("num_heads"))
    lengths = b.has(4) and len(b.shape(4)) == 1
    h = _heads(b, heads, heads, 6, ordered=bool(b.attr("unidirectional")) or lengths)
    _describe(b, h, 6)
    shape = _score_shape(b, h, heads)
    _key_mask(b, 4, h, shape)
    b.broadcast(5, h.scores(), shape)
    if b.has(3):
        depth, width = _sizes(b, 0, heads)[3], _sizes(b, 2, heads)[3]
        b.take(3, [_projections(h, heads, depth, width)])
    return b.build(counts={"num_heads": (h.kv,)})


def _projections(h: _Heads, heads: int, depth: Dim, width: Dim) -> Axis:
    """Columns of queries, keys and values, one after the other."""
    query, value = (h.kv, h.group, h.depth), (h.kv, h.group, h.width)
    return (
        Piece(query), Piece(query, heads * depth), Piece(value, 2 * heads * depth),
    )  # fmt: skip


def _key_mask(b: Builder, i: int, h: _Heads, shape: Sequence[Dim]) -> None:
    """Lengths ``[batch]``, flags ``[batch, keys]`` or ``[batch, queries, keys]``."""
    if not b.has(i):
        return
    batch, _, queries, keys = h.scores()
    axes, sizes = {
        1: ([batch], [shape[0]]),
        2: ([batch, keys], [shape[0], shape[3]]),
        3: ([batch, queries, keys], [shape[0], shape[2], shape[3]]),
    }[len(b.shape(i))]
    b.broadcast(i, axes, sizes)


@rule
def projected_attention(b: Builder) -> AxisMap | None:
    """com.microsoft's ``Attention``: queries, keys and values are products of the same input."""
    heads, given = int(b.attr("num_heads")), b.attr("qkv_hidden_sizes")
    if b.has(4) or len(b.node.outputs) > 1:
        return None
    batch, length, inputs = b.shape()
    columns = b.shape(1)[1]
    q, _, v = given or (columns // 3,) * 3
    ordered = bool(b.attr("unidirectional")) or b.has(3) and len(b.shape(3)) == 1
    place = b.factor(length, Kind.OPAQUE if ordered else Kind.NORMALIZED)
    h = _Heads(
        b.factor(batch), b.factor(heads), b.factor(1), place, [place], [length],
        b.factor(q // heads, Kind.REDUCED, fixed=True), b.factor(v // heads, fixed=True),
    )  # fmt: skip
    inner = whole(b.reduced(inputs))
    b.take(0, [whole(h.batch), whole(place), inner])
    b.take(1, [inner, _projections(h, heads, q // heads, v // heads)])
    b.take(2, [_projections(h, heads, q // heads, v // heads)])
    _key_mask(b, 3, h, (batch, heads, length, length))
    b.broadcast(5, h.scores(), (batch, heads, length, length))
    b.give([whole(h.batch), whole(place), whole(h.kv, h.group, h.width)])
    return b.build(counts={"num_heads": (h.kv,)})


@rule
def linear_attention(b: Builder) -> AxisMap | None:
    """``LinearAttention``: a recurrence over the sequence with a state of keys by values."""
    heads, kv = int(b.attr("q_num_heads")), int(b.attr("kv_num_heads"))
    batch, length, hidden = b.shape()
    n, k, g = b.factor(batch), b.factor(kv), b.factor(heads // kv)
    s = b.factor(length, Kind.OPAQUE)
    d = b.factor(hidden // heads, Kind.NORMALIZED)
    e = b.factor(b.shape(2)[2] // kv)
    b.take(0, _packed(3, n, (k, g), s, d))
    b.take(1, _packed(3, n, (k,), s, d))
    b.take(2, _packed(3, n, (k,), s, e))
    b.take(3, [whole(n), whole(k), whole(d), whole(e)])
    _rates(b, 4, [whole(n), whole(s)], {kv: whole(k), kv * (hidden // heads): whole(k, d)})
    _rates(b, 5, [whole(n), whole(s)], {kv: whole(k), 1: UNIT})
    b.give(_packed(3, n, (k, g), s, e))
    b.give([whole(n), whole(k), whole(d), whole(e)], 1)
    return b.build(counts={"q_num_heads": (k, g), "kv_num_heads": (k,)})


def _rates(b: Builder, i: int, places: list[Axis], by_size: Mapping[Dim, Axis]) -> None:
    """Decays or rates: the size of the last axis decides what it counts; unknown is opaque."""
    if not b.has(i):
        return
    size = b.shape(i)[-1]
    found = next((axis for d, axis in by_size.items() if known_equal(d, size)), None)
    if found is None:
        for axis in by_size.values():
            b.withdraw(axis)
    b.take(i, [*places, b.opaque(size) if found is None else found])


# ---- rotary embeddings ---------------------------------------------------------------------------


@rule
def rotary(b: Builder) -> AxisMap | None:
    """``RotaryEmbedding``: by head and position; elements of a head are rotated in pairs."""
    return _rotary(b, cosines=(1, 2), positions=3)


@rule
def rotary_microsoft(b: Builder) -> AxisMap | None:
    """com.microsoft's: positions are input 1, and may be only that of the first element."""
    return _rotary(b, cosines=(2, 3), positions=1)


def _rotary(b: Builder, cosines: tuple[int, int], positions: int) -> AxisMap | None:
    shape = b.shape()
    heads = int(b.attr("num_heads") or 0)
    if len(shape) == 3 and not heads:
        return None
    batch, count, length, width = _sizes(b, 0, heads)
    n, h, s, w = b.factor(batch), b.factor(count), b.factor(length), b.factor(width, Kind.OPAQUE)
    b.take(0, _packed(len(shape), n, (h,), s, w))
    b.give(_packed(len(shape), n, (h,), s, w))
    if b.has(positions) and len(b.shape(positions)) == 2:
        b.take(positions, [whole(n), whole(s)])
    elif b.has(positions):
        b.withdraw(whole(s))
    for i in cosines:
        if len(b.shape(i)) == 3:
            angles = b.shape(i)[2]
            b.broadcast(i, [whole(n), whole(s), b.opaque(angles)], [batch, length, angles])
    return b.build(counts={"num_heads": (h,)} if heads else {})


__all__ = [
    "attention", "dialect_attention", "linear_attention", "multi_head",
    "projected_attention", "rotary", "rotary_microsoft",
]  # fmt: skip
