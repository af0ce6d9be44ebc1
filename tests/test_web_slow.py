"""Clients that send or read too slowly hold nothing for long, and records go out piece by piece."""

from __future__ import annotations

import csv
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from streams import INFO, estimates, frame
from web import eventually

from leaf_rt.results.records import frame_records
from leaf_rt.web.options import Limits

SHARES = np.array([[0.25, 0.75]], np.float32)


def test_an_upload_must_not_stand_still() -> None:
    """It holds a place, so what has arrived buys time for the rest, and nothing else does."""
    import asyncio

    from leaf_rt.web.bounds import BodyBounds

    async def upload(*parts: tuple[float, bytes]) -> int:
        waiting, sent = list(parts), []

        async def receive() -> dict[str, object]:
            if not waiting:
                await asyncio.Event().wait()
            delay, body = waiting.pop(0)
            await asyncio.sleep(delay)
            return {"type": "http.request", "body": body, "more_body": bool(waiting) or len(body) < 9}

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        async def app(scope: object, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
            while (await receive()).get("more_body", False):
                pass
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        scope = {"type": "http", "path": "/v1/video", "headers": [(b"transfer-encoding", b"chunked")]}
        await BodyBounds(app, Limits(upload_rate=1 << 10, upload_grace=0.2))(scope, receive, send)  # type: ignore[arg-type]
        return next(int(str(m["status"])) for m in sent if m["type"] == "http.response.start")

    async def both() -> None:
        assert await upload((0.0, bytes(1 << 20)), (0.6, b"the end of it")) == 200
        assert await upload((0.0, bytes(8))) == 408

    asyncio.run(both())


def test_records_are_sent_piece_by_piece() -> None:
    from leaf_rt.web.routes import _pieces

    labels = ("a", "b")
    one = replace(estimates(0.0, 1), probs=SHARES, smoothed=SHARES, pose=np.array([[-1.5, 0.0, 1.0]], np.float32))
    (record,) = frame_records(replace(INFO, name="=1+2"), frame(0, 0.0), one, labels, 0.001)
    texts = [json.dumps(record | {"frame_index": n}) for n in range(1001)]
    for wanted in ("json", "jsonl", "csv"):
        pieces = list(_pieces(texts, wanted, labels))
        assert max(map(len, pieces)) < 0.3 * sum(map(len, pieces))
        if wanted == "csv":
            rows = list(csv.DictReader("".join(pieces).splitlines()))
            assert (len(rows), rows[-1]["frame_index"], rows[0]["source"]) == (1001, "1000", "'=1+2")  # no formula
            assert rows[0]["yaw"] == "-1.5"  # a number stays one
        else:
            whole = "".join(pieces)
            found = json.loads(whole)["records"] if wanted == "json" else [json.loads(t) for t in whole.splitlines()]
            assert found == [json.loads(text) for text in texts]
    assert json.loads("".join(_pieces([], "json", labels))) == {"records": []}
    assert "".join(_pieces([], "csv", labels)).startswith("schema_version,source,")


def test_a_client_that_reads_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    import uvicorn

    from leaf_rt.web import bounds

    monkeypatch.setattr(bounds, "STALL_SECONDS", 0.3)
    ended: list[str] = []

    async def app(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not ended:
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
            await asyncio.sleep(0)
            if not server.server_state.connections:
                ended.append(scope["path"])

    config = uvicorn.Config(app, http=bounds.bounded_protocol(Limits()), log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[door])), daemon=True)
        thread.start()
        with socket.create_connection(door.getsockname()) as client:
            client.sendall(b"GET /endless HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            eventually(lambda: ended == ["/endless"])
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
