"""The scanner of the text format: reads tokens, and reports where an error is."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

from .graph import GraphError
from .literals import parse_string
from .text import MAX_NESTING, PLAIN_NAME, PLAIN_OP

T = TypeVar("T")

STRING = re.compile(r'b?"(?:[^"\\\n]|\\.)*"')
_SPACE = re.compile(r"(?:\s+|#[^\n]*)*")
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ParseError(GraphError):
    """The text is not a graph; ``line`` and ``column`` (from 1) say where."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.line = line
        self.column = column


class Scanner:
    """A position in a text, with methods that read tokens there."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def fail(self, message: str, at: int | None = None) -> NoReturn:
        """Raise a :class:`ParseError` at position ``at`` (default: here)."""
        at = self._at if at is None else at
        line = self._text.count("\n", 0, at) + 1
        raise ParseError(message, line, at - self._text.rfind("\n", 0, at))

    def guard(self, at: int, action: Callable[[], T]) -> T:
        """Run ``action``; its errors become a :class:`ParseError` at ``at``."""
        try:
            return action()
        except ParseError:
            raise
        except (GraphError, ValueError, OverflowError) as e:
            self.fail(str(e), at)

    def space(self) -> int:
        """Skip white space and comments; the position after them."""
        ahead = self._text[self._at : self._at + 1]
        if ahead.isspace() or ahead == "#":
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
        return self._at

    def sees(self, token: str) -> bool:
        return self._text.startswith(token, self.space())

    def accept(self, token: str) -> bool:
        if not self.sees(token):
            return False
        self._at += len(token)
        return True

    def expect(self, token: str) -> None:
        if not self.accept(token):
            found = self._text[self._at : self._at + 20].split("\n")[0] or "the end"
            self.fail(f"expected {token!r}, found {found!r}")

    def take(self, pattern: re.Pattern[str], what: str) -> str:
        """Read what ``pattern`` matches here; ``what`` is its name in the error if it does not."""
        match = pattern.match(self._text, self.space())
        if match is None:
            self.fail(f"expected {what}")
        self._at = match.end()
        return match.group()

    def word(self) -> str:
        """The next word, which is not consumed; empty if there is none."""
        match = WORD.match(self._text, self.space())
        return match.group() if match else ""

    def many(self, item: Callable[[], T], close: str) -> list[T]:
        """Items with commas between them, up to and including ``close``."""
        items: list[T] = []
        while not self.accept(close):
            if items:
                self.expect(",")
            items.append(item())
        return items

    def some(self, item: Callable[[], T]) -> list[T]:
        """One item or more with commas between them."""
        items = [item()]
        while self.accept(","):
            items.append(item())
        return items

    def nested(self, action: Callable[[], T]) -> T:
        """Run ``action`` one level deeper, down to :data:`MAX_NESTING`."""
        if self._depth > MAX_NESTING:
            self.fail(f"nested deeper than {MAX_NESTING}")
        self._depth += 1
        result = action()
        self._depth -= 1
        return result

    # ---- names -----------------------------------------------------------------------------------

    def string(self) -> str | bytes:
        at = self.space()
        literal = self.take(STRING, "a string")
        return self.guard(at, lambda: parse_string(literal))

    def name(self) -> str:
        if not self.sees('"'):
            return self.take(PLAIN_NAME, "a name")
        name = self.string()
        assert isinstance(name, str)
        return name

    def value_name(self) -> str:
        self.expect("%")
        return self.name() or self.fail("a value needs a name")

    def op(self) -> tuple[str, str]:
        """Domain and name of an operation."""
        if self.sees('"'):
            domain = self.name()
            self.expect(".")
            return domain, self.name()
        match = PLAIN_OP.fullmatch(self.take(PLAIN_NAME, "an operation"))
        return (match[1] or "", match[2]) if match else self.fail("expected an operation")


__all__ = ["STRING", "WORD", "ParseError", "Scanner"]
