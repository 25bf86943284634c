"""Small models, assembled by hand from machine instructions and a few kernels."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphkiln.codegen.artifact import ArtifactContents, write_artifact
from graphkiln.codegen.pool import FUNCTIONS as POOL_FUNCTIONS
from graphkiln.codegen.pool import pool_object

KERNELS = ("add_square", "double", "spread")


def value_spec(
    name: str, shape: list[int | str] | None, dtype: str = "float32", **more: Any
) -> dict:
    return {"name": name, "kind": "tensor", "dtype": dtype, "shape": shape, **more}


def manifest(inputs: list[dict], outputs: list[dict], hosts: list[str] | None = None) -> dict:
    """What the compiler hands to the writer, for this machine."""
    machine = platform.machine()
    return {
        "producer": {"graphkiln": "0.1.0", "tvm": "0.27.0"},
        "target": {
            "kind": "cpu",
            "name": "cpu",
            "triple": f"{machine}-unknown-linux-gnu",
            "arch": machine,
            "features": [],
        },
        "inputs": inputs,
        "outputs": outputs,
        "host_functions": hosts or [],
        "provenance": {"source": "model.onnx", "sha256": "0" * 64},
    }


class Emitter:
    """Writes ``main(inputs, weights)`` of a machine, one call after the other."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        self._next = 2

    def call(self, function: str, *args: Any) -> int:
        """Calls a function; ints are registers, other arguments are constants."""
        dst, self._next = self._next, self._next + 1
        regs = [self.builder.r(a) if type(a) is int else a for a in args]
        self.builder.emit_call(function, regs, dst=self.builder.r(dst))
        return dst

    def imm(self, value: int) -> Any:
        return Operand(self.builder.imm(value))

    def host(self, op: str, attrs: str, *args: Any) -> int:
        """Calls a host function and takes its first result."""
        text = self.builder.convert_constant(attrs)
        return self.item(self.call(f"graphkiln.host.{op}", Operand(text), *args), 0)

    def item(self, array: int, index: int) -> int:
        return self.call("vm.builtin.tuple_getitem", array, self.imm(index))

    def input(self, index: int) -> int:
        return self.item(0, index)

    def weight(self, index: int) -> int:
        return self.item(1, index)

    def tensor(self, shape: tuple[int, ...] | int, nbytes: int) -> int:
        """An uninitialised float32 tensor; ``shape`` may be a register."""
        import tvm

        storage = self.call(
            "vm.builtin.alloc_storage",
            Operand(self.builder.vm_state()),
            (nbytes,),
            self.imm(0),
            tvm.DataType("uint8"),
            Operand(self.builder.convert_constant("global")),
        )
        return self.call(
            "vm.builtin.alloc_tensor", storage, self.imm(0), shape, tvm.DataType("float32")
        )


class Operand(int):
    """An operand that is encoded already."""


def kernels() -> Any:
    """(a + b)^2 of 64 elements; 2a of any number; 2a of 65,536 by several threads."""
    import tvm
    from tvm import tirx
    from tvm.tirx import BufferLoad, BufferStore, For, ForKind, PrimFunc, Var, decl_buffer

    def function(name: str, size: Any, inputs: int, kind: Any) -> Any:
        buffers = [decl_buffer((size,), "float32", name=f"b{i}") for i in range(inputs + 1)]
        i = Var("i", "int64")
        loads = [BufferLoad(buffer, [i]) for buffer in buffers[:-1]]
        total = loads[0] + loads[-1]
        value = total * total if inputs == 2 else total
        zero = tirx.IntImm("int64", 0)
        extent = size if not isinstance(size, int) else tirx.IntImm("int64", size)
        body = For(i, zero, extent, kind, BufferStore(buffers[-1], value, [i]))
        return PrimFunc(buffers, body).with_attr({"global_symbol": name, "tirx.noalias": True})

    return tvm.IRModule(
        {
            "add_square": function("add_square", 64, 2, ForKind.SERIAL),
            "double": function("double", Var("n", "int64"), 1, ForKind.SERIAL),
            "spread": function("spread", 65536, 1, ForKind.PARALLEL),
        }
    )


@pytest.fixture(scope="session")
def kernel_object(tmp_path_factory: pytest.TempPathFactory) -> str:
    import tvm

    path = str(tmp_path_factory.mktemp("kernels") / "kernels.o")
    target = tvm.target.Target({"kind": "llvm", "num-cores": 2})
    tvm.tirx.build(kernels(), target=target, pipeline="default").write_to_file(path, "o")
    return path


@pytest.fixture(scope="session")
def compile_code(
    kernel_object: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Callable[[Emitter], list[int]]], bytes]:
    """Turns a function that emits a body and names its results into a shared library."""

    def build(emit: Callable[[Emitter], list[int]]) -> bytes:
        import tvm
        from tvm.relax import ExecBuilder

        builder = ExecBuilder()
        with builder.function("main", num_inputs=2, param_names=["inputs", "weights"]):
            emitter = Emitter(builder)
            result = emitter.call("vm.builtin.make_tuple", *emit(emitter))
            builder.emit_ret(builder.r(result))
        executable = builder.get()
        executable.mod.import_module(tvm.runtime.load_static_library(kernel_object, list(KERNELS)))
        folder = tmp_path_factory.mktemp("code")
        (folder / "pool.o").write_bytes(pool_object("cc", platform.machine()))
        pool = tvm.runtime.load_static_library(str(folder / "pool.o"), list(POOL_FUNCTIONS))
        executable.mod.import_module(pool)
        path = folder / "library.so"
        executable.export_library(str(path))
        return path.read_bytes()

    return build


@dataclass
class Models:
    """Paths of artifacts by name, built on first use."""

    folder: Path
    code: Callable[[Callable[[Emitter], list[int]]], bytes]
    built: dict[str, Path] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        if name not in self.built:
            contents = self.contents(*MODELS[name])
            self.built[name] = self.folder / f"{name}.kiln"
            write_artifact(contents, self.built[name])
        return self.built[name]

    def contents(
        self,
        emit: Callable[[Emitter], list[int]],
        inputs: list[dict],
        outputs: list[dict],
        weights: list[tuple[str, np.ndarray]],
        hosts: list[str],
    ) -> ArtifactContents:
        described = manifest(inputs, outputs, hosts)
        return ArtifactContents(described, self.code(emit), weights, "graph {}\n", {"kernels": 1})


@pytest.fixture(scope="session")
def models(compile_code: Any, tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"), compile_code)


def _square(e: Emitter) -> list[int]:
    out = e.tensor((64,), 256)
    e.call("add_square", e.input(0), e.weight(0), out)
    return [out]


def _double(e: Emitter) -> list[int]:
    x = e.input(0)
    out = e.tensor(e.call("vm.builtin.shape_of", x), 1 << 20)
    e.call("double", x, out)
    return [out]


def _spread(e: Emitter) -> list[int]:
    out = e.tensor((65536,), 1 << 18)
    e.call("spread", e.input(0), out)
    return [out]


def _spread_twice(e: Emitter) -> list[int]:
    middle, out = e.tensor((65536,), 1 << 18), e.tensor((65536,), 1 << 18)
    e.call("spread", e.input(0), middle)
    e.call("spread", middle, out)
    return [out]


def _handed_on(e: Emitter) -> list[int]:
    x = e.input(0)
    view = e.call("vm.builtin.reshape", x, (8, 8))
    return [x, view, e.weight(0), e.input(1)]


def _many(e: Emitter) -> list[int]:
    return [e.input(i) for i in reversed(range(12))]


def _pair(e: Emitter) -> list[int]:
    return [e.input(0), e.input(1), e.input(2)]


def _sequence(e: Emitter) -> list[int]:
    longer = e.host("SequenceInsert", "{}", e.input(0), e.input(1))
    return [longer, e.host("SequenceLength", "{}", longer)]


def _strings(e: Emitter) -> list[int]:
    return [e.host("StringConcat", "{}", e.input(0), e.input(0)), e.input(0)]


def _optional(e: Emitter) -> list[int]:
    x = e.input(0)
    return [e.host("OptionalHasElement", "{}", x), x]


def _unwrap(e: Emitter) -> list[int]:
    return [e.host("OptionalGetElement", "{}", e.input(0))]


def _reshape(e: Emitter) -> list[int]:
    return [e.call("vm.builtin.reshape", e.input(0), (8, 8))]


def _odd_types(e: Emitter) -> list[int]:
    return [e.input(0), e.input(1), e.input(2)]


_SEQ = {"kind": "sequence", "elem": {"kind": "tensor", "dtype": "float32", "shape": ["M"]}}
_OPT = {"kind": "optional", "elem": {"kind": "tensor", "dtype": "float32", "shape": [2]}}
_WEIGHT = [("w", np.arange(64, dtype=np.float32))]

# name: (body, inputs, outputs, weights, host functions)
MODELS: dict[str, tuple] = {
    "square": (_square, [value_spec("x", [64])], [value_spec("y", [64])], _WEIGHT, []),
    "double": (_double, [value_spec("x", ["N"])], [value_spec("y", ["N"])], [], []),
    "spread": (_spread, [value_spec("x", [65536])], [value_spec("y", [65536])], [], []),
    "spread_twice": (
        _spread_twice,
        [value_spec("x", [65536])],
        [value_spec("y", [65536])],
        [],
        [],
    ),
    "handed_on": (
        _handed_on,
        [value_spec("x", [64]), value_spec("big", [40000])],
        [value_spec(n, None) for n in ("same", "view", "weight", "big_same")],
        _WEIGHT,
        [],
    ),
    "many": (
        _many,
        [value_spec(f"x{i}", ["N"]) for i in range(12)],
        [value_spec(f"y{i}", ["N"]) for i in range(12)],
        [],
        [],
    ),
    "pair": (
        _pair,
        [value_spec("a", ["N", 2]), value_spec("b", ["N"], "int64"), value_spec("c", ["2*N+1"])],
        [value_spec("a2", None), value_spec("b2", None, "int64"), value_spec("c2", None)],
        [],
        [],
    ),
    "sequence": (
        _sequence,
        [{"name": "s", **_SEQ}, value_spec("x", ["K"])],
        [{"name": "t", **_SEQ}, value_spec("n", [], "int64")],
        [],
        ["SequenceInsert", "SequenceLength"],
    ),
    "strings": (
        _strings,
        [value_spec("x", ["N"], "string")],
        [value_spec("y", ["N"], "string"), value_spec("same", ["N"], "string")],
        [],
        ["StringConcat"],
    ),
    "optional": (
        _optional,
        [{"name": "x", "optional": True, **_OPT}],
        [value_spec("has", [], "bool"), {"name": "same", **_OPT}],
        [],
        ["OptionalHasElement"],
    ),
    "unwrap": (
        _unwrap,
        [{"name": "x", "optional": True, **_OPT}],
        [value_spec("y", [2])],
        [],
        ["OptionalGetElement"],
    ),
    "reshape": (_reshape, [value_spec("x", ["N"])], [value_spec("y", [8, 8])], [], []),
    "odd_types": (
        _odd_types,
        [
            value_spec("b", [3], "bfloat16"),
            value_spec("i", [3], "int4"),
            value_spec("t", [3], "bool"),
        ],
        [
            value_spec("b2", [3], "bfloat16"),
            value_spec("i2", [3], "int4"),
            value_spec("t2", [3], "bool"),
        ],
        [],
        [],
    ),
}
