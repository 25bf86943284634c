"""Errors of a run whose inputs break a check that the compiler put into the model."""

from __future__ import annotations

from ..errors import InputError
from . import Attrs, host_function


@host_function("Refuse")
def refuse(attrs: Attrs) -> tuple[()]:
    """Ends the run with ``message``, which says what the model needs."""
    raise InputError(f"{attrs['message']}, which does not hold for these inputs")


@host_function("RefuseSizes")
def refuse_sizes(attrs: Attrs, failed: int, a: int, b: int) -> tuple[()]:
    """Ends the run: check ``failed`` (from 1) did not hold between the sizes ``a`` and ``b``."""
    message, left, right, hint = attrs["checks"][failed - 1]
    found = " and ".join(_value(text, size) for text, size in ((left, a), (right, b)))
    raise InputError(f"{message}: {found}" + (f"; {hint}" if hint else ""))


def _value(text: str, size: int) -> str:
    return str(size) if text == str(size) else f"{text} is {size}"
