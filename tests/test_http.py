"""Cameras and video files over HTTP."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import pytest
from clips import DEMO, empty_frames

from leaf_rt.errors import AuthError, ConnectionLost, LeafError, NotAVideo, NotFound
from leaf_rt.sources.base import SourceOptions
from leaf_rt.sources.opening import open_source

FPS = 20

# Lists of a server. The last one is harmless.
LISTS = {
    "/local.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:20\n#EXTINF:19,\nfile://{demo}\n#EXT-X-ENDLIST\n",
    "/path.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:20\n#EXTINF:19,\nsubfile,,start,0,end,0,,:{demo}\n#EXT-X-ENDLIST\n",
    "/concat": "ffconcat version 1.0\nfile {demo}\n",
    "/own.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:20\n#EXTINF:19,\n/video.mp4\n#EXT-X-ENDLIST\n",
}


class Handler(BaseHTTPRequestHandler):
    """/mjpeg is a camera, /video.mp4 a file, /page a web page; /locked needs a password."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/mjpeg":
            self._camera()
        elif path == "/video.mp4":
            self._send(200, "video/mp4", DEMO.read_bytes())
        elif path == "/page":
            self._send(200, "text/html", b"<html>" + b"hello " * 500)
        elif path == "/short":  # a page without a length, as many cameras send it
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>please log in</html>")
        elif path in LISTS:
            self._send(200, "application/vnd.apple.mpegurl", LISTS[path].format(demo=DEMO).encode())
        elif path == "/moved":
            self.send_response(302)
            self.send_header("Location", DEMO.as_uri())
            self.end_headers()
        else:
            self._send(401 if path == "/locked" else 404, "text/plain", b"")

    def _send(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def _camera(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        pictures = [cv2.imencode(".jpg", image)[1].tobytes() for image in empty_frames(10)]
        try:
            for picture in itertools.islice(itertools.cycle(pictures), 60):
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture))
                self.wfile.write(picture + b"\r\n")
                time.sleep(1 / FPS)
        except OSError:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_motion_jpeg_camera_has_real_timestamps(base: str) -> None:
    with open_source(f"{base}/mjpeg") as source:
        assert (source.info.width, source.info.height, source.info.is_live) == (320, 180, True)
        begin = time.monotonic()
        frames = [frame for frame, _ in zip(source, range(25), strict=False)]
        elapsed = time.monotonic() - begin
    assert frames[-1].timestamp - frames[0].timestamp == pytest.approx(elapsed, abs=0.3)


@pytest.mark.slow
def test_a_video_file_on_a_server_is_not_live(base: str) -> None:
    with open_source(f"{base}/video.mp4", SourceOptions(stride=24)) as source:
        assert not source.info.is_live
        assert source.info.duration == pytest.approx(19.7, abs=0.1)
        assert [frame.index for frame in source] == list(range(0, 472, 24))
    with open_source(f"{base}/video.mp4", SourceOptions(start=2.0, end=3.0)) as source:
        assert [frame.index for frame in source] == list(range(48, 72))


@pytest.mark.parametrize(
    ("path", "error"),
    [("/locked", AuthError), ("/nothing", NotFound), ("/page", NotAVideo), ("/short", NotAVideo)],
    ids=lambda v: str(v),
)
def test_errors_of_a_server_have_their_own_classes(base: str, path: str, error: type[LeafError]) -> None:
    url = base.replace("127.0.0.1", "me:secret@127.0.0.1") + path
    with pytest.raises(error) as caught:
        open_source(url)
    assert "secret" not in str(caught.value)


def test_a_server_without_tls_is_reported(base: str) -> None:
    with pytest.raises(ConnectionLost, match="TLS"):
        open_source(base.replace("http:", "https:") + "/mjpeg", SourceOptions(open_timeout=2, read_timeout=1))


@pytest.mark.parametrize("path", ["/local.m3u8", "/path.m3u8", "/concat", "/moved"])
def test_a_server_cannot_reach_the_files_of_this_machine(base: str, path: str) -> None:
    """Neither by a playlist nor by a redirect. The clip that they name exists and can be read."""
    with pytest.raises(LeafError) as caught:
        open_source(base + path, SourceOptions(open_timeout=2, read_timeout=1))
    assert "Traceback" not in str(caught.value)
    assert "permission" not in str(caught.value).lower()


@pytest.mark.slow
def test_a_playlist_of_a_servers_own_files_is_read(base: str) -> None:
    with open_source(base.replace("http:", "HTTP:") + "/own.m3u8", SourceOptions(end=1.0)) as source:
        assert [frame.index for frame in source] == list(range(24))
