"""Where leaf-rt keeps files that it can create again. Imports nothing of leaf-rt."""

from __future__ import annotations

from pathlib import Path


def user_cache(name: str) -> Path:
    """The folder leaf-rt/NAME in the user's cache folder (on Linux ~/.cache or $XDG_CACHE_HOME). Not created here."""
    import platformdirs  # here, because nothing needs it where LEAF_RT_CACHE names the folder

    return platformdirs.user_cache_path("leaf-rt", appauthor=False) / name
