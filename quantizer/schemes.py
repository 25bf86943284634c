"""The schemes by name: which pass quantizes, and which of its options a user may give.

An option is a field of the pass, so its type, its default and what it may be stand there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..driver import OptionError

if TYPE_CHECKING:
    from ..ir.graph import Graph, Node
    from ..passes.base import PassContext


class Step(Protocol):
    """A scheme with its options."""

    def ranged(self, graph: Graph, context: PassContext) -> set[str]:
        """The tensors of a graph, by name, whose ranges quantizing it goes by."""

    def noise(self, graph: Graph, context: PassContext) -> dict[str, float | None]:
        """How much each layer of a graph would suffer by itself: decibels by its name."""

    def calibrate(
        self, graph: Graph, context: PassContext, leave: Callable[[Node], str | None]
    ) -> None:
        """Add to the context the ranges that quantizing a graph takes."""

    def quantize(
        self, graph: Graph, context: PassContext, leave: Callable[[Node], str | None]
    ) -> Mapping[str, int]:
        """Quantize a graph in place, but for layers that ``leave`` gives a reason for."""


@dataclass(frozen=True)
class Scheme:
    """The pass called ``by``, with the ``options`` that it takes, and the fields that are
    ``fixed``. ``replaces`` says that it puts other ops in the place of layers.
    """

    by: str
    options: tuple[str, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    replaces: bool = False

    def step(
        self, options: Mapping[str, Any], only: Iterable[str] = (), exclude: Iterable[str] = ()
    ) -> Step:
        """The scheme for the layers that match a pattern of ``only`` and none of ``exclude``.

        Raises ``ValueError`` for options that the pass would not take.
        """
        from ..passes import catalog
        from ..passes.base import pass_class
        from ..passes.options import format_option, option_types, parse_option

        catalog.load()
        found = pass_class(self.by)
        assert found is not None
        kinds = option_types(found)
        values: dict[str, Any] = {}
        for name, value in options.items():
            try:
                values[name] = parse_option(format_option(value), kinds[name.replace("_", "-")])
            except ValueError as e:
                raise ValueError(f"{name} is {e}") from None
        selected = {"only": tuple(only), "exclude": tuple(exclude)}
        return cast(Step, found(**self.fixed, **values, **selected))


_STATIC = ("method", "share", "bias_correction", "rounding", "all_layers", "pairs")
_FEW_BITS = ("block", "rounding")

SCHEMES: Mapping[str, Scheme] = {
    "int8": Scheme("quantize", _STATIC),
    "int16": Scheme("quantize", _STATIC, {"activations": 16}),
    "int8-dynamic": Scheme("quantize_dynamic", ("pairs",), replaces=True),
    "int8-weights": Scheme("quantize_weights", _FEW_BITS, {"bits": 8}, replaces=True),
    "int4-weights": Scheme("quantize_weights", _FEW_BITS, {"bits": 4}, replaces=True),
    "float16-weights": Scheme("narrow_weights", (), {"kind": "float16"}, replaces=True),
    "bfloat16-weights": Scheme("narrow_weights", (), {"kind": "bfloat16"}, replaces=True),
}


def option_names() -> frozenset[str]:
    """The options of all schemes."""
    return frozenset(name for scheme in SCHEMES.values() for name in scheme.options)


def step_of(
    scheme: str, options: Mapping[str, Any], only: Iterable[str] = (), exclude: Iterable[str] = ()
) -> Step:
    """A scheme by name, for the layers that are selected.

    Raises :class:`.OptionError` for one that there is not, and for options that it would ignore or
    that make no sense.
    """
    found = SCHEMES.get(scheme)
    if found is None:
        raise OptionError(f"scheme is one of {', '.join(SCHEMES)}, not {scheme!r}")
    for name in options:
        if name not in found.options:
            raise OptionError(f"{name} does nothing with the scheme {scheme}")
    try:
        return found.step(options, only, exclude)
    except ValueError as e:
        raise OptionError(str(e)) from e


__all__ = ["SCHEMES", "Scheme", "Step", "option_names", "step_of"]
