"""``graphkiln bench``: tables and traces of single kernels."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.command import MODELS, Run

import graphkiln
from graphkiln.codegen.artifact import write_artifact

SHORT = ("--seconds", "0.05", "--threads", "1")
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def kernel_table(text: str) -> dict[str, list[str]]:
    """The cells of each row of the table of kernels, by the row's name."""
    lines = iter(text.partition("\nKernels ")[2].splitlines())
    rows = {}
    for line in lines:
        cells = line.split()
        if len(cells) > 2 and cells[0] != "kernel" and not line.startswith(" ─"):
            rows[cells[0]] = cells[1:]
        if cells[:1] == ["total"]:
            return rows
    raise AssertionError(f"no row of sums: {text}")


def share(cells: list[str]) -> float:
    return next(float(c[:-1]) for c in cells if c.endswith("%"))


def seconds(cells: list[str]) -> float:
    at = next(i for i, c in enumerate(cells) if c in UNITS)
    return float(cells[at - 1]) * UNITS[cells[at]]


def calls_of(path: Path) -> list[dict[str, Any]]:
    trace = json.loads(path.read_text())
    return [e for e in trace["traceEvents"] if e["ph"] == "X"]


def save(
    path: Path, nodes: list[onnx.NodeProto], inputs: Mapping[str, tuple[int, list[Any]]],
    outputs: Mapping[str, tuple[int, list[Any]]], weights: Mapping[str, np.ndarray],
) -> Path:  # fmt: skip
    values = [
        [helper.make_tensor_value_info(name, *described) for name, described in side.items()]
        for side in (inputs, outputs)
    ]
    constants = [onnx.numpy_helper.from_array(w, name) for name, w in weights.items()]
    graph = helper.make_graph(nodes, "g", *values, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x[N, 64] times a matrix of 64 x 32."""
    return save(
        tmp_path_factory.mktemp("product") / "product.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="multiply")],
        {"x": (TensorProto.FLOAT, ["N", 64])},
        {"y": (TensorProto.FLOAT, ["N", 32])},
        {"w": np.ones((64, 32), np.float32)},
    )


def test_profile_has_a_row_for_each_kernel(graphkiln_command: Run, digits: Path) -> None:
    done = graphkiln_command("bench", digits, "--profile", *SHORT)
    assert done.code == 0, done
    assert "Latency" in done.out
    rows = kernel_table(done.out)
    kernels = {name: cells for name, cells in rows.items() if name not in ("overhead", "total")}
    assert len(kernels) == 6
    assert sum(name.startswith("convblocked_relu") for name in kernels) == 2
    assert all(cells[0] == "1" for cells in kernels.values())
    times = [seconds(cells[1:]) for cells in kernels.values()]
    assert times == sorted(times, reverse=True) and times[0] > 0


def test_profile_says_which_onnx_nodes_a_kernel_computes(
    graphkiln_command: Run, digits: Path, tmp_path: Path
) -> None:
    path = tmp_path / "trace.json"
    done = graphkiln_command("bench", digits, "--profile", "--trace", path, *SHORT)
    lines = done.out.partition("ONNX nodes")[2].splitlines()
    told = [re.split(r" {2,}", line.strip()) for line in lines]
    computes = {cells[0]: cells[1] for cells in told if len(cells) > 1}
    ways = {cells[2] for cells in told if len(cells) > 2}
    assert any(re.fullmatch(r"kiln\.ConvBlocked (direct|winograd_.x.) \d+x\d+", w) for w in ways)
    for event in calls_of(path):
        assert event["args"]["onnx"]
        kernel = next(k for k in computes if event["name"].startswith(k.rpartition("_")[0] or k))
        assert computes[kernel]
    assert ", ".join(calls_of(path)[0]["args"]["onnx"]) in computes.values()


def test_shares_and_times_add_up(graphkiln_command: Run, digits: Path) -> None:
    rows = kernel_table(graphkiln_command("bench", digits, "--profile", *SHORT).out)
    total = rows.pop("total")
    assert total[0] == "6" and share(total) == 100.0
    assert sum(map(share, rows.values())) == pytest.approx(100, abs=0.5)
    assert sum(map(seconds, rows.values())) == pytest.approx(seconds(total), rel=0.02)


def test_rates_follow_from_work_and_time(graphkiln_command: Run, digits: Path) -> None:
    done = graphkiln_command("bench", digits, "--profile", *SHORT)
    cells = next(c for n, c in kernel_table(done.out).items() if n.startswith("convblocked"))
    _, time, unit, _, rate, of_peak, *_ = cells
    peak = float(done.out.partition("  peak ")[2].split()[0])
    counts = [c["flops"] for c in graphkiln.load(digits).report["kernel_costs"].values()]
    # The slower convolution, whichever of the two that is in a short measurement.
    expected = [n / (float(time) * UNITS[unit]) / 1e9 for n in sorted(counts)[-2:]]
    assert any(float(rate) == pytest.approx(e, rel=0.02) for e in expected)
    assert float(of_peak[:-1]) == pytest.approx(100 * float(rate) / peak, abs=1)


def test_trace_has_an_event_for_each_call(
    graphkiln_command: Run, digits: Path, tmp_path: Path
) -> None:
    path = tmp_path / "trace.json"
    done = graphkiln_command("bench", digits, "--trace", path, *SHORT)
    assert done.code == 0 and "6 kernel calls" in done.out and "Kernels" not in done.out
    assert list(tmp_path.iterdir()) == [path]
    events = calls_of(path)
    assert len(events) == 6
    for before, event in zip([None, *events], events, strict=False):
        assert event["dur"] >= 0 and event["args"]["bytes"] > 0 and event["args"]["node"]
        assert before is None or event["ts"] >= before["ts"] + before["dur"]
    assert events[0]["args"]["ops"] == ["ConvBlocked", "Relu"]
    report = graphkiln.load(digits).report
    assert sum(e["args"]["flops"] for e in events) == report["flops"]


def test_sizes_known_at_run_time_count(
    graphkiln_command: Run, product: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.ones((5, 64), np.float32))
    given = {("--dim", "N=9"): 9, ("-i", f"x={tmp_path / 'x.npy'}"): 5}
    for options, rows in given.items():
        path = tmp_path / "trace.json"
        done = graphkiln_command("bench", product, *options, "--trace", path, *SHORT)
        assert done.code == 0, done
        (event,) = calls_of(path)
        assert event["args"]["flops"] == 2 * rows * 64 * 32
        assert event["args"]["bytes"] == 4 * (rows * 64 + 64 * 32 + rows * 32)


def test_a_model_is_compiled_first(graphkiln_command: Run, product: Path, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    done = graphkiln_command(
        "bench", product, "--shape", "x=7x64", "--profile", "--trace", path, *SHORT
    )
    assert done.code == 0, done
    assert set(kernel_table(done.out)) == {"matmulpacked", "overhead", "total"}
    assert calls_of(path)[0]["args"]["flops"] == 2 * 7 * 64 * 32
    assert not list(product.parent.glob("*.kiln"))


def test_a_call_names_its_node_in_the_ir(
    graphkiln_command: Run, digits: Path, tmp_path: Path
) -> None:
    path = tmp_path / "trace.json"
    assert graphkiln_command("bench", digits, "--trace", path, *SHORT).code == 0
    text = graphkiln_command("inspect", digits, "--ir").out
    places = []
    for event in calls_of(path):
        name, origins = event["args"]["node"], ", ".join(event["args"]["onnx"])
        # The name stands there where it is another than that of the last origin.
        suffix = f"@[{origins}]\n" if origins.endswith(name) else f"@{name} @[{origins}]\n"
        ends = [i for i in range(len(text)) if text.startswith(suffix, i)]
        lines = [text.rfind("\n", 0, i) for i in ends]
        places.append(max(p for p in lines if text.startswith(("\n  %", "\n  }"), p)))
    assert places == sorted(places)


def test_loops_call_as_often_as_they_turn(graphkiln_command: Run, tmp_path: Path) -> None:
    float_type, bool_type = TensorProto.FLOAT, TensorProto.BOOL
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h", "w"], ["next"], name="step"),
            helper.make_node("Identity", ["go"], ["still"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", bool_type, []),
            helper.make_tensor_value_info("h", float_type, [4, 64]),
        ],
        [
            helper.make_tensor_value_info("still", bool_type, []),
            helper.make_tensor_value_info("next", float_type, [4, 64]),
        ],
    )
    model = save(
        tmp_path / "loop.onnx",
        [helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body)],
        {"turns": (TensorProto.INT64, []), "x": (float_type, [4, 64])},
        {"y": (float_type, [4, 64])},
        {"w": np.eye(64, dtype=np.float32)},
    )
    np.save(tmp_path / "turns.npy", np.array(5, np.int64))
    path = tmp_path / "trace.json"
    done = graphkiln_command(
        "bench", model, "-i", f"turns={tmp_path / 'turns.npy'}", "--profile", "--trace", path,
        *SHORT,
    )  # fmt: skip
    assert done.code == 0, done
    steps = [e for e in calls_of(path) if e["args"]["ops"][0].startswith("MatMul")]
    assert [e["args"]["flops"] for e in steps] == [2 * 4 * 64 * 64] * 5


def test_two_threads_have_twice_the_peak(graphkiln_command: Run, digits: Path) -> None:
    peaks = []
    for threads in ("1", "2"):
        done = graphkiln_command(
            "bench", digits, "--profile", "--seconds", "0.05", "--threads", threads,
            GRAPHKILN_NUM_THREADS="2",
        )  # fmt: skip
        assert done.code == 0 and f"threads        {threads}" in done.out
        peaks.append(float(done.out.partition("  peak ")[2].split()[0]))
    assert peaks[1] / peaks[0] == pytest.approx(2, rel=0.3)


def test_beside_onnxruntime(graphkiln_command: Run, digits: Path, model: Path) -> None:
    done = graphkiln_command("bench", digits, "--onnx", model, "--profile", *SHORT)
    assert done.code == 0 and "times as long as onnxruntime" in done.out
    assert "total" in kernel_table(done.out)


COSTS: list[Any] = [
    None, "flops", {"flops": "__import__('os').getcwd()", "bytes": "s0"},
    {"flops": "9" * 6000, "bytes": -3}, {"flops": 1 << 80, "bytes": 1.5},
    {"flops": "1//0", "symbols": 3, "ops": [1], "nodes": "x"},
]  # fmt: skip


def test_reports_without_usable_costs(graphkiln_command: Run, model: Path, tmp_path: Path) -> None:
    """Times are shown without what nobody knows; nothing in a report is run."""
    contents = graphkiln.compile(model, jobs=1).contents
    spoilt = dict(zip(contents.report["kernel_costs"], COSTS, strict=True))
    for costs in (spoilt, list(spoilt)):
        path = tmp_path / "m.kiln"
        contents.report["kernel_costs"] = costs
        write_artifact(contents, path)
        done = graphkiln_command(
            "bench", path, "--profile", "--trace", tmp_path / "t.json", "--seconds", "0.01"
        )
        assert done.code == 0 and done.err == "", done
        rows = kernel_table(done.out)
        kernels = [cells for name, cells in rows.items() if name not in ("overhead", "total")]
        assert all(cells[4:] == ["-"] * 5 for cells in kernels), done.out


def test_artifacts_of_before_say_so(graphkiln_command: Run, model: Path, tmp_path: Path) -> None:
    contents = graphkiln.compile(model, jobs=1).contents
    del contents.report["kernel_costs"]
    write_artifact(contents, tmp_path / "m.kiln")
    done = graphkiln_command("bench", tmp_path / "m.kiln", "--profile", *SHORT)
    assert done.code == 0 and "compile it again" in done.out


def test_no_compiler_is_loaded_for_an_artifact(graphkiln_command: Run, digits: Path) -> None:
    done = graphkiln_command("bench", digits, "--profile", *SHORT, PYTHONVERBOSE="1")
    assert done.code == 0
    loaded = {line.split("'")[1] for line in done.err.splitlines() if line.startswith("import '")}
    assert "graphkiln.runtime.profile" in loaded
    assert not loaded & {"tvm", "onnx", "networkx"}


def test_misuse(graphkiln_command: Run, digits: Path, product: Path, tmp_path: Path) -> None:
    def bench(*arguments: Any) -> Any:
        return graphkiln_command("bench", *arguments, *SHORT)

    nowhere = tmp_path / "missing" / "t.json"
    bench(digits, "--trace", nowhere).fails("cannot write", str(nowhere))
    bench(digits, "--trace", tmp_path).fails("--trace", code=2)
    bench(digits, "--shape", "Input3=1x1x28x28").fails("--shape is for models", code=2)
    bench(product, "--shape", "x").fails("--shape", code=2)
    bench(digits, "--profile", "--dim", "N=3").fails("N", code=2)
    bench(tmp_path / "none.onnx", "--profile").fails("none.onnx")
    bench(tmp_path / "none.kiln", "--profile").fails("none.kiln")
    bench(MODELS / "ORIGIN.md", "--profile").fails("ORIGIN.md")
    wrong = tmp_path / "wrong.npy"
    np.save(wrong, np.zeros((2, 2), np.float32))
    bench(digits, "--profile", "-i", f"Input3={wrong}").fails("Input3")
