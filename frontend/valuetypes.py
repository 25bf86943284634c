"""TypeProto to IR types: names of dimensions become symbols, which given shapes replace."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import onnx

from ..ir.dims import (
    Dim,
    DimError,
    SymExpr,
    free_symbols,
    parse_dim,
    solve,
    substitute,
    sym,
    symbol_name,
)
from ..ir.types import OptionalType, SequenceType, TensorType, Type
from .errors import ImportFault, shorten, text
from .tensors import MAX_ELEMENTS, element_type

_UNNAMED = frozenset({"", "?", "*", "-1", "none", "null", "unknown"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Names that type inference gives to unknown dims; max, min and broadcast are functions.
_RESERVED = re.compile(r"(.*_)?u[0-9]+_[0-9]+|.*_(carried|element)[0-9]+_[0-9]+|max|min|broadcast")


class Symbols:
    """The symbols of one model; equal texts of dimensions are one dim."""

    def __init__(self) -> None:
        self._dims: dict[str, Dim] = {}
        self._taken: set[str] = set()

    def named(self, name: str) -> Dim:
        """The dim for a ``dim_param``: an expression if it can be parsed as one, else a symbol."""
        found = self._dims.get(name)
        if found is None:
            found = self._expression(name)
            found = self._dims[name] = self.fresh(name) if found is None else found
        return found

    def fresh(self, hint: str) -> SymExpr:
        """A symbol that nothing else uses, named after ``hint``."""
        base = re.sub(r"[^A-Za-z0-9_]+", "_", hint)[:80].strip("_") or "d"
        if base[0].isdigit() or _RESERVED.fullmatch(base):
            base = f"s_{base}_"
        name, n = base, 0
        while name in self._taken:
            n += 1
            name = f"{base}_{n}"
        self._taken.add(name)
        return sym(name)

    def _expression(self, name: str) -> Dim | None:
        """An expression such as ``2*N``, whose names are symbols of their own."""
        try:
            dim = parse_dim(name)
        except DimError:
            return None
        names = set(free_symbols(dim))
        if not names or any(_RESERVED.fullmatch(n) for n in names):
            return None
        if _NAME.fullmatch(name):
            if name in self._taken:
                return None
            self._taken.add(name)
            return dim
        return substitute(dim, {n: self.named(n) for n in names})


def value_type(proto: onnx.TypeProto, name: str, symbols: Symbols) -> Type:
    """The IR type of a declared type; raises :class:`ImportFault` if there is none."""
    kind = proto.WhichOneof("value")
    if kind == "tensor_type":
        return _tensor_type(proto.tensor_type, name, symbols)
    if kind == "sequence_type":
        return SequenceType(value_type(proto.sequence_type.elem_type, name, symbols))
    if kind == "optional_type":
        return OptionalType(value_type(proto.optional_type.elem_type, name, symbols))
    if kind is None:
        raise ImportFault("has no type")
    raise ImportFault(f"values of {kind.removesuffix('_type').replace('_', ' ')} type")


def settle_expressions(types: Mapping[str, Type], symbols: Symbols) -> dict[str, Type]:
    """The types of a model's inputs, with a symbol for each expression that the inputs do not
    determine.

    ``past+1`` is an expression if ``past`` itself is a dim of some input; otherwise it is a name
    like any other.
    """
    dims = [d for t in types.values() for d in _all_dims(t)]
    alone = {symbol_name(d) for d in dims}
    renamed: dict[Dim, Dim] = {}
    for d in dims:
        if not free_symbols(d) <= alone and d not in renamed:
            renamed[d] = symbols.fresh(str(d))
    return {name: _with_dims(t, renamed) for name, t in types.items()} if renamed else dict(types)


def _all_dims(t: Type) -> Sequence[Dim]:
    if isinstance(t, SequenceType | OptionalType):
        return _all_dims(t.elem)
    return t.shape or ()


def _with_dims(t: Type, renamed: Mapping[Dim, Dim]) -> Type:
    if isinstance(t, SequenceType | OptionalType):
        return type(t)(_with_dims(t.elem, renamed))
    if t.shape is None:
        return t
    return t.with_shape(tuple(renamed.get(d, d) for d in t.shape))


def _tensor_type(proto: onnx.TypeProto.Tensor, name: str, symbols: Symbols) -> TensorType:
    element = element_type(proto.elem_type)
    if not proto.HasField("shape"):
        return TensorType(element, None)
    dims = [_dim(d, f"{name}_d{i}", symbols) for i, d in enumerate(proto.shape.dim)]
    found = TensorType(element, tuple(dims))
    check_size(found)
    return found


def check_size(t: Type) -> None:
    """Raise :class:`ImportFault` for a tensor that is too large for any machine."""
    if not isinstance(t, TensorType) or t.shape is None:
        return
    if len(t.shape) > 64 or math.prod(_sizes(t)) > MAX_ELEMENTS:
        raise ImportFault(f"absurd dimensions {shorten(str(t))}")


def _sizes(t: TensorType) -> list[int]:
    return [d for d in t.dims if isinstance(d, int) and d]


def _dim(proto: onnx.TensorShapeProto.Dimension, hint: str, symbols: Symbols) -> Dim:
    kind = proto.WhichOneof("value")
    if kind == "dim_value":
        # Exporters write -1 for an open dimension.
        return proto.dim_value if proto.dim_value >= 0 else symbols.fresh(hint)
    name = text(proto.dim_param).strip() if kind == "dim_param" else ""
    return symbols.fresh(hint) if name.lower() in _UNNAMED else symbols.named(name)


Pins = Mapping[str, Sequence["int | str"]]


def pin_types(types: dict[str, Type], shapes: Pins, symbols: Symbols) -> dict[str, Type]:
    """The input types with the shapes that the user gave, substituted in every input.

    Raises :class:`ImportFault` if a shape does not fit its input, or two shapes contradict.
    """
    bound: dict[str, Dim] = {}
    given: dict[str, TensorType] = {}
    for name, shape in shapes.items():
        declared = types.get(name)
        if not isinstance(declared, TensorType):
            known = ", ".join(sorted(types)) or "none"
            raise ImportFault(f"a shape for {name!r}, which is no tensor input (inputs: {known})")
        given[name] = declared.with_shape(_pin(name, declared, shape, bound, symbols))
    pinned = {**types, **given}
    return {name: substitute_type(t, bound) for name, t in pinned.items()}


def _pin(
    name: str, declared: TensorType, shape: Sequence[int | str], bound: dict[str, Dim],
    symbols: Symbols,
) -> tuple[Dim, ...]:  # fmt: skip
    wanted = tuple(_wanted(name, d, symbols) for d in shape)
    if declared.shape is None:
        return wanted
    if len(wanted) != len(declared.shape):
        raise ImportFault(f"input {name!r} has {len(declared.shape)} dimensions ({declared})")
    for have, want in zip(declared.shape, wanted, strict=True):
        _bind(name, have, want, bound)
    return wanted


def _wanted(name: str, dim: int | str, symbols: Symbols) -> Dim:
    if isinstance(dim, str):
        return symbols.named(dim)
    if dim < 0 or dim > MAX_ELEMENTS:
        raise ImportFault(f"the shape for {name!r} has a dimension {dim}")
    return int(dim)


def _bind(name: str, have: Dim, want: Dim, bound: dict[str, Dim]) -> None:
    """Make ``have`` equal ``want`` by giving a value to the one symbol in ``have``."""
    if have == want:
        return
    if isinstance(have, int):
        raise ImportFault(f"input {name!r} has the fixed dimension {have}, not {want}")
    symbols = sorted(free_symbols(have))
    value = _solve(have, symbols[0], want) if len(symbols) == 1 else None
    if value is None:
        raise ImportFault(f"input {name!r}: dimension {have} cannot be made {want}")
    if bound.setdefault(symbols[0], value) != value:
        raise ImportFault(
            f"input {name!r}: {symbols[0]} is {bound[symbols[0]]} elsewhere, here {value}"
        )


def _solve(have: SymExpr, symbol: str, want: Dim) -> Dim | None:
    if symbol_name(have) == symbol:
        return want
    return solve(have, want, symbol) if isinstance(want, int) else None


def substitute_type(t: Type, bound: Mapping[str, Dim]) -> Type:
    """``t`` with symbols replaced."""
    if isinstance(t, SequenceType):
        return t.with_elem(substitute_type(t.elem, bound))
    if isinstance(t, OptionalType):
        return OptionalType(substitute_type(t.elem, bound))
    if t.shape is None:
        return t
    return t.with_shape(tuple(substitute(d, bound) for d in t.shape))
