"""What users do wrong, and what happens to them: one clear error, and nothing half-written."""

from __future__ import annotations

import io
import os
import platform
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.command import COMMAND, MODELS, Run
from support.waiting import until

import graphkiln
from graphkiln.codegen.artifact import ArtifactWriteError, write_artifact


def save(path: Path, *nodes: onnx.NodeProto, shape: tuple[int, ...] = (2, 3)) -> Path:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


# ---- models ----------------------------------------------------------------------------------


def test_no_such_model(graphkiln_command: Run, tmp_path: Path) -> None:
    for verb in ("compile", "inspect"):
        graphkiln_command(verb, tmp_path / "none.onnx").fails("none.onnx", "No such file")
    blocked = graphkiln_command("check", tmp_path / "none.onnx")
    assert blocked.code == 1 and "No such file" in blocked.out and blocked.err == ""


def test_the_trace_on_request(graphkiln_command: Run, tmp_path: Path) -> None:
    done = graphkiln_command("compile", tmp_path / "none.onnx", GRAPHKILN_DEBUG="1")
    assert done.code == 1
    assert "Traceback" in done.err and "none.onnx" in done.err


def test_files_that_are_no_models(graphkiln_command: Run, model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    contents = {"empty": b"", "text": b"hello\n" * 50, "short": data[: len(data) // 2]}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        out = tmp_path / "m.kiln"
        graphkiln_command("compile", tmp_path / name, "-o", out).fails(str(tmp_path / name))
        assert not out.exists()
    graphkiln_command("compile", tmp_path).fails("is not a regular file")
    graphkiln_command("compile", "/dev/zero", "-o", tmp_path / "z.kiln").fails("not a regular file")


def test_unknown_op_wrong_shape_and_cycle(graphkiln_command: Run, tmp_path: Path) -> None:
    unknown = save(tmp_path / "u.onnx", helper.make_node("Frobnicate", ["x"], ["y"], name="f"))
    graphkiln_command("compile", unknown).fails("u.onnx", "'f'", "Frobnicate")
    wrong = save(tmp_path / "w.onnx", helper.make_node("MatMul", ["x", "x"], ["y"], name="mm"))
    graphkiln_command("compile", wrong).fails("'mm'", "MatMul")
    cycle = save(
        tmp_path / "c.onnx",
        helper.make_node("Add", ["x", "b"], ["a"], name="one"),
        helper.make_node("Relu", ["a"], ["b"], name="two"),
        helper.make_node("Relu", ["a"], ["y"], name="three"),
    )
    graphkiln_command("compile", cycle).fails("cycle")


def test_external_data_outside_the_folder(graphkiln_command: Run, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(24))
    folder = tmp_path / "model"
    folder.mkdir()
    path = save(folder / "m.onnx", helper.make_node("Add", ["x", "w"], ["y"]))
    proto = onnx.load(path)
    weight = proto.graph.initializer.add(name="w", data_type=1, dims=[2, 3], data_location=1)
    weight.external_data.add(key="location", value="../secret")
    path.write_bytes(proto.SerializeToString())
    graphkiln_command("compile", path).fails("'w'", "../secret")


# ---- options ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "Missing argument"),
        (["MODEL", "--target", "cpu:abacus"], "abacus"),
        (["MODEL", "--target", "loom"], "loom"),
        (["MODEL", "--passes", "fold,fould"], "fould"),
        (["MODEL", "--passes", "fold{max-bytes=x}"], "max-bytes"),
        (["MODEL", "--stop-after", "tea"], "tea"),
        (["MODEL", "--shape", "Input3"], "--shape"),
        (["MODEL", "--frob"], "--frob"),
        (["MODEL", "--jobs", "-1"], "--jobs"),
    ],
)
def test_usage(
    graphkiln_command: Run, model: Path, tmp_path: Path, arguments: list[str], part: str
) -> None:
    given = [str(model) if a == "MODEL" else a for a in arguments]
    graphkiln_command("compile", *given, cwd=tmp_path).fails(part, code=2)
    assert not list(tmp_path.iterdir())


def test_usage_of_other_commands(graphkiln_command: Run, digits: Path, model: Path) -> None:
    graphkiln_command("frobnicate").fails("frobnicate", code=2)
    graphkiln_command("run", digits, "--dim", "N=2").fails("'N'", "none is open", code=2)
    graphkiln_command("run", digits, "--threads", "0").fails("--threads", code=2)
    graphkiln_command("inspect", model, "--verify").fails("artifacts", code=2)
    graphkiln_command("ops", "--domain", "moon").fails("moon", code=2)


def test_a_shape_that_does_not_fit(graphkiln_command: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.kiln"
    wrong_rank = graphkiln_command("compile", model, "-o", out, "--shape", "Input3=1x28x28")
    wrong_rank.fails("Input3")
    graphkiln_command("compile", model, "-o", out, "--shape", "Input9=1").fails("Input9")
    assert not out.exists()


# ---- feeds -----------------------------------------------------------------------------------


def test_wrong_feeds(graphkiln_command: Run, digits: Path, tmp_path: Path) -> None:
    arrays = {
        "rank": np.zeros((28, 28), np.float32),
        "size": np.zeros((1, 1, 28, 27), np.float32),
        "type": np.zeros((1, 1, 28, 28), np.int64),
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
        given = f"Input3={tmp_path / name}.npy"
        graphkiln_command("run", digits, "-i", given).fails("Input3")
    graphkiln_command("run", digits, "-i", f"Image={tmp_path}/rank.npy").fails("Image", "Input3")
    graphkiln_command("run", digits, "-i", f"{tmp_path}/rank.npy").fails("NAME=", code=2)
    graphkiln_command("run", digits, "-i", f"{tmp_path}/none.npz").fails("no such file")
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([{}], object))
    graphkiln_command("run", digits, "-i", f"Input3={objects}").fails("plain arrays")


# ---- machines --------------------------------------------------------------------------------


def test_no_linker(graphkiln_command: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.kiln"
    graphkiln_command("compile", model, "-o", out, "--linker", "/no/such/cc").fails("/no/such/cc")
    graphkiln_command("compile", model, "-o", out, PATH="/nowhere").fails("C compiler")
    foreign = "x86-64-v3" if platform.machine() == "aarch64" else "aarch64"
    other = graphkiln_command("compile", model, "-o", out, "--target", f"cpu:{foreign}")
    other.fails("--linker")
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_told_before_the_work(
    graphkiln_command: Run, model: Path, tmp_path: Path
) -> None:
    """No pass has run by then."""
    given = ("compile", model, "--dump-ir", tmp_path / "dump")
    (tmp_path / "taken").mkdir()
    for arguments, part in (
        (["-o", tmp_path / "m.kiln", "--linker", "/no/such/cc"], "/no/such/cc"),
        (["-o", tmp_path / "m.kiln", "--linker", "true"], "no known machine"),
        (["-o", tmp_path / "m.kiln", "--linker", "false"], "no C compiler"),
        (["-o", "/proc/self/m.kiln"], "cannot write"),
        (["-o", tmp_path / ("m" * 300)], "cannot write"),
        (["-o", tmp_path / "taken"], "folder"),
        (["-o", tmp_path / "taken", "--folder"], "no artifact folder"),
        (["-o", "/dev/full"], "no artifact"),
    ):
        graphkiln_command(*given, *arguments).fails(part)
    graphkiln_command(*given, "-o", tmp_path / "m.kiln", PATH="/nowhere").fails("C compiler")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("name", ["m.onnx", "weights.bin", "m.kiln", "link.kiln"])
def test_a_model_is_never_overwritten(
    graphkiln_command: Run, model: Path, tmp_path: Path, name: str
) -> None:
    """Neither it nor the file of its weights, however it is called."""
    path = tmp_path / ("m.kiln" if name.endswith("kiln") else "m.onnx")
    path.write_bytes(model.read_bytes())
    (tmp_path / "weights.bin").write_bytes(b"precious")
    (tmp_path / "link.kiln").symlink_to(path)
    graphkiln_command("compile", path, "-o", tmp_path / name).fails("cannot write", name)
    assert path.read_bytes() == model.read_bytes()
    assert (tmp_path / "weights.bin").read_bytes() == b"precious"
    with pytest.raises(ArtifactWriteError, match="no artifact"):
        graphkiln.compile(path, jobs=1).save(tmp_path / "weights.bin")


def test_an_older_artifact_is_replaced(
    graphkiln_command: Run, digits: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "named").write_bytes(digits.read_bytes())
    (tmp_path / "cut.kiln").write_bytes(digits.read_bytes()[:1000])
    for name in ("named", "cut.kiln"):
        assert graphkiln_command("compile", model, "-o", tmp_path / name, "--quiet").code == 0
        assert (tmp_path / name).read_bytes() == digits.read_bytes()


def test_output_that_cannot_be_written(
    graphkiln_command: Run, digits: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    graphkiln_command("compile", model, "-o", tmp_path / "file" / "m.kiln").fails("no folder")
    (tmp_path / "taken").mkdir()
    graphkiln_command("compile", model, "-o", tmp_path / "taken").fails("folder")
    out = tmp_path / "file" / "out.npz"
    graphkiln_command("run", digits, "-o", out).fails("Not a directory")
    graphkiln_command("run", digits, stdout="/dev/full").fails("No space left")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "taken"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("part", ["linking", "cannot write"])
def test_full_disk(
    graphkiln_command: Run, digits: Path, model: Path, tmp_path: Path, part: str
) -> None:
    """A limit on the size of files stands for a disk that is full."""
    # Compiled before, so that the kernels are in the cache. How large code is depends on the CPU.
    library = zipfile.ZipFile(digits).getinfo("library.so").file_size
    whole = digits.stat().st_size
    kilobytes = (library * 3 // 4 if part == "linking" else (library + whole) // 2) >> 10
    (tmp_path / "m.kiln").write_text("an older one")
    limited = ["bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "bash"]
    out = tmp_path / "m.kiln"
    done = graphkiln_command("compile", model, "-o", out, prefix=limited, TMPDIR=str(tmp_path))
    done.fails(part)
    assert [p.name for p in tmp_path.iterdir()] == ["m.kiln"]
    assert (tmp_path / "m.kiln").read_text() == "an older one"


def children(pid: int) -> set[int]:
    """The processes that ``pid`` started and that still run."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def running(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_compile(
    command_environment: dict[str, str], tmp_path: Path, kind: signal.Signals
) -> None:
    """In the middle of building kernels, with compiler processes at work."""
    process = subprocess.Popen(
        [COMMAND, "compile", MODELS / "basic_pitch_cnn.onnx", "-o", tmp_path / "m.kiln",
         "--jobs", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**command_environment, "GRAPHKILN_CACHE": "", "TMPDIR": str(tmp_path)},
        # A shell's background jobs ignore interrupts, and so do their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert until(lambda: len(children(process.pid)) == 2, 60)
    workers = children(process.pid)
    time.sleep(1)
    process.send_signal(kind)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + kind
    assert "Traceback" not in err and out == ""
    assert kind == signal.SIGTERM or err.strip() == "graphkiln: interrupted"
    assert until(lambda: not running(workers), 10)
    assert not list(tmp_path.iterdir())


# ---- artifacts -------------------------------------------------------------------------------


def damaged(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Artifacts that somebody cut, changed or mixed up."""
    yield "cut", data[: len(data) * 2 // 3]
    yield "empty", b""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.infolist()[0].header_offset + 4096 + 64
        members = {n: archive.read(n) for n in archive.namelist()}
    flipped = bytearray(data)
    flipped[start] ^= 1
    yield "weight", bytes(flipped)
    for name in ("manifest.json", "library.so", "ir.txt"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for member, content in members.items():
                changed = content[:-2] + b"\n\n" if member == name else content
                archive.writestr(member, changed)
        yield name, buffer.getvalue()


def test_tampered_artifacts(graphkiln_command: Run, digits: Path, tmp_path: Path) -> None:
    for name, content in damaged(digits.read_bytes()):
        path = tmp_path / f"{name}.kiln"
        path.write_bytes(content)
        graphkiln_command("run", path).fails(str(path))
        graphkiln_command("inspect", path, "--verify").fails(str(path))


def test_escapes_do_not_reach_the_terminal(graphkiln_command: Run, tmp_path: Path) -> None:
    """Names of a model may hold anything, and so may strings that it gives."""
    path = save(tmp_path / "m.onnx", helper.make_node("Relu", ["x"], ["y"], name="\x1b[2Jnode"))
    proto = onnx.load(path)
    proto.graph.output[0].name = proto.graph.node[0].output[0] = "\x1b]0;owned\x07y"
    proto.graph.doc_string = "\x1b[31m"
    path.write_bytes(proto.SerializeToString())
    out = tmp_path / "m.kiln"
    for arguments in (
        ("compile", path, "-o", out), ("inspect", path), ("inspect", path, "--ir"),
        ("inspect", out), ("inspect", out, "--ir"), ("run", out), ("check", path),
    ):  # fmt: skip
        done = graphkiln_command(*arguments)
        assert done.code == 0, done
        assert "\x1b" not in done.out + done.err and "\x07" not in done.out + done.err, arguments


def test_a_model_is_no_artifact(graphkiln_command: Run, model: Path) -> None:
    graphkiln_command("run", model).fails(str(model))


def test_an_artifact_for_another_cpu(graphkiln_command: Run, model: Path, tmp_path: Path) -> None:
    contents = graphkiln.compile(model, jobs=1).contents
    contents.manifest["target"]["features"].append("warp_drive")
    write_artifact(contents, tmp_path / "m.kiln")
    graphkiln_command("run", tmp_path / "m.kiln").fails("warp_drive", "this machine lacks")
    assert graphkiln_command("inspect", tmp_path / "m.kiln").code == 0
    contents.manifest["target"].update(features=[], arch="abacus")
    write_artifact(contents, tmp_path / "m.kiln")
    graphkiln_command("run", tmp_path / "m.kiln").fails("abacus")


def test_a_closed_pipe_is_no_error(command_environment: dict[str, str]) -> None:
    done = subprocess.run(
        f"{COMMAND} ops | head -n 1", shell=True, capture_output=True, text=True, timeout=60,
        env=command_environment,
    )  # fmt: skip
    assert done.stderr == "" and os.linesep in done.stdout
