"""TVM's packages, kept from importing PyTorch.

On import ``tvm_ffi`` and ``tvm`` load PyTorch where that is installed: two seconds and 200 MB that
neither a compilation nor a compiled model has a use for. Without it they do the same.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_NAME = "torch"


class _Hidden(MetaPathFinder):
    """PyTorch is not installed, as far as the thread that made this can see."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == _NAME and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"No module named {_NAME!r}", name=_NAME)
        return None


@contextmanager
def _without_torch() -> Iterator[None]:
    finder = _Hidden()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def import_tvm_ffi() -> ModuleType:
    """``tvm_ffi``, all that a compiled model needs of TVM in Python."""
    with _without_torch():
        import tvm_ffi
    return tvm_ffi


def import_tvm() -> ModuleType:
    """``tvm``, the compiler."""
    with _without_torch():
        import tvm
    return tvm


__all__ = ["import_tvm", "import_tvm_ffi"]
