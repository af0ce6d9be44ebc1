"""Cameras of this machine, through OpenCV behind a small adapter.

Knows OpenCV's capture interface; must not know threads. The clock is an argument.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from leaf_rt.errors import ConnectionLost, DeviceBusy, LeafError, NoFrames, NoPermission, NotFound
from leaf_rt.sources.base import Selector, SourceInfo, SourceOptions
from leaf_rt.system.closing import Closing
from leaf_rt.types import Frame

DEVICES = Path("/dev") if sys.platform.startswith("linux") else None


class Capture(Protocol):
    """The part of ``cv2.VideoCapture`` that is used."""

    def isOpened(self) -> bool: ...  # noqa: N802, D102

    def grab(self) -> bool: ...  # noqa: D102

    def retrieve(self) -> tuple[bool, Any]: ...  # noqa: D102

    def set(self, prop: int, value: float) -> bool: ...  # noqa: D102

    def get(self, prop: int) -> float: ...  # noqa: D102

    def release(self) -> None: ...  # noqa: D102


def open_capture(device: int) -> Capture:
    """OpenCV's capture of a camera; its own complaints stay off the terminal."""
    import cv2

    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)
    try:
        return cv2.VideoCapture(device, cv2.CAP_V4L2 if sys.platform.startswith("linux") else cv2.CAP_ANY)
    finally:
        cv2.utils.logging.setLogLevel(level)


class CameraSource(Closing):
    """One camera; see ``Source``. Timestamps are s since it was opened, by the clock it is given.

    Args:
        target: "0" or "/dev/video0".
        options: See ``SourceOptions``.
        capture: Opens the device of a number.
        clock: s, monotonic.
        devices: Folder of the device files; looked into on Linux alone.

    Raises:
        NotFound, NoPermission, DeviceBusy: Why it does not open.
        NoFrames: It opens and gives no picture.
    """

    def __init__(
        self,
        target: str,
        options: SourceOptions,
        capture: Callable[[int], Capture] = open_capture,
        clock: Callable[[], float] = time.monotonic,
        devices: Path | None = DEVICES,
    ) -> None:
        import cv2

        self.warnings: list[str] = []
        self.decode_time: float | None = 0.0
        self._options = options
        self._clock = clock
        self._number = int(target.removeprefix("/dev/video"))
        self._device = f"camera {self._number}"
        if devices is not None:
            _check_device(devices, self._number)
        self._capture = capture(self._number)
        try:
            if not self._capture.isOpened():
                raise self._refused(devices)
            self._ask(cv2)
            image = self._read()
            if image is None:
                raise NoFrames(f"{self._device}: opens but gives no picture; unplug it and plug it in again")
        except BaseException:
            self._capture.release()
            raise
        self._opened = clock()
        self._first: Any = image
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.info = SourceInfo(
            name=options.name or self._device,
            target=target,
            kind="camera",
            width=int(image.shape[1]),
            height=int(image.shape[0]),
            fps=fps if 0 < fps < 1000 else None,
            is_live=True,
            decoder="OpenCV",
        )
        for wanted, got in ((options.width, self.info.width), (options.height, self.info.height)):
            if wanted is not None and wanted != got:
                size = f"{self.info.width}x{self.info.height}"
                self.warnings.append(f"{self._device}: does not have the size asked for; it gives {size}")
                break

    def __iter__(self) -> Iterator[Frame]:
        """Pictures until the camera goes away.

        Raises:
            ConnectionLost: It gave no further picture.
        """
        selector = Selector(self._options)
        index = 0
        while True:
            if self._first is not None:
                image, self._first = self._first, None
            else:
                image = self._read()
                if image is None:
                    raise ConnectionLost(f"{self._device}: gives no more pictures; is it still plugged in?")
            timestamp = self._clock() - self._opened
            if selector.wants(index, timestamp):
                if self._options.mirror:
                    image = image[:, ::-1]
                yield Frame(np.ascontiguousarray(image, dtype=np.uint8), index, timestamp, self.info.name)
            index += 1

    def close(self) -> None:
        """Give the camera back; may be called twice."""
        self._capture.release()

    def _read(self) -> Any:
        """The next picture, or None; waiting for it does not count as decoding."""
        if not self._capture.grab():
            return None
        start = self._clock()
        ok, image = self._capture.retrieve()
        self.decode_time = self._clock() - start
        return image if ok else None

    def _ask(self, cv2: Any) -> None:
        """Ask for size and rate; cameras take what they can."""
        options = self._options
        if options.width is not None and options.width > 640:
            # Raw pictures of this size do not fit through USB 2 at full rate; nearly every camera has JPEG.
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        wanted = (
            (cv2.CAP_PROP_FRAME_WIDTH, options.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, options.height),
            (cv2.CAP_PROP_FPS, options.fps),
            (cv2.CAP_PROP_BUFFERSIZE, 1),
        )
        for prop, value in wanted:
            if value is not None:
                self._capture.set(prop, value)

    def _refused(self, devices: Path | None) -> LeafError:
        if devices is not None:  # the device file is there and readable, so somebody holds it
            return DeviceBusy(f"{self._device}: is in use by another program; close that program and try again")
        return NotFound(f"{self._device}: does not open; check that it is plugged in and that this program may use it")


def _check_device(devices: Path, number: int) -> None:
    path = devices / f"video{number}"
    if not path.exists():
        found = sorted(int(p.name[5:]) for p in devices.glob("video*") if p.name[5:].isdecimal())
        known = f"there is {', '.join(map(str, found))}; choose with --device" if found else "no camera is plugged in"
        raise NotFound(f"camera {number}: {path} does not exist; {known}")
    if not os.access(path, os.R_OK | os.W_OK):
        raise NoPermission(f"camera {number}: {path} may not be used; add yourself to the group that owns it (video)")
