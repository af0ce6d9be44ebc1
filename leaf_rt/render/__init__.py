"""Draws results: overlay on frames, timeline, window.

Knows estimates and summaries. It must not know sources or threads.
"""

__all__ = ["overlay", "timeline", "window"]
