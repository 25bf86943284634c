"""Ops of com.microsoft on 8-bit tensors, in place of floats between quantizers.

    Q(f(DQ(x)), sy, zy)          =  QLinearF(x, sx, zx, sy, zy)
    Q(f(DQ(a), DQ(b)), sy, zy)   =  QLinearF(a, sa, za, b, sb, zb, sy, zy)

Q is QuantizeLinear, DQ is DequantizeLinear, with one scale for each tensor. ``f`` is every op whose
name with ``QLinear`` in front is one of the registry's, with these operands. The code generator has
kernels for the form with floats, so this is for models that others are to run in integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..ir.edit import Editor
from ..ir.graph import Graph, Node, Value
from ..ir.registry import OpSpec, attribute, spec, specs
from ..ir.types import BYTES
from .base import Pass, PassContext, register_pass
from .claims import STEP, Family, rounds
from .pattern import Match, Op, Rule, Var, rewrite
from .queries import scale_and_zero

_DOMAIN, _PREFIX = "com.microsoft", "QLinear"
_ONE, _TWO = {2: 0}, {2: 0, 5: 3}
"""Where zero points stand behind one operand, and behind two."""


def _form(op: str) -> OpSpec | None:
    """The op of this name on 8-bit tensors."""
    return spec(f"{_DOMAIN}.{_PREFIX}{op}")


def _plain(operands: Mapping[int, int]) -> str:
    """Keys of the float ops whose form on 8-bit tensors takes these operands."""
    forms = (s for s in specs() if s.domain == _DOMAIN and s.name.startswith(_PREFIX))
    names = sorted(s.name[len(_PREFIX) :] for s in forms if dict(s.zero_points) == operands)
    return "|".join(names)


def _operands(m: Match) -> list[Node]:
    return [m.node(name) for name in ("a", "b") if name in m.nodes]


def _objection(m: Match) -> str | None:
    kinds = {m.root.out().dtype}
    for node in (m.root, *_operands(m)):
        scale, zero = scale_and_zero(m.graph, node)
        if scale.tensor_type.numel != 1 or scale.dtype != "float32":
            return "a tensor has several scales, or one that is no float32"
        if zero is None or attribute(node, "block_size") or attribute(node, "precision"):
            return "a tensor has no zero point, or is quantised in blocks"
    kinds |= {m.graph.required_inputs(node)[0].dtype for node in _operands(m)}
    if len(kinds) != 1 or not kinds <= set(BYTES):
        return "the tensors are not of one 8-bit type"
    return _attributes_objection(m.node("f"))


def _attributes_objection(f: Node) -> str | None:
    """An objection to attributes that the form on 8-bit tensors does not have."""
    form = _form(f.op)
    if form is None or len(f.outputs) != 1:
        return "it has no form on 8-bit tensors"
    known = form.attributes if form.attributes is not None else form.defaults.keys()
    lost = sorted(f.attrs.keys() - known)
    return f"its form on 8-bit tensors has no {lost[0]}" if lost else None


def _integers(m: Match, r: Editor) -> Value:
    f, form = m.node("f"), _form(m.node("f").op)
    assert form is not None
    given: list[Value | None] = []
    for node in _operands(m):
        given += m.graph.inputs_of(node)[:3]
    given += m.graph.inputs_of(m.root)[1:3]
    attrs = {**form.defaults, **f.attrs}
    return r.node(form.name, given, attrs, domain=_DOMAIN).out()


def _dq(name: str) -> Op:
    return Op("DequantizeLinear", Var(f"{name}_data"), name=name, rest=True, shared=True)


RULES = tuple(
    Rule(
        "qlinear",
        Op("QuantizeLinear", Op(_plain(operands), *inputs, name="f"), rest=True),
        _integers,
        _objection,
        claim=rounds(equation, STEP, Family.OTHER),
    )
    for operands, inputs, equation in (
        (_ONE, (_dq("a"),), "Q(f(DQ(x))) = QLinearF(x)"),
        (_TWO, (_dq("a"), _dq("b")), "Q(f(DQ(a), DQ(b))) = QLinearF(a, b)"),
    )
)


@register_pass
@dataclass(frozen=True)
class QLinear(Pass):
    """Puts ops on 8-bit tensors, such as QLinearSigmoid, in the place of floats between
    quantizers.
    """

    name = "qlinear"
    rules = RULES

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        return rewrite(graph, RULES, context)


__all__ = ["QLinear"]
