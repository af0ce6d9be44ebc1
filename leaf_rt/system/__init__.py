"""The operating system: files, locks, the processor, the cache folder, native stderr.

Knows errors and text. It must not know pictures, models or records.
"""

__all__ = [
    "closing",
    "cpu",
    "file_lock",
    "files",
    "native_stderr",
    "parsing",
    "reading",
    "result_file",
    "signals",
    "telemetry",
    "user_cache",
]
