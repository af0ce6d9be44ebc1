"""Cameras: their frames, and the errors of cameras that give none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from streams import FakeCapture

from leaf_rt.errors import ConnectionLost, DeviceBusy, LeafError, NoFrames, NoPermission, NotFound
from leaf_rt.sources.base import SourceOptions
from leaf_rt.sources.camera import CameraSource


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    for number in (0, 2, 10):
        (tmp_path / f"video{number}").touch()
    return tmp_path


def ticking() -> Any:
    time = iter(np.arange(0, 100, 0.01).tolist())
    return lambda: next(time)


def test_a_camera_gives_frames_until_it_is_unplugged(devices: Path) -> None:
    capture = FakeCapture()
    options = SourceOptions(width=1280, height=720, fps=30, mirror=True)
    with CameraSource("/dev/video2", options, lambda n: capture, ticking(), devices) as source:
        frames = iter(source)
        got = [next(frames) for _ in range(5)]
        with pytest.raises(ConnectionLost, match="plugged in"):
            next(frames)
        info = source.info
        assert (info.name, info.width, info.height, info.fps, info.is_live) == ("camera 2", 640, 480, 30.0, True)
        assert source.warnings == ["camera 2: does not support the requested size; it gives 640x480"]
    assert capture.released == 1
    assert capture.requested[cv2.CAP_PROP_FRAME_WIDTH] == 1280
    assert [f.index for f in got] == [0, 1, 2, 3, 4]
    assert (np.diff([f.timestamp for f in got]) > 0).all()
    assert got[0].image[0, -1].tolist() == [255, 255, 255]  # mirrored


@pytest.mark.parametrize(
    ("target", "capture", "error", "words"),
    [
        ("1", FakeCapture(), NotFound, "found 0, 2, 10"),
        ("0", FakeCapture(opened=False), DeviceBusy, "another program"),
        ("0", FakeCapture(pictures=0), NoFrames, "gives no frame"),
    ],
)
def test_a_camera_that_does_not_open(
    devices: Path, target: str, capture: FakeCapture, error: type[LeafError], words: str
) -> None:
    with pytest.raises(error, match=words):
        CameraSource(target, SourceOptions(), lambda n: capture, ticking(), devices)


def test_no_camera_at_all(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no camera is plugged in"):
        CameraSource("0", SourceOptions(), lambda n: FakeCapture(), ticking(), tmp_path)


def test_a_camera_without_permission(devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root has every permission
    with pytest.raises(NoPermission, match="group"):
        CameraSource("0", SourceOptions(), lambda n: FakeCapture(), ticking(), devices)
