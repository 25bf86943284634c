"""Checks the feeds of a run against a model's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .dims import SymbolCheck
from .errors import InputError
from .inputs import check_feed
from .manifest import ValueSpec


class FeedCheck:
    """The check for one model: names, types, shapes, and sizes that several inputs share."""

    def __init__(self, inputs: Sequence[ValueSpec]) -> None:
        self._inputs = inputs
        self._names = {spec.name for spec in inputs}
        self._symbols = SymbolCheck(inputs)

    def __call__(self, feeds: Mapping[str, Any]) -> list[Any]:
        """The values in the order of the inputs: arrays in public dtype, lists, None.

        Raises InputError for feeds that do not fit.
        """
        self._check_names(feeds)
        values = [_checked(feeds, spec) for spec in self._inputs]
        self._symbols.check([v.shape if isinstance(v, np.ndarray) else None for v in values])
        return values

    def _check_names(self, feeds: Mapping[str, Any]) -> None:
        if not isinstance(feeds, Mapping):
            raise InputError(
                f"feeds must be a dict of input name to array, not a {type(feeds).__name__}"
            )
        takes = ", ".join(repr(spec.name) for spec in self._inputs) or "no inputs"
        for name in feeds:
            if name not in self._names:
                raise InputError(f"there is no input {name!r}: the model takes {takes}")
        for spec in self._inputs:
            if spec.name not in feeds and not spec.optional:
                raise InputError(f"input {spec.name!r} is missing: the model takes {takes}")


def _checked(feeds: Mapping[str, Any], spec: ValueSpec) -> Any:
    value = feeds.get(spec.name)
    if value is None and spec.optional:
        return None
    return check_feed(value, spec)
