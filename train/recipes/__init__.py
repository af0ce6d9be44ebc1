"""Recipes: every option of a run, its type, range and default, and the TOML files that ship with the package.

Knows names and numbers. It must not know tensors.
"""

__all__ = ["limits", "schema"]
