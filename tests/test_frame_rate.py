"""The same clip gives the same curves at 10, 30 and 60 frames/s and with random drops. Uses all real parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from clips import DEMO

from leaf_rt.backends.base import Backend
from leaf_rt.backends.opening import open_backend
from leaf_rt.faces.tracker import FaceTracker
from leaf_rt.faces.video_detector import VideoFaceDetector
from leaf_rt.models.spec import DEFAULT_MODEL
from leaf_rt.recognition.pipeline import Pipeline
from leaf_rt.recognition.smoothing import SmoothOptions
from leaf_rt.sources.base import SourceOptions
from leaf_rt.sources.opening import open_source
from leaf_rt.types import Frame

pytestmark = pytest.mark.slow

START, END = 5.0, 11.0  # s: the face changes from sadness over surprise to happiness
# A face is classified 10 times per second, at instants that depend on the frame rate.
# Mean over all classes; 95th percentile over time of the class that differs most. They hold for the answers of the
# network: the calibration makes them sharper, and every difference larger. Measured: 0.012 and 0.097.
MEAN_TOLERANCE, P95_TOLERANCE = 0.02, 0.12


@pytest.fixture(scope="module")
def clip() -> list[Frame]:
    with open_source(str(DEMO), SourceOptions(start=START, end=END)) as source:
        return list(source)


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    opened = open_backend(DEFAULT_MODEL, "onnxruntime", 1)
    opened.spec = replace(opened.spec, calibration={})
    yield opened
    opened.close()


def at_rate(clip: list[Frame], fps: float, drop: float = 0.0) -> Iterator[Frame]:
    """The clip as a camera with this frame rate sees it."""
    rng = np.random.default_rng(0)
    times = np.array([frame.timestamp for frame in clip])
    for index, now in enumerate(np.arange(START + 0.05, END - 0.05, 1.0 / fps)):
        if rng.random() >= drop:
            shown = clip[int(np.searchsorted(times, now, side="right")) - 1]
            yield Frame(shown.image, index, float(now), "clip")


def curve(frames: Iterator[Frame], backend: Backend) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times (T,), smoothed probabilities (T, C) and shown labels (T,) of the only person."""
    pipeline = Pipeline(VideoFaceDetector(), FaceTracker(), backend, SmoothOptions())
    try:
        seen = [e for e in map(pipeline.step, frames) if len(e) == 1]
    finally:
        pipeline.close()
    times = np.array([e.timestamp for e in seen])
    return times, np.stack([e.smoothed[0] for e in seen]), np.array([e.emotion[0] for e in seen])


def sampled(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    at = np.arange(START + 1.0, END - 0.3, 0.1)
    return np.stack([np.interp(at, times, column) for column in values.T], axis=1)


@pytest.fixture(scope="module")
def reference(clip: list[Frame], backend: Backend) -> np.ndarray:
    return sampled(*curve(at_rate(clip, 30.0), backend)[:2])


@pytest.mark.parametrize(("fps", "drop"), [(10.0, 0.0), (60.0, 0.0), (30.0, 0.4)])
def test_the_curves_are_the_same(
    clip: list[Frame], backend: Backend, reference: np.ndarray, fps: float, drop: float
) -> None:
    times, values, labels = curve(at_rate(clip, fps, drop), backend)
    difference = np.abs(sampled(times, values) - reference)
    assert difference.mean() < MEAN_TOLERANCE
    assert np.percentile(difference.max(axis=1), 95) < P95_TOLERANCE
    flips = times[1:][np.diff(labels) != 0]
    assert (np.diff(flips) >= SmoothOptions().min_dwell - 1.0 / fps).all()


def test_the_clip_has_a_large_enough_change(reference: np.ndarray) -> None:
    assert np.ptp(reference, axis=0).max() > 0.4
