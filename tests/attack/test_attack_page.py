"""The live page and the HTTP API from outside: garbage on every door, damaged uploads, greedy and silent clients."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from attacks import MARKS, attacks, mutate
from clips import demo_frames, write_clip
from web import Served, eventually
from websockets.exceptions import ConnectionClosed

pytestmark = MARKS

MEMORY = 1500  # MB that a server may have at any time
TEXTS = (
    "", "..", "%2e%2e%2f", "\0", "a" * 5000, "<img src=x onerror=alert(1)>", "\ud800", "\u202e", "\r\nX: y", "s1", "0",
    "sample", "file:///etc/passwd", "http://169.254.169.254/", "HTTP://LOCALHOST/", "rtsp://[::1]/", "nan", "1e999",
)  # fmt: skip
PATHS = (
    "/", "/static/", "/v1/info", "/v1/sources", "/v1/sources/s1", "/v1/sources/s1/records",
    "/v1/sources/s1/snapshot.jpg", "/v1/image", "/v1/video", "/v1/jobs/x", "/v1/jobs/x/records", "/v1/live",
    "/v1/camera", "/healthz", "/openapi.json",
)  # fmt: skip
NAMES = (
    "Origin", "Cookie", "Authorization", "Content-Type", "Content-Length", "Transfer-Encoding", "Expect", "Upgrade",
    "Connection", "Range", "X-Forwarded-For",
)  # fmt: skip
VALUES = (
    "chunked", "100-continue", "websocket", "Upgrade", "multipart/form-data; boundary=b", "null",
    "99999999999999999999", "application/json", "bytes=0-0,1-1",
)  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    before = set(Path("/tmp").glob("leaf-rt-*"))
    with Served() as one:
        yield one
        for source in one.sources():
            one.ask("DELETE", f"/v1/sources/{source['id']}")
        eventually(lambda: one.sources() == [])
        assert one.stop() in (0, 130)
    assert not [line for line in one.lines if "Traceback" in line or "bug in leaf-rt" in line], one.lines
    assert not any("\x1b" in line for line in one.lines)
    assert not any("socket.send()" in line for line in one.lines), "asyncio warns on the terminal"
    assert set(Path("/tmp").glob("leaf-rt-*")) <= before, "an upload was left"


def check(server: Served) -> None:
    """It still works, and takes no more memory than it may."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    assert int(status.split("VmHWM:")[1].split()[0]) // 1024 < MEMORY
    begin = time.monotonic()
    assert server.ask("GET", "/v1/info")[0] == 200
    assert time.monotonic() - begin < 60


def raw(server: Served, data: bytes) -> bytes:
    """Send bytes; returns the first of the answer."""
    with socket.create_connection(("127.0.0.1", server.port), 5) as one, contextlib.suppress(OSError):
        one.sendall(data)
        one.shutdown(socket.SHUT_WR)
        return one.recv(4096)
    return b""


def request(rng: random.Random) -> bytes:
    """A request that is wrong in some way."""
    path = rng.choice(PATHS)
    if rng.random() < 0.3:
        path += rng.choice(("?token=", "?source=", "?seconds=", "?format=", "/")) + rng.choice(TEXTS)
    lines = [f"{rng.choice(('GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE', 'X' * 300))} {path} HTTP/1.1"]
    lines.append(f"Host: {rng.choice(('127.0.0.1', '127.0.0.1', 'localhost', *TEXTS))}")
    for name in rng.sample(NAMES, rng.randrange(4)):
        value = rng.choice((*VALUES, *TEXTS))
        lines.append(f"{name}: {value}")
    data = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogatepass") + rng.randbytes(rng.randrange(300))
    return mutate(data, rng) if rng.random() < 0.3 else data


def test_garbage_requests(server: Served) -> None:
    for number, rng in enumerate(attacks(250, 90)):
        answer = raw(server, request(rng))
        assert not answer.startswith(b"HTTP/1.1 500"), answer
        if number % 50 == 0:
            check(server)
    check(server)


def test_garbage_bodies(server: Served) -> None:
    for rng in attacks(60, 60):
        value: object = rng.choice((*TEXTS, None, 1, [], {}, 10**400))
        body = json.dumps({rng.choice(("target", "name", "state", "x")): value, "target": rng.choice(TEXTS)}).encode()
        path, method = rng.choice((("/v1/sources", "POST"), ("/v1/sources/s1", "PATCH")))
        status, _, answer = server.ask(method, path, mutate(body, rng) if rng.random() < 0.3 else body, **JSON)
        assert status < 500, answer
        if status == 201:
            server.ask("DELETE", f"/v1/sources/{json.loads(answer)['id']}")
    check(server)


PING = b"\x89\x80\0\0\0\0"
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
JSON = {"Content_Type": "application/json"}


def test_damaged_uploads(server: Served, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", demo_frames(6)).read_bytes()
    pictures = [
        cv2.imencode(end, cv2.resize(demo_frames(1)[0], (320, 180)))[1].tobytes() for end in (".jpg", ".png", ".webp")
    ]
    for rng in attacks(5, 150):
        status, _, answer = server.ask("POST", "/v1/image", mutate(rng.choice(pictures), rng))
        assert status in (200, 413, 422), answer
        part = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + clip + b"\r\n--b--\r\n"
        body, kind = rng.choice(
            ((mutate(clip, rng), "video/mp4"), (mutate(part, rng), "multipart/form-data; boundary=b"))
        )
        status, _, answer = server.ask("POST", "/v1/video", body, Content_Type=kind)
        assert status in (202, 400, 413, 415, 422, 503), answer
        if status == 202:
            job = json.loads(answer)["id"]
            eventually(lambda job=job: server.json("GET", f"/v1/jobs/{job}")["state"] in ("done", "failed"))
            assert "/tmp" not in server.json("GET", f"/v1/jobs/{job}")["reason"]
            server.ask("DELETE", f"/v1/jobs/{job}")
    check(server)


@pytest.mark.parametrize("path", ["/v1/live", "/v1/camera"])
def test_garbage_messages(server: Served, path: str) -> None:
    picture = cv2.imencode(".jpg", cv2.resize(demo_frames(1)[0], (320, 180)))[1].tobytes()
    for rng in attacks(20, 70):
        with contextlib.suppress(ConnectionClosed, TimeoutError), server.socket(path) as one:
            if rng.random() < 0.8:
                hello = {
                    "type": "hello",
                    "width": rng.choice((16, 320, -1, 10**9)),
                    "height": 180,
                    "name": rng.choice(TEXTS),
                }
                one.send(json.dumps(hello if path == "/v1/camera" else {"type": "watch", "source": rng.choice(TEXTS)}))
            for _ in range(rng.randrange(6)):
                size = rng.choice(((320, 180), (1, 1), (2000, 3), (900, 900)))
                fresh = cv2.imencode(".jpg", cv2.resize(demo_frames(1)[0], size))[1].tobytes()
                one.send(rng.choice((
                    rng.randbytes(rng.randrange(100)), b"\xff" * 8 + mutate(picture, rng), bytes(8) + fresh,
                    b"\0\0\0\0\0\0\xf8\x7f" + picture, '{"type": "ack"}', "[" * 50_000, "null", rng.choice(TEXTS[:6]),
                )))  # fmt: skip
            for _ in range(rng.randrange(3)):
                one.recv(0.5)
    check(server)
    eventually(lambda: server.sources() == [])


@pytest.mark.parametrize("path", ["/v1/live", "/v1/camera"])
@pytest.mark.parametrize("message", [PING, b"\x81\x82\0\0\0\0{}", b"\0\x80\0\0\0\0"])
def test_floods_of_small_messages(server: Served, path: str, message: bytes) -> None:
    """A client sends as fast as it can, reads nothing, and goes away; the server answers others and says nothing."""
    for _ in attacks(1, 10):
        with socket.create_connection(("127.0.0.1", server.port), 60) as one, contextlib.suppress(OSError):
            one.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{UPGRADE}\r\n".encode())
            assert b" 101 " in one.recv(4096)
            one.sendall((b"\x01\x80\0\0\0\0" if message[0] == 0 else b"") + message * 30_000)
    check(server)


def test_silent_clients(server: Served) -> None:
    """Thousands of connections that ask for nothing, or never read the answer, leave room for others."""
    with contextlib.ExitStack() as stack:
        for number in range(1200):
            with contextlib.suppress(OSError):
                one = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))
                if number % 4 == 0:
                    one.sendall(b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                elif number % 4 == 1:
                    one.sendall(b"POST /v1/image HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 20000000\r\n\r\n")
                elif number % 4 == 2:
                    one.sendall(b"GET /v1/in")
        eventually(lambda: _answers(server), 40)
    eventually(lambda: _answers(server), 40)
    check(server)


def _answers(server: Served) -> bool:
    with contextlib.suppress(OSError):
        return server.ask("GET", "/v1/info")[0] == 200
    return False
