"""The relay for the RTSP addresses of strangers: streams pass, and nothing that leads elsewhere."""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from clips import demo_frames
from rtsp_server import RtspServer, encode

from leaf_rt.errors import ConnectionLost
from leaf_rt.sources.base import SourceOptions
from leaf_rt.sources.network import NetworkSource
from leaf_rt.sources.rtsp_relay import _checked, _Refused

STRICT = SourceOptions(redirects=False, rtsp_transport="udp")


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "rtsp relay"]


def test_a_stream_passes() -> None:
    with RtspServer(encode(demo_frames(12)), fps=50) as server:
        with NetworkSource(server.url(), STRICT) as source:
            frames = iter(source)
            images = [next(frames).image for _ in range(30)]
            assert source.info.name == f"127.0.0.1:{server.port}/live"
            assert threads()
        assert {image.shape for image in images} == {(360, 640, 3)}
        assert not threads()
        server.refusing = True
        with pytest.raises(ConnectionLost):
            NetworkSource(server.url(), STRICT)
    with pytest.raises(ConnectionLost, match="connection refused"):
        NetworkSource(server.url(), STRICT)
    assert not threads()


def test_a_stream_passes_over_tls(tmp_path: Path) -> None:
    line = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*line, "-keyout", "key.pem", "-out", "cert.pem"], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    def copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def front() -> None:
        with (
            door,
            door.accept()[0] as raw,
            context.wrap_socket(raw, server_side=True) as client,
            socket.create_connection(("127.0.0.1", server.port)) as camera,
        ):
            back = threading.Thread(target=copy, args=(camera, client), daemon=True)
            back.start()
            copy(client, camera)
            back.join(10)

    with RtspServer(encode(demo_frames(12)), fps=50) as server, socket.create_server(("127.0.0.1", 0)) as door:
        address = f"rtsps://127.0.0.1:{door.getsockname()[1]}/live"
        thread = threading.Thread(target=front, daemon=True)
        thread.start()
        with NetworkSource(address, STRICT) as source:
            frames = iter(source)
            assert next(frames).image.shape == (360, 640, 3)
        thread.join(10)
        assert not thread.is_alive()


HEAD = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n"
GOOD = (
    HEAD + b"\r\n", HEAD + b"Content-Length: 4\r\n\r\nv=0\n", b"$\0\0\3abc",
    HEAD + b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n", b"GET_PARAMETER * RTSP/1.0\r\nCSeq: 1\r\n\r\n",
)  # fmt: skip


@pytest.mark.parametrize("bad", [
    b"RTSP/1.0 302 Moved\r\nLocation: rtsp://10.0.0.1/\r\n\r\n", b"RTSP/1.0 301\r\n\r\n", b"RTSP/1.0 3\r02 x\r\n\r\n",
    b"RTSP/1.0 0302 x\r\n\r\n", b"HTTP/1.1 302 x\r\n\r\n", b"REDIRECT * RTSP/1.0\r\n\r\n", b"x\r\n\r\n",
    HEAD + b"Transport: RTP/AVP;unicast;source=10.0.0.1;server_port=1-2\r\n\r\n",
    HEAD + b"Transport: RTP/AVP;multicast;destination=224.0.0.1\r\n\r\n", HEAD + b"Transport:\tRTP/AVP/UDP\r\n\r\n",
    HEAD + b"Content-Length: 4\r\nContent-Length: 0\r\n\r\nabcd", HEAD + b"Content-Length: -1\r\n\r\n",
    HEAD + b"Content-Length: 99999999\r\n\r\n", HEAD + b"Content-Le\rngth: 4\r\n\r\n", HEAD + b"$\0\0\0\r\n\r\n",
    HEAD + b"X: " + b"y" * 5000 + b"\r\n\r\n", HEAD + b"X: y\r\n" * 200 + b"\r\n", HEAD + b" folded\r\n\r\n",
])  # fmt: skip
def test_what_leads_elsewhere_or_is_unclear_is_refused(bad: bytes) -> None:
    assert b"".join(_checked(io.BytesIO(b"".join(GOOD)))) == b"".join(GOOD)
    passed = []
    with pytest.raises(_Refused):
        passed.extend(_checked(io.BytesIO(GOOD[0] + bad)))
    assert b"".join(passed) in (b"", GOOD[0])
