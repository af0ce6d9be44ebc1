"""The pipeline of one source: detect, track, classify, smooth.

Knows faces and back ends. Does not know sources, sinks, threads or files.
"""

__all__ = ["answers", "config", "factory", "images", "parts", "pipeline", "resting", "schedule", "smoothing", "stages"]
