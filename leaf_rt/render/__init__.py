"""Draws results: overlay on frames, anonymized faces, timeline, window.

Knows estimates and summaries. Does not know sources or threads.
"""

__all__ = ["anonymize", "overlay", "placement", "timeline", "window"]
