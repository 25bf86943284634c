"""Type inference of ops that run as host functions: strings, and sizes that data decides."""

from __future__ import annotations

from typing import Any

from ..axes.pointwise import elementwise, first_elementwise
from ..registry import InferContext, op
from ..traits import Trait
from ..types import TensorType, Type, dtype, tensor


@op(
    "StringConcat", traits=(Trait.HOST,),
    axes=elementwise,
)  # fmt: skip
def _concat(ctx: InferContext) -> list[Type]:
    a, b = ctx.tensor(0), ctx.tensor(1)
    return [a.with_shape(ctx.broadcast(a.dims, b.dims))]


@op("StringNormalizer", traits=(Trait.HOST,))
def _normalizer(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    require_known(ctx, "case_change_action", ("NONE", "LOWER", "UPPER"))
    if x.rank not in (1, 2):
        raise ctx.error(f"takes one row of strings, [c] or [1, c], not {x}")
    if x.rank == 2:
        ctx.require_equal(x.dims[0], 1, "one row of strings")
    words = ctx.attr("stopwords")
    if not words:
        return [x]
    return [x.with_shape((*x.dims[:-1], ctx.fresh_dim()))]


@op("StringSplit", traits=(Trait.HOST,))
def _split(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    parts = x.with_shape((*x.dims, ctx.fresh_dim()))
    return [parts, TensorType(dtype("int64"), x.dims)]


@op(
    "RegexFullMatch", traits=(Trait.HOST,),
    axes=first_elementwise,
)  # fmt: skip
def _match(ctx: InferContext) -> list[Type]:
    pattern = ctx.attr("pattern")
    if pattern is None:
        raise ctx.error("it has no pattern")
    fault = _fault_of(pattern)
    if fault is not None:
        raise ctx.error(f"{pattern!r} is no regular expression of RE2 ({fault})")
    return [ctx.tensor(0).with_dtype("bool")]


def _fault_of(pattern: str) -> str | None:
    """Why RE2 rejects a pattern, or None. Host functions use RE2, too."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        reason: Any = error.args[0] if error.args else "not valid"
        return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    return None


def require_known(ctx: InferContext, name: str, values: tuple[str, ...]) -> None:
    """Check that an attribute is one of ``values``."""
    if ctx.attr(name) not in values:
        raise ctx.error(f"{name} {ctx.attr(name)!r} is not known: it is one of {', '.join(values)}")


@op("TfIdfVectorizer", traits=(Trait.HOST,))
def _tfidf(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    require_known(ctx, "mode", ("TF", "IDF", "TFIDF"))
    if x.rank not in (1, 2):
        raise ctx.error(f"takes tokens [c] or [n, c], not {x}")
    size = max((int(i) for i in ctx.attr("ngram_indexes") or ()), default=-1) + 1
    return [tensor("float32", *x.dims[:-1], size)]
