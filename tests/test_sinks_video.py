"""The annotated video: timestamps, sound, killed processes and full disks."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from clips import DEMO, frames_in
from sinks import plain
from streams import INFO, LABELS, estimates, frame, picture

from leaf_rt.errors import OutputError
from leaf_rt.sinks.video import VideoSink, letterbox
from leaf_rt.sources.base import SourceOptions
from leaf_rt.sources.opening import open_source
from leaf_rt.types import U8, Estimates, Frame

ROOT = Path(__file__).parents[1]


def times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(f.pts * f.time_base) for f in container.decode(video=0)]


def test_video_keeps_the_timestamps_when_frames_are_dropped(tmp_path: Path) -> None:
    wanted = [0.0, 0.04, 0.5, 0.54, 2.0, 2.01]
    with VideoSink(tmp_path / "v.mp4", LABELS, plain) as sink:
        for index, t in enumerate(wanted):
            sink.write(INFO, frame(index, 5.0 + t), estimates(t), 0.0)
    assert times(tmp_path / "v.mp4") == pytest.approx(wanted, abs=1e-4)


def test_video_shows_the_result_of_draw_and_keeps_the_frame(tmp_path: Path) -> None:
    def whiten(image: U8, estimates: Estimates, labels: Sequence[str]) -> U8:
        assert tuple(labels) == LABELS
        image[:] = 255
        return image

    one = frame(0)
    with VideoSink(tmp_path / "v.mp4", LABELS, whiten) as sink:
        sink.write(INFO, one, estimates(0.0), 0.0)
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert next(container.decode(video=0)).to_ndarray(format="gray").min() > 240
    assert one.image.max() == 0


@pytest.mark.slow
def test_sound_is_copied_in_sync(tmp_path: Path) -> None:
    for options in (SourceOptions(), SourceOptions(start=4.0, end=7.0)):
        with open_source(str(DEMO), options) as source, VideoSink(tmp_path / "v.mp4", LABELS, plain) as sink:
            for one in source:
                sink.write(source.info, one, estimates(one.timestamp), 0.0)
        with av.open(str(DEMO)) as original, av.open(str(tmp_path / "v.mp4")) as copy:
            begin = options.start
            wanted = [p for p in original.demux(audio=0) if p.pts is not None and float(p.pts * p.time_base) >= begin]
            got = [p for p in copy.demux(audio=0) if p.pts is not None]
            first = float(got[0].pts * got[0].time_base)
            length = float(copy.streams.video[0].duration * copy.streams.video[0].time_base)
        assert first == pytest.approx(0.0, abs=0.06)
        assert bytes(got[10]) in {bytes(p) for p in wanted[8:14]}
        last = float(got[-1].pts * got[-1].time_base)
        assert last == pytest.approx(length, abs=0.1)


def test_sound_that_mp4_does_not_support_is_encoded(tmp_path: Path) -> None:
    path = tmp_path / "pcm.mkv"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        sound = out.add_stream("pcm_s16le", rate=16000)
        for index in range(25):
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture(index), format="bgr24")))
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 640), np.int16), "s16", "mono")
            tone.sample_rate, tone.pts = 16000, index * 640
            out.mux(sound.encode(tone))
        out.mux(video.encode(None))
    with open_source(str(path)) as source, VideoSink(tmp_path / "v.mp4", LABELS, plain) as sink:
        for one in source:
            sink.write(source.info, one, estimates(one.timestamp), 0.0)
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        assert sum(f.samples for f in container.decode(audio=0)) > 12_000


def test_a_frame_of_another_size_is_fitted(tmp_path: Path) -> None:
    sizes = [(180, 320), (320, 180), (90, 160), (181, 321)]
    with VideoSink(tmp_path / "v.mp4", LABELS, plain) as sink:
        for index, (height, width) in enumerate(sizes):
            image = np.full((height, width, 3), 200, np.uint8)
            sink.write(INFO, Frame(image, index, index / 25, "x"), estimates(0.0), 0.0)
    with av.open(str(tmp_path / "v.mp4")) as container:
        shown = [f.to_ndarray(format="gray") for f in container.decode(video=0)]
    assert {s.shape for s in shown} == {(180, 320)}
    assert shown[1][:, 0].max() < 40  # black borders beside the portrait frame
    assert shown[1][90, 160] > 180
    assert shown[2][2, 2] > 180  # the small frame is enlarged


def test_odd_sizes_become_even_without_a_border() -> None:
    odd = np.full((5, 7, 3), 9, np.uint8)
    assert (letterbox(odd, 8, 6) == 9).all()


def test_a_video_without_frames_leaves_no_file(tmp_path: Path) -> None:
    with VideoSink(tmp_path / "v.mp4", LABELS, plain):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_is_missing_or_fails(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no encoder nonesuch"):
        VideoSink(tmp_path / "v.mp4", LABELS, plain, codec="nonesuch")
    sink = VideoSink(tmp_path / "v.mp4", LABELS, plain)
    with pytest.raises(OutputError):
        sink.write(INFO, Frame(np.zeros((1, 40_000, 3), np.uint8), 0, 0.0, "x"), estimates(0.0), 0.0)
    sink.close()


VIDEO_CHILD = """
    import sys, time; sys.path[:0] = [{root!r}, {tests!r}]
    from pathlib import Path
    from clips import empty_frames
    from streams import INFO, LABELS, estimates
    from leaf_rt.errors import OutputError
    from leaf_rt.sinks.video import VideoSink
    from leaf_rt.types import Frame
    images = empty_frames(50)
    with VideoSink(Path({path!r}), LABELS, lambda i, e, l: i) as sink:
        try:
            for n in range({count}):
                sink.write(INFO, Frame(images[n % 50], n, n / 25, "x"), estimates(n / 25), 0.0)
                if n == 100:
                    print("far", flush=True)
                time.sleep({pause})
        except OutputError as e:
            print(e, flush=True)
"""


def child(path: Path, count: int, pause: float, limit: int = resource.RLIM_INFINITY) -> subprocess.Popen[str]:
    values = {"root": str(ROOT), "tests": str(ROOT / "tests"), "path": str(path), "count": count, "pause": pause}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(VIDEO_CHILD.format(**values))],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


@pytest.mark.slow
def test_a_killed_process_leaves_a_playable_video(tmp_path: Path) -> None:
    with child(tmp_path / "v.mp4", 100_000, 0.002) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "far\n"
        process.send_signal(signal.SIGKILL)
    assert (
        frames_in(tmp_path / "v.mp4.part") >= 50
    )  # of 100; a fragment has 25 frames, and a few more are in the encoder


@pytest.mark.slow
def test_a_full_disk_leaves_a_playable_video(tmp_path: Path) -> None:
    with child(tmp_path / "v.mp4", 100_000, 0.0, limit=200_000) as process:
        out, _ = process.communicate(timeout=60)
    assert "no space left" in out
    assert process.returncode == 0
    assert not (tmp_path / "v.mp4").exists()
    with av.open(str(tmp_path / "v.mp4.part")) as container:
        shown = 0
        try:
            for _ in container.decode(video=0):
                shown += 1
        except av.error.InvalidDataError:
            pass  # the last fragment is incomplete
    assert shown > 25
