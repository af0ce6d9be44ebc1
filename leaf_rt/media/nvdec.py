"""NVIDIA's video decoder, NVDEC, through FFmpeg: pictures are decoded on the GPU and copied back.

Knows FFmpeg; must not know sources.
"""

from __future__ import annotations

import av
import av.logging
from av.codec import Codec
from av.codec.hwaccel import HWAccel
from av.video.stream import VideoStream

from leaf_rt.errors import DecoderUnavailable
from leaf_rt.media import ffmpeg

_OLDEST = 17  # of PyAV. An older one crashes where NVDEC refuses a stream: https://github.com/PyAV-Org/PyAV/issues/2411


def accelerator() -> HWAccel:
    """The settings for ``open_container`` that decode on the first GPU of this process.

    Raises:
        DecoderUnavailable: There is no GPU that FFmpeg can use.
    """
    if int(av.__version__.partition(".")[0]) < _OLDEST:
        raise DecoderUnavailable(f"PyAV {av.__version__} is too old for it", f"install av {_OLDEST} or newer")
    with av.logging.Capture() as notes:
        try:
            # Now, because the same error while a file is opened would look like one of the file.
            HWAccel("cuda").create(Codec("h264", "r"))
        except Exception as e:  # FFmpeg may have been built without it, or the driver may fail in any way
            why = notes[0][2].strip() if notes else ffmpeg.reason(e)
            raise DecoderUnavailable(why, "install or update the NVIDIA driver, or use --decode cpu") from e
    return HWAccel("cuda")


def check_use(stream: VideoStream, name: str) -> None:
    """Check that the pictures of a stream come from NVDEC. FFmpeg itself decodes what NVDEC refuses, without a word.

    Args:
        stream: A picture of it has been decoded.
        name: Of the source, for the message.

    Raises:
        DecoderUnavailable: They do not.
    """
    context = stream.codec_context
    if not (context.is_hwaccel and context.pix_fmt == "cuda"):
        raise DecoderUnavailable(
            f"it does not take the {context.name} video of {name}",
            "use --decode cpu; a container needs NVIDIA_DRIVER_CAPABILITIES=all",
        )
