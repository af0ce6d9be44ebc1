"""Server-sent events: records and events as they are made.

Runs in the event loop of the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from starlette.responses import StreamingResponse

from leaf_rt.web.hub import News
from leaf_rt.web.live import Live

_WAITING = 512  # messages for one client
_SIGN_OF_LIFE = 15.0  # s


def feed(live: Live, source: str | None, kind: str, texts: Callable[[News], Sequence[str]]) -> StreamingResponse:
    """Stream something of every frame until the client goes away.

    A client that reads too slowly loses the oldest messages, and a message ``dropped`` tells it how many.

    Args:
        live: Gives the frames.
        source: Name of the only source; None for all.
        kind: Name of the messages.
        texts: What to send of a frame, as JSON texts.

    Raises:
        Refusal: Too many clients.
    """
    live.check_place()  # before the answer begins
    return StreamingResponse(_messages(live, source, kind, texts), media_type="text/event-stream")


async def _messages(
    live: Live, source: str | None, kind: str, texts: Callable[[News], Sequence[str]]
) -> AsyncIterator[str]:
    waiting: asyncio.Queue[str] = asyncio.Queue(_WAITING)
    dropped = 0

    def wake(frame: News) -> None:
        nonlocal dropped
        if source is not None and frame.source != source:
            return
        for text in texts(frame):
            if waiting.full():
                waiting.get_nowait()
                dropped += 1
            waiting.put_nowait(text)

    with live.place(), live.frames(wake):
        yield ": ready\n\n"
        while True:
            try:
                async with asyncio.timeout(_SIGN_OF_LIFE):
                    text = await waiting.get()
            except TimeoutError:
                yield ": alive\n\n"
                continue
            if dropped:
                yield f"event: dropped\ndata: {dropped}\n\n"
                dropped = 0
            yield f"event: {kind}\ndata: {text}\n\n"
