"""Files use several cores: the next frames are searched while the last one is classified, with the same results."""

from __future__ import annotations

import threading
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from clips import DEMO
from fakes import FakeBackend
from streams import INFO, Keeping, OneFace, Opener, Script, balanced, frames, no_thread_stays

from leaf_rt.backends.opening import open_backend
from leaf_rt.faces.tracker import FaceTracker
from leaf_rt.models.spec import DEFAULT_MODEL
from leaf_rt.recognition.config import PipelineOptions, RecognitionConfig
from leaf_rt.recognition.factory import build_pipeline
from leaf_rt.recognition.pipeline import Pipeline
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.stream.look_ahead import DEPTH
from leaf_rt.stream.options import Hooks, RunOptions
from leaf_rt.stream.runner import run
from leaf_rt.system.signals import StopSignal
from leaf_rt.types import U8, Estimates, Frame, Prediction, SourceInfo

MEDIA = Path(__file__).parents[2] / "shared" / "media"
COUNT = 20


class Meeting(FakeBackend):
    """Classifies the face of a frame only when the detector has begun with one of the next frames."""

    def __init__(self, ahead: int = 1) -> None:
        super().__init__()
        self.ahead = ahead
        self.filled = threading.Event()  # all frames wait in the buffer
        self.begun = [threading.Event() for _ in range(COUNT)]

    def search(self, frame: Frame) -> None:
        assert self.filled.wait(20)
        self.begun[frame.index].set()

    def infer(self, faces: U8) -> Prediction:
        following = min(len(self.batches) + self.ahead, COUNT - 1)
        assert self.begun[following].wait(20), "the next frames were not searched meanwhile"
        assert not any(begun.is_set() for begun in self.begun[len(self.batches) + DEPTH + 1 :])
        return super().infer(faces)


def play(backend: Meeting, **arguments: object) -> tuple[Keeping, bool]:
    def pipeline(info: SourceInfo) -> Pipeline:
        every_frame = PipelineOptions(classify_fps=0.0)
        return Pipeline(OneFace(backend.search), FaceTracker(), backend, options=every_frame)

    opener = Opener(a=[Script(INFO, [*frames(COUNT), backend.filled.set])])
    sink = Keeping()
    options = RunOptions(workers=2, queue=COUNT)
    target = Target("a", SourceOptions())
    stats = run([target], pipeline, backend, shared=[sink], opener=opener, options=options, **arguments)  # type: ignore[arg-type]
    no_thread_stays()
    return sink, balanced(stats)


@pytest.mark.parametrize("ahead", [1, DEPTH])
def test_the_next_frames_are_searched_while_the_last_one_is_classified(ahead: int) -> None:
    sink, is_balanced = play(Meeting(ahead))
    assert [index for _, index, _, _ in sink.rows] == list(range(COUNT))
    assert is_balanced


def test_a_frame_that_was_searched_ahead_is_finished_or_counted_when_the_run_stops() -> None:
    stop = StopSignal()
    hooks = Hooks(frame=lambda info, frame, found: stop.set() if frame.index == 5 else None)
    sink, is_balanced = play(Meeting(), stop=stop, hooks=hooks)
    rows = [index for _, index, _, _ in sink.rows]
    assert rows == list(range(len(rows)))
    assert is_balanced


def rows_of(path: Path, seconds: float, workers: int) -> list[tuple[bytes, ...]]:
    """All estimates of a clip, to the last bit."""
    backend = open_backend(DEFAULT_MODEL, "onnxruntime", precision="fp32")
    kept: list[tuple[bytes, ...]] = []

    def keep(info: SourceInfo, frame: Frame, found: Estimates) -> None:
        values = [np.asarray(getattr(found, field.name)).tobytes() for field in fields(found)]
        kept.append((frame.index.to_bytes(4, "big"), *values))

    try:
        target = Target(str(path), SourceOptions(end=seconds))
        config = RecognitionConfig(pose=True)
        options = RunOptions(workers=workers)
        run([target], lambda info: build_pipeline(config, backend), backend, hooks=Hooks(frame=keep), options=options)
    finally:
        backend.close()
    return kept


@pytest.mark.slow
@pytest.mark.parametrize("clip", ["demo.mp4", "noface_face.mov"])
def test_the_results_do_not_depend_on_the_number_of_threads(clip: str) -> None:
    path = DEMO if clip == "demo.mp4" else MEDIA / clip
    if not path.is_file():
        pytest.skip(f"{clip} is not there")
    alone = rows_of(path, 3.0, workers=1)
    assert len(alone) > 40
    assert rows_of(path, 3.0, workers=2) == alone
