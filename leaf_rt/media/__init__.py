"""Reads and decodes media: pictures with OpenCV, video and audio with FFmpeg.

Knows files and arrays. Does not know faces or sources.
"""

__all__ = ["ffmpeg", "images", "nvdec", "opencv"]
