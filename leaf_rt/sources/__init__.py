"""Sources of frames: video files, pictures, cameras, network streams.

Knows decoders. It must not know faces, pipelines or sinks.
"""

__all__ = [
    "address",
    "arrays",
    "base",
    "camera",
    "decoding",
    "network",
    "opening",
    "picture",
    "sources_file",
    "timeline",
    "video_file",
]
