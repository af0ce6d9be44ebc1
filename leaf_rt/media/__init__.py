"""Decoding with libraries: pictures by OpenCV, packets and frames by FFmpeg.

Knows files and arrays. It must not know faces or sources.
"""

__all__ = ["ffmpeg", "images"]
