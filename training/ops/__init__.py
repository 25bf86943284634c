"""Emitters of the built-in ops, by family."""
