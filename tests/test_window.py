"""The window, with a fake of OpenCV's GUI functions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from clips import empty_frames, frames_in, write_clip
from commands import Leaf

from leaf_rt.errors import OutputError
from leaf_rt.render.window import Window
from leaf_rt.types import Estimates, Frame


class FakeScreen:
    """Records windows and images. Presses one of ``keys`` per frame."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: dict[str, list[np.ndarray]] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self.keys: list[int] = []
        self.visible = True
        monkeypatch.setattr("leaf_rt.render.window.why_no_window", lambda: None)
        monkeypatch.setattr("cv2.namedWindow", lambda name, _: self.shown.setdefault(name, []))
        monkeypatch.setattr("cv2.resizeWindow", lambda name, w, h: self.sizes.__setitem__(name, (w, h)))
        monkeypatch.setattr("cv2.imshow", lambda name, image: self.shown[name].append(image))
        monkeypatch.setattr("cv2.waitKey", lambda _: self.keys.pop(0) if self.keys else -1)
        monkeypatch.setattr("cv2.getWindowProperty", lambda *_: 1.0 if self.visible else 0.0)
        monkeypatch.setattr("cv2.destroyWindow", lambda name: self.shown.pop(name))


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> FakeScreen:
    return FakeScreen(monkeypatch)


def frame(width: int = 320, height: int = 240) -> Frame:
    return Frame(np.zeros((height, width, 3), np.uint8), 0, 0.0, "fake")


def no_faces() -> Estimates:
    zero, boxes, none = np.zeros((0, 2), np.float32), np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    flags = np.zeros(0, np.bool_)
    return Estimates(0.0, none, boxes, zero[:, 0], zero, zero, none, flags, flags, boxes)


@pytest.mark.parametrize("key", [ord("q"), 27])
def test_a_key_closes_the_window(screen: FakeScreen, key: int) -> None:
    window = Window(("a", "b"), blur=False)
    screen.keys = [-1, key]
    window.show("door", frame(), no_faces())
    assert not window.closed
    window.show("door", frame(), no_faces())
    assert window.closed
    assert [len(images) for images in screen.shown.values()] == [2]
    window.close()
    assert screen.shown == {}


def test_the_close_button_closes_the_window(screen: FakeScreen) -> None:
    window = Window(("a", "b"), blur=False)
    screen.visible = False
    window.show("door", frame(), no_faces())
    assert window.closed


def test_a_large_frame_fits_the_screen_and_keeps_its_aspect_ratio(screen: FakeScreen) -> None:
    window = Window(("a", "b"), blur=False)
    window.show("door", frame(3840, 2160), no_faces())
    assert list(screen.sizes.values()) == [(1280, 720)]


def test_blur_hides_an_unconfirmed_face(screen: FakeScreen) -> None:
    window = Window(("a", "b"), blur=True)
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    once = replace(no_faces(), seen=np.array([[100, 60, 180, 160]], np.float32))
    window.show("door", Frame(noise, 0, 0.0, "fake"), once)
    ((image,),) = screen.shown.values()
    assert len(np.unique(image[60:160, 100:180].reshape(-1, 3), axis=0)) < 50


def test_a_missing_display_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaf_rt.render.window.why_no_window", lambda: "no display")
    with pytest.raises(OutputError, match="--show: no display"):
        Window(("a", "b"), blur=False)


def test_q_stops_a_run_cleanly(
    screen: FakeScreen, capfd: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("window")
    clip = write_clip(folder / "hall.mp4", empty_frames(48))
    screen.keys = [-1] * 5 + [ord("q")]
    done = Leaf(capfd)("video", clip, "--show")
    assert done.code == 0, done.err
    assert 6 <= frames_in(folder / "hall.leaf.mp4.part") < 48  # not the whole file
    assert (folder / "hall.leaf.png.part").exists()
    assert screen.shown == {}
