"""A real Chromium for the tests of the page, with the demo clip as its camera."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import pytest
from clips import demo_frames

CHROMIUM = shutil.which("chromium")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def camera_clip(path: Path) -> Path:
    """The demo clip as the Motion JPEG file that Chromium's fake camera plays in a loop."""
    with av.open(str(path), "w", format="mjpeg") as out:
        stream = out.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuvj420p"
        stream.time_base = Fraction(1, 24)
        for index, image in enumerate(demo_frames(480)):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuvj420p")
            frame.pts, frame.time_base = index, Fraction(1, 24)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@contextmanager
def driving() -> Iterator[Any]:
    """Playwright; skips if it or Chromium is missing. Nothing is downloaded."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    with playwright.sync_playwright() as driver:
        yield driver


@contextmanager
def chromium(driver: Any, *flags: str) -> Iterator[Any]:
    """A headless Chromium of this machine."""
    browser = driver.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *flags])
    try:
        yield browser
    finally:
        browser.close()


@dataclass
class Visit:
    """A page, with everything that it complained about and every host that it asked."""

    page: Any
    problems: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.on("console", lambda m: self.problems.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self._ask(request.url))
        self.page.on("websocket", lambda socket: self._ask(socket.url))

    def _ask(self, url: str) -> None:
        if not url.startswith(("blob:", "data:")):
            self.hosts.add(urlsplit(url).netloc)

    def open(self, url: str) -> Any:
        """Open an address and return the page."""
        self.page.goto(url)
        return self.page

    def is_clean(self, url: str) -> None:
        """Assert that nothing was reported, and that only the server was asked."""
        assert self.problems == []
        assert self.hosts == {urlsplit(url).netloc}
