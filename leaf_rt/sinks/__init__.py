"""Where results go: JSONL, CSV, Parquet, events, video.

Knows records and files. Does not know threads or clocks.
"""

__all__ = ["audio", "base", "config", "csv", "events", "factory", "jsonl", "parquet", "paths", "textfile", "video"]
