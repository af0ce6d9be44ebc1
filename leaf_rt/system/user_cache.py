"""Where leaf-rt keeps files that it can create again. Imports nothing of leaf-rt."""

from __future__ import annotations

from pathlib import Path

import platformdirs


def user_cache(name: str) -> Path:
    """The folder leaf-rt/NAME in the user's cache folder (on Linux ~/.cache or $XDG_CACHE_HOME). Not created here."""
    return platformdirs.user_cache_path("leaf-rt", appauthor=False) / name
