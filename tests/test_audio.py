"""Sound whose timestamps or codec a video file does not support. The video is always complete."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from clips import frames_in
from streams import LABELS, estimates, picture

from leaf_rt.errors import OutputError
from leaf_rt.sinks.audio import Soundtrack
from leaf_rt.sinks.video import VideoSink
from leaf_rt.sources.opening import open_source
from leaf_rt.types import U8, Estimates


def plain(image: U8, estimates: Estimates, labels: Sequence[str]) -> U8:
    return image


def talking(path: Path, codec: str, size: tuple[int, int] = (320, 240), gap: float = 0.0) -> Path:
    """Write 0.5 s of video at 30 frames/s with a tone, which pauses for ``gap`` s after the first 0.1 s."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        sound = out.add_stream(codec, rate=48000, layout="mono")
        assert isinstance(sound, AudioStream)
        for index in range(15):
            image = np.ascontiguousarray(np.resize(picture(index), (size[1], size[0], 3)))
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        out.mux(video.encode(None))
        for start in range(0, 24_000, 960):
            wave = np.sin(np.arange(start, start + 960) * 0.05) * 16_000
            tone = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
            tone.sample_rate, tone.pts = 48000, start
            if not 0.1 <= start / 48000 < 0.1 + gap:
                out.mux(sound.encode(tone))
        if not gap:
            out.mux(sound.encode(None))
    return path


def annotate(path: Path, out: Path) -> None:
    with open_source(str(path)) as source, VideoSink(out, LABELS, plain) as sink:
        for one in source:
            sink.write(source.info, one, estimates(one.timestamp), 0.0)


def sound_times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(p.pts * p.time_base) for p in container.demux(audio=0) if p.pts is not None]


@pytest.mark.parametrize("codec", ["aac", "libmp3lame", "mp2"])
def test_concatenated_files_keep_all_frames(tmp_path: Path, codec: str, caplog: pytest.LogCaptureFixture) -> None:
    one = talking(tmp_path / "a.ts", codec)
    two = talking(tmp_path / "b.ts", codec, size=(640, 360))
    (tmp_path / "ab.ts").write_bytes(one.read_bytes() + two.read_bytes())
    with caplog.at_level(logging.WARNING):
        annotate(tmp_path / "ab.ts", tmp_path / "v.mp4")
    assert frames_in(tmp_path / "v.mp4") == 30
    times = sound_times(tmp_path / "v.mp4")
    assert (np.diff(times) > 0).all()
    assert max(times) == pytest.approx(0.5, abs=0.1)
    assert "parts of the sound with decreasing timestamps" in caplog.text


def test_sound_of_a_transport_stream_is_copied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        annotate(talking(tmp_path / "a.ts", "aac"), tmp_path / "v.mp4")
    assert frames_in(tmp_path / "v.mp4") == 15
    assert max(sound_times(tmp_path / "v.mp4")) == pytest.approx(0.47, abs=0.06)
    assert caplog.text == ""


def test_a_gap_in_encoded_sound_stays_a_gap(tmp_path: Path) -> None:
    annotate(talking(tmp_path / "a.mkv", "pcm_s16le", gap=0.2), tmp_path / "v.mp4")
    with av.open(str(tmp_path / "v.mp4")) as container:
        wave = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    loud = [float(np.abs(part).max()) > 0.1 for part in np.array_split(wave[: 48000 // 2], 10)]  # 50 ms each
    assert loud[1]
    assert not any(loud[4:6])
    assert loud[8]


def test_sound_that_fails_does_not_stop_the_video(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Soundtrack, output: object, until: float) -> None:
        raise av.error.ArgumentError(22, "Invalid argument")

    monkeypatch.setattr(Soundtrack, "advance", refuse)
    with caplog.at_level(logging.WARNING):
        annotate(talking(tmp_path / "a.ts", "libmp3lame"), tmp_path / "v.mp4")
    assert frames_in(tmp_path / "v.mp4") == 15
    assert caplog.text.count("the sound ends early") == 1


def test_errors_name_the_encoder_only_if_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise av.error.ArgumentError(22, "Invalid argument")

    clip = talking(tmp_path / "a.ts", "mp2")
    with monkeypatch.context() as patch:
        patch.setattr(VideoSink, "_copy_sound", refuse)  # called after the encoder, when the file is written
        with pytest.raises(OutputError, match="the video cannot be written"):
            annotate(clip, tmp_path / "v.mp4")
    monkeypatch.setattr(VideoSink, "_encode", refuse)
    with pytest.raises(OutputError, match="the encoder libx264 rejects the frames"):
        annotate(clip, tmp_path / "v.mp4")
