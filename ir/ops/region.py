"""``kiln.Region``: a group of ops that one kernel computes."""

from __future__ import annotations

from ..graph import Graph
from ..infer import infer_types
from ..registry import InferContext, op
from ..types import Type


@op(
    "Region", domain="kiln",
    doc="The closed graph in attribute body applied to the inputs; the fusion pass makes these.",
)  # fmt: skip
def _infer_region(ctx: InferContext) -> list[Type]:
    body = ctx.attr("body")
    if not isinstance(body, Graph):
        raise ctx.error("attribute body must be a graph")
    if len(body.inputs) != len(ctx.inputs):
        raise ctx.error(f"the body takes {len(body.inputs)} inputs, not {len(ctx.inputs)}")
    for value, t in zip(body.inputs, ctx.inputs, strict=True):
        if t is None:
            raise ctx.error(f"input {value.name!r} is missing")
        value.set_type(t)
    given = ((value, ctx.known(i)) for i, value in enumerate(body.inputs))
    infer_types(body, {value: array for value, array in given if array is not None})
    return [v.type for v in body.outputs]
