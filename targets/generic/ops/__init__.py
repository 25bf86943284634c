"""Lowerings of the built-in ops, one file per family; each registers its lowerings."""
