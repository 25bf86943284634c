"""Sessions: what they take, what they give, and what they say when it is wrong."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphkiln.runtime import ExecutionError, InputError, Session, load
from graphkiln.runtime.errors import reason

WEIGHT = np.arange(64, dtype=np.float32)


@pytest.fixture
def square(models: Any) -> Session:
    return load(models.path("square"))


@pytest.fixture
def double(models: Any) -> Session:
    return load(models.path("double"))


class Subclass(np.ndarray):
    pass


def aligned(count: int, start: int = 0) -> np.ndarray:
    """Float32 values whose memory starts ``start`` bytes after a 64-byte border."""
    raw = np.empty(count * 4 + 128, np.uint8)
    first = -raw.ctypes.data % 64 + start
    values = raw[first : first + count * 4].view(np.float32)
    values[:] = np.arange(count)
    return values


def test_describes_itself(models: Any, square: Session) -> None:
    (x,) = square.get_inputs()
    assert (x.name, x.shape, x.type) == ("x", [64], "tensor(float)")
    assert [y.name for y in square.get_outputs()] == ["y"]
    assert square.ir_text == "graph {}\n"
    assert square.report == {"kernels": 1}
    assert square.manifest["producer"]["graphkiln"] == "0.1.0"
    pair = load(models.path("pair"))
    assert [(a.shape, a.type) for a in pair.get_inputs()] == [
        (["N", 2], "tensor(float)"),
        (["N"], "tensor(int64)"),
        (["2*N+1"], "tensor(float)"),
    ]
    assert load(models.path("sequence")).get_inputs()[0].type == "seq(tensor(float))"
    assert load(models.path("optional")).get_inputs()[0].type == "optional(tensor(float))"
    assert load(models.path("odd_types")).get_inputs()[0].type == "tensor(bfloat16)"


@pytest.mark.parametrize("start", [0, 4, 16])
def test_takes_arrays_at_any_alignment(square: Session, start: int) -> None:
    x = aligned(64, start)
    (y,) = square.run(None, {"x": x})
    np.testing.assert_array_equal(y, (x + WEIGHT) ** 2)


@pytest.mark.parametrize("count", [0, 1, 7, 100, 20_000, 250_000])
@pytest.mark.parametrize("start", [0, 4])
def test_takes_every_size_of_a_symbolic_dimension(double: Session, count: int, start: int) -> None:
    x = aligned(count, start)
    (y,) = double.run(None, {"x": x})
    np.testing.assert_array_equal(y, 2 * x)


def test_sizes_may_alternate(double: Session) -> None:
    for count in (3, 5, 3, 9000, 3, 9000):
        (y,) = double.run(None, {"x": np.full(count, count, np.float32)})
        np.testing.assert_array_equal(y, np.full(count, 2 * count))


@pytest.mark.parametrize(
    "x",
    [
        pytest.param(np.arange(128, dtype=np.float32)[::2], id="strided"),
        pytest.param(np.arange(64, dtype=np.float32)[::-1], id="reversed"),
        pytest.param(np.arange(64, dtype=">f4"), id="big-endian"),
        pytest.param(list(range(64)), id="list of ints"),
        pytest.param([float(i) for i in range(64)], id="list of floats"),
        pytest.param(np.broadcast_to(np.float32(3), 64), id="broadcast"),
        pytest.param(np.arange(64, dtype=np.float32).view(Subclass), id="subclass"),
    ],
)
def test_takes_other_memory_layouts(square: Session, x: Any) -> None:
    (y,) = square.run(None, {"x": x})
    np.testing.assert_array_equal(y, (np.asarray(x, np.float32) + WEIGHT) ** 2)


def test_takes_large_arrays_of_any_layout(models: Any) -> None:
    spread = load(models.path("spread"))
    plain = np.arange(65536, dtype=np.float32)
    readonly = plain.copy()
    readonly.flags.writeable = False
    strided = np.repeat(plain, 2)[::2]
    for x in (plain, readonly, strided, plain.astype(">f4"), aligned(65536), aligned(65536, 8)):
        np.testing.assert_array_equal(spread.run(None, {"x": x})[0], 2 * plain)


def test_takes_what_numpy_can_convert(square: Session) -> None:
    class Foreign:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return WEIGHT

    np.testing.assert_array_equal(square.run(None, {"x": Foreign()})[0], 4 * WEIGHT**2)


def test_outputs_are_never_overwritten(square: Session) -> None:
    results = [square.run(None, {"x": np.full(64, i, np.float32)})[0] for i in range(20)]
    for i, y in enumerate(results):
        np.testing.assert_array_equal(y, (WEIGHT + i) ** 2)


def test_outputs_outlive_the_session(models: Any) -> None:
    session = load(models.path("square"))
    (y,) = session.run(None, {"x": WEIGHT})
    session.close()
    del session
    gc.collect()
    np.testing.assert_array_equal(y, 4 * WEIGHT**2)


def test_outputs_never_alias_inputs_or_weights(models: Any) -> None:
    session = load(models.path("handed_on"))
    x, big = aligned(64), aligned(40_000)
    same, view, weight, big_same = session.run(None, {"x": x, "big": big})
    for output in (same, view, weight, big_same):
        output += 1
    np.testing.assert_array_equal(x, np.arange(64))
    np.testing.assert_array_equal(big, np.arange(40_000))
    same, view, weight, big_same = session.run(None, {"x": x, "big": big})
    np.testing.assert_array_equal(view, x.reshape(8, 8))
    np.testing.assert_array_equal(weight, WEIGHT)
    x[:] = 0
    np.testing.assert_array_equal(same, np.arange(64))


@pytest.mark.parametrize("count", [3, 20_000])
def test_many_outputs_never_alias_inputs(models: Any, count: int) -> None:
    session = load(models.path("many"))
    shared = aligned(count)
    for _ in range(2):
        feeds = {f"x{i}": aligned(count) + np.float32(i) for i in range(12)}
        feeds["x3"] = feeds["x4"] = shared
        for i, output in enumerate(session.run(None, feeds)):
            given = feeds[f"x{11 - i}"]
            np.testing.assert_array_equal(output, given)
            assert not np.shares_memory(output, given)
            output[:] = -1
        np.testing.assert_array_equal(shared, np.arange(count))


def test_picks_and_repeats_outputs(models: Any) -> None:
    session = load(models.path("handed_on"))
    feeds = {"x": WEIGHT, "big": np.zeros(40_000, np.float32)}
    weight, same, again = session.run(["weight", "same", "weight"], feeds)
    weight[:] = -1
    np.testing.assert_array_equal(again, WEIGHT)
    np.testing.assert_array_equal(same, WEIGHT)
    assert len(session.run([], feeds)) == 4


def test_repeated_outputs_are_apart(square: Session) -> None:
    first, second = square.run(["y", "y"], {"x": WEIGHT})
    first[:] = 0
    np.testing.assert_array_equal(second, 4 * WEIGHT**2)


BAD_FEEDS = {
    "missing": ({}, "input 'x' is missing: the model takes 'x'"),
    "unknown": ({"x": WEIGHT, "z": WEIGHT}, "there is no input 'z': the model takes 'x'"),
    "no dict": ([WEIGHT], "feeds must be a dict of input name to array, not a list"),
    "None": ({"x": None}, "input 'x' is a NoneType, not an array"),
    "text": ({"x": "abc"}, "input 'x' is a str, not an array"),
    "double": ({"x": WEIGHT.astype(np.float64)}, "of type tensor(double): the model takes tensor"),
    "ints": ({"x": WEIGHT.astype(np.int64)}, "of type tensor(int64): the model takes tensor(float"),
    "objects": ({"x": np.array([None] * 64)}, "not an array of numbers"),
    "uneven": ({"x": [[1], [1, 2]]}, "input 'x' is no array"),
    "list of arrays": ({"x": [np.float64(1)] * 64}, "of type tensor(double)"),
    "rank": ({"x": np.zeros((8, 8), np.float32)}, "has rank 2 (shape [8, 8]), the model takes"),
    "size": ({"x": np.zeros(63, np.float32)}, "has 63 in dimension 0 (shape [63]), the model"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FEEDS)
def test_says_what_is_wrong_with_a_feed(square: Session, name: str) -> None:
    feeds, message = BAD_FEEDS[name]
    square.run(None, {"x": WEIGHT})
    with pytest.raises(InputError) as caught:
        square.run(None, feeds)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(square.run(None, {"x": WEIGHT})[0], 4 * WEIGHT**2)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["q"], "there is no output 'q': the model gives 'y'"),
        (["y", 3], "there is no output 3"),
        ("y", "output_names must be a list"),
    ],
)
def test_says_what_is_wrong_with_output_names(square: Session, names: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        square.run(names, {"x": WEIGHT})


def pair_feeds(a: int, b: int, c: int) -> dict[str, np.ndarray]:
    return {
        "a": np.zeros((a, 2), np.float32),
        "b": np.zeros(b, np.int64),
        "c": np.zeros(c, np.float32),
    }


def test_symbols_agree_between_inputs(models: Any) -> None:
    session = load(models.path("pair"))
    assert session.run(None, pair_feeds(3, 3, 7))[2].shape == (7,)
    with pytest.raises(
        InputError, match=r"'b' has 4 in dimension 0 \(N\), but N is 3 in input 'a'"
    ):
        session.run(None, pair_feeds(3, 4, 7))
    with pytest.raises(InputError, match=r"'c' has 6 .*it must be 7 where N is 3"):
        session.run(None, pair_feeds(3, 3, 6))
    assert session.run(None, pair_feeds(4, 4, 9))[1].shape == (4,)
    with pytest.raises(InputError):
        session.run(None, pair_feeds(3, 4, 9))


def test_integers_must_fit(models: Any) -> None:
    session = load(models.path("pair"))
    feeds: dict[str, Any] = {**pair_feeds(1, 1, 3), "b": [1.5]}
    with pytest.raises(InputError, match="of type tensor"):
        session.run(None, feeds)
    feeds["b"] = [2**70]
    with pytest.raises(InputError, match="not an array of numbers"):
        session.run(None, feeds)
    feeds["b"] = [7]
    assert session.run(["b2"], feeds)[0].tolist() == [7]


def test_sequences(models: Any) -> None:
    session = load(models.path("sequence"))
    parts = [np.float32([1, 2]), np.float32([3])]
    longer, count = session.run(None, {"s": parts, "x": np.float32([4, 5, 6])})
    assert [part.tolist() for part in longer] == [[1, 2], [3], [4, 5, 6]]
    assert count == 3
    longer[0][:] = 9
    assert parts[0].tolist() == [1, 2]
    empty, _ = session.run(None, {"s": [], "x": np.float32([4])})
    assert [part.tolist() for part in empty] == [[4]]
    with pytest.raises(InputError, match="'s' is a ndarray, not a list"):
        session.run(None, {"s": parts[0], "x": parts[0]})
    with pytest.raises(InputError, match="'s' is of type tensor.double"):
        session.run(None, {"s": [np.zeros(2)], "x": parts[0]})


def test_strings(models: Any) -> None:
    session = load(models.path("strings"))
    for x in (np.array(["a", "öß"]), np.array(["a", "öß"], object), ["a", "öß".encode()]):
        doubled, same = session.run(None, {"x": x})
        assert doubled.tolist() == ["aa", "ößöß"]
        assert same.dtype == object and same.tolist() == ["a", "öß"]
    with pytest.raises(InputError, match="an array that holds a int"):
        session.run(None, {"x": np.array(["a", 3], object)})
    with pytest.raises(InputError, match="bytes that are not UTF-8"):
        session.run(None, {"x": [b"\xff"]})


def test_optionals(models: Any) -> None:
    session = load(models.path("optional"))
    has, same = session.run(None, {"x": np.float32([1, 2])})
    assert has.dtype == bool and has == np.True_
    assert same.tolist() == [1, 2]
    for feeds in ({"x": None}, {}):
        has, same = session.run(None, feeds)
        assert not has and same is None
    with pytest.raises(InputError, match="'x' has 3 in dimension 0"):
        session.run(None, {"x": np.zeros(3, np.float32)})


def test_types_that_numpy_lacks(models: Any) -> None:
    session = load(models.path("odd_types"))
    feeds = {
        "b": np.array([1.5, -2, 3], ml_dtypes.bfloat16),
        "i": np.array([-8, 7, 1], ml_dtypes.int4),
        "t": np.array([True, False, True]),
    }
    for _ in range(2):
        for name, output in zip("bit", session.run(None, feeds), strict=True):
            assert output.dtype == feeds[name].dtype
            np.testing.assert_array_equal(output, feeds[name])
    feeds["b"] = feeds["b"].view(np.uint16)
    assert session.run(["b2"], feeds)[0].tolist() == [1.5, -2, 3]
    assert session.run(["b2"], {**feeds, "b": [1, 2, 3]})[0].tolist() == [1, 2, 3]
    with pytest.raises(InputError, match="of type tensor.float."):
        session.run(None, {**feeds, "b": np.zeros(3, np.float32)})
    with pytest.raises(InputError, match="of type tensor.int8.: the model takes tensor.int4"):
        session.run(None, {**feeds, "i": np.zeros(3, np.int8)})


def test_failures_inside_are_one_line(models: Any) -> None:
    host = load(models.path("unwrap"))
    assert host.run(None, {"x": [1.0, 2.0]})[0].tolist() == [1, 2]
    with pytest.raises(InputError, match="OptionalGetElement: the optional is empty") as caught:
        host.run(None, {"x": None})
    assert "\n" not in str(caught.value)
    code = load(models.path("reshape"))
    with pytest.raises(ExecutionError) as caught:
        code.run(None, {"x": np.zeros(63, np.float32)})
    assert "\n" not in str(caught.value)
    assert code.run(None, {"x": WEIGHT})[0].shape == (8, 8)


def test_close(models: Any) -> None:
    with load(models.path("square")) as session:
        session.run(None, {"x": WEIGHT})
    with pytest.raises(ExecutionError, match="the session is closed"):
        session.run(None, {"x": WEIGHT})


def test_survives_the_removal_of_its_file(models: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.kiln"
    path.write_bytes(models.path("square").read_bytes())
    session = load(path)
    path.unlink()
    np.testing.assert_array_equal(session.run(None, {"x": WEIGHT})[0], 4 * WEIGHT**2)


def test_what_no_memory_can_hold_is_told_as_such() -> None:
    with pytest.raises(ValueError, match="too big") as error:
        np.empty((2**40, 2**40))
    assert reason(error.value) == reason(MemoryError())
    assert reason(error.value) == "these inputs need more memory than there is"
