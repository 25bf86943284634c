"""Host functions against other implementations, and what they say to wrong arguments.

onnxruntime is the oracle, because ONNX's reference evaluator takes the wrong axis in Unique, cannot
gather with negative indices, and looks n-gram weights up in the wrong place; where onnxruntime
departs from ONNX, the reference evaluator takes its place.
"""

from __future__ import annotations

import io
import itertools
import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from graphkiln.runtime import ArtifactError, InputError, host
from graphkiln.runtime.values import items, tvm_ffi

onnxruntime = pytest.importorskip("onnxruntime")

# onnxruntime finds no parts in an empty string, ONNX one that is empty.
_RIGHT_IN_ONNX = {"StringSplit"}

KINDS = {
    "int64": TensorProto.INT64,
    "float32": TensorProto.FLOAT,
    "bool": TensorProto.BOOL,
    "object": TensorProto.STRING,
    "uint8": TensorProto.UINT8,
}
RNG = np.random.default_rng(7)


def reference(op: str, values: list[Any], outputs: int = 1, domain: str = "", **attrs: Any) -> list:
    """What an oracle gives for one node."""
    names = ["" if v is None else f"i{k}" for k, v in enumerate(values)]
    node = helper.make_node(op, names, [f"o{k}" for k in range(outputs)], domain=domain, **attrs)
    given = [
        helper.make_tensor_value_info(n, KINDS[v.dtype.name], v.shape)
        for n, v in zip(names, values, strict=True)
        if n
    ]
    results = [helper.make_empty_tensor_value_info(f"o{k}") for k in range(outputs)]
    graph = helper.make_graph([node], "g", given, results)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 4)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    feeds = {n: v for n, v in zip(names, values, strict=True) if n}
    if op in _RIGHT_IN_ONNX:
        return ReferenceEvaluator(model).run(None, feeds)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)


def call(op: str, values: list[Any], **attrs: Any) -> list[Any]:
    """What compiled code gets from a host function."""
    host.register([op])
    packed = tvm_ffi.get_global_func(f"graphkiln.host.{op}")
    return host.to_host(packed(json.dumps(attrs), *map(host.from_host, values)))


def check(op: str, values: list[Any], outputs: int = 1, domain: str = "", **attrs: Any) -> None:
    expected = reference(op, values, outputs, domain, **attrs)
    found = call(op, values, **attrs)
    for one, other in zip(found, expected, strict=True):
        other = np.asarray(other)
        assert one.shape == other.shape
        if one.dtype == object:
            assert one.tolist() == other.astype(object).tolist()
        else:
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one, other, rtol=1e-6)


def words(*shape: int) -> np.ndarray:
    pool = np.array(["", "a", "b", "ab", "ä", "A", "monday", "Tuesday"], object)
    return pool[RNG.integers(0, len(pool), shape)]


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_unique(axis: int | None, order: int, dtype: Any) -> None:
    data = RNG.integers(0, 3, (6, 2)).astype(dtype)
    attrs = {} if axis is None else {"axis": axis}
    check("Unique", [data], 4, sorted=order, **attrs)


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("order", [0, 1])
def test_unique_strings_as_numbers(axis: int | None, order: int) -> None:
    """Strings in the order of numbers give the same as the numbers."""
    codes = RNG.integers(0, 3, (7, 2))
    attrs = {"sorted": order} if axis is None else {"sorted": order, "axis": axis}
    expected = call("Unique", [codes], **attrs)
    found = call("Unique", [codes.astype(str).astype(object)], **attrs)
    assert found[0].tolist() == expected[0].astype(str).tolist()
    for one, other in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_unique_of_nothing() -> None:
    for data in (np.empty(0, np.float32), np.empty(0, object)):
        assert [part.shape for part in call("Unique", [data])] == [(0,)] * 4


def test_unique_in_order_of_appearance() -> None:
    values, inverse, counts = call("com.microsoft.Unique", [np.float32([2, 1, 2, 3, 1])])
    assert values.tolist() == [2, 1, 3]
    assert inverse.tolist() == [0, 1, 0, 2, 1]
    assert counts.tolist() == [2, 2, 1]


def test_nonzero() -> None:
    check("NonZero", [RNG.integers(0, 2, (3, 4)).astype(np.float32)])
    assert call("NonZero", [np.array(3)])[0].tolist() == [[0]]


def test_string_concat() -> None:
    check("StringConcat", [words(3, 1), words(1, 4)])
    assert call("StringConcat", [np.array("a", object), np.array("b", object)])[0] == "ab"


@pytest.mark.parametrize("attrs", [{}, {"delimiter": ","}, {"delimiter": "--", "maxsplit": 1}])
def test_string_split(attrs: dict[str, Any]) -> None:
    data = np.array([["a,b c", " x  y "], ["", "p--q--r"]], object)
    check("StringSplit", [data], 2, **attrs)


def test_string_split_of_nothing() -> None:
    parts, counts = call("StringSplit", [np.empty((0, 2), object)])
    assert parts.shape == (0, 2, 0) and counts.shape == (0, 2)


def test_regex_full_match() -> None:
    data = np.array([["a@b.c", "ab"], ["", "x@y.zz "]], object)
    check("RegexFullMatch", [data], pattern=r"\w+@\w+\.\w+")


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        (r"(a*)*b", [False, True, False]),  # which takes backtracking 2^30 steps
        (r"\w+", [True, True, False]),  # ASCII only
        (r"\pL+\z", [True, True, True]),
        (r"(?i)A*B", [False, True, False]),
    ],
)
def test_regular_expressions_are_those_of_re2(pattern: str, matches: list[bool]) -> None:
    data = np.array(["a" * 30, "ab", "\u00e9"], object)
    (found,) = call("RegexFullMatch", [data], pattern=pattern)
    assert found.tolist() == matches


@pytest.mark.parametrize("pattern", [r"(?<=a)b", r"(a)\1", "(", "a" * 10 + "{1001}"])
def test_what_is_no_regular_expression_of_re2(pattern: str) -> None:
    with pytest.raises(ValueError, match="is no regular expression of RE2"):
        call("RegexFullMatch", [np.array(["a"], object)], pattern=pattern)


@pytest.mark.parametrize("action", ["NONE", "LOWER", "UPPER"])
@pytest.mark.parametrize("sensitive", [0, 1])
@pytest.mark.parametrize("shape", [(6,), (1, 6)])
def test_string_normalizer(action: str, sensitive: int, shape: tuple[int, ...]) -> None:
    data = np.array(["Monday", "tuesday", "MONDAY", "x", "Tuesday", "y"], object).reshape(shape)
    attrs = {"case_change_action": action, "is_case_sensitive": sensitive}
    check("StringNormalizer", [data], stopwords=["monday", "Tuesday"], locale="C", **attrs)


def test_string_normalizer_leaves_an_empty_string() -> None:
    for shape in ((2,), (1, 2)):
        data = np.array(["a", "a"], object).reshape(shape)
        (result,) = call("StringNormalizer", [data], stopwords=["a"], is_case_sensitive=1)
        assert result.reshape(-1).tolist() == [""] and result.ndim == len(shape)


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize("skips", [0, 1, 5])
@pytest.mark.parametrize("shape", [(9,), (3, 9)])
def test_tfidf_vectorizer(mode: str, skips: int, shape: tuple[int, ...]) -> None:
    attrs: dict[str, Any] = {
        "mode": mode,
        "max_skip_count": skips,
        "min_gram_length": 1,
        "max_gram_length": 3,
        "ngram_counts": [0, 3, 7],
        "ngram_indexes": [0, 1, 2, 5, 3, 4],
        "pool_int64s": [1, 2, 3, 1, 2, 3, 1, 1, 2, 3],
        "weights": [0.5, 1.0, 2.0, 3.0, 0.25, 4.0],
    }
    check("TfIdfVectorizer", [RNG.integers(1, 5, shape)], **attrs)


def test_tfidf_vectorizer_of_strings() -> None:
    attrs: dict[str, Any] = {
        "mode": "TF",
        "max_skip_count": 1,
        "min_gram_length": 2,
        "max_gram_length": 2,
        "ngram_counts": [0, 0],
        "ngram_indexes": [0, 1],
        "pool_strings": ["a", "b", "b", "ab"],
    }
    data = np.array(["a", "x", "b", "b", "ab", "b"], object)
    assert call("TfIdfVectorizer", [data], **attrs)[0].tolist() == [1, 2]


_TYPES: dict[str, tuple[Any, list]] = {
    "strings": (object, ["a", "b", "c"]),
    "int64s": (np.int64, [3, 1, 2]),
    "floats": (np.float32, [0.5, 1.5, float("nan")]),
}


@pytest.mark.parametrize(("keys", "values"), list(itertools.product(_TYPES, repeat=2)))
def test_label_encoder(keys: str, values: str) -> None:
    dtype, known = _TYPES[keys]
    strange = {"strings": "zz", "int64s": 99, "floats": 7.0}[keys]
    data = np.array([[*known], [strange, known[0], known[2]]], dtype)
    entries = [1.0, 2.0, 3.0] if values == "floats" else _TYPES[values][1]
    attrs: dict[str, Any] = {f"keys_{keys}": known, f"values_{values}": entries}
    attrs[f"default_{values[:-1]}"] = {"strings": "none", "int64s": -7, "floats": 0.25}[values]
    check("LabelEncoder", [data], domain="ai.onnx.ml", **attrs)


def test_label_encoder_with_tensors() -> None:
    attrs = {
        "keys_tensor": {"dtype": "int16", "shape": [2], "data": [4, 5]},
        "values_tensor": {"dtype": "string", "shape": [2], "data": ["four", "five"]},
    }
    (result,) = call("LabelEncoder", [np.array([[5], [6]], np.int16)], **attrs)
    assert result.tolist() == [["five"], ["_Unused"]]


# ---- sequences and optionals -------------------------------------------------------------------


def test_sequence_operations() -> None:
    a, b, c = np.float32([1]), np.float32([2, 3]), np.float32([4])
    (made,) = call("SequenceConstruct", [a, b])
    assert [v.tolist() for v in made] == [[1], [2, 3]]
    (longer,) = call("SequenceInsert", [[a, b], c, np.array(-1)])
    assert [v.tolist() for v in longer] == [[1], [4], [2, 3]]
    assert [v.tolist() for v in call("SequenceInsert", [[a], c])[0]] == [[1], [4]]
    assert [v.tolist() for v in call("SequenceErase", [[a, b], np.array(0)])[0]] == [[2, 3]]
    assert [v.tolist() for v in call("SequenceErase", [[a, b]])[0]] == [[1]]
    assert call("SequenceAt", [[a, b], np.array(-2)])[0].tolist() == [1]
    assert call("SequenceLength", [[a, b]])[0] == 2
    assert call("SequenceEmpty", [])[0] == []
    assert call("SequenceConstruct", [words(2), words(1)])[0][0].dtype == object


@pytest.mark.parametrize("position", [-3, 2, 10])
def test_sequence_positions_are_checked(position: int) -> None:
    values = [[np.zeros(1), np.ones(1)], np.array(position)]
    with pytest.raises(InputError, match=f"SequenceAt: position {position} is out of range"):
        call("SequenceAt", values)


def test_sequences_own_their_tensors() -> None:
    """Compiled code may use a tensor's memory again once it is in a sequence."""
    host.register(["SequenceConstruct", "Optional", "ListNew", "ListAppend"])
    tensor = host.from_host(np.float32([1, 2]))
    memory = np.from_dlpack(tensor)
    (held,) = items(tvm_ffi.get_global_func("graphkiln.host.SequenceConstruct")("", tensor))
    (optional,) = items(tvm_ffi.get_global_func("graphkiln.host.Optional")("", tensor))
    (values,) = items(tvm_ffi.get_global_func("graphkiln.host.ListNew")(""))
    tvm_ffi.get_global_func("graphkiln.host.ListAppend")("", values, tensor)
    memory[:] = 0
    assert host.to_host(held)[0].tolist() == [1, 2]
    assert host.to_host(optional).tolist() == [1, 2]
    assert host.to_host(values)[0].tolist() == [1, 2]


def test_results_own_their_memory() -> None:
    host.register(["Reshape"])
    tensor = host.from_host(np.float32([1, 2]))
    reshape = tvm_ffi.get_global_func("graphkiln.host.Reshape")
    (result,) = items(reshape("{}", tensor, host.from_host(np.array([2, 1]))))
    np.from_dlpack(tensor)[:] = 0
    assert np.from_dlpack(result).tolist() == [[1], [2]]


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("new", [0, 1])
def test_concat_from_sequence(axis: int, new: int) -> None:
    parts = [RNG.random((2, 3)).astype(np.float32) for _ in range(3)]
    (joined,) = call("ConcatFromSequence", [parts], axis=axis, new_axis=new)
    expected = np.stack(parts, axis) if new else np.concatenate(parts, axis)
    np.testing.assert_array_equal(joined, expected)


def test_stack_sequence() -> None:
    parts = [np.float32([1, 2]), np.float32([3, 4])]
    assert call("StackSequence", [parts])[0].tolist() == [[1, 2], [3, 4]]
    (backwards,) = call("StackSequence", [parts], axis=1, reverse=True)
    assert backwards.tolist() == [[3, 1], [4, 2]]
    (empty,) = call("StackSequence", [[]], dtype="bfloat16", empty_shape=[0, 2])
    assert empty.shape == (0, 2) and empty.dtype == np.uint16
    with pytest.raises(InputError, match="StackSequence: the sequence is empty"):
        call("StackSequence", [[]])


def test_split_to_sequence() -> None:
    data = np.arange(10, dtype=np.float32).reshape(2, 5)

    def shapes(*values: Any, **attrs: Any) -> list:
        return [part.shape for part in call("SplitToSequence", [data, *values], **attrs)[0]]

    assert shapes() == [(1, 5)] * 2
    assert shapes(keepdims=0, axis=1) == [(2,)] * 5
    assert shapes(np.array(2), axis=1) == [(2, 2), (2, 2), (2, 1)]
    assert shapes(np.array([1, 4]), axis=-1, keepdims=0) == [(2, 1), (2, 4)]
    with pytest.raises(InputError, match="does not add up to 5"):
        shapes(np.array([1, 1]), axis=1)
    data = np.empty((2, 0), np.float32)
    assert shapes(axis=1) == shapes(np.array(2), axis=1) == shapes(np.empty(0, int), axis=1) == []
    assert shapes(np.array([0]), axis=1) == [(2, 0)]


def test_optional_operations() -> None:
    value = np.float32([1])
    assert call("OptionalHasElement", [value])[0] == np.True_
    assert call("OptionalHasElement", [None])[0] == np.False_
    assert call("OptionalHasElement", [])[0] == np.False_
    assert call("Optional", []) == [None]
    assert call("OptionalGetElement", [value])[0].tolist() == [1]
    assert call("OptionalGetElement", [[value]])[0][0].tolist() == [1]


# ---- strings: casts and movement ---------------------------------------------------------------


def test_cast_to_string() -> None:
    (texts,) = call("Cast", [np.float32([0.1, 1, 1e20, np.nan, -np.inf])], to="string")
    assert texts.tolist() == ["0.1", "1.0", "1e+20", "nan", "-inf"]
    assert call("Cast", [np.array([[1], [-2]])], to="string")[0].tolist() == [["1"], ["-2"]]
    assert call("Cast", [np.array([True])], to="string")[0].tolist() == ["True"]
    bits = np.array([1.5], ml_dtypes.bfloat16).view(np.uint16)
    attrs = {"to": "string", "from": "bfloat16"}
    assert call("Cast", [bits], **attrs)[0].tolist() == ["1.5"]


@pytest.mark.parametrize(
    ("target", "texts", "expected"),
    [
        ("float32", ["0.5", "-1e3", "INF", "-inf", "1E-2"], [0.5, -1000, np.inf, -np.inf, 0.01]),
        ("float64", ["3.25", " 7 "], [3.25, 7]),
        ("int32", ["12", "-7", "1e2", "3.9"], [12, -7, 100, 3]),
        ("bool", ["true", "0", "1", "False"], [True, False, True, False]),
        ("bfloat16", ["1.5"], [0x3FC0]),
        ("float8e4m3fn", ["1"], [0x38]),
    ],
)
def test_cast_from_string(target: str, texts: list[str], expected: list) -> None:
    (values,) = call("Cast", [np.array(texts, object)], to=target)
    np.testing.assert_allclose(values.astype(np.float64), np.float64(expected), rtol=1e-6)
    assert np.isnan(call("Cast", [np.array(["NaN"], object)], to="float32")[0][0])


@pytest.mark.parametrize("text", ["", "x", "1_0", "0x10"])
def test_cast_of_nonsense(text: str) -> None:
    for target in ("float32", "int64"):
        with pytest.raises(InputError, match="^Cast: "):
            call("Cast", [np.array([text], object)], to=target)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


DATA = np.arange(24).reshape(2, 3, 4)
MOVEMENTS: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Identity", [DATA], {}),
    ("Reshape", [DATA, ints(0, -1)], {}),
    ("Reshape", [DATA[:0], ints(3, 0)], {"allowzero": 1}),
    ("Flatten", [DATA], {"axis": 2}),
    ("Flatten", [DATA], {"axis": -1}),
    ("Squeeze", [DATA[:1, :, :1]], {}),
    ("Squeeze", [DATA[:1, :, :1], ints(-1)], {}),
    ("Unsqueeze", [DATA, ints(0, -1)], {}),
    ("Transpose", [DATA], {}),
    ("Transpose", [DATA], {"perm": [1, 2, 0]}),
    ("Expand", [DATA[:, :1], ints(3, 1)], {}),
    ("Tile", [DATA, ints(1, 2, 3)], {}),
    ("Gather", [DATA, ints(2, -1)], {"axis": 1}),
    ("GatherElements", [DATA, np.array([[[0, -1]], [[1, 0]]])], {"axis": 2}),
    ("GatherND", [DATA, np.array([[0, 1], [-1, 2]])], {}),
    ("GatherND", [DATA, np.array([[1], [2]])], {"batch_dims": 1}),
    ("Compress", [DATA, np.array([True, False, True])], {"axis": 1}),
    ("Compress", [DATA, np.array([False, True, True])], {}),
    ("Slice", [DATA, ints(1), ints(100)], {}),
    ("Slice", [DATA, ints(0, -3), ints(2, -1), ints(1, 2)], {}),
    ("Slice", [DATA, ints(-1), ints(-100), ints(2), ints(-1)], {}),
    ("Slice", [DATA, ints(100), ints(-3), ints(-1), ints(-2)], {}),
    ("Slice", [DATA, ints(3), ints(1), ints(2)], {}),
    ("Shape", [DATA], {}),
    ("Shape", [DATA], {"start": 1, "end": -1}),
    ("Size", [DATA], {}),
]


@pytest.mark.parametrize(("op", "values", "attrs"), MOVEMENTS)
def test_movement_of_strings(op: str, values: list[Any], attrs: dict[str, Any]) -> None:
    """Strings move as the numbers that they spell do."""
    (expected,) = reference(op, values, **attrs)
    texts = values[0].astype(str).astype(object)
    (found,) = call(op, [texts, *values[1:]], **attrs)
    assert found.shape == expected.shape
    assert found.astype(np.int64).tolist() == expected.tolist()


def test_movement_of_several_strings() -> None:
    a, b = words(2, 3), words(2, 3)
    assert call("Concat", [a, b], axis=-1)[0].tolist() == np.concatenate([a, b], 1).tolist()
    keep = RNG.random((2, 1)) < 0.5
    assert call("Where", [keep, a, b])[0].tolist() == np.where(keep, a, b).tolist()
    (same,) = call("Equal", [a, a[:, :1]])
    assert same.dtype == bool and same.tolist() == (a == a[:, :1]).tolist()
    assert [part.shape for part in call("Split", [a], axis=1, results=2)] == [(2, 2), (2, 1)]
    assert [part.shape for part in call("Split", [a, ints(1, 2)], axis=1)] == [(2, 1), (2, 2)]
    tensor = {"dtype": "string", "shape": [2, 3], "data": a.reshape(-1).tolist()}
    assert call("Constant", [], value=tensor)[0].tolist() == a.tolist()


def test_scatter_of_strings() -> None:
    data = DATA[0].astype(str).astype(object)
    updates = np.array([["x", "y"]], object)
    (result,) = call("ScatterElements", [data, np.array([[0, -1]]), updates], axis=1)
    assert result[0].tolist() == ["x", "1", "2", "y"] and data[0, 0] == "0"
    (result,) = call("ScatterND", [data, np.array([[1, 2], [-1, 0]]), updates[0]])
    assert result[1, 2] == "x" and result[2, 0] == "y"
    with pytest.raises(InputError, match="reduction 'add' is not defined for strings"):
        call("ScatterND", [data, np.array([[1, 2]]), updates[0][:1]], reduction="add")


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
def test_pad_of_strings(mode: str) -> None:
    data, pads = DATA[0], ints(1, -1, 2, 2)
    (expected,) = reference("Pad", [data, pads], mode=mode)
    fill = np.array("0", object)
    (found,) = call("Pad", [data.astype(str).astype(object), pads, fill], mode=mode)
    assert found.astype(np.int64).tolist() == expected.tolist()


# ---- the registry ------------------------------------------------------------------------------


def test_every_name_has_a_function() -> None:
    for name in host.supported():
        assert callable(host.find(name))


def test_unknown_names() -> None:
    with pytest.raises(ArtifactError, match="needs the host function 'Nope'"):
        host.register(["Nope"])


def test_users_can_add_functions() -> None:
    @host.host_function("test.Twice")
    def twice(attrs: dict[str, Any], x: np.ndarray) -> tuple[np.ndarray]:
        return (x * attrs["factor"],)

    assert call("test.Twice", [np.float32([1, 2])], factor=2)[0].tolist() == [2, 4]


def test_image_decoder() -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = RNG.integers(0, 256, (3, 5, 3), np.uint8)
    file = io.BytesIO()
    image.fromarray(pixels).save(file, "png")
    encoded = np.frombuffer(file.getvalue(), np.uint8)
    np.testing.assert_array_equal(call("ImageDecoder", [encoded])[0], pixels)
    (bgr,) = call("ImageDecoder", [encoded], pixel_format="BGR")
    np.testing.assert_array_equal(bgr, pixels[:, :, ::-1])
    assert call("ImageDecoder", [encoded], pixel_format="Grayscale")[0].shape == (3, 5, 1)
    with pytest.raises(InputError, match="ImageDecoder: the bytes are no image"):
        call("ImageDecoder", [encoded[10:]])


def test_image_decoder_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(RuntimeError, match="needs the package Pillow: install it"):
        call("ImageDecoder", [np.zeros(10, np.uint8)])
