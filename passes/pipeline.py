"""Pipelines as text: ``fold{max-bytes=1048576},cse`` and back.

    pipeline = [pass ("," pass)*]
    pass     = NAME ["{" option ("," option)* "}"]
    option   = NAME "=" value          a field of the pass, with "-" for "_"

A NAME may also be that of a pipeline in ``catalog.PIPELINES``, which takes no options.

Values are integers, floats, ``true``/``false``, words, or words joined by ``+`` for tuples.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any

from ..errors import UsageError
from .base import Pass, pass_class, pass_names
from .catalog import LEVELS, PIPELINES, load

_PASS = re.compile(r"\s*([A-Za-z0-9_-]+)\s*(?:\{([^{}]*)\})?\s*(,|$)")


class PipelineError(UsageError):
    """The text is not a pipeline, or names a pass or option that does not exist."""


def parse_pipeline(text: str | None) -> list[Pass]:
    """The passes that ``text`` names (None: the default ones).

    Raises :class:`PipelineError` saying what is wrong.
    """
    load()
    if text is None:
        return default_pipeline()
    passes: list[Pass] = []
    at = 0
    while text[at:].strip():
        match = _PASS.match(text, at)
        if match is None:
            raise PipelineError(f"expected a pass at position {at}: {text[at : at + 20]!r}")
        if match[1] in PIPELINES and match[2] is None:
            passes += parse_pipeline(PIPELINES[match[1]])
        else:
            passes.append(_make(match[1], match[2] or ""))
        at = match.end()
        if match[3] == "," and not text[at:].strip():
            raise PipelineError("a pass must follow the last comma")
    return passes


def default_pipeline(level: int = max(LEVELS)) -> list[Pass]:
    """Fresh passes of an optimisation level: 0 does what code generation needs, 1 everything.

    Raises ``ValueError`` for a level that does not exist.
    """
    if level not in LEVELS:
        raise ValueError(f"there is no level {level}: the levels are 0 to {max(LEVELS)}")
    return parse_pipeline(LEVELS[level])


def print_pipeline(passes: Sequence[Pass]) -> str:
    """The text of a pipeline; options that have their default value are left out."""
    return ",".join(format_pass(p) for p in passes)


def format_pass(p: Pass) -> str:
    """One pass with the options that differ from their defaults."""
    told = [
        f"{f.name.replace('_', '-')}={_format(getattr(p, f.name))}"
        for f in fields(p)
        if getattr(p, f.name) != f.default
    ]
    return f"{p.name}{{{','.join(told)}}}" if told else p.name


def _format(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "+".join(str(v) for v in value)
    return str(value)


def _make(name: str, options: str) -> Pass:
    cls = pass_class(name)
    if cls is None:
        if name in PIPELINES:
            raise PipelineError(f"{name} is a pipeline, which has no options")
        raise PipelineError(f"there is no pass {name!r}{_hint(name, [*pass_names(), *PIPELINES])}")
    known = {f.name.replace("_", "-"): f for f in fields(cls)}
    values: dict[str, Any] = {}
    for option in filter(None, (o.strip() for o in options.split(","))):
        key, equals, text = (part.strip() for part in option.partition("="))
        if not equals:
            raise PipelineError(f"{name}: option {option!r} needs a value, as in {option}=1")
        if key not in known:
            told = f"; it has {', '.join(known)}" if known else "; it has none"
            raise PipelineError(f"{name}: there is no option {key!r}{_hint(key, known) or told}")
        if known[key].name in values:
            raise PipelineError(f"{name}: option {key!r} stands there twice")
        values[known[key].name] = _parse(name, key, known[key], text)
    try:
        return cls(**values)
    except ValueError as e:
        raise PipelineError(f"{name}: {e}") from e


def _parse(name: str, key: str, option: Field[Any], text: str) -> Any:
    default = option.default
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise PipelineError(f"{name}: {key} is true or false, not {text!r}")
        return text == "true"
    if isinstance(default, tuple):
        return tuple(t for t in text.split("+") if t)
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError:
            kind = "an integer" if isinstance(default, int) else "a number"
            raise PipelineError(f"{name}: {key} is {kind}, not {text!r}") from None
    return text


def _hint(name: str, choices: Any) -> str:
    close = difflib.get_close_matches(name, list(choices), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


__all__ = ["PipelineError", "default_pipeline", "format_pass", "parse_pipeline", "print_pipeline"]
