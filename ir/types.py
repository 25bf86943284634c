"""Value types: element types, tensors with symbolic shapes, sequences and optionals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeAlias

import numpy as np

from ..contract import ML_DTYPES
from ..errors import OperandError, UndeterminedError
from .dims import Dim, free_symbols, is_static

Shape: TypeAlias = "tuple[Dim, ...]"
"""The dims of a tensor, outermost first."""

BYTES = ("int8", "uint8")
"""The element types of quantised tensors that dot products take."""


@dataclass(frozen=True)
class DType:
    """An element type.

    ``bits`` is the logical width; ``kind`` is one of ``f`` (float), ``i`` (signed), ``u``
    (unsigned), ``b`` (bool), ``s`` (string), ``c`` (complex).
    """

    name: str
    kind: str
    bits: int

    @property
    def is_float(self) -> bool:
        """Is it a float type of any width?"""
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        """Is it a signed or unsigned integer type (bool is none)?"""
        return self.kind in "iu"

    def __str__(self) -> str:
        return self.name


_FLOATS = {
    "float16": 16, "bfloat16": 16, "float32": 32, "float64": 64,
    "float8e4m3fn": 8, "float8e4m3fnuz": 8, "float8e5m2": 8, "float8e5m2fnuz": 8,
    "float8e8m0": 8, "float4e2m1": 4,
}  # fmt: skip
_SIGNED = {f"int{b}": b for b in (2, 4, 8, 16, 32, 64)}
_UNSIGNED = {f"uint{b}": b for b in (2, 4, 8, 16, 32, 64)}

DTYPES: dict[str, DType] = {
    **{n: DType(n, "f", b) for n, b in _FLOATS.items()},
    **{n: DType(n, "i", b) for n, b in _SIGNED.items()},
    **{n: DType(n, "u", b) for n, b in _UNSIGNED.items()},
    "bool": DType("bool", "b", 1),
    "string": DType("string", "s", 0),
    "complex64": DType("complex64", "c", 64),
    "complex128": DType("complex128", "c", 128),
}
"""All element types by name."""

_FROM_ML = {v: k for k, v in ML_DTYPES.items()}


def dtype(name: str | DType) -> DType:
    """The element type called ``name``; raises ``ValueError`` for an unknown one."""
    if isinstance(name, DType):
        return name
    found = DTYPES.get(name)
    if found is None:
        raise OperandError(f"unknown element type {name!r}")
    return found


def to_numpy_dtype(t: DType | str) -> np.dtype:
    """The NumPy (or ml_dtypes) dtype that holds values of ``t``."""
    t = dtype(t)
    if t.name == "string":
        return np.dtype(object)
    if t.name in ML_DTYPES:
        import ml_dtypes

        narrow: np.dtype = np.dtype(getattr(ml_dtypes, ML_DTYPES[t.name]))
        return narrow
    return np.dtype(t.name)


@cache
def from_numpy_dtype(d: np.dtype) -> DType:
    """The element type of a NumPy array; raises ``ValueError`` where there is none."""
    if d.kind in "OUST":
        return DTYPES["string"]
    return dtype(_FROM_ML.get(d.name, d.name))


@dataclass(frozen=True)
class TensorType:
    """A tensor: element type, shape and memory layout.

    ``shape`` is a tuple of dims (ints or symbolic expressions), or None where even the rank is
    unknown. ``layout`` names a blocked layout such as ``NCHW16c``; None is row-major as written.
    """

    dtype: DType
    shape: Shape | None
    layout: str | None = None

    @property
    def rank(self) -> int:
        """The number of axes; raises ``UndeterminedError`` where it is not known."""
        if self.shape is None:
            raise UndeterminedError(f"the rank of {self} is not known")
        return len(self.shape)

    @property
    def dims(self) -> Shape:
        """The shape; raises ``UndeterminedError`` where the rank is not known."""
        if self.shape is None:
            raise UndeterminedError(f"the shape of {self} is not known")
        return self.shape

    @property
    def is_static(self) -> bool:
        """Are all dims ints?"""
        return self.shape is not None and all(is_static(d) for d in self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as ints; raises ``ValueError`` where a dim is symbolic."""
        if not self.is_static:
            raise OperandError(f"{self} is not static")
        return tuple(int(d) for d in self.dims)

    @property
    def numel(self) -> Dim:
        """The number of elements, an expression where dims are symbolic."""
        n: Dim = 1
        for d in self.dims:
            n = n * d
        return n

    def with_shape(self, shape: Shape | None) -> TensorType:
        """The same type with another shape."""
        return replace(self, shape=shape)

    def with_dtype(self, t: DType | str) -> TensorType:
        """The same type with another element type."""
        return replace(self, dtype=dtype(t))

    @property
    def plain(self) -> str:
        """Its text without the layout."""
        dims = "*" if self.shape is None else ",".join(map(str, self.shape))
        return f"{self.dtype}[{dims}]"

    def __str__(self) -> str:
        return self.plain if self.layout is None else f"{self.plain}{{{self.layout}}}"


@dataclass(frozen=True)
class SequenceType:
    """A list of values of one type.

    ``empty``: it has no elements yet, so only the element type of ``elem`` counts.
    """

    elem: Type
    empty: bool = False

    @property
    def word(self) -> str:
        """The word that its text begins with."""
        return "empty" if self.empty else "seq"

    def with_elem(self, elem: Type) -> SequenceType:
        """The same type with other elements."""
        return replace(self, elem=elem)

    def __str__(self) -> str:
        return f"{self.word}<{self.elem}>"


@dataclass(frozen=True)
class OptionalType:
    """A value or nothing."""

    elem: Type

    def __str__(self) -> str:
        return f"optional<{self.elem}>"


Type: TypeAlias = "TensorType | SequenceType | OptionalType"
"""The type of a value."""


def tensor(t: DType | str, *shape: Dim) -> TensorType:
    """Short for ``TensorType(dtype(t), shape)``."""
    return TensorType(dtype(t), tuple(shape))


def unify_sequences(
    a: SequenceType, b: SequenceType, unify_elements: Callable[[Type, Type], Type]
) -> SequenceType:
    """The type that covers two lists; of an empty one, only the element type counts.

    Raises ``ValueError`` if the element types differ.
    """
    if not a.empty and not b.empty:
        return SequenceType(unify_elements(a.elem, b.elem))
    types = [s.elem.dtype for s in (a, b) if isinstance(s.elem, TensorType)]
    if len(types) < 2 or types[0] != types[1]:
        raise OperandError(f"{a} and {b} do not agree")
    return b if a.empty else a


def type_symbols(t: Type) -> frozenset[str]:
    """The free symbols of a type's dims."""
    if isinstance(t, SequenceType | OptionalType):
        return type_symbols(t.elem)
    if t.shape is None:
        return frozenset()
    return frozenset().union(*(free_symbols(d) for d in t.shape))


def array_type(a: np.ndarray) -> TensorType:
    """The type of a NumPy array."""
    return TensorType(from_numpy_dtype(a.dtype), tuple(int(d) for d in a.shape))
