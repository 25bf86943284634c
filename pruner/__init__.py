"""A model in, one with fewer channels out, as small or as accurate as asked."""

from .prune import prune
from .result import Pruned

__all__ = ["Pruned", "prune"]
