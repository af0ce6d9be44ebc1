"""Decoding on an NVIDIA GPU: why it is not used here, the way back to the CPU, and pictures that stay the same."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import pytest
from av.codec.hwaccel import HWAccel
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from clips import DEMO, demo_frames
from device_decoding import compare_decoders
from rtsp_server import RtspServer, encode

from leaf_rt.backends.tensorrt.cuda import driver_problem
from leaf_rt.errors import DecoderUnavailable, NotFound
from leaf_rt.media import ffmpeg, nvdec
from leaf_rt.sources.base import Decoding, SourceOptions
from leaf_rt.sources.decoding import PacketDecoder
from leaf_rt.sources.opening import open_source

no_gpu = pytest.mark.skipif(driver_problem() is None, reason="there is a GPU")
AUTO, NVDEC = SourceOptions(decode="auto"), SourceOptions(decode="nvdec")


@no_gpu
def test_without_a_gpu_auto_decodes_the_same_on_the_cpu_and_says_why() -> None:
    found = compare_decoders(DEMO, "auto", end=0.5)
    assert found["decoder"].startswith("h264 (FFmpeg), because NVDEC cannot be used: ")
    assert "libcuda" in found["decoder"] or "CUDA" in found["decoder"]
    assert found["largest_difference"] == 0
    with open_source(str(DEMO)) as source:
        assert source.info.decoder == "h264 (FFmpeg)"


@no_gpu
def test_without_a_gpu_a_network_stream_is_decoded_on_the_cpu_too() -> None:
    with RtspServer(encode(demo_frames(25)), fps=25) as server:
        with open_source(server.url(), AUTO) as source:
            assert "because NVDEC cannot be used" in source.info.decoder
            assert next(iter(source)).image.shape == (360, 640, 3)
        with pytest.raises(DecoderUnavailable):
            open_source(server.url(), NVDEC)


@no_gpu
def test_without_a_gpu_the_explicit_option_is_one_clear_error(leaf: Any, clip: Path, tmp_path: Path) -> None:
    done = leaf("video", clip, "--decode", "nvdec", "--out", tmp_path)
    assert done.code == 10
    assert done.err.strip().startswith("error: NVDEC cannot be used: ")
    assert done.err.strip().endswith("or use --decode cpu")
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_file_stays_one_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_source(str(tmp_path / "none.mp4"), AUTO)


def test_an_old_pyav_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "__version__", "16.1.0")
    with pytest.raises(DecoderUnavailable, match=r"PyAV 16\.1\.0 is too old for it; install av 17 or newer"):
        nvdec.accelerator()


def test_video_that_nvdec_does_not_take_is_decoded_on_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """FFV1 has no decoder on a GPU: FFmpeg opens the file with the accelerator and says nothing."""
    monkeypatch.setattr(nvdec, "accelerator", lambda: HWAccel("cuda"))
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in [np.full((48, 64, 3), value, np.uint8) for value in (0, 90, 180)]:
            out.mux(stream.encode(VideoFrame.from_ndarray(image, format="bgr24")))
        out.mux(stream.encode(None))
    with pytest.raises(DecoderUnavailable, match=r"does not take the ffv1 video of .*clip\.mkv; use --decode cpu"):
        open_source(str(path), NVDEC)
    with open_source(str(path), AUTO) as source:
        assert "ffv1 (FFmpeg), because NVDEC" in source.info.decoder
        assert len(list(source)) == 3


def test_pictures_of_which_ffmpeg_made_none_on_the_gpu_are_noticed() -> None:
    """NVDEC refuses 10 bits of H.264; FFmpeg then decodes on the CPU by itself, with one thread."""
    context = types.SimpleNamespace(is_hwaccel=True, pix_fmt="yuv420p10le", name="h264")
    with pytest.raises(DecoderUnavailable, match="does not take the h264 video of cam"):
        nvdec.check_use(types.SimpleNamespace(codec_context=context), "cam")  # type: ignore[arg-type]
    context.pix_fmt = "cuda"
    nvdec.check_use(types.SimpleNamespace(codec_context=context), "cam")  # type: ignore[arg-type]


@pytest.mark.parametrize("on_gpu", [True, False])
def test_a_gpu_that_fails_in_a_run_is_named(on_gpu: bool) -> None:
    class Packet:
        size, pts, is_keyframe = 10, 0, True

        def decode(self) -> list[VideoFrame]:
            raise av.error.ExternalError(542398533, "Generic error in an external library", None)

    stream: Any = types.SimpleNamespace(codec_context=types.SimpleNamespace(is_hwaccel=on_gpu))
    packet: Any = Packet()
    error = DecoderUnavailable if on_gpu else av.error.ExternalError
    with pytest.raises(error, match="Generic error"):
        PacketDecoder(stream, Decoding()).decode(packet)


@pytest.mark.parametrize(("layout", "usual"), [("nv12", "yuv420p"), ("p010le", "yuv420p10le")])
@pytest.mark.parametrize("full_range", [False, True])
def test_the_layout_of_nvdec_gives_the_same_picture(layout: str, usual: str, full_range: bool) -> None:
    """Converted directly, as FFmpeg does, it would differ by up to 9 of 255."""
    ranges = {"src_color_range": "MPEG", "dst_color_range": "JPEG" if full_range else "MPEG"}
    with av.open(str(DEMO)) as container:
        picture = next(container.decode(video=0))
    wanted = VideoReformatter().reformat(picture, format=usual, **ranges)  # type: ignore[arg-type]
    copied = VideoReformatter().reformat(wanted, format=layout)
    assert (copied.format.name, copied.color_range) == (layout, wanted.color_range)
    converter = ffmpeg.Converter()
    for _ in range(2):
        for frame in (wanted, copied):
            assert np.array_equal(converter.to_bgr(frame), ffmpeg.Converter().to_bgr(wanted))
    assert converter.to_bgr(copied).std() > 20


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"start": 1.0, "end": 3.0, "mirror": True}, {"max_fps": 5.0}])
def test_nvdec_decodes_the_same_pictures(options: dict[str, Any]) -> None:
    try:
        nvdec.accelerator()
    except DecoderUnavailable as e:
        pytest.skip(str(e))
    found = compare_decoders(DEMO, "nvdec", **options)
    assert found["decoder"] == "h264 (NVDEC)"
