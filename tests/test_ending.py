"""Every file is complete after SIGINT and SIGTERM, and valid after SIGKILL."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from clips import DEMO
from commands import Leaf
from fakes import FakeDetector, face_at

from leaf_rt.system.signals import StopSignal
from leaf_rt.types import Detections, Frame

ENDINGS = ("png", "html", "summary.json", "mp4", "jsonl")  # of the results of a file


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    """Process the demo clip in an endless loop, in real time, with all outputs."""
    command = [sys.executable, "-m", "leaf_rt", "video", str(DEMO), "--realtime", "--loop", "--out", str(out)]
    command += ["--save-video", "--csv", str(out / "r.csv"), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def wait_for_records(path: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline, "no records came"
        time.sleep(0.02)


def decoded(path: Path) -> Iterator[float]:
    """Yield the times of the frames of a video, until it ends or is truncated."""
    with av.open(str(path)) as container:
        try:
            for frame in container.decode(video=0):
                yield float(frame.pts * frame.time_base)
        except av.error.InvalidDataError:
            return


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_complete_files_and_a_correct_summary(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path) as process:
        wait_for_records(tmp_path / "demo.leaf.jsonl", 25)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    records = rows(tmp_path / "demo.leaf.jsonl")
    shown = list(decoded(tmp_path / "demo.leaf.mp4"))
    table = (tmp_path / "r.csv").read_text().splitlines()
    frames = int(next(line for line in out.splitlines() if " frames in " in line).split(": ")[1].split()[0])
    assert len(shown) == frames >= len({r["frame_index"] for r in records})
    assert len(table) == len(records) + 1
    first = min(r["pts_s"] for r in records)
    assert {round(r["pts_s"] - first, 3) for r in records} <= {round(t - shown[0], 3) for t in shown} | {
        round(t - shown[0] + d, 3) for t in shown for d in (-0.001, 0.001)
    }
    assert all(r["captured_at"] for r in records)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_sigkill_leaves_valid_files(tmp_path: Path, seed: int) -> None:
    wait = random.Random(seed).uniform(0.0, 2.5)
    with start(tmp_path) as process:
        wait_for_records(tmp_path / "demo.leaf.jsonl", 30)
        time.sleep(wait)
        process.kill()
        process.communicate(timeout=30)
    data = (tmp_path / "demo.leaf.jsonl").read_bytes()
    assert data.endswith(b"\n")
    records = rows(tmp_path / "demo.leaf.jsonl")
    shown = list(decoded(tmp_path / "demo.leaf.mp4.part"))
    span = records[-1]["pts_s"] - records[0]["pts_s"]
    assert shown[-1] - shown[0] > span - 2.5  # one fragment of 1 s, and some frames in the encoder and the queue
    assert (tmp_path / "r.csv").read_bytes().endswith(b"\n")


@pytest.mark.slow
def test_a_second_interrupt_stops_at_once_and_leaves_complete_files(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        wait_for_records(tmp_path / "demo.leaf.jsonl", 25)
        begin = time.monotonic()
        while process.poll() is None:  # keep pressing; the system merges signals that follow too quickly
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
            assert time.monotonic() - begin < 30
        out, err = process.communicate(timeout=30)
    assert time.monotonic() - begin < 10
    assert process.returncode == 130, err
    messages = [line for line in err.splitlines() if line.startswith(("note: stopped", "error", "Traceback"))]
    assert len(messages) == 1, err
    missing = f"{tmp_path / 'demo.leaf.png'}, {tmp_path / 'demo.leaf.html'}, the summary"
    assert f"not written: queued frames, {missing}" in messages[0]
    assert out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.leaf.jsonl", "demo.leaf.mp4", "r.csv"]
    assert len(rows(tmp_path / "demo.leaf.jsonl")) >= 25
    with av.open(str(tmp_path / "demo.leaf.mp4")) as film:  # closed properly, not truncated
        assert len(list(film.decode(video=0))) >= 1
    assert (tmp_path / "r.csv").read_bytes().endswith(b"\n")


@pytest.mark.parametrize("module", ["typer", "leaf_rt.cli.groups", "leaf_rt.cli.run", "cv2"])
def test_ctrl_c_during_imports_prints_no_traceback(tmp_path: Path, module: str) -> None:
    """The first import of the module raises KeyboardInterrupt."""
    code = f"""
        import os, signal, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)
        class Interrupted:
            def find_spec(self, name, path=None, target=None):
                if name == {module!r}:
                    os.kill(os.getpid(), signal.SIGINT)
        sys.meta_path.insert(0, Interrupted())
        sys.argv = ["leaf-rt", "video", {str(DEMO)!r}, "--out", {str(tmp_path)!r}]
        from leaf_rt.cli import main
        sys.exit(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert list(tmp_path.iterdir()) == []


class Quick(FakeDetector):
    """Has no models to load."""

    def warm_up(self) -> None:
        pass


@contextlib.contextmanager
def ctrl_c_works() -> Iterator[None]:
    """Restore the handler of SIGINT; background jobs inherit that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_names_the_files_without_complete_results(
    leaf: Leaf, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    class Stopped(Quick):
        """The user stops the command at the fourth frame of the second file."""

        frames = 0

        def detect(self, frame: Frame) -> Detections:
            Stopped.frames += 1
            if Stopped.frames == 34:
                os.kill(os.getpid(), number)
            return super().detect(frame)

    films = [Path(shutil.copy(clip, tmp_path / f"{name}.mp4")) for name in "abcdefg"]
    monkeypatch.setattr("leaf_rt.recognition.factory.VideoFaceDetector", lambda **_: Stopped([face_at(50, 40)] * 30))
    with ctrl_c_works():
        done = leaf("video", *films, "--out", tmp_path / "out", "--backend", "onnxruntime")
    assert done.code == 0, done.err
    messages = [line for line in done.err.splitlines() if line.startswith(("note", "error"))]
    parts = [tmp_path / "out" / f"b.leaf.{ending}.part" for ending in ENDINGS]
    assert messages == [
        f"note: b.mp4: incomplete results keep their temporary names: {', '.join(map(str, parts))}",
        "note: stopped early; not finished: b.mp4; not started: c.mp4, d.mp4, e.mp4 and 2 more",
    ]
    results = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert results == sorted([*(path.name for path in parts), *(f"a.leaf.{e}" for e in ENDINGS)])
    titles = [line for line in done.out.splitlines() if " frames in " in line]
    assert [", stopped before its end" in title for title in titles] == [False, True]
    assert rows(parts[4])


def test_a_source_without_an_end_is_never_unfinished(
    leaf: Leaf, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Quick):
        """The user stops the command in the second loop."""

        def detect(self, frame: Frame) -> Detections:
            if frame.index == 33:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().detect(frame)

    film = Path(shutil.copy(clip, tmp_path / "a.mp4"))
    monkeypatch.setattr("leaf_rt.recognition.factory.VideoFaceDetector", lambda **_: Stopped([face_at(50, 40)] * 40))
    done = leaf("video", film, "--loop", "--backend", "onnxruntime")
    assert done.code == 0, done.err
    assert "stopped" not in done.err + done.out
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]  # a loop writes only what is requested


def test_a_second_ctrl_c_during_the_run_skips_the_timeline(
    leaf: Leaf, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled = threading.Event()

    class Noted(StopSignal):
        def set(self) -> None:
            super().set()
            handled.set()

    class Interrupts(Quick):
        """The user presses Ctrl-C twice at the fourth frame."""

        def detect(self, frame: Frame) -> Detections:
            if frame.index == 3:
                os.kill(os.getpid(), signal.SIGINT)
                assert handled.wait(30)  # this is not the main thread, and Python keeps only one signal of a kind
                os.kill(os.getpid(), signal.SIGINT)
            return super().detect(frame)

    monkeypatch.setattr("leaf_rt.recognition.factory.VideoFaceDetector", lambda **_: Interrupts([face_at(50, 40)] * 30))
    monkeypatch.setattr("leaf_rt.cli.run.StopSignal", Noted)
    with ctrl_c_works():
        done = leaf("video", clip, "--out", tmp_path, "--backend", "onnxruntime")
    assert (done.code, done.out) == (130, "")
    parts = f"{tmp_path / 'face.leaf.mp4.part'}, {tmp_path / 'face.leaf.jsonl.part'}"
    assert [line for line in done.err.splitlines() if line.startswith(("note", "error"))] == [
        f"note: face.mp4: incomplete results keep their temporary names: {parts}",
        f"note: stopped at once; not written: queued frames, {tmp_path / 'face.leaf.png'}, "
        f"{tmp_path / 'face.leaf.html'}, the summary",
    ]
    assert {r["frame_index"] for r in rows(tmp_path / "face.leaf.jsonl.part")} <= {0, 1, 2, 3}
    assert not (tmp_path / "face.leaf.png").exists()
    assert len(list(decoded(tmp_path / "face.leaf.mp4.part"))) <= 4


def test_a_second_ctrl_c_while_drawing_skips_unfinished_timelines(
    leaf: Leaf, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> bytes:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return b""

    monkeypatch.setattr("leaf_rt.recognition.factory.VideoFaceDetector", lambda **_: Quick([face_at(50, 40)] * 30))
    monkeypatch.setattr("leaf_rt.render.timeline.timeline_png", interrupted)
    with ctrl_c_works():
        done = leaf("video", clip, "--out", tmp_path, "--backend", "onnxruntime", "--log-json")
    assert done.code == 130
    messages = [json.loads(line) for line in done.err.splitlines()]
    assert [(line["level"], line["event"]) for line in messages if line["event"] != "opened"] == [
        ("warning", "incomplete"),
        ("warning", "stopped"),
    ]
    assert str(tmp_path / "face.leaf.png") in messages[-1]["text"]
    assert len(list(decoded(tmp_path / "face.leaf.mp4.part"))) == 30
