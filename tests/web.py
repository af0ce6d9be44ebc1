"""A real server for tests: the command `leaf-rt serve` in a process of its own, and small clients for it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).parents[1]


class Served:
    """``leaf-rt serve`` on a free port; a context manager.

    Attributes:
        address: As the command printed it.
        lines: What it printed.
    """

    def __init__(self, *arguments: str, host: str = "127.0.0.1", command: str = "serve", **environment: str) -> None:
        line = [sys.executable, "-m", "leaf_rt", command, "--web", f"{host}:0", "--backend", "onnxruntime", *arguments]
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            line,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | environment,
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        deadline = time.monotonic() + 120
        while not self.address:
            assert self.process.poll() is None or self._reader.is_alive() or self.address, "".join(self.lines)
            assert time.monotonic() < deadline, "".join(self.lines)
            time.sleep(0.02)
        self.port = int(re.findall(r":(\d+)/", self.address)[0])
        self.base = f"http://127.0.0.1:{self.port}"

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r"live page at (\S+)", line):
                self.address = found.group(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """Stop in good order; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
            raise
        finally:
            self._reader.join(5)
            if self.process.stdout is not None:
                self.process.stdout.close()
        return self.process.returncode

    def ask(
        self, method: str, path: str, body: bytes | dict[str, Any] | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request; returns status, headers and body."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        head = {"Content-Type": "application/json"} if isinstance(body, dict) else {}
        head |= {key.replace("_", "-"): value for key, value in headers.items()}
        request = urllib.request.Request(f"{self.base}{path}", data, head, method=method)
        try:
            with _OPENER.open(request, timeout=40) as answer:
                return answer.status, dict(answer.headers.items()), answer.read()
        except urllib.error.HTTPError as e:
            with e:
                return e.code, dict(e.headers.items()), e.read()

    def json(self, method: str, path: str, body: bytes | dict[str, Any] | None = None, **headers: str) -> Any:
        """Send one request that must succeed; returns the JSON of its answer."""
        status, _, data = self.ask(method, path, body, **headers)
        assert status < 300, (status, data)
        return json.loads(data) if data else None

    def sources(self) -> list[dict[str, Any]]:
        return self.json("GET", "/v1/sources")["sources"]

    def state(self, name: str) -> str:
        return next((s["state"] for s in self.sources() if s["name"] == name), "gone")

    def add(self, target: str, name: str | None = None) -> dict[str, Any]:
        return self.json("POST", "/v1/sources", {"target": target} | ({"name": name} if name else {}))

    def socket(self, path: str, **headers: str) -> ClientConnection:
        head = {key.replace("_", "-"): value for key, value in headers.items()}
        return connect(f"ws://127.0.0.1:{self.port}{path}", additional_headers=head, compression=None, max_size=None)

    @contextlib.contextmanager
    def viewer(self, source: str) -> Iterator[Viewer]:
        with self.socket("/v1/live") as socket:
            socket.send(json.dumps({"type": "watch", "source": source}))
            yield Viewer(socket)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def split(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and picture of a binary message."""
    (size,) = struct.unpack_from("<I", message)
    return json.loads(message[4 : 4 + size]), message[4 + size :]


@dataclass
class Viewer:
    """A viewer on one socket."""

    socket: ClientConnection
    lists: list[list[dict[str, Any]]] = field(default_factory=list)

    def frame(self, *, ack: bool = True, timeout: float = 60) -> tuple[dict[str, Any], bytes]:
        """The next frame."""
        while True:
            message = self.socket.recv(timeout)
            if isinstance(message, bytes):
                if ack:
                    self.socket.send('{"type": "ack"}')
                return split(message)
            found = json.loads(message)
            assert found["type"] == "sources", found
            self.lists.append(found["sources"])


def eventually(condition: Callable[[], Any], timeout: float = 60) -> Any:
    """Wait until a condition holds; returns its value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)
    return value
