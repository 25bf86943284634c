"""TfIdfVectorizer: counts of the n-grams of a vocabulary (ONNX, opset 9)."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from . import Attrs, AttrsKey, host_function


@host_function("TfIdfVectorizer")
def tfidf_vectorizer(attrs: Attrs, data: np.ndarray) -> tuple[np.ndarray, ...]:
    """Float32 features, [width] of tokens [c] or [n, width] of [n, c].

    An n-gram may skip up to ``max_skip_count`` tokens between each two of its tokens, the same
    number everywhere.
    """
    if data.ndim not in (1, 2):
        raise ValueError(f"input must have rank 1 or 2, it has rank {data.ndim}")
    vocabulary = _vocabulary(AttrsKey(attrs))
    indexes = attrs["ngram_indexes"]
    rows = data if data.ndim == 2 else data.reshape(1, -1)
    counts = np.zeros((len(rows), max(indexes) + 1), np.float32)
    for row, tokens in zip(counts, rows.tolist(), strict=True):
        for ngram in _ngrams(tokens, attrs):
            place = vocabulary.get(ngram)
            if place is not None:
                row[indexes[place]] += 1
    result = _weighted(counts, attrs)
    return (result if data.ndim == 2 else result[0].copy(),)


@lru_cache(maxsize=64)
def _vocabulary(key: AttrsKey) -> dict[tuple[Any, ...], int]:
    """The place of each n-gram of the pool, which lists all 1-grams, then all 2-grams, ..."""
    pool = key.attrs.get("pool_strings") or key.attrs.get("pool_int64s") or []
    starts = [*key.attrs["ngram_counts"], len(pool)]
    grams: dict[tuple[Any, ...], int] = {}
    for length, (start, end) in enumerate(pairwise(starts), 1):
        for place in range(start, end - length + 1, length):
            grams[tuple(pool[place : place + length])] = len(grams)
    return grams


def _ngrams(tokens: list[Any], attrs: Attrs) -> list[tuple[Any, ...]]:
    found = []
    for length in range(attrs["min_gram_length"], attrs["max_gram_length"] + 1):
        skips = 1 if length == 1 else attrs["max_skip_count"] + 1
        for stride in range(1, skips + 1):
            reach = (length - 1) * stride + 1
            for start in range(len(tokens) - reach + 1):
                found.append(tuple(tokens[start : start + reach : stride]))
    return found


def _weighted(counts: np.ndarray, attrs: Attrs) -> np.ndarray:
    mode = attrs["mode"]
    if mode == "TF":
        return counts
    if mode not in ("IDF", "TFIDF"):
        raise ValueError(f"unknown mode {mode!r}")
    weights = np.ones(counts.shape[1], np.float32)
    for place, weight in enumerate(attrs.get("weights") or ()):
        weights[attrs["ngram_indexes"][place]] = weight
    if mode == "IDF":
        counts = (counts > 0).astype(np.float32)
    result: np.ndarray = weights * counts
    return result
