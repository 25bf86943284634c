"""Arrays whose arithmetic is wrong by what rounding may do (Monte Carlo arithmetic).

An operation such as an attention or an LSTM has sums inside whose terms are much larger than what
is left of them, so errors of its inputs and outputs alone do not tell how wrong it may be. Its
reference is evaluated with arrays of this kind: each NumPy operation on the way gives a result that
is wrong by a few units in the last place, at random (D. S. Parker, Monte Carlo Arithmetic, 1997).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

EXACT = frozenset(
    "negative positive absolute fabs sign maximum minimum fmax fmin floor ceil rint trunc copysign "
    "clip isnan isinf isfinite signbit greater greater_equal less less_equal equal not_equal "
    "logical_and logical_or logical_xor logical_not ldexp frexp".split()
)
ARITHMETIC = frozenset("add subtract multiply divide true_divide sqrt square reciprocal".split())
SUMS = frozenset({np.dot, np.inner, np.einsum, np.cumsum, np.vdot})
"""Functions that add products and call no ufunc for it."""


@dataclass(frozen=True)
class Noise:
    """Relative errors in units of ``unit``; ``sign`` is 1, -1 or 0 (random, or no error).

    What float64 arrays hold is then rounded to ``grid``, as steps in that type would be: terms that
    cancel leave exactly nothing. Without a grid, about half of the multiplications are rounded to
    ``products``: a fused multiply-add of two products rounds one of them, whichever the compiler
    chose, so one may be infinite where the other is not.
    """

    rng: np.random.Generator
    unit: float
    sign: int = 0
    grid: np.dtype[Any] | None = None
    products: np.dtype[Any] | None = None

    def wrong(self, array: np.ndarray, units: float) -> np.ndarray:
        """The array with every element wrong by as many units; what holds no floats stays."""
        if array.dtype.kind != "f":
            return array
        signs = self.sign or self.rng.choice((-1.0, 0.0, 1.0), array.shape)
        with np.errstate(all="ignore"):
            wide = np.asarray(array.astype(np.float64) * (1 + units * self.unit * signs))
            stepped = wide if self.grid is None else wide.astype(self.grid)
            return stepped.astype(array.dtype)

    def product(self, array: np.ndarray) -> np.ndarray:
        """The results of one multiplication, all of them rounded or none."""
        if self.products is None or array.dtype.kind != "f" or self.rng.random() < 0.5:
            return array
        with np.errstate(over="ignore"):
            return np.asarray(array.astype(self.products).astype(array.dtype))

    def terms(self, array: np.ndarray, count: int) -> np.ndarray:
        """Terms of a sum of ``count``, wrong by what their partial sums may be."""
        return self.wrong(array, max(1, count) ** 0.5)


class Noisy(np.ndarray):
    """A view of an array that makes every result of arithmetic with it wrong, and noisy again."""

    noise: Noise | None

    def __array_finalize__(self, source: Any) -> None:
        self.noise = getattr(source, "noise", None)

    def __array_ufunc__(
        self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any
    ) -> Any:
        noise = _noise_of(inputs)
        operands = [plain(x) for x in inputs]
        if ufunc.__name__ == "matmul" or (ufunc.__name__ == "add" and method != "__call__"):
            operands = _wrong_terms(noise, ufunc, method, operands, options)
        if out is not None:
            options["out"] = tuple(plain(x) for x in out)
        results = getattr(ufunc, method)(*operands, **options)
        if method == "at" or results is NotImplemented:
            return results
        if noise is not None and ufunc.__name__ == "multiply":
            results = noise.product(np.asarray(results))
        units = _units(ufunc.__name__)
        if not isinstance(results, tuple):
            return _result(noise, results, units, out[0] if out else None)
        return tuple(_result(noise, r, units, None) for r in results)

    def dot(self, other: Any, out: Any = None) -> Any:
        return np.dot(self, other, out)

    def cumsum(self, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        return np.cumsum(self, axis, dtype, out)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        noise = self.noise
        if func in SUMS:
            assert noise is not None
            arrays = [a for a in args if isinstance(a, np.ndarray)]
            count = max(a.shape[-1] if a.ndim else 1 for a in arrays)
            args = tuple(
                noise.terms(plain(a), count) if isinstance(a, np.ndarray) else a for a in args
            )
            return _again(noise, func(*args, **kwargs))
        return _again(noise, super().__array_function__(func, types, args, kwargs))


def noisy(array: np.ndarray, noise: Noise) -> np.ndarray:
    """The array as one that makes noise; what holds no floats stays as it is."""
    if array.dtype.kind != "f":
        return array
    view = array.view(Noisy)
    view.noise = noise
    return view


def plain(value: Any) -> Any:
    """What a value is without noise."""
    return value.view(np.ndarray) if isinstance(value, Noisy) else value


def _noise_of(inputs: Any) -> Noise | None:
    return next((x.noise for x in inputs if isinstance(x, Noisy) and x.noise), None)


def _units(name: str) -> float:
    if name in EXACT:
        return 0.0
    return 1.0 if name in ARITHMETIC or name == "matmul" else 4.0


def _wrong_terms(
    noise: Noise | None, ufunc: Any, method: str, operands: list[Any], options: Any
) -> list[Any]:
    if noise is None:
        return operands
    first = np.asarray(operands[0])
    if ufunc.__name__ == "matmul":
        count = first.shape[-1]
        return [noise.terms(np.asarray(x), count) for x in operands]
    axis = options.get("axis", 0)
    along = range(first.ndim) if axis is None else np.atleast_1d(axis)
    count = int(np.prod([first.shape[a] for a in along])) if first.ndim else 1
    return [noise.terms(first, count), *operands[1:]]


def _result(noise: Noise | None, result: Any, units: float, out: Any) -> Any:
    if noise is None or not isinstance(result, np.ndarray | np.floating):
        return result
    wrong = noise.wrong(np.asarray(result), units) if units else np.asarray(result)
    if out is not None:
        plain(out)[...] = wrong
        return out
    return noisy(wrong, noise)


def _again(noise: Noise | None, result: Any) -> Any:
    if isinstance(result, list | tuple):
        return type(result)(_again(noise, r) for r in result)
    if noise is None or not isinstance(result, np.ndarray | np.floating):
        return result
    return noisy(np.asarray(plain(result)), noise)


__all__: list[str] = ["Noise", "Noisy", "noisy", "plain"]
