"""Type inference of ai.onnx.ml's host ops, and of the dialect ops for its models.

The frontend decomposes classical models into products, elementwise ops, and the dialect ops here.
"""

from __future__ import annotations

from ..axes.pointwise import first_elementwise, leading, rows
from ..registry import InferContext, op
from ..traits import Trait
from ..types import TensorType, Type, array_type, dtype
from . import ml_evaluate

DOMAIN = "kiln"


# ---- host functions ------------------------------------------------------------------------------


@op(
    "LabelEncoder", domain="ai.onnx.ml", traits=(Trait.HOST,),
    axes=first_elementwise,
)  # fmt: skip
def _labels(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    tensor_values = ctx.attr("values_tensor")
    if tensor_values is not None:
        return [x.with_dtype(array_type(tensor_values).dtype)]
    for name, kind in (("strings", "string"), ("int64s", "int64"), ("floats", "float32")):
        if ctx.node.attrs.get(f"values_{name}"):
            return [x.with_dtype(kind)]
    raise ctx.error("it has no values")


@op(
    "OneHotEncoder", domain="ai.onnx.ml", traits=(Trait.HOST,), evaluate=ml_evaluate.one_hot,
    axes=leading,
)  # fmt: skip
def _one_hot(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    name = "cats_strings" if x.dtype.name == "string" else "cats_int64s"
    categories = ctx.attr(name)
    if not categories:
        raise ctx.error(f"it has no {name} for an input of type {x.dtype}")
    return [TensorType(dtype("float32"), (*x.dims, len(categories)))]


# ---- kiln.ZipMap ---------------------------------------------------------------------------------


@op(
    "ZipMap", domain=DOMAIN, arity=(1, 1), evaluate=lambda _node, inputs: [inputs[0]],
    traits=(Trait.ALIAS,),
    doc="A float32 matrix [N, C] as it is; whoever runs the model gets it as a list of N maps from "
    "``keys`` (C ints or strings, the first of equal ones counts) to the numbers of a row. "
    "Only outputs of a model are that.",
    axes=first_elementwise,
)  # fmt: skip
def _zip_map(ctx: InferContext) -> list[Type]:
    x, keys = ctx.tensor(0), ctx.attr("keys")
    if x.rank != 2 or x.dtype.name != "float32":
        raise ctx.error(f"takes the rows of a float32 matrix, not {x}")
    if not isinstance(keys, tuple) or {type(k) for k in keys} not in ({int}, {str}):
        raise ctx.error("its keys must be ints or strings")
    ctx.require_equal(x.dims[1], len(keys), f"a number for each of its {len(keys)} keys")
    return [x]


# ---- kiln.Lookup ---------------------------------------------------------------------------------


@op(
    "Lookup", domain=DOMAIN, arity=(4, 4), evaluate=ml_evaluate.lookup,
    doc="values[i] where x equals keys[i], else default. The keys are ascending, distinct and no "
    "NaN; values holds as many elements and default is a scalar.",
    axes=first_elementwise,
)  # fmt: skip
def _lookup(ctx: InferContext) -> list[Type]:
    x, keys, values, default = (ctx.tensor(i) for i in range(4))
    if x.dtype != keys.dtype or values.dtype != default.dtype:
        raise ctx.error(f"{x} does not fit {keys}, or {values} does not fit {default}")
    if keys.rank != 1 or keys.dims != values.dims or keys.dims == (0,):
        raise ctx.error(f"keys {keys} and values {values} must be vectors of one length")
    return [x.with_dtype(values.dtype)]


# ---- kiln.TreeEnsemble ---------------------------------------------------------------------------


@op(
    "TreeEnsemble", domain=DOMAIN, arity=(6, 9), evaluate=ml_evaluate.tree_ensemble,
    defaults={"aggregate": "sum"},
    doc="The sum (or min, or max: attribute aggregate) of what the leaves hold that the rows of x "
    "[N, F] lead to, as [N, targets] in the element type of x. Inputs: features int32[n], "
    "thresholds [n], children int32[n, 2], roots int32[trees], weights, starts, targets and "
    "missing. At node k a row goes to children[k, 0] where x[features[k]] <= thresholds[k], or "
    "is NaN and missing (bool[n], absent: never) holds, else to children[k, 1]. Numbers from n on "
    "are leaves. Leaf i holds weights[i, :], or, where starts int32[leaves + 1] and targets "
    "int32[e] are given, weights[j] for targets[j] with j from starts[i] to starts[i + 1]. The "
    "result is 0 for a target that no leaf names.",
    axes=rows,
)  # fmt: skip
def _tree_ensemble(ctx: InferContext) -> list[Type]:
    x, features, thresholds, children = (ctx.tensor(i) for i in range(4))
    weights, sparse = ctx.tensor(5), ctx.has(6)
    if x.rank != 2 or x.dtype not in (thresholds.dtype, weights.dtype):
        raise ctx.error(f"takes a matrix like {thresholds} and {weights}, not {x}")
    if children.dims != (*features.dims, 2) or thresholds.dims != features.dims:
        raise ctx.error(f"{features}, {thresholds} and {children} describe different nodes")
    asked = ctx.known(1)
    if asked is not None and asked.size:
        ctx.require_at_most(int(asked.max()) + 1, x.dims[1], "the features that its trees ask for")
    targets = ctx.attr("targets")
    if sparse != ctx.has(7) or weights.rank != (1 if sparse else 2):
        raise ctx.error(f"weights {weights} with starts and targets must be a vector, else [l, t]")
    if not isinstance(targets, int) or not sparse and weights.dims[1] != targets:
        raise ctx.error(f"weights {weights} do not fit {targets} targets")
    if ctx.attr("aggregate") not in ("sum", "min", "max"):
        raise ctx.error(f"aggregate {ctx.attr('aggregate')!r} is not known")
    return [x.with_shape((x.dims[0], targets))]


# ---- kiln.CoupledProbabilities -------------------------------------------------------------------


@op(
    "CoupledProbabilities", domain=DOMAIN, arity=(1, 1), evaluate=ml_evaluate.coupled,
    doc="Probabilities [N, classes] of classes from those of pairs [N, classes*(classes-1)/2], "
    "that of i against j at the place of (i, j) among the pairs i < j: the second method of Wu, "
    "Lin and Weng, Probability Estimates for Multi-class Classification by Pairwise Coupling "
    "(2004), with at most max(100, classes) sweeps and the tolerance 0.005/classes.",
    axes=rows,
)  # fmt: skip
def _coupled(ctx: InferContext) -> list[Type]:
    pairs, classes = ctx.tensor(0), ctx.attr("classes")
    if not isinstance(classes, int) or classes < 2:
        raise ctx.error(f"{classes} classes have no pairs")
    if pairs.rank != 2 or pairs.dims[1] != classes * (classes - 1) // 2:
        raise ctx.error(f"{pairs} does not hold the pairs of {classes} classes")
    return [pairs.with_shape((pairs.dims[0], classes))]
