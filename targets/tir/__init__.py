"""Building TensorIR by hand: statements, loops, element types and scalar mathematics."""

from ...tvm_import import import_tvm

import_tvm()  # before the modules of this package do
