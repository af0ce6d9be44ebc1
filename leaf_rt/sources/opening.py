"""Opens a source by its address. Imports a decoder only when a source needs it."""

from __future__ import annotations

import re
from pathlib import Path

from leaf_rt.sources.base import Source, SourceOptions, is_url

_CAMERA = re.compile(r"\d+|/dev/video\d+")


def is_camera(target: str) -> bool:
    """Whether the target is a camera of this machine: "0" or "/dev/video0"."""
    return _CAMERA.fullmatch(target) is not None


def open_source(target: str, options: SourceOptions | None = None) -> Source:
    """Open a source.

    Args:
        target: A camera ("0", "/dev/video0"), a URL, a picture, or else a video file.
        options: How to read it.

    Raises:
        LeafError: It cannot be opened. The subclass says why; see the source classes.
    """
    options = options or SourceOptions()
    if is_camera(target):
        from leaf_rt.sources.camera import CameraSource

        return CameraSource(target, options)
    if is_url(target):
        from leaf_rt.sources.network import NetworkSource

        return NetworkSource(target, options)
    path = Path(target)
    from leaf_rt.sources import picture

    if path.suffix.lower() in picture.SUFFIXES:
        return picture.PictureSource(path, options)
    from leaf_rt.sources.video_file import VideoFileSource

    return VideoFileSource(path, options)
