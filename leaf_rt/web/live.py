"""The WebSockets: viewers of sources, and cameras of browsers.

Everything here runs in the event loop of the server. The hub's thread only wakes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import struct
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from leaf_rt.errors import LeafError
from leaf_rt.system.parsing import parse_json
from leaf_rt.text import printable, readable
from leaf_rt.web.camera import BrowserCamera
from leaf_rt.web.hub import Hub, LiveFrame, News
from leaf_rt.web.manager import SourceManager
from leaf_rt.web.options import Limits
from leaf_rt.web.security import Refusal

_TELL_EVERY = 1.0  # s between two lists of sources
_LOOK_EVERY = 0.1  # s; how soon a change of the list is told
_HELLO = 10.0  # s until the first message of a browser's camera
_ANSWERS = 2  # that wait for the sender of a browser's camera
_MAX_NAME = 60  # characters


class Live:
    """Feeds everybody who watches.

    Args:
        hub: Where the frames come from.
        manager: Knows the sources.
        limits: How many may watch.

    Attributes:
        watching: Number of open connections that receive something.
    """

    def __init__(self, hub: Hub, manager: SourceManager, limits: Limits) -> None:
        self.watching = 0
        self._hub, self._manager, self._limits = hub, manager, limits
        self._encoder = ThreadPoolExecutor(1, "jpeg")
        self._encoding: tuple[LiveFrame, asyncio.Future[bytes]] | None = None
        self._wake: set[Callable[[News], None]] = set()
        self._states: dict[str, tuple[str, str]] = {}  # of the sources, by id: state and reason
        self._sources = ""  # the newest list as a message
        self._news = asyncio.Event()  # set, and replaced, when there is a new list

    async def run(self) -> None:
        """Watch the hub until the task is cancelled; one task of the event loop."""
        loop = asyncio.get_running_loop()

        def on_frame(frame: News) -> None:  # in the thread of the hub
            if self._wake:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(self._pass_on, frame)

        end = self._hub.listen(on_frame)
        try:
            due = loop.time()
            while True:
                if self._manager.states() != self._states or (self.watching and loop.time() >= due):
                    self._publish()
                    due = loop.time() + _TELL_EVERY
                await asyncio.sleep(_LOOK_EVERY)
        finally:
            end()
            self._encoder.shutdown(wait=False)

    def check_place(self) -> None:
        """Raise ``Refusal`` if too many watch."""
        if self.watching >= self._limits.viewers:
            raise Refusal(503, "too many are watching; try again later")

    @contextlib.contextmanager
    def place(self) -> Any:
        """A place for one more connection.

        Raises:
            Refusal: There is none.
        """
        self.check_place()
        self.watching += 1
        try:
            yield
        finally:
            self.watching -= 1

    @contextlib.contextmanager
    def frames(self, wake: Callable[[News], None]) -> Any:
        """Call ``wake`` for every frame, in the event loop, while the block runs."""
        self._wake.add(wake)
        try:
            yield
        finally:
            self._wake.discard(wake)

    def _publish(self) -> None:
        """Make a new list of sources for all viewers."""
        self._states = self._manager.states()
        self._sources = json.dumps({"type": "sources", "sources": self._manager.describe()})
        self._news.set()
        self._news = asyncio.Event()

    def _pass_on(self, frame: News) -> None:
        for wake in list(self._wake):
            wake(frame)

    async def picture(self, frame: LiveFrame) -> bytes:
        """The JPEG of a frame, encoded once for all viewers."""
        if frame.is_encoded:
            return frame.jpeg()
        if self._encoding is None or self._encoding[0] is not frame:
            future = asyncio.get_running_loop().run_in_executor(self._encoder, frame.jpeg)
            self._encoding = (frame, future)
        return await asyncio.shield(self._encoding[1])

    async def view(self, socket: WebSocket) -> None:
        """Serve one viewer; see PROTOCOL.md."""
        with self.place():
            await socket.accept()
            viewer = _Viewer(socket, self, self._hub, self._manager)
            with self.frames(viewer.wake):
                await _until_one_ends(viewer.read, viewer.show, self._tell(socket))

    async def film(self, socket: WebSocket) -> None:
        """Serve one camera of a browser; see PROTOCOL.md."""
        await socket.accept()
        source_id: str | None = None
        camera: BrowserCamera | None = None
        try:
            camera = await self._hello(socket)
            added = await self._manager.add_open(camera, camera.client_time)
            source_id, name = added["id"], added["name"]
            done: asyncio.Queue[LiveFrame] = asyncio.Queue(_ANSWERS)

            def wake(frame: News) -> None:
                if frame.source == name and isinstance(frame, LiveFrame):
                    if done.full():  # the client reads too slowly; a later answer settles this frame too
                        done.get_nowait()
                    done.put_nowait(frame)

            with self.frames(wake):
                await socket.send_text(json.dumps({"type": "source", "id": source_id}))
                await _until_one_ends(
                    lambda: self._receive(socket, camera),
                    lambda: self._answer(socket, source_id, done),
                    self._until_removed(socket, source_id),
                )
        except Refusal as e:
            await _fail(socket, e.detail)
        except (LeafError, TimeoutError) as e:
            await _fail(socket, str(e) or "no answer in time")
        finally:
            if camera is not None:
                camera.end()
            if source_id is not None:
                with contextlib.suppress(Refusal, Exception):  # the run may be over
                    await asyncio.shield(self._manager.remove(source_id))

    def _tell(self, socket: WebSocket) -> Callable[[], Awaitable[None]]:
        async def tell() -> None:
            self._publish()
            while True:
                news = self._news
                await socket.send_text(self._sources)
                await news.wait()

        return tell

    async def _hello(self, socket: WebSocket) -> BrowserCamera:
        async with asyncio.timeout(_HELLO):
            message = await _message(socket)
        match message:
            case {"type": "hello", "width": int(width), "height": int(height), **rest} if min(width, height) >= 16:
                name = rest.get("name")
            case _:
                raise Refusal(400, 'the first message must be {"type": "hello", "width", "height", "name"}')
        if width * height > self._limits.camera_pixels:
            raise Refusal(
                400, f"pictures of {width}x{height} px are too large; at most {self._limits.camera_pixels} px"
            )
        name = readable(printable(name[:_MAX_NAME])).strip() if isinstance(name, str) else ""
        return BrowserCamera(name or "Camera of a browser", width, height, self._limits.camera_pixels)

    async def _receive(self, socket: WebSocket, camera: BrowserCamera) -> None:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("bytes")
            if data is None or not 8 < len(data) <= self._limits.camera_bytes:
                await _fail(socket, "each message must be the time in ms (float64) and a JPEG")
                return
            (time_ms,) = struct.unpack_from("<d", data)
            camera.put(time_ms if math.isfinite(time_ms) else 0.0, data[8:])

    async def _answer(self, socket: WebSocket, source_id: str, done: asyncio.Queue[LiveFrame]) -> None:
        while True:
            frame = await done.get()
            await socket.send_bytes(frame.message(source_id))

    def _until_removed(self, socket: WebSocket, source_id: str) -> Callable[[], Awaitable[None]]:
        """Ends when the source has ended, because a picture was damaged or a client removed it."""

        async def watch() -> None:
            while True:
                await asyncio.sleep(_LOOK_EVERY)
                state, reason = self._manager.states().get(source_id, ("ended", "the source was removed"))
                if state in ("ended", "refused"):
                    await _fail(socket, reason or "the source has ended")
                    return

        return watch


class _Viewer:
    """One viewer: sends the newest frame whenever the client is ready for it."""

    def __init__(self, socket: WebSocket, live: Live, hub: Hub, manager: SourceManager) -> None:
        self._socket, self._live, self._hub, self._manager = socket, live, hub, manager
        self._source: tuple[str, str] | None = None  # name, id
        self._ready, self._fresh = asyncio.Event(), asyncio.Event()
        self._ready.set()

    def wake(self, frame: News) -> None:
        if self._source is not None and frame.source == self._source[0]:
            self._fresh.set()

    async def read(self) -> None:
        """Follow what the client says."""
        while True:
            message = await _message(self._socket)
            match message:
                case None:
                    return
                case {"type": "ack"}:
                    self._ready.set()
                case {"type": "watch", "source": str(source_id)}:
                    try:
                        self._source = (self._manager.name_of(source_id), source_id)
                        self._fresh.set()
                    except Refusal as e:
                        self._source = None
                        await self._socket.send_text(json.dumps({"type": "error", "message": e.detail}))
                case _:
                    text = 'a message must be {"type": "watch", "source": id} or {"type": "ack"}'
                    await self._socket.send_text(json.dumps({"type": "error", "message": text}))

    async def show(self) -> None:
        """Send frames."""
        last: LiveFrame | None = None
        while True:
            await self._ready.wait()
            await self._fresh.wait()
            self._fresh.clear()
            source = self._source
            frame = self._hub.newest(source[0]) if source is not None else None
            if source is None or frame is None or frame is last:
                continue
            last = frame
            self._ready.clear()
            picture = await self._live.picture(frame)
            await self._socket.send_bytes(frame.message(source[1], picture))


async def _message(socket: WebSocket) -> Any:
    """The next text message as JSON, or ``...`` for anything else; None when the client has gone."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        return None
    try:
        return parse_json(message.get("text") or "")
    except ValueError:
        return ...


async def _until_one_ends(*functions: Callable[[], Awaitable[None]]) -> None:
    """Run functions side by side until one of them ends; a client that goes away is no error."""
    tasks = [asyncio.ensure_future(function()) for function in functions]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError):
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _fail(socket: WebSocket, text: str) -> None:
    """Say what is wrong, and close."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError):
        await socket.send_text(json.dumps({"type": "error", "message": text}))
        await socket.close(1008)
