"""Where results go: JSONL, CSV, Parquet, events, video.

Knows records and files. It must not know threads or clocks.
"""

__all__ = ["audio", "base", "config", "csv", "events", "jsonl", "parquet", "paths", "shared", "textfile", "video"]
