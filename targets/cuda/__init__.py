"""NVIDIA GPUs: one thread an element for everything, tiles in shared memory for products."""
