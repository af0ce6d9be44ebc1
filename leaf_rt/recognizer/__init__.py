"""The Python API: one object that recognizes expressions in pictures, streams and videos.

Knows the whole runtime. It must not know the command line. `leaf_rt` exports its public names.
"""

__all__ = ["faces", "picture", "recognizer", "stream", "video"]
