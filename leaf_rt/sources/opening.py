"""Where frames come from: files, pictures, cameras, network streams.

Importing this is cheap: a decoder is loaded once a source that needs it is opened.
"""

from __future__ import annotations

import re
from pathlib import Path

from leaf_rt.sources.base import Source, SourceOptions, is_url

_CAMERA = re.compile(r"\d+|/dev/video\d+")


def is_camera(target: str) -> bool:
    """Whether the target names a camera of this machine."""
    return _CAMERA.fullmatch(target) is not None


def open_source(target: str, options: SourceOptions | None = None) -> Source:
    """Open what ``target`` names: a camera ("0", "/dev/video0"), an address, a picture, or else a video file.

    Raises:
        LeafError: Of the class that says why it does not open; see the sources.
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
        return picture.StillSource(path, options)
    from leaf_rt.sources.video_file import FileSource

    return FileSource(path, options)
