from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import jsonschema
import numpy as np
import pyarrow.parquet
import pytest
from clips import DEMO, empty_frames, frames_in, write_clip
from streams import INFO, LABELS, LIVE, estimates, frame, picture

from leaf_rt.errors import OutputError
from leaf_rt.sinks.base import Sink, record
from leaf_rt.sinks.csv import CsvSink, columns, flat
from leaf_rt.sinks.events import EventSink
from leaf_rt.sinks.jsonl import JsonlSink
from leaf_rt.sinks.parquet import ParquetSink
from leaf_rt.sinks.video import VideoSink, letterbox
from leaf_rt.sources import SourceOptions, open_source
from leaf_rt.types import U8, Estimates, Frame

ROOT = Path(__file__).parents[1]
SCHEMA = json.loads((ROOT / "leaf_rt" / "record.schema.json").read_text(encoding="utf-8"))


def plain(image: U8, estimates: Estimates, labels: Sequence[str]) -> U8:
    return image


def make(kind: str, path: Path) -> Sink:
    if kind == "video":
        return VideoSink(path, LABELS, plain)
    if kind == "parquet":
        return ParquetSink(path, LABELS)
    return JsonlSink(path, LABELS) if kind == "jsonl" else CsvSink(path, LABELS)


# Records


@pytest.mark.parametrize(
    ("info", "one"), [(INFO, frame(3)), (LIVE, frame(3, captured_at=1_700_000_000.0625, generation=2))]
)
def test_a_record_fits_the_schema(info: object, one: Frame) -> None:
    made = record(info, one, estimates(one.timestamp, 2), 1, LABELS, 0.0123)  # type: ignore[arg-type]
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(json.dumps(made)), SCHEMA)
    assert made["track_id"] == 2
    assert made["latency_ms"] == 12.3
    assert made["captured_at"] == (None if one.captured_at is None else "2023-11-14T22:13:20.062Z")


def test_the_schema_refuses_other_records() -> None:
    good = record(INFO, frame(0), estimates(0.0), 0, LABELS, 0.0)
    for change in ({"box": [1, 2, 3]}, {"pts_s": -1}, {"schema_version": 2}, {"source": "rtsp://u:p@cam/1"}, {"x": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**good, **change}, SCHEMA)


def test_an_unclear_answer_is_called_uncertain() -> None:
    unclear = replace(estimates(0.0), emotion=np.array([-1]))
    assert record(INFO, frame(0), unclear, 0, LABELS, 0.0)["emotion"] == "uncertain"


def test_jsonl_has_a_line_per_face_at_once(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with JsonlSink(path, LABELS) as sink:
        for index, faces in enumerate((2, 0, 1)):
            sink.write(INFO, frame(index), estimates(index / 25, faces), 0.01)
            rows = [json.loads(line) for line in path.read_text().splitlines()]  # before the sink is closed
            assert len(rows) == (2, 2, 3)[index]
    assert [(r["frame_index"], r["track_id"]) for r in rows] == [(0, 1), (0, 2), (2, 1)]
    for row in rows:
        jsonschema.validate(row, SCHEMA)


def test_csv_holds_the_same_values(tmp_path: Path) -> None:
    with CsvSink(tmp_path / "r.csv", LABELS) as sink:
        sink.write(INFO, frame(7), estimates(0.28, 2), 0.01)
    with (tmp_path / "r.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    want = record(INFO, frame(7), estimates(0.28, 2), 1, LABELS, 0.01)
    assert len(rows) == 2
    assert [float(rows[1][k]) for k in ("x0", "y0", "x1", "y1")] == want["box"]
    assert {label: float(rows[1][f"smoothed_{label}"]) for label in LABELS} == want["smoothed"]
    assert (rows[1]["emotion"], rows[1]["captured_at"], rows[1]["frame_index"]) == ("happiness", "", "7")


def test_runs_without_faces_leave_valid_empty_results(tmp_path: Path) -> None:
    for kind in ("jsonl", "csv"):
        with make(kind, tmp_path / f"r.{kind}") as sink:  # type: ignore[attr-defined]
            sink.write(INFO, frame(0), estimates(0.0, 0), 0.0)
    assert (tmp_path / "r.jsonl").read_text() == ""
    assert (tmp_path / "r.csv").read_text().count("\n") == 1


def test_standard_output_stays_open(capfd: pytest.CaptureFixture[str]) -> None:
    with JsonlSink("-", LABELS) as sink:
        sink.write(INFO, frame(0), estimates(0.0), 0.0)
    os.write(1, b"after\n")
    first, after = capfd.readouterr().out.splitlines()
    assert json.loads(first)["track_id"] == 1
    assert after == "after"


def test_parquet_holds_the_same_values(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    with ParquetSink(path, LABELS) as sink:
        for index in range(3000):
            sink.write(INFO, frame(index), estimates(index / 25, 2), 0.01)
        assert not path.exists()  # a Parquet file without its end is none
    table = pyarrow.parquet.read_table(path)
    assert (table.num_rows, tuple(table.column_names)) == (6000, columns(LABELS))
    assert tuple(table.slice(5999, 1).to_pylist()[0].values()) == flat(
        record(INFO, frame(2999), estimates(2999 / 25, 2), 1, LABELS, 0.01)
    )
    assert list(tmp_path.iterdir()) == [path]


def test_parquet_without_faces_has_its_columns(tmp_path: Path) -> None:
    with ParquetSink(tmp_path / "r.parquet", LABELS):
        pass
    assert pyarrow.parquet.read_table(tmp_path / "r.parquet").num_rows == 0


def test_events_tell_start_end_and_dwell(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    shown = [1, 1, 1, -1, -1, 3, 3]
    with EventSink(path, LABELS) as sink:
        for index, emotion in enumerate(shown):
            one = replace(estimates(index / 10), emotion=np.array([emotion]))
            sink.write(INFO, frame(index, index / 10), one, 0.0)
        assert [json.loads(line)["emotion"] for line in path.read_text().splitlines()] == ["happiness", "uncertain"]
        sink.write(INFO, frame(50, 5.0), estimates(5.0), 0.0)  # she was away for too long
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(e["emotion"], e["start_s"], e["end_s"], e["dwell_s"]) for e in events] == [
        ("happiness", 0.0, 0.3, 0.3),
        ("uncertain", 0.3, 0.5, 0.2),
        ("sadness", 0.5, 0.6, 0.1),
        ("happiness", 5.0, 5.0, 0.0),
    ]
    assert events[0]["peak"] == pytest.approx(0.93, abs=0.01)


def test_events_of_two_sources_and_generations_are_apart(tmp_path: Path) -> None:
    with EventSink(tmp_path / "e.jsonl", LABELS) as sink:
        sink.write(INFO, frame(0, 0.0), estimates(0.0), 0.0)
        sink.write(LIVE, frame(0, 0.0), estimates(0.0), 0.0)
        sink.write(LIVE, frame(1, 0.1, generation=1), estimates(0.1), 0.0)
    events = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert sorted((e["source"], e["generation"]) for e in events) == [("cam", 0), ("cam", 1), ("clip.mp4", 0)]


# Refusals


@pytest.mark.parametrize("kind", ["jsonl", "csv", "video"])
@pytest.mark.parametrize("place", ["missing/r", "folder"])
def test_a_place_that_cannot_be_written_is_said_at_once(tmp_path: Path, kind: str, place: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r"folder"):
        make(kind, tmp_path / place)


def test_a_full_disk_takes_back_the_half_line(tmp_path: Path) -> None:
    code = f"""
        import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
        from pathlib import Path
        from streams import INFO, LABELS, estimates, frame
        from leaf_rt.errors import OutputError
        from leaf_rt.sinks.jsonl import JsonlSink
        sink = JsonlSink(Path({str(tmp_path / "r.jsonl")!r}), LABELS)
        try:
            for i in range(1000):
                sink.write(INFO, frame(i), estimates(i / 25, 3), 0.0)
        except OutputError as e:
            sys.exit(str(e))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert "no room left" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert 0 < len(rows) < 3000
    assert len(rows) % 3 == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_device_without_room(kind: str) -> None:
    with pytest.raises(OutputError, match="no room left"):
        make(kind, Path("/dev/full")).write(INFO, frame(0), estimates(0.0), 0.0)


def test_no_permission(tmp_path: Path) -> None:
    """In a process of its own that is not root, for root may write everywhere."""
    code = f"""
        import os, sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
        from pathlib import Path
        from test_sinks import make
        from leaf_rt.errors import NoPermission
        os.chmod({str(tmp_path)!r}, 0o555)
        if os.geteuid() == 0:
            os.setuid(65534)
        for kind in ("jsonl", "csv", "parquet", "video"):
            try:
                make(kind, Path({str(tmp_path)!r}) / kind)
            except NoPermission:
                print(kind)
    """
    for folder in tmp_path.parents:
        if folder.name.startswith("pytest-"):
            folder.chmod(0o755)
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["jsonl", "csv", "parquet", "video"], done.stderr


# Video


def times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(f.pts * f.time_base) for f in container.decode(video=0)]


def test_video_keeps_the_times_of_its_frames_whatever_was_dropped(tmp_path: Path) -> None:
    wanted = [0.0, 0.04, 0.5, 0.54, 2.0, 2.01]
    with VideoSink(tmp_path / "v.mp4", LABELS, plain) as sink:
        for index, t in enumerate(wanted):
            sink.write(INFO, frame(index, 5.0 + t), estimates(t), 0.0)
    assert times(tmp_path / "v.mp4") == pytest.approx(wanted, abs=1e-4)


def test_video_shows_what_draw_gives_and_leaves_the_frame_alone(tmp_path: Path) -> None:
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


def test_sound_goes_along_and_stays_in_time(tmp_path: Path) -> None:
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


def test_sound_that_mp4_cannot_hold_is_encoded_anew(tmp_path: Path) -> None:
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


def test_a_frame_of_another_size_is_fitted_in(tmp_path: Path) -> None:
    sizes = [(180, 320), (320, 180), (90, 160), (181, 321)]
    with VideoSink(tmp_path / "v.mp4", LABELS, plain) as sink:
        for index, (height, width) in enumerate(sizes):
            image = np.full((height, width, 3), 200, np.uint8)
            sink.write(INFO, Frame(image, index, index / 25, "x"), estimates(0.0), 0.0)
    with av.open(str(tmp_path / "v.mp4")) as container:
        shown = [f.to_ndarray(format="gray") for f in container.decode(video=0)]
    assert {s.shape for s in shown} == {(180, 320)}
    assert shown[1][:, 0].max() < 40  # bars at the sides of the upright picture
    assert shown[1][90, 160] > 180
    assert shown[2][2, 2] > 180  # the small one is enlarged to fill all


def test_odd_sides_become_even_without_a_bar() -> None:
    odd = np.full((5, 7, 3), 9, np.uint8)
    assert (letterbox(odd, 8, 6) == 9).all()


def test_a_video_without_frames_leaves_no_file(tmp_path: Path) -> None:
    with VideoSink(tmp_path / "v.mp4", LABELS, plain):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_is_missing_or_refuses(tmp_path: Path) -> None:
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


def test_a_killed_process_leaves_a_video_that_plays(tmp_path: Path) -> None:
    with child(tmp_path / "v.mp4", 100_000, 0.002) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "far\n"
        process.send_signal(signal.SIGKILL)
    assert frames_in(tmp_path / "v.mp4") >= 50  # 100 were given; a fragment holds 25, the encoder a few more


def test_a_full_disk_leaves_a_video_that_plays(tmp_path: Path) -> None:
    with child(tmp_path / "v.mp4", 100_000, 0.0, limit=200_000) as process:
        out, _ = process.communicate(timeout=60)
    assert "no room left" in out
    assert process.returncode == 0
    with av.open(str(tmp_path / "v.mp4")) as container:
        shown = 0
        try:
            for _ in container.decode(video=0):
                shown += 1
        except av.error.InvalidDataError:
            pass  # the last fragment is cut
    assert shown > 25


def test_sinks_may_be_closed_twice_but_not_written_after(tmp_path: Path) -> None:
    for kind in ("jsonl", "csv", "video"):
        sink = make(kind, tmp_path / f"r.{kind}")
        sink.write(INFO, frame(0), estimates(0.0), 0.0)
        sink.close()
        sink.close()
        with pytest.raises(ValueError, match="after close"):
            sink.write(INFO, frame(1), estimates(0.04), 0.0)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "c.mp4", empty_frames(3))
    with pytest.raises(OutputError):
        JsonlSink(clip / "below-a-file.jsonl", LABELS)
