"""A target and a device that only these tests know, through driver, artifact and runtime."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm_ffi
from onnx import ModelProto, TensorProto, helper
from support.mirror import KIND, MEMORY, NAME, MirrorDevice, MirrorTarget, mirrored

import graphkiln
from graphkiln.codegen.errors import CodegenError
from graphkiln.codegen.placement import place
from graphkiln.ir.graph import Graph, Node
from graphkiln.ir.parser import parse_graph
from graphkiln.ir.text import print_graph
from graphkiln.runtime import ArtifactError, Session, load, read_artifact, register_device
from graphkiln.runtime.devices import Device, find_device
from graphkiln.targets import TargetError, parse_target, target_names
from graphkiln.targets.base import Member, Parts, merge_parts

MODELS = Path(__file__).parent.parent / "models"
FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
RNG = np.random.default_rng(12)


def info(name: str, kind: int, shape: list[Any] | None) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], **weights: Any) -> ModelProto:
    arrays = {n: np.asarray(a) for n, a in weights.items()}
    tensors = [
        helper.make_tensor(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape, a.reshape(-1))
        for n, a in arrays.items()
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


W = RNG.standard_normal((8, 4)).astype("f")
B = RNG.standard_normal(4).astype("f")


def classifier() -> ModelProto:
    """A product and an activation, then a softmax, then a sum; the batch is open."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="product"),
        helper.make_node("Sigmoid", ["m"], ["s"], name="squash"),
        helper.make_node("Softmax", ["s"], ["p"], name="choose"),
        helper.make_node("CumSum", ["p", "axis"], ["c"], name="sum"),
        helper.make_node("Mul", ["c", "b"], ["y"], name="scale"),
    ]
    axis = np.array(1, np.int64)
    return model(nodes, [info("x", FLOAT, ["N", 8])], [info("y", FLOAT, None)], w=W, b=B, axis=axis)


def expected(x: np.ndarray) -> np.ndarray:
    s = 1 / (1 + np.exp(-(x @ W)))
    e = np.exp(s - s.max(1, keepdims=True))
    return np.asarray(np.cumsum(e / e.sum(1, keepdims=True), axis=1) * B)


def but(*ops: str) -> MirrorTarget:
    """A device that leaves kernels with these ops to the host."""

    def places(graph: Graph, node: Node) -> bool:
        body = node.attrs.get("body")
        inside = body.nodes if isinstance(body, Graph) else [node]
        return not any(n.op in ops for n in inside)

    return MirrorTarget(places)


@pytest.fixture
def device() -> Iterator[MirrorDevice]:
    with mirrored(but("Softmax")) as found:
        yield found


def saved(made: Any, folder: Path, **options: Any) -> Path:
    return Path(graphkiln.compile(made, target=NAME, **options).save(folder / "model.kiln"))


def ran(session: Session, feeds: Mapping[str, Any]) -> tuple[list[Any], dict[str, set[Any]]]:
    """Results, and for each kernel the memory that its tensors were in."""
    machine, instance = session._opened().machine()
    seen: dict[str, set[Any]] = {}

    def note(_vm: Any, name: str, before: bool, _result: Any, *arguments: Any) -> int:
        if before and re.search(r"_[0-9a-f]{16}$", name):
            tensors = [a for a in arguments if isinstance(a, tvm_ffi.Tensor)]
            places = {(int(t.__dlpack_device__()[0]), t.__dlpack_device__()[1]) for t in tensors}
            seen.setdefault(name, set()).update(places)
        return 0

    machine["set_instrument"](tvm_ffi.convert(note))
    return instance.run(feeds, range(len(session.get_outputs()))), seen


def test_compiled_saved_loaded_and_run(device: MirrorDevice, tmp_path: Path) -> None:
    session = load(saved(classifier(), tmp_path))
    for rows in (1, 5):
        x = RNG.standard_normal((rows, 8)).astype("f")
        np.testing.assert_allclose(session.run(None, {"x": x})[0], expected(x), rtol=1e-5)


def test_kernels_get_tensors_of_their_own_memory(device: MirrorDevice, tmp_path: Path) -> None:
    session = load(saved(classifier(), tmp_path))
    x = RNG.standard_normal((3, 8)).astype("f")
    (y,), seen = ran(session, {"x": x})
    np.testing.assert_allclose(y, expected(x), rtol=1e-5)
    assert device.kernels and {n for n, m in seen.items() if m == {MEMORY}} == device.kernels
    others = {n: m for n, m in seen.items() if n not in device.kernels}
    assert others and all(m == {(1, 0)} for m in others.values())
    assert any(n.startswith("softmax") for n in others)


def test_the_artifact_says_what_it_needs(device: MirrorDevice, tmp_path: Path) -> None:
    artifact = read_artifact(saved(classifier(), tmp_path))
    assert artifact.manifest.devices == artifact.manifest.spaces == (NAME,)
    assert {w.name: w.space for w in artifact.manifest.weights} == {"w": NAME}
    assert artifact.manifest.members["mirror.txt"].kind == KIND
    on = [line for line in artifact.ir_text.splitlines() if line.endswith(" on mirror")]
    assert len(on) == len(device.kernels or artifact.members["mirror.txt"].split()) == 2


def test_copies_show_in_the_program(device: MirrorDevice, tmp_path: Path) -> None:
    saved(classifier(), tmp_path, dump_ir=tmp_path)
    (path,) = tmp_path.glob("*_program.txt")
    text = path.read_text()
    assert re.search(r"^  r\d+ = storage s\d+ in mirror$", text, re.M)
    assert re.search(r"^  r\d+ = weight \d float32\[8, 4\] in mirror  # w$", text, re.M)
    assert re.search(r"^  mirror \w+_[0-9a-f]{16}\(.*\)  # product, squash$", text, re.M)
    copies = re.findall(r"^  copy r\d+ to r\d+( in mirror)?$", text, re.M)
    # The input goes there, what the softmax takes comes back, its result goes there, the sum back.
    assert copies == [" in mirror", "", " in mirror", ""]


def test_the_report_says_where_kernels_run(device: MirrorDevice) -> None:
    report = graphkiln.compile(classifier(), target=NAME).report
    where = {tuple(c["ops"]): c.get("device") for c in report["kernel_costs"].values()}
    assert where[("Softmax",)] is None and where[("MatMul", "Sigmoid")] == NAME
    assert report["runs"].endswith("kernels on another device than the host, mirror")


def test_a_device_in_the_hosts_memory_needs_no_copies(tmp_path: Path) -> None:
    with mirrored(MirrorTarget(but("Softmax").places, space="cpu")) as device:
        session = load(saved(classifier(), tmp_path, dump_ir=tmp_path))
        x = RNG.standard_normal((2, 8)).astype("f")
        np.testing.assert_allclose(session.run(None, {"x": x})[0], expected(x), rtol=1e-5)
        assert device.kernels and session.manifest["spaces"] == []
    (path,) = tmp_path.glob("*_program.txt")
    assert "copy" not in path.read_text()


def test_a_model_that_leaves_all_to_the_host(tmp_path: Path) -> None:
    with mirrored(MirrorTarget(lambda graph, node: False)) as device:
        artifact = graphkiln.compile(classifier(), target=NAME)
        assert artifact.contents.manifest["devices"] == []
        assert artifact.report["runs"] == "as native code"
        x = RNG.standard_normal((2, 8)).astype("f")
        (y,) = artifact.session().run(None, {"x": x})
        np.testing.assert_allclose(y, expected(x), rtol=1e-5)
        assert not device.kernels


def test_check_and_compile_agree(device: MirrorDevice) -> None:
    assert graphkiln.check(classifier(), target=NAME) == []


# ---- control flow, data-dependent sizes, concatenations ------------------------------------------


def same_on_both(made: ModelProto, feeds: Mapping[str, Any], target: MirrorTarget) -> set[str]:
    """The device's kernels; the results are those of the CPU."""
    want = graphkiln.compile(made).session().run(None, dict(feeds))
    with mirrored(target) as device:
        session = graphkiln.compile(made, target=NAME).session()
        for _ in range(2):
            for a, b in zip(session.run(None, dict(feeds)), want, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        _, seen = ran(session, feeds)
    space = MEMORY if target.space == NAME else (1, 0)
    assert all(seen[name] == {space} for name in device.kernels & seen.keys())
    return device.kernels


def halves(name: str) -> MirrorTarget:
    """About half of the kernels run on the device, which ones depends on ``name``."""
    return MirrorTarget(lambda graph, node: hash_of(name + node.name) % 2 == 0)


def hash_of(text: str) -> int:
    return sum(text.encode()) + len(text)


X23 = RNG.standard_normal((2, 3)).astype("f")


def test_loops_carry_values_across() -> None:
    body = helper.make_graph(
        [helper.make_node("Sin", ["h"], ["a"]), helper.make_node("Add", ["a", "k"], ["o"]),
         helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Neg", ["o"], ["s"])],
        "body", [info("i", INT, []), info("c", BOOL, []), info("h", FLOAT, [2, 3])],
        [info("d", BOOL, []), info("o", FLOAT, [2, 3]), info("s", FLOAT, [2, 3])],
    )  # fmt: skip
    loop = helper.make_node("Loop", ["n", "", "x"], ["y", "z"], body=body)
    relu = helper.make_node("Relu", ["y"], ["r"])
    outputs = [info("r", FLOAT, None), info("z", FLOAT, None)]
    inputs = [info("x", FLOAT, [2, 3]), info("n", INT, [])]
    made = model([loop, relu], inputs, outputs, k=np.float32(0.5))
    feeds = {"x": X23, "n": np.array(40, np.int64)}
    assert same_on_both(made, feeds, but("Neg"))
    assert same_on_both(made, feeds, MirrorTarget())


def test_branches_give_the_host_their_results() -> None:
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, ["e"], [f"{name}_y"])], name, [], [info(f"{name}_y", FLOAT, None)]
        )
        for name, op in (("then", "Sin"), ("else", "Cos"))
    }
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "zero"], ["cond"]),
        helper.make_node("If", ["cond"], ["b"], **branches),
        helper.make_node("Sqrt", ["b"], ["r"]),
        helper.make_node("Abs", ["r"], ["y"]),
    ]
    made = model(nodes, [info("x", FLOAT, [2, 3])], [info("y", FLOAT, None)], zero=np.float32(0))
    for x in (np.full((2, 3), 0.2, "f"), np.full((2, 3), -0.4, "f")):
        assert same_on_both(made, {"x": x}, MirrorTarget())
        assert same_on_both(made, {"x": x}, but("Cos", "Exp"))


def test_sizes_that_data_tell() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("NonZero", ["a"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=FLOAT),
        helper.make_node("Sin", ["f"], ["y"]),
    ]
    made = model(nodes, [info("x", FLOAT, ["N", 3])], [info("y", FLOAT, None)])
    for target in (MirrorTarget(), but("NonZero"), but("Relu", "Sin")):
        assert same_on_both(made, {"x": X23}, target)


def test_concat_joins_in_place_only_in_one_memory() -> None:
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["a"], keepdims=0, name="a"),
        helper.make_node("ReduceMax", ["x"], ["b"], axes=[1], keepdims=0, name="b"),
        helper.make_node("Concat", ["a", "b"], ["c"], axis=0, name="c"),
        helper.make_node("CumSum", ["c", "zero"], ["y"], name="d"),
    ]
    axes, zero = np.array([1], np.int64), np.array(0, np.int64)
    outputs = [info("y", FLOAT, None)]
    made = model(nodes, [info("x", FLOAT, [32, 3])], outputs, axes=axes, zero=zero)
    x = RNG.standard_normal((32, 3)).astype("f")
    for left in ((), ("ReduceMax",), ("Concat",), ("ReduceSum", "ReduceMax"), ("CumSum",)):
        assert same_on_both(made, {"x": x}, but(*left))


def test_results_of_one_device_that_several_others_read() -> None:
    """A copy serves all kernels of the other side, and views of what was copied too."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["s"]),
        helper.make_node("Reshape", ["s", "shape"], ["v"]),
        helper.make_node("CumSum", ["s", "zero"], ["a"]),
        helper.make_node("CumSum", ["v", "zero"], ["b"]),
        helper.make_node("Softmax", ["b"], ["c"]),
        helper.make_node("CumSum", ["s", "one"], ["d"]),
    ]
    outputs = [info(n, FLOAT, None) for n in ("a", "v", "c", "d", "s")]
    zero, one = np.array(0, np.int64), np.array(1, np.int64)
    shape = np.array([3, 2], np.int64)
    made = model(nodes, [info("x", FLOAT, [2, 3])], outputs, zero=zero, one=one, shape=shape)
    assert same_on_both(made, {"x": X23}, but("Softmax"))
    assert same_on_both(made, {"x": X23}, but("CumSum"))


@pytest.mark.parametrize("name", ["mnist_cntk", "espcn_float", "sdp_attention_block"])
def test_real_models_in_two_halves(name: str) -> None:
    path = MODELS / f"{name}.onnx"
    session = graphkiln.compile(path).session()
    feeds = {}
    for i in session.get_inputs():
        shape = [d if isinstance(d, int) else 2 for d in i.shape]
        feeds[i.name] = RNG.standard_normal(shape).astype("f")
    want = session.run(None, feeds)
    for half in ("a", "b"):
        with mirrored(halves(half)) as device:
            made = graphkiln.compile(path, target=NAME).session()
            for a, b in zip(made.run(None, feeds), want, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
            assert device.kernels


# ---- the registries ------------------------------------------------------------------------------


def test_an_artifact_whose_device_nobody_knows(tmp_path: Path) -> None:
    with mirrored():
        path = saved(classifier(), tmp_path)
    assert read_artifact(path).manifest.devices == (NAME,)
    with pytest.raises(ArtifactError, match="for the device 'mirror', which nothing here knows"):
        load(path)
    with pytest.raises(TargetError, match="target 'mirror' is not known"):
        parse_target(NAME)


def test_commands_tell_of_it(device: MirrorDevice, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from graphkiln.cli import group

    path = saved(classifier(), tmp_path)
    told = CliRunner().invoke(group, ["inspect", str(path)]).output
    assert re.search(r"devices\s+mirror", told) and "mirror.txt" in told
    assert "mirror: of a plugin" in CliRunner().invoke(group, ["targets"]).output


def test_a_device_that_is_absent(device: MirrorDevice, tmp_path: Path) -> None:
    path = saved(classifier(), tmp_path)
    device.present = False
    with pytest.raises(ArtifactError, match="this machine has none"):
        load(path)


def test_members_that_the_device_cannot_read(device: MirrorDevice, tmp_path: Path) -> None:
    path = saved(classifier(), tmp_path)
    device.member_kinds = frozenset()
    with pytest.raises(ArtifactError, match=r"'mirror\.txt', a member of kind 'mirror\.names'"):
        load(path)


def test_plugins_bring_targets_and_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        def __init__(self, name: str, made: Any) -> None:
            self.name, self.made = name, made

        def load(self) -> Any:
            return self.made

    def found(*, group: str, name: str | None = None) -> list[Found]:
        made: Any = MirrorDevice if group == "graphkiln.devices" else lambda *_: MirrorTarget()
        return [Found("glass", made)] if name in (None, "glass") else []

    monkeypatch.setattr("graphkiln.targets.entry_points", found)
    monkeypatch.setattr("graphkiln.runtime.devices.entry_points", found)
    monkeypatch.setattr("graphkiln.runtime.devices._registered", {})
    monkeypatch.setattr(MirrorDevice, "name", "glass")
    assert isinstance(parse_target("glass"), MirrorTarget) and "glass" in target_names()
    assert isinstance(find_device("glass"), MirrorDevice)
    parse_target.cache_clear()


def test_the_hosts_name_is_taken() -> None:
    class Cpu(Device):
        name = "cpu"

    with pytest.raises(ValueError, match="is the host"):
        register_device(Cpu())


def test_two_targets_that_give_something_one_name() -> None:
    parts = [Parts(members={"x": Member("a.b", b"")})] * 2
    with pytest.raises(TargetError, match="contribute 'x'"):
        merge_parts(parts)


# ---- devices in graphs ---------------------------------------------------------------------------

TEXT = """graph g(%x: float32[4]) -> (z) {
  %y = Relu(%x) : float32[4] on mirror
  %z = Sin(%y) : float32[4] @[sin] on "a b"
  return %z
}
"""


def test_devices_have_a_text_and_are_copied() -> None:
    graph = parse_graph(TEXT)
    assert [n.device for n in graph.nodes] == [NAME, "a b"]
    assert print_graph(graph) == print_graph(graph.copy()) == TEXT


def test_a_choice_that_was_made_before_stays() -> None:
    graph = parse_graph(TEXT.replace(' on "a b"', " on cpu"))
    place(graph, MirrorTarget())
    assert [n.device for n in graph.nodes] == [NAME, "cpu"]
    with pytest.raises(CodegenError, match="no kernels for the device 'a b'"):
        place(parse_graph(TEXT), MirrorTarget())
