"""A small RTSP server on loopback: H.264 over interleaved TCP, with failures on demand."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import av
import numpy as np

_MTU = 1400


def encode(images: Sequence[np.ndarray], fps: int = 25) -> list[list[bytes]]:
    """H.264 access units, each a list of NAL units. The first one is an IDR with its parameter sets."""
    context = av.CodecContext.create("libx264", "w")
    context.height, context.width = images[0].shape[:2]
    context.pix_fmt, context.framerate = "yuv420p", fps
    context.time_base = 1 / context.framerate
    context.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "12", "repeat-headers": "1"}
    pictures = [av.VideoFrame.from_ndarray(image, format="bgr24") for image in images]
    packets = [packet for picture in [*pictures, None] for packet in context.encode(picture)]
    return [[nal for nal in re.split(rb"\x00\x00\x00?\x01", bytes(p)) if nal] for p in packets]


class RtspServer:
    """Serves one endless stream at rtsp://127.0.0.1:PORT/live; use it as a context manager.

    A test may change these attributes while the server runs: ``units`` (the pictures), ``stalled`` (keep the
    connections but send nothing), ``jump`` (s added to the stream clock), ``refusing`` (close new connections at once),
    ``udp`` (accept clients that ask for UDP), ``lossy`` (lose every so many packets over UDP; 0 loses none).

    ``session`` is the session timeout, s, that clients receive. FFmpeg sends a sign of life after half of it, so a
    server must not wait less than that.
    """

    def __init__(
        self, units: list[list[bytes]], fps: int = 25, login: str | None = None, port: int = 0, session: int = 60
    ) -> None:
        self.units, self.fps, self.login, self.session = units, fps, login, session
        self.stalled = self.refusing = False
        self.jump, self.lossy, self.udp = 0.0, 0, False
        self._udp: tuple[socket.socket, int] | None = None  # and the port of the newest client that asked for UDP
        self._clients: set[socket.socket] = set()
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        self._open = True
        self._threads: list[threading.Thread] = []

    def url(self, path: str = "live", login: str | None = None) -> str:
        return f"rtsp://{login + '@' if login else ''}127.0.0.1:{self.port}/{path}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if self._udp is not None:
            self._udp[0].close()
        self.drop()
        for thread in self._threads:
            thread.join(5)

    def drop(self) -> None:
        """Cut every connection."""
        for client in list(self._clients):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True, name="rtsp")  # type: ignore[arg-type]
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        thread.start()

    def _accept(self) -> None:
        while self._open:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            if self.refusing:
                client.close()
            else:
                self._clients.add(client)
                self._start(self._talk, client)

    def _talk(self, client: socket.socket) -> None:
        client.settimeout(self.session)
        lock, playing = threading.Lock(), False
        with contextlib.suppress(OSError, ValueError), client, client.makefile("rb") as lines:
            while (first := lines.peek(1)[:1]) not in (b"", b"\x16"):  # 22: a client that wants TLS
                if first == b"$":  # an RTCP report of the client: binary, it may contain line feeds
                    lines.read(int.from_bytes(lines.read(4)[2:]))
                    continue
                first = lines.readline()
                head = {}
                while (line := lines.readline().strip()) and b":" in line:
                    key, _, value = line.partition(b":")
                    head[key.strip().lower()] = value.strip()
                if not re.match(rb"[A-Z_]+ rtsps?:", first):
                    break
                answer = self._answer(first.decode(), head)
                with lock:
                    client.sendall(b"RTSP/1.0 %s\r\nCSeq: %s\r\n%s" % (answer[0], head.get(b"cseq", b"0"), answer[1]))
                if first.startswith(b"PLAY") and not playing:
                    playing = True
                    self._start(self._send, client, lock)
        self._clients.discard(client)

    def _answer(self, request: str, head: dict[bytes, bytes]) -> tuple[bytes, bytes]:
        method, url, _ = request.split()
        if self.login is not None and method != "OPTIONS":
            expected = b"Basic " + base64.b64encode(self.login.encode())
            if head.get(b"authorization") != expected:
                return b"401 Unauthorized", b'WWW-Authenticate: Basic realm="test"\r\n\r\n'
        if not re.search(r"/live(/|$)", url):
            return b"404 Not Found", b"\r\n"
        if method == "OPTIONS":
            return b"200 OK", b"Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER\r\n\r\n"
        if method == "DESCRIBE":
            sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
            sdp += "c=IN IP4 127.0.0.1\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1;"
            sets = b",".join(base64.b64encode(nal) for nal in self.units[0][:2]).decode()
            sdp += f"sprop-parameter-sets={sets}\r\na=framerate:{self.fps}\r\na=control:track0\r\n"
            body = sdp.encode()
            return b"200 OK", b"Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        if method == "SETUP":
            port = re.search(rb"client_port=(\d+)", head.get(b"transport", b""))
            if self.udp and port is not None:
                sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sender.bind(("127.0.0.1", 0))
                self._udp = sender, int(port[1])
                own = sender.getsockname()[1]
                way = b"RTP/AVP;unicast;client_port=%s-%d;server_port=%d-%d" % (port[1], int(port[1]) + 1, own, own + 1)
                return b"200 OK", b"Session: 1\r\nTransport: %s\r\n\r\n" % way
            if b"TCP" not in head.get(b"transport", b""):
                return b"461 Unsupported Transport", b"\r\n"
            session = b"Session: 1;timeout=%d\r\n" % self.session
            return b"200 OK", session + b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n"
        return b"200 OK", b"Session: 1\r\n\r\n"

    def _send(self, client: socket.socket, lock: threading.Lock) -> None:
        """Send the stream to one client, starting with an IDR."""
        sequence, number, begin = 0, 0, time.monotonic()
        units, first = self.units, 0
        with contextlib.suppress(OSError):
            while self._open and client in self._clients:
                time.sleep(max(begin + number / self.fps - time.monotonic(), 0.0))
                if units is not self.units:  # the new pictures start with their own IDR
                    units, first = self.units, number
                number += 1
                if self.stalled:
                    continue
                stamp = int((number / self.fps + self.jump) * 90000) & 0xFFFFFFFF
                for last, payload in _packets(units[(number - 1 - first) % len(units)]):
                    header = struct.pack("!BBHII", 0x80, 96 | last << 7, sequence & 0xFFFF, stamp, 1)
                    sequence += 1
                    if self._udp is not None:
                        if not self.lossy or sequence % self.lossy:
                            self._udp[0].sendto(header + payload, ("127.0.0.1", self._udp[1]))
                        continue
                    with lock:
                        client.sendall(b"$\x00" + struct.pack("!H", 12 + len(payload)) + header + payload)


def _packets(nals: list[bytes]) -> list[tuple[bool, bytes]]:
    """RTP payloads of an access unit (RFC 6184, single NAL units and FU-A), and whether each is the last one."""
    payloads: list[bytes] = []
    for nal in nals:
        if len(nal) <= _MTU:
            payloads.append(nal)
            continue
        indicator, kind = (nal[0] & 0xE0) | 28, nal[0] & 0x1F
        parts = [nal[i : i + _MTU] for i in range(1, len(nal), _MTU)]
        for i, part in enumerate(parts):
            flags = (i == 0) << 7 | (i == len(parts) - 1) << 6
            payloads.append(bytes([indicator, kind | flags]) + part)
    return [(i == len(payloads) - 1, payload) for i, payload in enumerate(payloads)]
