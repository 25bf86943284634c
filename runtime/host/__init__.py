"""Host functions: operations a compiled model calls back into Python for.

Compiled code reaches them as global functions ``graphkiln.host.<Op>``, called with the op's
attributes as a JSON object and then its inputs. Only those that a manifest names are registered,
and the module that holds one is imported then.

A function decorated with `host_function` takes ``(attrs, *values)``: a dict that it must not
change, in which ``results`` is how many outputs are wanted and ``types`` are the dtypes of the
node's inputs by their IR names, and NumPy arrays in storage dtype (object arrays of `str` for
strings), lists for sequences and None for what is absent. It returns a tuple of such values, one
for each output. An attribute that is a tensor comes as ``{"dtype": ..., "shape": [...], "data":
[...]}``, a dtype by its IR name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np

from ...contract import HOST_FUNCTIONS
from ..dtypes import STRING, public_dtype, to_storage
from ..errors import ArtifactError, InputError
from ..values import StringTensor, ValueList, items, tensor_from_storage, tvm_ffi

Attrs: TypeAlias = "dict[str, Any]"
HostFunction: TypeAlias = "Callable[..., tuple[Any, ...]]"

# Which module of this package holds an operation.
_HOMES = {
    "cast": ("Cast", "CastLike"),
    "guards": ("Refuse", "RefuseSizes"),
    "images": ("ImageDecoder",),
    "labels": ("LabelEncoder", "OneHotEncoder"),
    "movement": (
        "Compress", "Concat", "Constant", "Equal", "Expand", "Extent", "Flatten", "Gather",
        "GatherElements", "GatherND", "Identity", "Pad", "Reshape", "ScatterElements",
        "ScatterND", "Shape", "Size", "Slice", "Split", "Squeeze", "Tile", "Transpose",
        "Unsqueeze", "Where", "kiln.Expand", "kiln.Reshape", "kiln.Slice",
    ),
    "selection": ("NonZero", "Unique", "com.microsoft.Unique"),
    "sequences": (
        "ConcatFromSequence", "ListAppend", "ListNew",
        "Optional", "OptionalGetElement", "OptionalHasElement",
        "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert",
        "SequenceLength", "SplitToSequence", "StackSequence",
    ),
    "strings": ("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit"),
    "tfidf": ("TfIdfVectorizer",),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}


class _Exit(SystemExit):
    """A ``SystemExit`` again, from the text that compiled code made of it."""

    def __init__(self, text: str) -> None:
        super().__init__(int(text) if text.isdecimal() else text)


# These reach the caller as what they are.
tvm_ffi.register_error("KeyboardInterrupt", KeyboardInterrupt)
tvm_ffi.register_error("SystemExit", SystemExit)
tvm_ffi.register_error("SystemExit", _Exit)
tvm_ffi.register_error("InputError", InputError)

_registry: dict[str, HostFunction] = {}
_raw: set[str] = set()


def host_function(name: str, *, raw: bool = False) -> Callable[[HostFunction], HostFunction]:
    """Decorator: registers a function of attributes and inputs under an op's name.

    With ``raw`` it takes and returns the machine's own values (`tvm_ffi.Tensor`, `tvm_ffi.Array`,
    `StringTensor`, None), for operations that only pass values on.
    """

    def decorate(function: HostFunction) -> HostFunction:
        _registry[name] = function
        (_raw.add if raw else _raw.discard)(name)
        return function

    return decorate


def supported() -> frozenset[str]:
    """The names of all host functions."""
    return frozenset(_MODULE_OF) | frozenset(_registry)


def register(names: Iterable[str]) -> None:
    """Registers the functions a model names. Raises ArtifactError for one that does not exist."""
    for name in names:
        tvm_ffi.register_global_func(HOST_FUNCTIONS + name, _packed(name), override=True)


def find(name: str) -> HostFunction:
    """The Python function behind a name."""
    if name not in _registry and name in _MODULE_OF:
        import_module(f"{__name__}.{_MODULE_OF[name]}")
    function = _registry.get(name)
    if function is None:
        raise ArtifactError(
            f"needs the host function {name!r}, which is not there: upgrade graphkiln"
        )
    return function


def _packed(name: str) -> Callable[..., Any]:
    """The function as compiled code calls it: JSON text and machine values in, an Array out."""
    function = find(name)
    if name in _raw:

        def call(attrs: str, *values: Any) -> Any:
            try:
                return tvm_ffi.Array(function(_attributes(attrs), *values))
            except Exception as error:
                raise _named(name, error) from error
    else:

        def call(attrs: str, *values: Any) -> Any:
            try:
                results = function(_attributes(attrs), *map(to_host, values))
                return tvm_ffi.Array(map(from_host, results))
            except Exception as error:
                raise _named(name, error) from error

    return call


def _named(name: str, error: Exception) -> Exception:
    """The error of a host function with the op's name in front.

    ValueError and IndexError are about the values of inputs, and become InputError.
    """
    if isinstance(error, InputError):
        return error
    kind = InputError if isinstance(error, ValueError | IndexError) else RuntimeError
    return kind(f"{name}: {error}")


@lru_cache(maxsize=1024)
def _attributes(text: str) -> Attrs:
    return json.loads(text) if text else {}


class AttrsKey:
    """Attributes as the key of a cache, compared by identity.

    That suffices, as the attributes of a node are parsed once and never changed.
    """

    __slots__ = ("attrs",)

    def __init__(self, attrs: Attrs) -> None:
        self.attrs = attrs

    def __hash__(self) -> int:
        return id(self.attrs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AttrsKey) and self.attrs is other.attrs


def tensor_attribute(attribute: Attrs) -> np.ndarray:
    """An attribute that is a tensor, as an array in storage dtype (object for strings)."""
    dtype, shape = attribute["dtype"], tuple(attribute["shape"])
    data = np.array(attribute["data"], object if dtype == STRING else None).reshape(shape)
    return data if dtype == STRING else to_storage(data.astype(public_dtype(dtype)), dtype)


def to_host(value: Any) -> Any:
    """A machine value as arrays, lists and None; arrays alias the tensor's memory."""
    if isinstance(value, tvm_ffi.Tensor):
        return np.from_dlpack(value)
    if isinstance(value, StringTensor):
        return value.array
    if isinstance(value, tvm_ffi.Array):
        return [to_host(item) for item in items(value)]
    if isinstance(value, ValueList):
        return [to_host(item) for item in value.values]
    return value


def from_host(value: Any) -> Any:
    """The inverse of `to_host`, in memory of its own.

    A view may be of an argument, whose memory compiled code may reuse, so views are copied, and so
    are arrays that are not aligned or contiguous.
    """
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype == object:
            return StringTensor(array)
        return tensor_from_storage(array if array.base is None else array.copy())
    if isinstance(value, (list, tuple)):
        return tvm_ffi.Array([from_host(item) for item in value])
    return value
