"""Detects faces, aligns them and tracks them over time.

Knows images and boxes. Does not know expressions, sources or result files.
"""

__all__ = [
    "alignment",
    "appearance",
    "blazeface",
    "crops",
    "detectors",
    "encoder",
    "image_detector",
    "landmarks",
    "mediapipe_detector",
    "pose",
    "quality",
    "regions",
    "revisit",
    "search",
    "tracker",
    "video_detector",
]
