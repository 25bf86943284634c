"""Operations on strings: StringConcat, StringSplit, StringNormalizer, RegexFullMatch."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from . import Attrs, host_function


@host_function("StringConcat")
def string_concat(attrs: Attrs, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, ...]:
    """Element by element, with broadcasting."""
    return (np.asarray(left + right, object),)


@host_function("StringSplit")
def string_split(attrs: Attrs, data: np.ndarray) -> tuple[np.ndarray, ...]:
    """The parts of each string, [..., most parts], padded with ""; and their number, int64.

    Without a delimiter, runs of white space divide, and those at the ends do not count.
    """
    delimiter = attrs.get("delimiter") or None
    limit = attrs.get("maxsplit", -1)
    parts = [text.split(delimiter, -1 if limit is None else limit) for text in data.flat]
    counts = np.array([len(row) for row in parts], np.int64).reshape(data.shape)
    width = int(counts.max()) if parts else 0
    padded = [item for row in parts for item in row + [""] * (width - len(row))]
    return object_array(padded, (*data.shape, width)), counts


@host_function("RegexFullMatch")
def regex_full_match(attrs: Attrs, data: np.ndarray) -> tuple[np.ndarray, ...]:
    """Whether the pattern, RE2's syntax, matches each whole string; bool.

    RE2 takes time that grows with the strings only, whatever the pattern.
    """
    pattern = _compiled(attrs["pattern"])
    matches = [pattern.fullmatch(text) is not None for text in data.flat]
    return (np.array(matches, bool).reshape(data.shape),)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    try:
        import re2
    except ImportError:
        raise ValueError("regular expressions need RE2: install google-re2") from None
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        said = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
        raise ValueError(f"{pattern!r} is no regular expression of RE2 ({said})") from None


@host_function("StringNormalizer")
def string_normalizer(attrs: Attrs, data: np.ndarray) -> tuple[np.ndarray, ...]:
    """Drops stop words and changes case; [c] or [1, c], one empty string where nothing is left."""
    if data.ndim not in (1, 2) or (data.ndim == 2 and data.shape[0] != 1):
        raise ValueError(f"input must have shape [c] or [1, c], it has {list(data.shape)}")
    sensitive = attrs.get("is_case_sensitive", 0)
    compared = str if sensitive else str.lower
    stop = {compared(word) for word in attrs.get("stopwords") or ()}
    words = [word for word in data.flat if compared(word) not in stop]
    action = attrs.get("case_change_action", "NONE")
    if action not in ("NONE", "LOWER", "UPPER"):
        raise ValueError(f"unknown case_change_action {action!r}")
    if action != "NONE":
        words = [word.lower() if action == "LOWER" else word.upper() for word in words]
    words = words or [""]
    return (object_array(words, (len(words),) if data.ndim == 1 else (1, len(words))),)


def object_array(values: list[str], shape: tuple[int, ...]) -> np.ndarray:
    """An object array of the given shape from its elements in order."""
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)
