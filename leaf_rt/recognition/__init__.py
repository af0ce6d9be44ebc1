"""The pipeline of one source: detect, track, classify, smooth. Pure: no clock, no thread, no file.

Knows faces and back ends. It must not know sources or sinks.
"""

__all__ = ["config", "factory", "images", "pipeline", "smoothing"]
