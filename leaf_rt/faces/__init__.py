"""Finds faces, aligns them and tracks them over time.

Knows pictures and boxes. It must not know expressions, sources or files of results.
"""

__all__ = ["alignment", "appearance", "detector", "regions", "revisit", "tracker"]
