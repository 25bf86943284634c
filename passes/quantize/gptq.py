"""Rounding that makes up for its own errors (GPTQ).

The error of a layer's result is ``tr(D^T H D)`` with ``D`` the error of the weights ``[K, N]`` and
``H = sum x x^T`` over what the layer reads. Rows of the weights are rounded one after the other,
and those that are still to come take over what each leaves:

    e = (w_k - q_k) / U_kk,    w_j <- w_j - U_kj e   for j > k,    U^T U = H^-1

E. Frantar, S. Ashkboos, T. Hoefler and D. Alistarh, *GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers*, 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np

from .few_bits import FewBits, FindSteps, Format, Steps, codes_of, least_error, values_of
from .pairs import RowPairs

_DAMPING = 0.01
"""This part of the mean of the diagonal is added to it: directions that no sample has shown are not
free."""
_TOGETHER = 128
"""Rows whose errors reach the rows behind them in one product."""


Ahead: TypeAlias = "Callable[[int], np.ndarray]"
"""The rows from the one that is rounded up to another, as they are by now."""

RoundRow: TypeAlias = "Callable[[int, np.ndarray, Ahead], np.ndarray]"
"""Rounds a row, given by its number and by the numbers that it has by now; returns its values."""


def compensated(weights: np.ndarray, gram: np.ndarray, round_row: RoundRow) -> None:
    """Round the rows of weights ``[K, N]`` in order, for operands with the Gram matrix ``gram``
    ``[K, K]``.

    Operands that are always 0 leave their weights to the nearest codes.
    """
    rest = weights.astype(np.float64)
    upper = _factor(gram)
    inner = len(rest)
    for start in range(0, inner, _TOGETHER):
        stop = min(start + _TOGETHER, inner)
        errors = np.empty((stop - start, weights.shape[1]))
        for k in range(start, stop):
            values = round_row(k, rest[k], partial(_settled, rest, errors, upper, start, k))
            error = (rest[k] - values) / upper[k, k]
            rest[k + 1 : stop] -= np.outer(upper[k, k + 1 : stop], error)
            errors[k - start] = error
        rest[stop:] -= upper[start:stop, stop:].T @ errors


def reconstructed(
    weights: np.ndarray, gram: np.ndarray, form: Format, find: FindSteps = least_error
) -> FewBits:
    """Weights ``[K, N]`` in few bits, for operands with the Gram matrix ``gram`` ``[K, K]``.

    A block gets its steps when its first row is rounded.
    """
    codes = np.empty(weights.shape, np.uint8)
    found: list[Steps] = []

    def round_row(k: int, row: np.ndarray, ahead: Ahead) -> np.ndarray:
        if k % form.block == 0:
            found.append(find(ahead(min(k + form.block, len(weights))), form))
        codes[k] = codes_of(row, found[-1], form)
        return values_of(codes[k].astype(np.float64), found[-1])

    compensated(weights, gram, round_row)
    scales, zeros = (np.array(part, np.float32) for part in zip(*found, strict=True))
    return FewBits(form, codes, scales, zeros)


def with_scales(
    weights: np.ndarray, gram: np.ndarray, scale: np.ndarray, largest: int = 127,
    pairs: RowPairs | None = None,
) -> np.ndarray:  # fmt: skip
    """Codes from ``-largest`` to ``largest``, float64 ``[K, N]``, of weights ``[K, N]`` whose
    columns have the scales ``scale`` ``[N]``. None of ``pairs`` is beyond its limit.

    Rows that meet the largest operands are rounded first, while all others can still make up for
    their errors. A column whose nearest codes have no larger error keeps these.
    """
    wide, step = weights.astype(np.float64), scale.astype(np.float64)
    order = np.argsort(-np.diag(gram), kind="stable")
    codes = np.zeros(wide.shape)

    def round_row(k: int, row: np.ndarray, _ahead: Ahead) -> np.ndarray:
        bounds = (-largest, largest) if pairs is None else pairs.bounds(codes, order[k], largest)
        codes[order[k]] = np.clip(np.round(row / step), *bounds)
        return codes[order[k]] * step

    compensated(wide[order], gram[np.ix_(order, order)], round_row)
    if pairs is None:
        nearest = np.clip(np.round(wide / step), -largest, largest)
    else:
        nearest = pairs.rounded(wide / step, largest)
    losses = [result_errors(c * step - wide, gram) for c in (codes, nearest)]
    return np.where(losses[0] < losses[1], codes, nearest)


def result_errors(errors: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """The sum of the squares that errors of the weights ``[K, N]`` make in each column of the
    result, ``[N]``.
    """
    found: np.ndarray = np.sum((gram @ errors) * errors, axis=0)
    return found


def _settled(
    rest: np.ndarray, errors: np.ndarray, upper: np.ndarray, start: int, first: int, end: int
) -> np.ndarray:
    """Rows ``first .. end`` as they are once the errors of the rows before ``first`` count: those
    behind the rows of one product have not taken over all of them yet.
    """
    stop = start + len(errors)
    rows = rest[first:end].copy()
    if end > stop and first > start:
        rows[stop - first :] -= upper[start:first, stop:end].T @ errors[: first - start]
    return rows


def _factor(gram: np.ndarray) -> np.ndarray:
    """The upper triangular ``U`` with ``U^T U = H^-1``, for the damped ``H``."""
    damped = gram.astype(np.float64)
    diagonal = np.diag(damped).copy()
    mean = float(np.mean(diagonal)) or 1.0
    np.fill_diagonal(damped, diagonal + _DAMPING * mean)
    return np.ascontiguousarray(np.linalg.cholesky(np.linalg.inv(damped)).T)


__all__ = ["compensated", "reconstructed", "result_errors", "with_scales"]
