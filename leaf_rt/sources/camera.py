"""Cameras of this machine, through OpenCV. The clock is an argument.

Must not know threads.
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
from leaf_rt.sources.base import Selector, SourceOptions
from leaf_rt.system.closing import Closing
from leaf_rt.types import Frame, SourceInfo

DEVICE_FOLDER = Path("/dev") if sys.platform.startswith("linux") else None


class Capture(Protocol):
    """The part of ``cv2.VideoCapture`` that this module uses."""

    def isOpened(self) -> bool: ...  # noqa: N802, D102

    def grab(self) -> bool: ...  # noqa: D102

    def retrieve(self) -> tuple[bool, Any]: ...  # noqa: D102

    def set(self, prop: int, value: float) -> bool: ...  # noqa: D102

    def get(self, prop: int) -> float: ...  # noqa: D102

    def release(self) -> None: ...  # noqa: D102


def open_capture(device: int) -> Capture:
    """Open a camera with OpenCV, without its messages on the terminal."""
    import cv2

    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)
    try:
        return cv2.VideoCapture(device, cv2.CAP_V4L2 if sys.platform.startswith("linux") else cv2.CAP_ANY)
    finally:
        cv2.utils.logging.setLogLevel(level)


class CameraSource(Closing):
    """One camera; see ``Source``. Timestamps are s since it was opened.

    Args:
        target: "0" or "/dev/video0".
        options: How to read it.
        capture: Opens the device with this number.
        clock: Monotonic clock, s.
        devices: Folder of the device files; None if the system has none.

    Raises:
        NotFound, NoPermission, DeviceBusy: It cannot be opened.
        NoFrames: It opens but gives no frame.
    """

    def __init__(
        self,
        target: str,
        options: SourceOptions,
        capture: Callable[[int], Capture] = open_capture,
        clock: Callable[[], float] = time.monotonic,
        devices: Path | None = DEVICE_FOLDER,
    ) -> None:
        import cv2

        self.warnings: list[str] = []
        self.damaged = 0
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
                raise self._open_error(devices)
            self._request_format(cv2)
            image = self._read()
            if image is None:
                raise NoFrames(f"{self._device}: opens but gives no frame; unplug it and plug it in again")
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
        size = (self.info.width, self.info.height)
        if any(
            requested not in (None, got) for requested, got in zip((options.width, options.height), size, strict=True)
        ):
            self.warnings.append(f"{self._device}: does not support the requested size; it gives {size[0]}x{size[1]}")

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the camera is unplugged.

        Raises:
            ConnectionLost: The camera gives no more frames.
        """
        selector = Selector(self._options)
        index = 0
        while True:
            if self._first is not None:
                image, self._first = self._first, None
            else:
                image = self._read()
                if image is None:
                    raise ConnectionLost(f"{self._device}: gives no more frames; check that it is plugged in")
            timestamp = self._clock() - self._opened
            if selector.selects(index, timestamp):
                if self._options.mirror:
                    image = image[:, ::-1]
                yield Frame(np.ascontiguousarray(image, dtype=np.uint8), index, timestamp, self.info.name)
            index += 1

    def close(self) -> None:
        """Release the camera. Safe to call twice."""
        self._capture.release()

    def _read(self) -> Any:
        """Read the next image; None if there is none. The time to wait for it does not count as decode time."""
        if not self._capture.grab():
            return None
        start = self._clock()
        ok, image = self._capture.retrieve()
        self.decode_time = self._clock() - start
        return image if ok else None

    def _request_format(self, cv2: Any) -> None:
        """Request size and rate. A camera that does not support them chooses others."""
        options = self._options
        if options.width is not None and options.width > 640:
            # USB 2 is too slow for raw images of this size at full rate; nearly every camera supports JPEG.
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        properties = (
            (cv2.CAP_PROP_FRAME_WIDTH, options.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, options.height),
            (cv2.CAP_PROP_FPS, options.fps),
            (cv2.CAP_PROP_BUFFERSIZE, 1),
        )
        for prop, value in properties:
            if value is not None:
                self._capture.set(prop, value)

    def _open_error(self, devices: Path | None) -> LeafError:
        if devices is not None:  # the device file is readable, so another program uses it
            return DeviceBusy(f"{self._device}: is in use by another program; close that program and try again")
        return NotFound(f"{self._device}: cannot be opened; check that it is plugged in and that you may use it")


def _check_device(devices: Path, number: int) -> None:
    path = devices / f"video{number}"
    if not path.exists():
        found = sorted(int(p.name[5:]) for p in devices.glob("video*") if p.name[5:].isdecimal())
        known = f"found {', '.join(map(str, found))}; choose one with --device" if found else "no camera is plugged in"
        raise NotFound(f"camera {number}: {path} does not exist; {known}")
    if not os.access(path, os.R_OK | os.W_OK):
        raise NoPermission(f"camera {number}: no permission to use {path}; join the group that owns it (video)")
