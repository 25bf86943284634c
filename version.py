"""The version of graphkiln; a leaf, so that artifacts can be stamped without the public face."""

__version__ = "0.1.0"
