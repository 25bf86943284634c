"""Quantization: floats become integers of few bits, and a scale.

    q = clip(round(x / s) + z)        x ~ s * (q - z)

``s`` is the scale, ``z`` the zero point. For 8-bit integers without sign, ``s = (high - low) /
255`` and ``z = round(-low / s)``, where ``low .. high`` is the range of the tensor; for those with
sign, ``s = max(|low|, |high|) / 127`` and ``z = 0``.

The ranges of weights are known; those of activations are observed in runs on sample data
(:mod:`.observers`), from whose counts (:mod:`.histogram`) a method picks a range
(:mod:`.calibration`). Ranges are kept in a file that a person can read and edit
(:mod:`graphkiln.passes.ranges`). :mod:`.sensitivity` says how much each layer suffers,
:mod:`.places` which tensors are quantized, and :mod:`.insert` puts QuantizeLinear and
DequantizeLinear there. Before that, :mod:`.equalize` and :mod:`.smooth` may scale channels so that
less is lost, and :mod:`.rounding` choose weights that make up for each other. :mod:`.pairs` keeps
pairs of weights from saturating. Everything after that is the compiler's own work on quantized
models, the same for those that other tools have made.
"""

from .calibration import Method
from .dynamic import QuantizeDynamic
from .equalize import Equalize
from .narrow import NarrowFloat, NarrowWeights
from .pairs import Pairs
from .rounding import WeightRounding
from .sensitivity import worst_first
from .smooth import Smooth
from .static import Quantize
from .weight_only import QuantizeWeights, Rounding

__all__ = [
    "Equalize", "Method", "NarrowFloat", "NarrowWeights", "Pairs", "Quantize",
    "QuantizeDynamic", "QuantizeWeights", "Rounding", "Smooth", "WeightRounding", "worst_first",
]  # fmt: skip
