"""Where results go: JSONL, CSV, Parquet, events, subtitles, video; and how records are read again.

Knows records and files. Does not know threads or clocks.
"""

__all__ = ["audio", "base", "config", "csv", "events", "factory", "jsonl", "parquet", "paths", "reading",
           "stored", "textfile", "video", "vtt"]  # fmt: skip
