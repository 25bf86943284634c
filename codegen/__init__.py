"""Code generation: graph -> kernels -> program -> artifact."""
