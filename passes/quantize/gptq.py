"""Rounding that makes up for its own errors (GPTQ).

The error of a layer's result is ``tr(D^T H D)`` with ``D`` the error of the weights ``[K, N]`` and
``H = sum x x^T`` over what the layer reads. Rows of the weights are rounded one after the other,
and those that are still to come take over what each leaves:

    e = (w_k - q_k) / U_kk,    w_j <- w_j - U_kj e   for j > k,    U^T U = H^-1

E. Frantar, S. Ashkboos, T. Hoefler and D. Alistarh, *GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers*, 2023.
"""

from __future__ import annotations

import numpy as np

from .few_bits import FewBits, FindSteps, Format, codes_of, least_error, values_of

_DAMPING = 0.01
"""This part of the mean of the diagonal is added to it: directions that no sample has shown are not
free."""
_TOGETHER = 128
"""Rows whose errors reach the rows behind them in one product."""


def reconstructed(
    weights: np.ndarray, gram: np.ndarray, form: Format, find: FindSteps = least_error
) -> FewBits:
    """Weights ``[K, N]`` in few bits, for operands with the Gram matrix ``gram`` ``[K, K]``.

    Operands that are always 0 leave their weights to the nearest codes.
    """
    rest = weights.astype(np.float64)
    upper = _factor(gram)
    inner = len(rest)
    codes = np.empty(weights.shape, np.uint8)
    scales, zeros = [], []
    for start in range(0, inner, _TOGETHER):
        stop = min(start + _TOGETHER, inner)
        errors = np.empty((stop - start, weights.shape[1]))
        for k in range(start, stop):
            if k % form.block == 0:
                # Rows of the block that lie in later groups have not taken over all errors yet.
                block = _settled(rest, errors, upper, start, k, min(k + form.block, inner))
                scales.append((steps := find(block, form))[0])
                zeros.append(steps[1])
            codes[k] = codes_of(rest[k], steps, form)
            error = (rest[k] - values_of(codes[k].astype(np.float64), steps)) / upper[k, k]
            rest[k + 1 : stop] -= np.outer(upper[k, k + 1 : stop], error)
            errors[k - start] = error
        rest[stop:] -= upper[start:stop, stop:].T @ errors
    return FewBits(form, codes, np.array(scales, np.float32), np.array(zeros, np.float32))


def _settled(
    rest: np.ndarray, errors: np.ndarray, upper: np.ndarray, start: int, first: int, end: int
) -> np.ndarray:
    """Rows ``first .. end`` as they are once the errors of the rows before ``first`` count."""
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


__all__ = ["reconstructed"]
