"""Shows annotated frames live, in one window per source. All calls must come from the main thread."""

from __future__ import annotations

import os
import sys

import cv2

from leaf_rt.errors import OutputError
from leaf_rt.render.overlay import FrameAnnotator
from leaf_rt.types import Estimates, Frame

_QUIT = (ord("q"), ord("Q"), 27)  # 27: Esc


def why_no_window() -> str | None:
    """Return why no window can be opened on this machine, or None if one can."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    gui = next((line for line in cv2.getBuildInformation().splitlines() if line.strip().startswith("GUI:")), "")
    if gui.split(":")[-1].strip() in ("", "NONE"):
        return "this OpenCV was built without windows"
    return None


class Window:
    """Shows the frames of all sources.

    Args:
        labels: Class names in the order of the model.
        blur: Whether to hide all faces.

    Attributes:
        closed: Whether the user pressed q or Esc, or closed a window.

    Raises:
        OutputError: No window can be opened on this machine.
    """

    def __init__(self, labels: tuple[str, ...], blur: bool) -> None:
        reason = why_no_window()
        if reason is not None:
            raise OutputError(f"--show: {reason}; omit it, because the annotated video and the records need no window")
        self.closed = False
        self._labels, self._blur = labels, blur
        self._titles: set[str] = set()
        self._annotators: dict[str, FrameAnnotator] = {}

    def show(self, name: str, frame: Frame, estimates: Estimates) -> None:
        """Draw a frame and show it in the window of the source ``name``."""
        title = f"leaf-rt: {name}"
        if title not in self._titles:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
            cv2.resizeWindow(title, *_fitting(frame.image.shape[1], frame.image.shape[0]))
            self._titles.add(title)
        annotator = self._annotators.setdefault(name, FrameAnnotator(self._blur))
        canvas = annotator.draw(frame.image.copy(), estimates, self._labels)
        cv2.imshow(title, canvas)
        key = cv2.waitKey(1) & 0xFF
        if key in _QUIT or cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1:
            self.closed = True

    def close(self) -> None:
        """Close all windows."""
        for title in self._titles:
            cv2.destroyWindow(title)
        self._titles.clear()


def _fitting(width: int, height: int) -> tuple[int, int]:
    """Return a window size that fits a usual screen."""
    scale = min(1.0, 1280 / max(1, width), 800 / max(1, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
