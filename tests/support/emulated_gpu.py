"""A GPU's code on the host: CUDA source compiled by the C++ compiler, its threads run in a loop.

The CUDA target's kernels neither share memory nor wait for each other, so running their threads one
after the other gives what a GPU gives. Everything else is real: the artifact's member with device
code, the host code that launches kernels, allocations and copies, which go by TVM's interface of
devices; the CPU's takes the GPU's place there.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tvm_ffi

from graphkiln.runtime import devices
from graphkiln.runtime.tvm_runtime import load_libraries
from graphkiln.targets.cuda import device_code

_HEADER = r"""
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

typedef _Float16 half;
#define __global__
#define __launch_bounds__(count)
#define uint unsigned int
#define uchar unsigned char
#define ushort unsigned short
#define CUDART_INF_F INFINITY
#define CUDART_INF static_cast<double>(INFINITY)
#define CUDART_NAN_F NAN
#define CUDART_NAN static_cast<double>(NAN)
struct Index { int x; };
static thread_local Index blockIdx, threadIdx;
static float max(float a, float b) { return std::fmax(a, b); }
static float min(float a, float b) { return std::fmin(a, b); }
static double max(double a, double b) { return std::fmax(a, b); }
static double min(double a, double b) { return std::fmin(a, b); }
static half __float2half_rn(float x) { return static_cast<half>(x); }
static half max(half a, half b) { return a > b ? a : b; }
static half min(half a, half b) { return a < b ? a : b; }
template <class T> static T max(T a, T b) { return a > b ? a : b; }
template <class T> static T min(T a, T b) { return a < b ? a : b; }

struct Any {
  int32_t kind, zero;
  union { int64_t number; double real; void* pointer; };
};
"""

_KERNEL = re.compile(
    r'extern "C" __global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\(([^)]*)\) \{'
)


def host_code(source: str) -> str:
    """C++ for the host of a module's kernels, each a function that TVM can look up."""
    start = source.index('extern "C" __global__')
    wrappers = [_wrapper(*found) for found in _KERNEL.findall(source)]
    return "\n".join([_HEADER, source[start:], *wrappers])


def _wrapper(name: str, parameters: str) -> str:
    """Arguments, then how many blocks and threads there are."""
    types = [p.rpartition(" ")[0].replace("__restrict__", "") for p in parameters.split(", ") if p]
    arguments = ", ".join(_argument(t, i) for i, t in enumerate(types))
    return f"""
extern "C" int __tvm_ffi_{name}(void*, const Any* args, int32_t count, Any* result) {{
  if (count != {len(types) + 2}) return -1;
  for (blockIdx.x = 0; blockIdx.x < args[{len(types)}].number; ++blockIdx.x)
    for (threadIdx.x = 0; threadIdx.x < args[{len(types) + 1}].number; ++threadIdx.x)
      {name}({arguments});
  result->kind = 0;
  result->number = 0;
  return 0;
}}"""


def _argument(kind: str, index: int) -> str:
    if "*" in kind:
        return f"static_cast<{kind}>(args[{index}].pointer)"
    field = "real" if kind in ("float", "double", "half") else "number"
    return f"static_cast<{kind}>(args[{index}].{field})"


def _compiled(source: bytes, arch: str) -> bytes:
    """What nvcc would have made, as a shared library of the host."""
    with tempfile.TemporaryDirectory() as folder:
        text, out = Path(folder) / "kernel.cc", Path(folder) / "kernel.so"
        text.write_text(host_code(source.decode()))
        options = ["-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-w"]
        command = ["g++", *options, str(text), "-o", str(out)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise device_code.DeviceCodeError(f"g++: {run.stderr[:500]}")
        return out.read_bytes()


def _loaded(module: bytes) -> tvm_ffi.Module:
    """TVM's loader of CUDA modules, for those libraries."""
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(module[module.index(b"\x7fELF") :])
        file.flush()
        return tvm_ffi.get_global_func("ffi.Module.load_from_file.so")(file.name, "")


@contextmanager
def emulated_gpu() -> Iterator[None]:
    """Artifacts for CUDA can be compiled and run inside, without nvcc and without a GPU.

    What is registered with TVM stays for the life of the process.
    """
    load_libraries(cuda=False)
    host = tvm_ffi.get_global_func("device_api.cpu")
    tvm_ffi.register_global_func("device_api.cuda", host, override=True)
    tvm_ffi.register_global_func("ffi.Module.load_from_bytes.cuda", _loaded, override=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHKILN_CACHE", "")  # what is built here is no GPU's
        patch.setattr(device_code, "_fat_binary", _compiled)
        patch.setattr(devices, "load_libraries", lambda cuda: None)
        patch.setattr("graphkiln.targets.cuda.target.CudaTarget.require_tools", lambda self: None)
        yield
