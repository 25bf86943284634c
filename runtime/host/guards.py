"""What a model says of inputs that it was not compiled for."""

from __future__ import annotations

from . import Attrs, Refusal, host_function


@host_function("Refuse")
def refuse(attrs: Attrs) -> tuple[()]:
    """Ends the run with ``message``, which says what the model was compiled for."""
    raise Refusal(f"{attrs['message']}, which does not hold for these inputs")
