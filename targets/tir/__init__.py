"""Building TensorIR by hand: statements, loops, element types and scalar mathematics."""
