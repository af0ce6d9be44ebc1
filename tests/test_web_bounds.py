"""What strangers cannot make the server do: large pictures, endless clips, many uploads, deceiving addresses."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import struct
import subprocess
import threading
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from clips import DEMO
from web import Served, eventually

from leaf_rt.errors import CodecError, LeafError, NotAVideo, OutputError
from leaf_rt.media.ffmpeg import Bounds
from leaf_rt.media.images import decode_picture, picture_size
from leaf_rt.sources.base import SourceOptions
from leaf_rt.sources.opening import open_source
from leaf_rt.sources.video_file import VideoFileSource
from leaf_rt.web.allow import AllowList
from leaf_rt.web.options import Limits, WebOptions
from leaf_rt.web.server import _check_certificate

JPEG = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with Served() as one:
        yield one
    assert not [line for line in one.lines if "Traceback" in line or "boundary" in line], one.lines


def write_pictures(path: Path, sizes: list[tuple[int, int]]) -> Path:
    """An AVI file of PNG pictures that says 64x64 in its head, whatever the pictures are."""
    with av.open(str(path), "w", format="avi") as out:
        stream = out.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "rgb24"
        for index, (width, height) in enumerate(sizes):
            packet = av.Packet(cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))[1].tobytes())
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = index
            out.mux(packet)
    return path


def test_a_picture_that_is_larger_than_the_head_says_is_not_decoded(tmp_path: Path) -> None:
    bounds = Bounds("avi", 640 * 480)
    later = write_pictures(tmp_path / "later.avi", [(64, 64)] * 3 + [(2000, 2000)])
    with VideoFileSource(later, SourceOptions()) as source:
        assert [frame.image.shape[1] for frame in source] == [64, 64, 64, 2000]
    with VideoFileSource(later, SourceOptions(), bounds) as source:
        assert [frame.image.shape[1] for frame in source] == [64, 64, 64]
        assert source.warnings
    with pytest.raises(CodecError):
        VideoFileSource(write_pictures(tmp_path / "first.avi", [(2000, 2000)]), SourceOptions(), bounds)


def test_only_the_formats_of_clips_are_read_from_strangers(tmp_path: Path) -> None:
    listed = tmp_path / "list.ffconcat"
    listed.write_text(f"ffconcat version 1.0\nfile {DEMO.name}\n")
    (tmp_path / DEMO.name).write_bytes(DEMO.read_bytes())
    with VideoFileSource(listed, SourceOptions()) as source:  # an own list is read
        assert source.info.width == 640
    with pytest.raises(LeafError):
        VideoFileSource(listed, SourceOptions(), Bounds("mov,mp4,avi", 1 << 24))


def test_a_clip_with_too_many_frames_ends(tmp_path: Path, clip: Path) -> None:
    """Frames may follow each other in no time, so the length in seconds is no bound."""
    import asyncio

    from leaf_rt.web.jobs import Job, Jobs

    class Manager:
        async def add_job(self, addition: object) -> str:
            job.frames = 5
            return "job"

        async def remove_job(self, name: str) -> None:
            removed.append(name)

    removed: list[str] = []
    job = Job()
    jobs = Jobs(Manager(), ["a"], Limits(video_frames=5))  # type: ignore[arg-type]

    async def process() -> None:
        async with asyncio.timeout(10):
            await jobs._process(job, clip)

    with pytest.raises(Exception, match="too many frames"):
        asyncio.run(process())
    assert removed == ["job"]


def test_clips_and_pictures_that_are_received_are_counted(server: Served) -> None:
    head = "POST /v1/{} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n"
    for kind, places in (("video", Limits().jobs), ("image", Limits().uploads)):
        with contextlib.ExitStack() as stack:
            for _ in range(places):
                one = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                one.sendall(head.format(kind).encode() + b"\0\0\0\x18ftypmp42" + bytes(500_000))
            eventually(lambda kind=kind: server.ask("POST", f"/v1/{kind}", JPEG)[0] == 503)
        eventually(lambda kind=kind: server.ask("POST", f"/v1/{kind}", JPEG)[0] in (200, 415))


def test_a_malformed_multipart_body_is_answered_in_full(server: Served) -> None:
    body = b"\r\n--" * 4_000_000
    status, _, answer = server.ask("POST", "/v1/image", body, Content_Type="multipart/form-data; boundary=B")
    assert status == 400
    assert json.loads(answer)["detail"]


def test_a_message_that_is_nested_without_end_is_answered(server: Served) -> None:
    with server.socket("/v1/camera") as socket_:
        socket_.send("[" * 100_000)
        assert json.loads(socket_.recv(5))["type"] == "error"
    with server.socket("/v1/live") as socket_:
        socket_.send("[" * 100_000)
        kinds = [json.loads(socket_.recv(5))["type"] for _ in range(2)]
        assert "error" in kinds


def test_names_that_deceive_are_written_with_escapes(server: Served) -> None:
    source = server.add("sample", "a\u202egpj.exe\x9b")
    assert source["name"] == r"a\u202egpj.exe\x9b"
    server.ask("DELETE", f"/v1/sources/{source['id']}")


def test_half_a_character_in_the_name_of_a_camera_stops_nobody(server: Served) -> None:
    """JSON may hold one, and UTF-8 may not."""
    with server.socket("/v1/camera") as socket_:
        socket_.send('{"type": "hello", "width": 64, "height": 48, "name": "a\\ud800b"}')
        socket_.recv(20)
        assert [s["name"] for s in server.sources() if s["kind"] == "browser"] == ["a\\ud800b"]
    eventually(lambda: not server.sources())


def test_a_camera_that_reads_no_answers_keeps_no_pictures() -> None:
    """Its answers wait, but not all of them: each holds its picture."""
    import asyncio
    import gc
    import weakref

    from streams import frame

    from leaf_rt.web.hub import Hub, LiveFrame
    from leaf_rt.web.live import Live

    class Deaf:
        def __init__(self) -> None:
            self.said = [{"type": "websocket.receive", "text": '{"type": "hello", "width": 64, "height": 64}'}]

        async def accept(self) -> None: ...

        async def send_text(self, text: str) -> None: ...

        async def receive(self) -> object:
            return self.said.pop() if self.said else await asyncio.Event().wait()

        async def send_bytes(self, data: bytes) -> None:
            await asyncio.Event().wait()

    class Manager:
        async def add_open(self, *_: object) -> dict[str, str]:
            return {"id": "s1", "name": "deaf"}

        def states(self) -> dict[str, tuple[str, str]]:
            return {"s1": ("live", "")}

        async def remove(self, source_id: str) -> None: ...

    async def film() -> int:
        live = Live(Hub(["a", "b"]), Manager(), Limits())  # type: ignore[arg-type]
        task = asyncio.create_task(live.film(Deaf()))  # type: ignore[arg-type]
        await asyncio.sleep(0.2)
        kept = []
        for index in range(50):
            one = frame(index, source="deaf")
            answer = LiveFrame(one, one.image, [], [], 0.0, None)
            kept.append(weakref.ref(one.image))
            live._pass_on(answer)
            await asyncio.sleep(0)
        del one, answer
        gc.collect()
        alive = sum(image() is not None for image in kept)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return alive

    assert 1 <= asyncio.run(film()) <= 4


def test_a_bomb_is_called_too_large() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        import zlib

        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    with pytest.raises(CodecError, match="pixels"):
        picture_size(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b""), "x")
    with pytest.raises(NotAVideo):  # Pillow would run it through more code than any picture needs
        picture_size(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "x")


def test_transparent_pictures_are_put_on_white_in_parts() -> None:
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 65536, (600, 31, 4), dtype=np.uint16)
    got = decode_picture(cv2.imencode(".png", picture)[1].tobytes(), "x").astype(np.float64)
    alpha = picture[..., 3:] / 65535
    assert np.abs(got - (picture[..., :3] / 257 * alpha + 255 * (1 - alpha))).max() < 1.5


@pytest.mark.parametrize(
    "target",
    ["rtsp://10.0.0.7/live/%2e%2e/admin", "rtsp://10.0.0.7/live/%252e%252e/admin", "rtsp://10.0.0.7/live/..%5cadmin",
     "rtsp://10.0.0.7/live/%5c", "rtsp://10.0.0.7/live#/../x", "rtsp://10.0.0.7/live\u2025/x",
     "rtsp://10.0.0.\uff17/live1"],
)  # fmt: skip
def test_spellings_of_other_paths_and_hosts_are_refused(target: str) -> None:
    some = AllowList(["rtsp://10.0.0.*/live*"])
    assert some.permits("rtsp://10.0.0.7/live/1?x=%20")
    assert not some.permits(target)


def test_a_server_leads_visitors_nowhere() -> None:
    """By a redirect of HTTP or RTSP, or by a playlist; the operator's own sources may follow them."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path == "/list.m3u8":
                self.send_response(200)
                self.send_header("Content-Type", "application/vnd.apple.mpegurl")
                self.end_headers()
                self.wfile.write(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{secret}\n#EXT-X-ENDLIST\n".encode())
                return
            self.send_response(302)
            self.send_header("Location", secret)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Inner(Handler):
        def do_GET(self) -> None:
            reached.append("http")
            self.send_error(404)

    class Camera(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append("rtsp")
            while self.rfile.readline() not in (b"", b"\r\n"):
                pass
            self.wfile.write(f"RTSP/1.0 302 Moved\r\nCSeq: 1\r\nLocation: {hidden}\r\n\r\n".encode())

    class Hidden(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            reached.append("rtsp")

    asked: list[str] = []
    reached: list[str] = []
    with contextlib.ExitStack() as stack:

        def serve(make: Any, handler: Any) -> int:
            one = stack.enter_context(make(("127.0.0.1", 0), handler))
            threading.Thread(target=one.serve_forever, args=(0.02,), daemon=True).start()
            stack.callback(one.shutdown)
            return int(one.server_address[1])

        secret = f"http://127.0.0.1:{serve(ThreadingHTTPServer, Inner)}/secret.ts"
        hidden = f"rtsp://127.0.0.1:{serve(socketserver.ThreadingTCPServer, Hidden)}/secret"
        outer = serve(ThreadingHTTPServer, Handler)
        urls = [f"http://127.0.0.1:{outer}/video", f"http://127.0.0.1:{outer}/list.m3u8",
                f"rtsp://127.0.0.1:{serve(socketserver.ThreadingTCPServer, Camera)}/live"]  # fmt: skip
        for url in urls:
            before = len(reached)
            with pytest.raises(LeafError):
                open_source(url, SourceOptions(open_timeout=3.0))
            assert len(reached) > before, url
        reached.clear()
        with Served(*[part for url in urls for part in ("--allow-source", url)]) as server:
            for url in urls:
                before = len(asked)
                source = server.add(url)
                eventually(lambda name=source["name"]: server.state(name) in ("offline", "refused", "ended"))
                assert len(asked) > before, url
        assert reached == []


@pytest.mark.parametrize(
    "token", ["a token with blanks", "token;Path=/x;long", 'token"quote"token', "token&more=1&more"]
)
def test_a_token_that_needs_quotes_is_refused(token: str) -> None:
    with pytest.raises(OutputError, match="--token"):
        WebOptions(token=token)


def test_a_key_with_a_passphrase_and_an_endless_file_are_errors(tmp_path: Path) -> None:
    line = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-passout", "pass:secret", "-days", "1"]
    line += ["-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(line, cwd=tmp_path, check=True, capture_output=True)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    for options in (WebOptions(certificate=cert, key=key), WebOptions(certificate=Path("/dev/zero"))):
        with pytest.raises(OSError, match=r"PEM|passphrase|password|BAD_|bad|regular|file|device"):
            _check_certificate(options)


def test_cookies_of_other_programs_do_no_harm() -> None:
    token = "correct-horse-battery"
    with Served(host="0.0.0.0", LEAF_RT_TOKEN=token) as server:
        _, headers, _ = server.ask("GET", f"/?token={token}")
        name = f"leaf_rt_token_{server.port}"  # a second server on this host has its own
        assert headers["set-cookie"].startswith(f"{name}={token};")
        cookie = f'other={{"a": 1, "b"}}; b@d[]=1; leaf_rt_token_1=other; {name}={token}'
        assert server.ask("GET", "/v1/info", Cookie=cookie)[0] == 200
