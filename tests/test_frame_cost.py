"""What one frame costs, counted: conversions, copies, calls of the networks, calls of Python. No times.

A regression shows on any machine, however busy. The limits lie a tenth above what was counted when they were set.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import av
import cv2
import numpy as np
import pytest
from clips import DEMO, demo_frames
from fakes import FakeBackend

from leaf_rt.backends.networks import Network, open_network
from leaf_rt.faces import detectors
from leaf_rt.faces.tracker import FaceTracker
from leaf_rt.faces.video_detector import VideoFaceDetector
from leaf_rt.media import ffmpeg
from leaf_rt.recognition.people import PeopleMemory
from leaf_rt.recognition.pipeline import Pipeline
from leaf_rt.recognition.shots import ShotDetector
from leaf_rt.sinks.jsonl import JsonlSink
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.sources.opening import open_source
from leaf_rt.stream.runner import run
from leaf_rt.types import F32, U8, Frame

SECONDS = 2.0
FULL_HD = (1080, 1920)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts calls of the detection networks and their pictures, and conversions of frames."""
    counts: Counter[str] = Counter()

    def counted(path: Path, runtime: str) -> Network:
        network = open_network(path, runtime)

        def call(images: U8) -> list[F32]:
            kind = "full" if "full" in path.name else "short"
            counts[kind] += 1
            counts[f"{kind} pictures"] += len(images)
            return network(images)

        return call

    class Counting(ffmpeg.Converter):
        def to_bgr(self, frame: av.VideoFrame, mirror: bool = False) -> U8:
            counts["conversions"] += 1
            return super().to_bgr(frame, mirror)

    monkeypatch.setattr(detectors, "open_network", counted)
    monkeypatch.setattr(ffmpeg, "Converter", Counting)
    return counts


def pipeline(backend: FakeBackend) -> Pipeline:
    """All parts that a command uses."""
    detector = VideoFaceDetector(detector="onnxruntime")
    detector.warm_up()
    return Pipeline(detector, FaceTracker(), backend, shots=ShotDetector(), people=PeopleMemory(30.0))


def frames_of(size: tuple[int, int] | None = None) -> list[Frame]:
    with open_source(str(DEMO), SourceOptions(end=SECONDS)) as source:
        images = [(frame.image, frame.timestamp) for frame in source]
    if size is not None:
        images = [(np.asarray(cv2.resize(image, size[::-1]), np.uint8), time) for image, time in images[:12]]
    return [Frame(image, i, time, "clip") for i, (image, time) in enumerate(images)]


def test_every_frame_is_converted_once_and_searched_with_few_calls(calls: Counter[str], tmp_path: Path) -> None:
    backend = FakeBackend()
    sink = JsonlSink(tmp_path / "r.jsonl", backend.spec.labels)
    target = Target(str(DEMO), SourceOptions(end=SECONDS))
    stats = run([target], lambda info: pipeline(backend), backend, shared=[sink])
    frames = stats.processed
    assert frames == 48
    assert calls["conversions"] == frames
    assert calls["short"] <= 1.3 * frames
    assert calls["full"] <= 0.3 * frames
    assert calls["short pictures"] + calls["full pictures"] <= 2.0 * frames
    assert len(backend.batches) <= frames  # one call for all faces of a frame
    assert sum(backend.batches) <= 1.1 * 10 * SECONDS


def peaks(step: Callable[[Frame], Any], frames: Sequence[Frame]) -> list[float]:
    """The largest memory that arrays and objects needed at the same time during each frame, in sizes of the frame."""
    found = []
    tracemalloc.start()
    try:
        for frame in frames:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            step(frame)
            found.append((tracemalloc.get_traced_memory()[1] - before) / frame.image.nbytes)
    finally:
        tracemalloc.stop()
    return found


def test_no_frame_is_copied_between_the_decoder_and_the_back_end() -> None:
    steps = pipeline(FakeBackend())
    frames = frames_of(FULL_HD)
    try:
        found = peaks(steps.step, frames)
    finally:
        steps.close()
    copied = peaks(lambda frame: frame.image.copy(), frames[:1])
    assert copied[0] >= 1.0  # such a copy is seen
    assert max(found[1:]) < 0.25, found  # the first frame is searched completely


def test_a_decoded_picture_is_not_copied() -> None:
    image = cv2.resize(demo_frames(1)[0], FULL_HD[::-1])
    picture = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
    converter = ffmpeg.Converter()
    frames = [Frame(converter.later(picture), i, float(i), "clip") for i in range(3)]
    found = []
    for frame in frames:
        tracemalloc.start()
        assert frame.image.shape == (*FULL_HD, 3)
        found.append(tracemalloc.get_traced_memory()[1] / frame.image.nbytes)
        tracemalloc.stop()
    assert max(found) < 0.1, found  # the picture lies in FFmpeg's memory


def test_python_is_called_as_often_as_before() -> None:
    backend = FakeBackend()
    steps = pipeline(backend)
    count = [0, 0]  # functions of Python, functions of C

    def profile(frame: FrameType, event: str, argument: object) -> None:
        count[0] += event == "call"
        count[1] += event == "c_call"

    frames = frames_of()
    try:
        for frame in frames[:3]:
            steps.step(frame)
        sys.setprofile(profile)
        try:
            for frame in frames[3:]:
                steps.step(frame)
        finally:
            sys.setprofile(None)
    finally:
        steps.close()
    python, native = (total / len(frames[3:]) for total in count)
    assert python <= 346, (python, native)  # 315 and 463 on 2026-12-01
    assert native <= 509, (python, native)
