"""Operations that select by value: Unique, NonZero, NonMaxSuppression (ONNX, to opset 23)."""

from __future__ import annotations

import numpy as np

from . import Attrs, host_function

_NO_THRESHOLD = -np.inf


@host_function("NonZero")
def nonzero(attrs: Attrs, data: np.ndarray) -> tuple[np.ndarray, ...]:
    """Indices of what is not zero, [rank, count] int64; a scalar counts as one element."""
    return (np.array(np.nonzero(np.atleast_1d(data)), np.int64),)


@host_function("Unique")
def unique(attrs: Attrs, data: np.ndarray) -> tuple[np.ndarray, ...]:
    """Distinct elements, or slices along ``axis``; their first places, the inverse, the counts."""
    axis = attrs.get("axis")
    slices = data.reshape(-1) if axis is None else np.moveaxis(data, axis, 0)
    if data.dtype == object:
        first, inverse, counts = _unique_by_key(slices)
    else:
        _, first, inverse, counts = np.unique(
            _comparable(slices, attrs), True, True, True, axis=None if axis is None else 0
        )
    inverse = inverse.reshape(-1)
    if not attrs.get("sorted", 1):
        order = np.argsort(first)
        rank = np.argsort(order)
        first, counts, inverse = first[order], counts[order], rank[inverse]
    values = slices[first]
    if axis is not None:
        values = np.moveaxis(values, 0, axis)
    return values.copy(), *(np.asarray(part, np.int64) for part in (first, inverse, counts))


def _comparable(data: np.ndarray, attrs: Attrs) -> np.ndarray:
    """An array that sorts as the values do: bfloat16, which comes as its bits, becomes float32."""
    if "bfloat16" not in attrs.get("types", ())[:1]:
        return data
    return (data.astype(np.uint32) << 16).view(np.float32)


@host_function("com.microsoft.Unique")
def unique_in_order(attrs: Attrs, data: np.ndarray) -> tuple[np.ndarray, ...]:
    """Distinct elements of [n] in order of appearance; the inverse; the counts."""
    values, _, inverse, counts = unique({**attrs, "sorted": 0}, data)
    return values, inverse, counts


def _unique_by_key(slices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What NumPy's unique does, for strings, which it cannot compare slice by slice."""
    keys = [tuple(row.reshape(-1)) for row in slices[:, None]]
    first: dict[tuple[str, ...], int] = {}
    for index, key in enumerate(keys):
        first.setdefault(key, index)
    place = {key: rank for rank, key in enumerate(sorted(first))}
    inverse = np.array([place[key] for key in keys], np.int64)
    starts = np.array([first[key] for key in place], np.int64)
    return starts, inverse, np.bincount(inverse, minlength=len(place))


@host_function("NonMaxSuppression")
def non_max_suppression(
    attrs: Attrs,
    boxes: np.ndarray,
    scores: np.ndarray,
    limit: np.ndarray | None = None,
    iou_threshold: np.ndarray | None = None,
    score_threshold: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
    """Boxes that no better box of their class overlaps.

    ``boxes`` is [batch, n, 4], ``scores`` is [batch, classes, n]; the result, [selected, 3] int64,
    names batch, class and box, by batch, then class, then falling score.
    """
    most = _scalar(limit, 0)
    if most <= 0:
        return (np.empty((0, 3), np.int64),)
    corners = _corners(boxes, attrs.get("center_point_box", 0))
    overlap, least = _scalar(iou_threshold, 0.0), _scalar(score_threshold, _NO_THRESHOLD)
    rows: list[tuple[int, int, int]] = []
    for batch in range(scores.shape[0]):
        for label in range(scores.shape[1]):
            kept = _suppress(corners[batch], scores[batch, label], most, overlap, least)
            rows.extend((batch, label, box) for box in kept)
    return (np.array(rows, np.int64).reshape(-1, 3),)


def _scalar(value: np.ndarray | None, default: float) -> float:
    return default if value is None or value.size == 0 else value.reshape(-1)[0].item()


def _corners(boxes: np.ndarray, centered: int) -> np.ndarray:
    """Boxes as low corner, high corner: [batch, n, 4]; corners may be given in any order."""
    first, second = boxes[..., :2], boxes[..., 2:]
    if centered:
        first, second = first - second / 2, first + second / 2
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=-1)


def _suppress(
    corners: np.ndarray, scores: np.ndarray, most: float, overlap: float, least: float
) -> list[int]:
    candidates = np.flatnonzero(scores > least)
    candidates = candidates[np.argsort(-scores[candidates], kind="stable")]
    areas = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    kept: list[int] = []
    while candidates.size and len(kept) < most:
        best, candidates = int(candidates[0]), candidates[1:]
        kept.append(best)
        candidates = candidates[~_overlaps(corners, areas, best, candidates, overlap)]
    return kept


def _overlaps(
    corners: np.ndarray, areas: np.ndarray, best: int, others: np.ndarray, overlap: float
) -> np.ndarray:
    """Whether the intersection over union with the best box is above the threshold."""
    low = np.maximum(corners[best, :2], corners[others, :2])
    high = np.minimum(corners[best, 2:], corners[others, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    union = areas[best] + areas[others] - shared
    solid = (shared > 0) & (areas[best] > 0) & (areas[others] > 0)
    ratio = np.divide(shared, union, out=np.zeros_like(shared), where=solid)
    above: np.ndarray = solid & (ratio > overlap)
    return above
