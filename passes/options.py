"""Options of passes as text: the annotation of a pass's field says what its text may be.

bool            true, false
int, float      a number
str             a word
an enum         one of its values
tuple[T, ...]   texts of T joined by "+", nothing for the empty tuple
T | None        a text of T, or none
"""

from __future__ import annotations

import types
from dataclasses import fields
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints


def option_types(cls: type) -> dict[str, Any]:
    """The type of each option by its name in pipelines.

    ``cls`` is a dataclass. Raises ``TypeError`` for a field whose type has no text form.
    """
    hints = get_type_hints(cls)
    found = {f.name.replace("_", "-"): hints[f.name] for f in fields(cls)}
    for name, kind in found.items():
        if not _is_known(kind):
            raise TypeError(f"option {name} is a {kind}, which has no text form")
    return found


def _is_known(kind: Any) -> bool:
    if _optional(kind) is not None:
        return _is_known(_optional(kind))
    if get_origin(kind) is tuple:
        args = get_args(kind)
        return len(args) == 2 and args[1] is Ellipsis and _is_known(args[0])
    return kind in (bool, int, float, str) or (isinstance(kind, type) and issubclass(kind, Enum))


def _optional(kind: Any) -> Any:
    """``T`` of ``T | None``; None for other types."""
    if get_origin(kind) not in (Union, types.UnionType):
        return None
    args = [a for a in get_args(kind) if a is not type(None)]
    return args[0] if len(args) == 1 and len(get_args(kind)) == 2 else None


def parse_option(text: str, kind: Any) -> Any:
    """The value of an option; raises ``ValueError`` saying what the text should be."""
    inner = _optional(kind)
    if inner is not None:
        return None if text == "none" else parse_option(text, inner)
    if get_origin(kind) is tuple:
        return tuple(parse_option(t, get_args(kind)[0]) for t in text.split("+") if t)
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(f"true or false, not {text!r}")
        return text == "true"
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            word = "an integer" if kind is int else "a number"
            raise ValueError(f"{word}, not {text!r}") from None
    if kind is str:
        return text
    found = {str(member.value): member for member in kind}
    if text not in found:
        raise ValueError(f"one of {', '.join(found)}, not {text!r}")
    return found[text]


def format_option(value: Any) -> str:
    """The text that :func:`parse_option` reads back."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "+".join(map(format_option, value))
    return str(value.value) if isinstance(value, Enum) else str(value)


__all__ = ["format_option", "option_types", "parse_option"]
