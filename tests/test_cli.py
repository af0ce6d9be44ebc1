"""The command line end to end, on real clips with the bundled model."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from clips import demo_frames, empty_frames, frames_in, write_clip
from commands import Leaf, records
from fakes import FakeDetector

from leaf_rt.backends.registry import BACKENDS
from leaf_rt.diagnostics import doctor
from leaf_rt.labels import FERPLUS8
from leaf_rt.types import Detections, Frame

FIELDS = {
    "source",
    "frame_index",
    "pts_s",
    "track_id",
    "box",
    "confidence",
    "emotion",
    "probs",
    "smoothed",
    "latency_ms",
}


def test_version_and_help(leaf: Leaf) -> None:
    assert leaf("--version").out.startswith("leaf-rt ")
    assert leaf("--help").code == 0
    for command in ("video", "webcam", "image", "doctor", "bench"):
        done = leaf(command, "--help")
        assert done.code == 0
        assert command in done.out
    assert leaf().code == 2
    assert leaf("video", "--no-such-option").code == 2
    assert leaf("video").code == 2


def test_a_video_gets_three_results_next_to_it(leaf: Leaf, clip: Path) -> None:
    done = leaf("video", clip)
    assert done.code == 0, done.err
    made = {ending: clip.with_name(f"face.leaf.{ending}") for ending in ("mp4", "jsonl", "png")}
    for path in made.values():
        assert str(path) in done.out
    assert frames_in(made["mp4"]) == 30
    assert made["png"].read_bytes().startswith(b"\x89PNG")
    rows = records(made["jsonl"].read_text())
    assert [row["frame_index"] for row in rows] == list(range(30))
    for row in rows:
        assert set(row) >= FIELDS
        assert row["source"] == "face.mp4"
        assert set(row["probs"]) == set(row["smoothed"]) == set(FERPLUS8)  # type: ignore[call-overload]
    for word in ("640x360", "30 frames", "detector", "back end", "precision", "batch"):
        assert word in done.err
    assert "frames/s" in done.out
    assert "on screen" in done.out
    assert "\x1b" not in done.out + done.err  # no terminal: no colors, no progress bar


@pytest.mark.slow
def test_loading_models_does_not_count_as_latency(clip: Path) -> None:
    with child("video", clip, "--no-save-video", "--no-plot", "--jsonl", "-") as process:
        out, err = process.communicate(timeout=60)
    first, *others = (float(str(row["latency_ms"])) for row in records(out))
    # Loading MediaPipe and its models takes a second. The first frame is slower because all of it is searched.
    assert first < 300 + 5 * max(others), err


def test_stdout_carries_only_records(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    done = leaf("video", clip, "--no-save-video", "--jsonl", "-", "--out", tmp_path)
    assert len(records(done.out)) == 30
    assert "on screen" in done.err
    names = ["face.leaf.html", "face.leaf.png", "face.leaf.summary.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


@pytest.mark.slow
def test_each_result_can_be_moved_or_omitted(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    done = leaf(
        "video", clip, "--no-save-video", "--no-jsonl", "--csv", tmp_path / "a.csv", "--plot", tmp_path / "b.png"
    )
    assert done.code == 0, done.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "b.png"]
    with (tmp_path / "a.csv").open(newline="") as f:
        assert len(list(csv.DictReader(f))) == 30
    deep = tmp_path / "new" / "folder"
    assert leaf("video", clip, "--no-save-video", "--no-plot", "--no-report", "-o", deep).code == 0
    assert [p.name for p in deep.iterdir()] == ["face.leaf.jsonl"]


def test_start_end_and_stride_select_frames(leaf: Leaf, clip: Path) -> None:
    done = leaf(
        "video",
        clip,
        "--no-save-video",
        "--no-plot",
        "--jsonl",
        "-",
        "--start",
        "0:00.5",
        "--end",
        "1",
        "--stride",
        "3",
    )
    times = [row["pts_s"] for row in records(done.out)]
    assert times == pytest.approx([0.5, 0.625, 0.75, 0.875])


def test_results_of_files_with_the_same_name_are_numbered(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "face.mp4"
    other.parent.mkdir()
    write_clip(other, empty_frames(12))
    done = leaf(
        "video", clip, other, "--out", tmp_path / "out", "--no-plot", "--no-report", "--csv", tmp_path / "all.csv"
    )
    assert done.code == 0, done.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "face-2.leaf.jsonl", "face-2.leaf.mp4", "face.leaf.jsonl", "face.leaf.mp4",
    ]  # fmt: skip
    with (tmp_path / "all.csv").open(newline="") as f:
        assert {row["source"] for row in csv.DictReader(f)} == {str(clip)}


@pytest.mark.parametrize(
    "name", ["[b] 100% $x_$.mp4", "n" * 250 + ".mp4", "ü" * 124 + ".mp4", os.fsdecode(b"b\xff.mp4")]
)
def test_unusual_file_names(leaf: Leaf, tmp_path: Path, name: str) -> None:
    write_clip(tmp_path / "one.mp4", demo_frames(1)).rename(tmp_path / name)
    done = leaf("video", tmp_path / name)
    assert (done.code, "note: " in done.err) == (0, False), done.err
    made = {path.suffix: path for path in tmp_path.glob("*.leaf.*")}
    assert set(made) == {".mp4", ".jsonl", ".png", ".html", ".json"}
    (row,) = records(made[".jsonl"].read_text())
    assert f"{row['emotion']} 100%" in done.out
    assert leaf("image", tmp_path / name.replace("mp4", "png")).code == 3


def test_a_failed_file_does_not_stop_the_others(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    done = leaf("video", tmp_path / "none.mp4", clip, "--out", tmp_path, "--no-save-video")
    assert done.code == 3
    assert "none.mp4" in done.err
    assert len((tmp_path / "face.leaf.jsonl").read_text().splitlines()) == 30


def test_listed_sources_run_in_parallel_under_their_names(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "hall.mp4", empty_frames(12))
    listing = tmp_path / "cameras.toml"
    listing.write_text(
        f'[[source]]\nname = "desk"\ntarget = "{clip}"\n\n[[source]]\nname = "hall"\ntarget = "hall.mp4"\n'
    )
    done = leaf(
        "video", "--sources", listing, "--stride", "2", "--no-save-video", "--jsonl", "-", "--out", tmp_path / "o"
    )
    assert done.code == 0, done.err
    assert {row["source"] for row in records(done.out)} == {"desk"}
    assert len(records(done.out)) == 15
    assert "hall: 6 frames" in done.err
    endings = (".leaf.html", ".leaf.png", ".leaf.summary.json")
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == [n + e for n in ("desk", "hall") for e in endings]
    listing.write_text("[[source]]\nname = 'desk'\n")
    done = leaf("video", "--sources", listing)
    assert done.code == 15
    assert "source 1: target" in done.sentence()


def test_an_unreachable_stream_does_not_reveal_its_password(leaf: Leaf) -> None:
    done = leaf("video", "rtsp://anna:s3cret@127.0.0.1:9/door")
    assert done.code == 11
    assert "127.0.0.1:9/door" in done.sentence()
    assert "s3cret" not in done.out + done.err


def test_a_video_without_faces_is_not_an_error(leaf: Leaf, tmp_path: Path) -> None:
    done = leaf("video", write_clip(tmp_path / "hall.mp4", empty_frames(24)))
    assert done.code == 0, done.err
    assert "no face found" in done.out
    assert (tmp_path / "hall.leaf.jsonl").read_text() == ""
    assert frames_in(tmp_path / "hall.leaf.mp4") == 24
    assert (tmp_path / "hall.leaf.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--start", "5", "--end", "2"), "--end"),
        (("--start", "1:75"), "m:ss"),
        (("--end", "soon"), "m:ss"),
        (("--start", "99999999999999"), "--start"),
        (("--threads", "100000"), "--threads"),
        (("--stride", "0"), "--stride"),
        (("--range", "wide"), "--range"),
        (("--smooth", "nan"), "--smooth"),
        (("--jsonl", "a", "--no-jsonl"), "--no-jsonl"),
        (("--plot", "a.png", "--no-plot"), "--no-plot"),
        (("--plot", "a.jpg"), "PNG"),
        (("b.mp4", "--plot", "a.png"), "--plot"),
    ],
)
def test_invalid_options(leaf: Leaf, options: tuple[str, ...], word: str) -> None:
    done = leaf("video", "a.mp4", *options)
    assert done.code == 2
    assert word in done.err


def test_the_help_lists_all_back_ends_without_cutting_words(leaf: Leaf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = leaf("video", "--help")
    assert done.code == 0
    named = re.search(r"--backend(.+?)--model", done.out, re.DOTALL)
    assert named is not None
    assert {backend.name for backend in BACKENDS} <= set(re.findall(r"[\w-]+", named[1]))
    assert "fp32|" not in done.out  # a list that does not fit into its column would be cut within a word


def test_old_names_of_renamed_options_work_but_are_hidden(leaf: Leaf) -> None:
    done = leaf("video", "a.mp4", "--emotion-hz=0", "--total-hz", "5")
    assert done.code == 2
    assert "--max-classify-fps: contradicts --classify-fps 0" in " ".join(done.err.replace("│", " ").split())
    assert leaf("video", "--", "--emotion-hz").sentence().startswith("error: --emotion-hz: ")  # a file of that name
    both = leaf("video", "a.mp4", "--emotion-hz", "5", "--classify-fps=8")
    assert (both.code, "old name of --classify-fps" in " ".join(both.err.replace("│", " ").split())) == (2, True)
    for command in ("video", "webcam"):
        assert "-hz" not in leaf(command, "--help").out


def test_shells_can_complete_commands_and_options(leaf: Leaf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_LEAF_RT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_CWORD", "2")
    monkeypatch.setenv("COMP_WORDS", "leaf-rt video --classify")
    assert leaf().out.split() == ["--classify-fps"]


def test_the_number_of_threads_is_an_option(leaf: Leaf, clip: Path) -> None:
    done = leaf("video", clip, "--no-save-video", "--no-plot", "--no-jsonl", "--threads", 1, "--backend", "onnxruntime")
    assert done.code == 0, done.err
    assert "1 thread:" in done.err


def test_show_without_a_display_is_an_error(leaf: Leaf, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaf_rt.render.window.why_no_window", lambda: "no display")
    done = leaf("video", clip, "--show")
    assert done.code == 9
    assert done.err.startswith("error: --show: no display")
    assert len(done.err.splitlines()) == 1


def test_a_picture_gets_a_table_and_two_results(leaf: Leaf, face: Path, tmp_path: Path) -> None:
    done = leaf("image", face, "--out", tmp_path)
    assert done.code == 0, done.err
    assert "1 face" in done.out
    assert len(re.findall(r"^back end  \w.+: .+$", done.err, re.MULTILINE)) == 1  # what runs, and why
    assert any(label in done.out for label in FERPLUS8)
    (row,) = records((tmp_path / "face.leaf.jsonl").read_text())
    assert set(row) >= FIELDS
    assert cv2.imread(str(tmp_path / "face.leaf.jpg")).shape == (360, 640, 3)


def test_a_failed_picture_does_not_stop_the_others(leaf: Leaf, face: Path, tmp_path: Path) -> None:
    done = leaf("image", face, tmp_path / "none.jpg", face, "--jsonl", "-", "--no-save-picture", "--out", tmp_path)
    assert done.code == 3
    assert len(records(done.out)) == 2
    assert "none.jpg" in done.err
    assert list(tmp_path.iterdir()) == []


def test_an_address_given_as_a_picture_does_not_reveal_its_password(leaf: Leaf) -> None:
    done = leaf("image", "http://user:secret@host/face.jpg")
    assert done.code == 5
    assert "download the picture" in done.sentence()
    assert "secret" not in done.out + done.err


def test_doctor(leaf: Leaf, tmp_path: Path) -> None:
    done = leaf("doctor")
    assert done.code == 0, done.err
    for word in ("onnxruntime", "mediapipe", "model", "cameras"):
        assert word in done.out
    done = leaf("doctor", "--model", tmp_path / "none.onnx")
    assert done.code == 10
    assert "none.onnx" in done.out


def test_bench_ends_with_one_line_of_json(leaf: Leaf, clip: Path) -> None:
    done = leaf("bench", clip)
    assert done.code == 0, done.err
    result = json.loads(done.out.splitlines()[-1])
    assert (result["bench"], result["frames"], result["width"]) == ("end_to_end", 30, 640)
    assert 0 <= result["outside"] < 1
    assert set(result["stages_ms"]) >= {"decode", "detect", "align", "infer", "smooth", "rest"}
    assert 0 < result["of_slowest"] <= result["of_limit"]  # few cores can only be a tighter bound
    assert min(result[name] for name in ("frames_per_s", "cores", "cores_busy", "cpu_ms", "peak_mb")) > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "all faces of a frame, at most 16"),
        ((), "10 per second per face, at most 40 per second in total"),
        (("--classify-fps", 0), "all faces of a frame"),
        (("--classify-fps", 0), "every face in every frame"),
        (("--max-classify-fps", 0), "10 per second per face, no limit in total"),
        (
            ("--classify-fps", 5, "--max-classify-fps", 12.5),
            "5 per second per face, at most 12.5 per second in total",
        ),
        (("--emotion-hz=5", "--total-hz", 12.5), "5 per second per face, at most 12.5 per second in total"),
    ],
)
def test_the_header_shows_the_limits_of_classification(
    leaf: Leaf, clip: Path, tmp_path: Path, options: tuple[object, ...], words: str
) -> None:
    done = leaf("video", clip, "--out", tmp_path, "--no-save-video", "--no-plot", "--end", 0.2, *options)
    assert any(line.rstrip().endswith(f"  {words}") for line in done.err.splitlines())


def test_ctrl_c_ends_bench(leaf: Leaf, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupts(FakeDetector):
        """The user presses Ctrl-C at the first frame."""

        def detect(self, frame: Frame) -> Detections:
            if pressed:
                pressed.pop()
                os.kill(os.getpid(), signal.SIGINT)
            return super().detect(frame)

    pressed = [True]
    monkeypatch.setattr("leaf_rt.diagnostics.bench.VideoFaceDetector", lambda **_: Interrupts([]))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit "ignore"
    try:
        done = leaf("bench", clip, "--backend", "onnxruntime")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.code, done.out) == (130, "")


def test_a_bug_is_one_sentence_and_debug_shows_the_traceback(leaf: Leaf, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: Path) -> list[doctor.Finding]:
        raise RuntimeError(f"boom over {model.name}")

    monkeypatch.setattr(doctor, "examine", broken)
    done = leaf("doctor")
    assert done.code == 70
    assert done.err.startswith("error: this is a bug in leaf-rt (RuntimeError: boom")
    assert len(done.err.splitlines()) == 1
    for arguments in (("doctor", "--debug"), ("--debug", "doctor")):
        done = leaf(*arguments)
        assert done.code == 70
        assert "Traceback" in done.err


def child(*arguments: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "leaf_rt", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.slow
def test_a_reader_that_stops_early_causes_no_error_message(clip: Path) -> None:
    with child("video", clip, "--jsonl", "-", "--no-save-video", "--no-plot", "--loop", "--duration", "20") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        json.loads(process.stdout.readline())
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(30) == 141
    assert "Traceback" not in err
    assert "BrokenPipe" not in err
    assert "error:" not in err


@pytest.mark.slow
def test_ctrl_c_leaves_valid_files_and_a_summary(clip: Path, tmp_path: Path) -> None:
    with child(
        "video", clip, "--loop", "--save-video", "--out", tmp_path, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as process:
        assert process.stderr is not None
        records_file = tmp_path / "face.leaf.jsonl"
        until = time.monotonic() + 30
        while time.monotonic() < until and not (records_file.exists() and records_file.stat().st_size > 50_000):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "on screen" in out
    rows = records(records_file.read_text())
    assert frames_in(tmp_path / "face.leaf.mp4") == len({row["frame_index"] for row in rows}) > 30
    assert (tmp_path / "face.leaf.png").read_bytes().startswith(b"\x89PNG")
