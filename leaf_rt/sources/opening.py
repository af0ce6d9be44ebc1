"""Opens a source by its address. Imports a decoder only when a source needs it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from leaf_rt.errors import DecoderUnavailable
from leaf_rt.sources.address import Address, parse
from leaf_rt.sources.base import Source, SourceOptions


def open_source(target: str, options: SourceOptions | None = None) -> Source:
    """Open a source.

    Args:
        target: A camera ("0", "/dev/video0"), the address of a stream, a picture, or else a video file.
        options: How to read it.

    Raises:
        LeafError: It cannot be opened. The subclass says why; see the source classes.
    """
    options = options or SourceOptions()
    address = parse(target)
    address.check()
    if options.decode != "auto":
        return _open(address, options)
    try:
        return _open(address, replace(options, decode="nvdec"))
    except DecoderUnavailable as e:
        source = _open(address, replace(options, decode="cpu"))
        source.info = replace(source.info, decoder=f"{source.info.decoder}, because NVDEC cannot be used: {e.problem}")
        return source


def _open(address: Address, options: SourceOptions) -> Source:
    if address.kind == "camera":
        from leaf_rt.sources.camera import CameraSource

        return CameraSource(address.target, options)
    if address.kind == "network":
        from leaf_rt.sources.network import NetworkSource

        return NetworkSource(address.target, options)
    path = Path(address.target)
    from leaf_rt.sources import picture

    if path.suffix.lower() in picture.SUFFIXES:
        return picture.PictureSource(path, options)
    from leaf_rt.sources.video_file import VideoFileSource

    return VideoFileSource(path, options)
