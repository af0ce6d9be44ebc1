"""Bounds on connections and requests, so that slow or greedy clients cost nothing: time, size, number.

Knows ASGI and uvicorn's protocol; must not know routes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from leaf_rt.web.options import Limits
from leaf_rt.web.security import Refusal, refuse

HEADER_SECONDS = 10.0  # until the head of a request must be complete
STALL_SECONDS = 30.0  # for which a client may read nothing of its answer
_SMALL = 64 << 10  # bytes of a body without a bound of its own
_SMALL_SECONDS = 15.0
_DRAIN_SECONDS = 3.0


class BodyBounds:
    """ASGI middleware: a request's body must arrive in time and must not be too large.

    Args:
        app: What it protects.
        limits: The bounds.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        extra = 4096  # of a multipart body
        self._bounds = {
            "/v1/image": (limits.image_bytes + extra, limits.upload_seconds),
            "/v1/video": (limits.video_bytes + extra, limits.upload_seconds),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what the application receives."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        size, seconds = self._bounds.get(scope["path"], (_SMALL, _SMALL_SECONDS))
        too_large = Refusal(413, f"the body is larger than {size // 1024} KiB")
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > size:
            if b"expect" not in headers:
                await _drain(receive)
            await refuse(scope, receive, send, too_large)
            return
        begin = asyncio.get_running_loop().time()
        grace, rate = self._limits.upload_grace, self._limits.upload_rate
        received, complete, started = 0, False, False

        async def bounded_receive() -> Message:
            nonlocal received, complete
            if complete:  # now only the end of the connection can come
                return await receive()
            slowest = grace + received / rate  # s; what has arrived buys time for the rest
            try:
                async with asyncio.timeout_at(begin + min(seconds, slowest)):
                    message = await receive()
            except TimeoutError:
                if slowest < seconds:
                    raise Refusal(408, f"the body arrives too slowly; send at least {rate >> 10} KiB/s") from None
                raise Refusal(408, f"the body did not arrive within {seconds:g} s") from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > size:
                raise too_large
            return message

        async def watched_send(message: Message) -> None:
            nonlocal started, complete
            if not started and not complete and (declared != b"0" or b"transfer-encoding" in headers):
                complete = True
                if b"expect" not in headers:
                    await _drain(receive)
            started = True
            await send(message)

        try:
            await self._app(scope, bounded_receive, watched_send)
        except Refusal as e:
            if not started:
                await _drain(receive)
                await refuse(scope, receive, send, e)


async def _drain(receive: Receive) -> None:
    """Read the rest of a body for a moment: a client that still sends would see a reset instead of the answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while (await receive()).get("more_body", False):
                pass


class Turns:
    """Lets one task in at a time, and few wait.

    Args:
        places: How many may wait.

    Attributes:
        one: Held by the task that is in.
    """

    def __init__(self, places: int) -> None:
        self.one = asyncio.Lock()
        self._places, self._count = places, 0

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place, to be taken before anything large is received.

        Raises:
            Refusal: There is none.
        """
        if self._count >= self._places:
            raise Refusal(503, "too many requests are waiting; try again later")
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1


def bounded_protocol(limits: Limits) -> type[H11Protocol]:
    """A protocol of uvicorn that closes connections without a complete request or a reader, and bounds their number."""
    waiting: dict[Bounded, None] = {}  # in the order of their arrival

    class Bounded(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _stall: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()
            if len(self.connections) > limits.connections:
                idle = next((one for one in waiting if one._has_no_request()), self)
                idle.transport.abort()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._timer is None and self._has_no_request():
                self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            waiting.pop(self, None)
            for timer in (self._timer, self._stall):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stall = self.loop.call_later(STALL_SECONDS, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._stall is not None:
                self._stall.cancel()
                self._stall = None

        def _watch(self) -> None:
            waiting[self] = None
            self._timer = self.loop.call_later(HEADER_SECONDS, self._expire, self.cycle)

        def _expire(self, cycle: Any) -> None:
            self._timer = None
            waiting.pop(self, None)
            if self.cycle is cycle and self._has_no_request():
                self.transport.abort()

        def _has_no_request(self) -> bool:
            is_http = self.transport.get_protocol() is self  # not a WebSocket by now
            return is_http and (self.cycle is None or self.cycle.response_complete)

    return Bounded
