"""Files that are complete at any time: written beside their place, and renamed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8; nothing half-written is left. Raises ``OSError``.

    Others may read it as far as the user's mask lets them: temporary files are only the user's.
    """
    place = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with place.open("x", encoding="utf-8") as file:
            file.write(text)
        place.replace(path)
    except BaseException:
        place.unlink(missing_ok=True)
        raise


__all__ = ["write_text"]
