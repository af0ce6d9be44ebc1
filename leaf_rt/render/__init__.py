"""Draws results: overlay on frames, anonymized faces, timeline, report page, window.

Knows estimates and summaries. Does not know sources or threads.
"""

__all__ = ["anonymize", "overlay", "placement", "report", "timeline", "window"]
