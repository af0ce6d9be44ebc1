"""Recipes: every option of a run with its type, range and default, and the TOML files of the package.

Knows names and numbers. It must not know tensors.
"""

__all__ = ["choice", "loading", "options", "presets", "schema"]
