"""A relay between FFmpeg and one RTSP server, for addresses of strangers: the server cannot lead FFmpeg elsewhere.

FFmpeg follows redirects of RTSP, and sends UDP to whatever address a server names; no option forbids it. The relay
passes on only what it understands, reads it as strictly as FFmpeg does or more so, and ends the connection otherwise.
Knows RTSP over TCP (RFC 2326) and TLS; must not know pictures.
"""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import urlsplit

from leaf_rt.system.closing import Closing

_PORTS = {"rtsp": 554, "rtsps": 322}
_MAX_LINE, _MAX_LINES = 4000, 100  # FFmpeg cuts longer lines
_MAX_BODY = 1 << 20  # bytes; a description has a few thousand
_STATUS = re.compile(rb"RTSP/1\.\d (\d{3})(?: [^\0\r\n]*)?\r?\n")
_REQUEST = re.compile(rb"(?:ANNOUNCE|GET_PARAMETER|OPTIONS|SET_PARAMETER|TEARDOWN) [^\0\r\n]*\r?\n")  # of a server
_HEADER = re.compile(rb"([A-Za-z][A-Za-z0-9-]*):[^\0\r\n]*\r?\n")
_LEADS_AWAY = "its server leads to another address, which a source that a visitor adds must not; give that address"


class RtspRelay(Closing):
    """Connects to the server at once, then waits for one client on this machine.

    Args:
        target: The address, ``rtsp://`` or ``rtsps://``, without user and password.
        timeout: s to wait for the server.

    Attributes:
        address: What FFmpeg must open instead, over TCP.
        problem: Why the relay ended the connection, half a sentence; "" if it did not.

    Raises:
        OSError: The server cannot be reached.
    """

    def __init__(self, target: str, timeout: float) -> None:
        self.problem = ""
        parts = urlsplit(target)
        self._host = f"{parts.scheme}://{parts.netloc}".encode()
        self._server = _connect(parts.hostname or "", parts.port or _PORTS[parts.scheme], parts.scheme, timeout)
        self._client: socket.socket | None = None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        self._listener.settimeout(timeout)
        self._own = f"rtsp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.address = self._own + target[len(self._host) :]
        self._threads = [threading.Thread(target=self._serve, name="rtsp relay", daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """End both connections. Safe to call twice."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for a client
        self._listener.close()
        self._end()
        for thread in self._threads:
            thread.join(5.0)

    def _end(self) -> None:
        for one in (self._server, self._client):
            if one is not None:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        try:
            with self._listener:
                self._client = self._listener.accept()[0]
        except OSError:  # nobody came
            self._server.close()
            return
        self._client.settimeout(None)
        self._threads.append(threading.Thread(target=self._pass_requests, name="rtsp relay", daemon=True))
        self._threads[-1].start()
        try:
            with self._server.makefile("rb") as answers:
                for part in _checked(answers):
                    self._client.sendall(part)
        except _Refused as e:
            self.problem = str(e)
        except (OSError, ValueError):
            pass  # the connection broke, or was closed meanwhile
        finally:
            self._end()
            self._threads[-1].join(5.0)
            self._server.close()
            self._client.close()

    def _pass_requests(self) -> None:
        """Pass on what FFmpeg asks, with the address of the server in it."""
        assert self._client is not None
        try:
            with self._client.makefile("rb") as requests:
                while first := requests.read(1):
                    if first == b"$":
                        self._server.sendall(first + _packet(requests))
                        continue
                    line = first + requests.readline(2 * _MAX_LINE)
                    self._server.sendall(line.replace(self._own.encode(), self._host, 1))
        except (OSError, ValueError):
            pass
        finally:
            self._end()


class _Refused(Exception):
    """The server sent something that is not passed on."""


def _connect(host: str, port: int, scheme: str, timeout: float) -> socket.socket:
    try:
        plain = socket.create_connection((host, port), timeout)
    except (socket.gaierror, UnicodeError) as e:
        raise OSError(errno.EIO, "unknown host") from e
    try:
        if scheme == "rtsps":
            context = ssl.create_default_context()  # cameras sign their certificates themselves; FFmpeg checks none
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            plain = context.wrap_socket(plain, server_hostname=host)
        plain.settimeout(None)
    except BaseException:
        plain.close()
        raise
    return plain


def _packet(stream: BinaryIO) -> bytes:
    """A packet of media after its ``$``: channel, length and content."""
    head = _exactly(stream, 3)
    return head + _exactly(stream, int.from_bytes(head[1:], "big"))


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise OSError("the connection ended")
    return data


def _checked(answers: BinaryIO) -> Iterator[bytes]:
    """What the server sends, part by part.

    Raises:
        _Refused: It must not reach FFmpeg.
        OSError: The connection ended within a part.
    """
    while first := answers.read(1):
        if first == b"$":
            yield first + _packet(answers)
        elif first not in b"\r\n":  # an empty line between two answers says nothing
            yield _message(first, answers)


def _message(first: bytes, answers: BinaryIO) -> bytes:
    """An answer of the server, or one of its few requests, with its body."""
    lines = [first + answers.readline(_MAX_LINE)]
    status = _STATUS.fullmatch(lines[0])
    if status is None and not _REQUEST.fullmatch(lines[0]):
        raise _Refused(_LEADS_AWAY if lines[0].startswith(b"REDIRECT ") else "its server does not speak RTSP")
    if status is not None and status[1].startswith(b"3"):
        raise _Refused(_LEADS_AWAY)
    length = 0
    while (line := answers.readline(_MAX_LINE)) not in (b"\r\n", b"\n"):
        header = _HEADER.fullmatch(line)
        if header is None or len(lines) > _MAX_LINES:
            raise _Refused("its server sends an answer that is not valid RTSP")
        value = line.partition(b":")[2].strip()
        if header[1].lower() == b"content-length":
            if not re.fullmatch(rb"\d{1,7}", value) or int(value) > _MAX_BODY or length:
                raise _Refused("its server sends an answer that is not valid RTSP")
            length = int(value)
        if header[1].lower() == b"transport" and not value.upper().startswith(b"RTP/AVP/TCP"):
            raise _Refused("its server does not send over tcp")  # UDP may go to any address that the server names
        lines.append(line)
    return b"".join([*lines, line, _exactly(answers, length)])
