"""What this machine is: its architecture, its CPU's features, the cores this process may use.

A leaf: compiling asks what to compile for, loading whether code runs here, and both must get the
same answer.
"""

from __future__ import annotations

import os
from functools import cache

_ARCH_NAMES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
_FLAG_LINES = ("flags", "Features")


def machine_arch() -> str:
    """This machine's architecture, as compilers spell it (``x86_64``, ``aarch64``)."""
    return arch_name(os.uname().machine)


def arch_name(name: str) -> str:
    """An architecture as compilers spell it, whatever else it is called."""
    return _ARCH_NAMES.get(name.lower(), name.lower())


@cache
def cpu_features(path: str = "/proc/cpuinfo") -> frozenset[str]:
    """The flags of the first CPU, as the kernel names them; empty where it does not say."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() in _FLAG_LINES:
                    return frozenset(value.split())
    except OSError:
        return frozenset()
    return frozenset()


def usable_cores() -> int:
    """Physical cores that this process may run on: its affinity, then its cgroup's CPU quota."""
    cpus = os.sched_getaffinity(0)
    cores = len({_siblings(cpu) for cpu in cpus})
    return max(1, min(cores, _quota() or cores))


def _siblings(cpu: int) -> str:
    """A text that identifies the physical core of a hardware thread."""
    path = f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    return _read_line(path) or f"cpu{cpu}"


def _quota(root: str = "/sys/fs/cgroup") -> int | None:
    """Whole CPUs that the cgroup grants, rounded up; None without a limit."""
    group = (_read_line("/proc/self/cgroup") or "").partition("0::")[2]
    line = (
        _read_line(f"{root}{group.rstrip('/')}/cpu.max")
        or _read_line(f"{root}/cpu.max")
        or _first_version(f"{root}/cpu")
    )
    parts = (line or "max").split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        return None
    return max(1, -(-int(parts[0]) // max(1, int(parts[1]))))


def _first_version(folder: str) -> str:
    """The quota and period of version 1 of cgroups, in the format of version 2."""
    values = (_read_line(f"{folder}/cpu.cfs_{name}_us") or "" for name in ("quota", "period"))
    return " ".join(values)


def _read_line(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return None
