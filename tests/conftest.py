"""Fixtures for all tests: the command line, a clip with a face, and the media of ../shared/media if it exists."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from commands import Leaf

MEDIA = Path(__file__).parents[2] / "shared" / "media"


def pytest_configure() -> None:
    """Let Ctrl-C work in tests: a job in the background inherits an ignored SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that use the fixture ``media`` if the folder is missing."""
    for item in items:
        if "media" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skipif(not MEDIA.is_dir(), reason=f"needs the pictures and clips of {MEDIA}"))


@pytest.fixture
def media() -> Path:
    return MEDIA


@pytest.fixture
def leaf(capfd: pytest.CaptureFixture[str]) -> Leaf:
    """The command line, in this process."""
    from commands import Leaf

    return Leaf(capfd)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames of one woman, 24 per second, 640x360: ``face.mp4`` in a folder of its own."""
    from clips import demo_frames, write_clip

    return write_clip(tmp_path_factory.mktemp("clip") / "face.mp4", demo_frames(30))


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One frame of the clip: ``face.png``."""
    import cv2
    from clips import demo_frames

    path = tmp_path_factory.mktemp("face") / "face.png"
    cv2.imwrite(str(path), demo_frames(1)[0])
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with its description."""
    from engines_fakes import tiny_onnx

    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    tiny_onnx(path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine cache for this test only. What is not in it is timed for a moment."""
    monkeypatch.setattr("leaf_rt.backends.selection.BUDGET", 0.1)
    monkeypatch.setenv("LEAF_RT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_thread_stays() -> Iterator[None]:
    """Every thread that a run started ends soon after it."""
    from streams import no_thread_stays

    yield
    no_thread_stays()
