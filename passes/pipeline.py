"""Pipelines as text: ``fold{max-bytes=1048576},cse`` and back.

    pipeline = [item ("," item)*]
    item     = pass | NAME edit*                       NAME of a pipeline in catalog.PIPELINES
    pass     = NAME ["{" option ("," option)* "}"]
    option   = NAME "=" value                          a field of the pass, with "-" for "_"
    edit     = "@" ("before" | "after" | "replace") "(" NAME ")" "=" part
             | "@" "without" "(" NAME ")"
    part     = pass | "(" pipeline ")"

An edit changes the pipeline in front of it: ``before`` inserts passes before the first pass of that
NAME, ``after`` inserts them after the last, ``replace`` puts them in the place of each, and
``without`` removes each. The NAME may also be that of a phase, a pipeline within the pipeline:
``default@before(lower)=prune``.

The type of a field determines the form of its value; see :mod:`.options`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NoReturn

from ..errors import UsageError
from .base import Pass, pass_class, pass_names
from .catalog import LEVELS, PIPELINES, load
from .options import format_option, option_types, parse_option

_NAME = re.compile(r"\s*([A-Za-z0-9_-]+)\s*")
_OPTIONS = re.compile(r"\{([^{}]*)\}\s*")
_EDIT = re.compile(r"@\s*(before|after|replace|without)\s*\(\s*([A-Za-z0-9_-]+)\s*\)\s*")

_MOST_NESTED = 32
"""Most brackets within brackets in a pipeline's text."""


class PipelineError(UsageError):
    """The text is not a pipeline, or names a pass or option that does not exist."""


def parse_pipeline(text: str | None) -> list[Pass]:
    """The passes that ``text`` names (None: the default pipeline).

    Raises :class:`PipelineError` for a text that is no pipeline, or for an unknown name or option.
    """
    load()
    if text is None:
        return default_pipeline()
    return [placed.step for placed in _Reader(text).whole()]


def default_pipeline(level: int = max(LEVELS)) -> list[Pass]:
    """The passes of an optimisation level: 0 is what code generation needs, 1 is everything.

    Raises ``ValueError`` for a level that does not exist.
    """
    if level not in LEVELS:
        raise ValueError(f"there is no level {level}: the levels are 0 to {max(LEVELS)}")
    return parse_pipeline(LEVELS[level])


def print_pipeline(passes: Sequence[Pass]) -> str:
    """The text of a pipeline, without options that have their default value."""
    return ",".join(format_pass(p) for p in passes)


def format_pass(p: Pass) -> str:
    """One pass with the options that differ from their defaults."""
    told = [
        f"{f.name.replace('_', '-')}={format_option(getattr(p, f.name))}"
        for f in fields(p)
        if getattr(p, f.name) != f.default
    ]
    return f"{p.name}{{{','.join(told)}}}" if told else p.name


@dataclass(frozen=True)
class _Placed:
    """A pass in a pipeline, and the names of the phases that it belongs to."""

    step: Pass
    phases: frozenset[str] = frozenset()

    def answers_to(self, name: str) -> bool:
        return name == self.step.name or name in self.phases


class _Reader:
    """Reads one pipeline's text from ``at`` on."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0

    def whole(self) -> list[_Placed]:
        passes = self._pipeline()
        if self._rest():
            self._fail("a pass")
        return passes

    def _pipeline(self) -> list[_Placed]:
        """Items up to the end of the text or a closing bracket."""
        if not self._rest() or self._sees(")"):
            return []
        passes = self._item()
        while self._accept(","):
            if not self._rest() or self._sees(")"):
                raise PipelineError("a pass must follow the last comma")
            passes += self._item()
        return passes

    def _item(self) -> list[_Placed]:
        name = self._name()
        options = self._match(_OPTIONS)
        if name in PIPELINES and options is None:
            within = _Reader(PIPELINES[name]).whole()
            passes = [replace(p, phases=p.phases | {name}) for p in within]
        else:
            passes = [_Placed(_make(name, options[1] if options else ""))]
        while (edit := self._match(_EDIT)) is not None:
            if name not in PIPELINES:
                raise PipelineError(f"{name} is a pass: @{edit[1]} changes pipelines only")
            passes = self._edited(name, passes, edit[1], edit[2])
        return passes

    def _edited(self, name: str, passes: list[_Placed], how: str, where: str) -> list[_Placed]:
        places = [i for i, p in enumerate(passes) if p.answers_to(where)]
        if not places:
            known = {n for p in passes for n in (p.step.name, *p.phases)}
            raise PipelineError(f"{name} has no {where!r}{_hint(where, sorted(known))}")
        if how == "without":
            return [p for i, p in enumerate(passes) if i not in places]
        if not self._accept("="):
            self._fail(f"= and passes after @{how}({where})")
        new = self._part()
        if how == "before":
            return [*passes[: places[0]], *new, *passes[places[0] :]]
        if how == "after":
            return [*passes[: places[-1] + 1], *new, *passes[places[-1] + 1 :]]
        # The passes of a phase are neighbours and are replaced together; others one by one.
        starts = [i for i in places if i - 1 not in places or passes[i].step.name == where]
        return [q for i, p in enumerate(passes)
                for q in (new if i in starts else [] if i in places else [p])]  # fmt: skip

    def _part(self) -> list[_Placed]:
        """One pass or pipeline by name, or a pipeline in brackets."""
        if not self._accept("("):
            name = self._name()
            options = self._match(_OPTIONS)
            text = f"{name}{{{options[1]}}}" if options else name
            return _Reader(text).whole()
        self.depth += 1
        if self.depth > _MOST_NESTED:
            raise PipelineError("brackets are nested too deeply")
        passes = self._pipeline()
        if not self._accept(")"):
            self._fail("a bracket that closes")
        self.depth -= 1
        return passes

    # ---- characters --------------------------------------------------------------------------

    def _rest(self) -> str:
        return self.text[self.at :].strip()

    def _sees(self, token: str) -> bool:
        return self._rest().startswith(token)

    def _accept(self, token: str) -> bool:
        if not self._sees(token):
            return False
        self.at = self.text.index(token, self.at) + len(token)
        return True

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        if found is not None:
            self.at = found.end()
        return found

    def _name(self) -> str:
        found = self._match(_NAME)
        return found[1] if found is not None else self._fail("a pass")

    def _fail(self, wanted: str) -> NoReturn:
        rest = self.text[self.at : self.at + 20]
        raise PipelineError(f"expected {wanted} at position {self.at}: {rest!r}")


def _make(name: str, options: str) -> Pass:
    cls = pass_class(name)
    if cls is None:
        if name in PIPELINES:
            raise PipelineError(f"{name} is a pipeline, which has no options")
        raise PipelineError(f"there is no pass {name!r}{_hint(name, [*pass_names(), *PIPELINES])}")
    known = option_types(cls)
    values: dict[str, Any] = {}
    for option in filter(None, (o.strip() for o in options.split(","))):
        key, equals, text = (part.strip() for part in option.partition("="))
        if not equals:
            raise PipelineError(f"{name}: option {option!r} needs a value, as in {option}=1")
        if key not in known:
            told = f"; it has {', '.join(known)}" if known else "; it has none"
            raise PipelineError(f"{name}: there is no option {key!r}{_hint(key, known) or told}")
        if key in values:
            raise PipelineError(f"{name}: option {key!r} stands there twice")
        try:
            values[key] = parse_option(text, known[key])
        except ValueError as e:
            raise PipelineError(f"{name}: {key} is {e}") from None
    try:
        return cls(**{key.replace("-", "_"): value for key, value in values.items()})
    except ValueError as e:
        raise PipelineError(f"{name}: {e}") from e


def _hint(name: str, choices: Any) -> str:
    close = difflib.get_close_matches(name, list(choices), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


__all__ = ["PipelineError", "default_pipeline", "format_pass", "parse_pipeline", "print_pipeline"]
