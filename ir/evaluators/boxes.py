"""NonMaxSuppression-11: for each class, the boxes that no better one overlaps."""

from __future__ import annotations

from typing import Any

import numpy as np


def kept_boxes(inputs: list[Any], centered: bool, room: int | None = None) -> np.ndarray:
    """The boxes that each class keeps, by falling score, and then -1: ``[batch, classes, room]``.

    ``inputs`` are those of NonMaxSuppression: boxes ``[batch, n, 4]`` and scores ``[batch, classes,
    n]`` in float32, the limit on boxes of a class (int64; 0 if it is omitted or empty), and the
    thresholds on the intersection over the union (0) and on scores (none). There is room for all
    boxes, or for ``room`` of them.
    """
    boxes, scores, limit, iou, score = (*inputs, None, None, None)[:5]
    most, overlap = _first(limit, 0), _first(iou, np.float32(0))
    least = _first(score, np.float32(-np.inf))
    corners = _corners(boxes, centered)
    room = boxes.shape[1] if room is None else min(room, boxes.shape[1])
    kept = np.full((*scores.shape[:2], room), -1, np.int64)
    for batch, label in np.ndindex(*scores.shape[:2]):
        found = _suppress(corners[batch], scores[batch, label], most, overlap, least)
        kept[batch, label, : len(found)] = found
    return kept


def box_rows(kept: np.ndarray) -> np.ndarray:
    """``[selected, 3]`` int64: batch, class and box of all that is kept."""
    where = np.nonzero(kept >= 0)
    return np.stack([where[0], where[1], kept[where]], axis=1).astype(np.int64)


def _first(value: np.ndarray | None, default: Any) -> Any:
    return default if value is None or value.size == 0 else value.reshape(-1)[0]


def _corners(boxes: np.ndarray, centered: bool) -> np.ndarray:
    """Boxes as low corner, high corner: [batch, n, 4]; corners may be given in any order."""
    first, second = boxes[..., :2], boxes[..., 2:]
    if centered:
        first, second = first - second / 2, first + second / 2
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=-1)


def _suppress(
    corners: np.ndarray, scores: np.ndarray, most: int, overlap: Any, least: Any
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
    corners: np.ndarray, areas: np.ndarray, best: int, others: np.ndarray, overlap: Any
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
