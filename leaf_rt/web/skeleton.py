"""A first server for the development of the page: plays the sample clip. Replaced by server.py soon."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles

from leaf_rt.labels import UNCERTAIN, rgb
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.factory import build_pipeline
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.stream.options import Hooks, RunOptions
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import RunStats
from leaf_rt.types import Frame
from leaf_rt.web.hub import Hub, LiveFrame

STATIC = Path(__file__).parent / "static"
SAMPLE = Path(__file__).parents[2] / "examples" / "demo.mp4"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "media-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def main(port: int = 8000) -> None:
    config = RecognitionConfig()
    backend = config.open_backend()
    hub = Hub(backend.spec.labels)
    state: dict[str, Any] = {"stats": RunStats(), "on": [], "cams": 0}
    app = FastAPI()

    def play() -> None:
        run(
            [Target(str(SAMPLE), SourceOptions(name="Sample clip", loop=True, realtime=True))],
            lambda info: build_pipeline(config, backend),
            backend,
            shared=[hub],
            hooks=Hooks(progress=lambda s: state.update(stats=s)),
            options=RunOptions(handle_signals=False),
        )

    def sources() -> dict[str, Any]:
        if not state["on"]:
            return {"type": "sources", "sources": list(cams.values())}
        s = state["stats"].sources[0] if state["stats"].sources else None
        stages = {
            k: round(v.p50 * 1000, 2) for k, v in state["stats"].stages.items() if k not in ("draw", "write", "wait")
        }
        sample = {
            "id": "s1",
            "name": "Sample clip",
            "kind": "file",
            "state": "live",
            "reason": "",
            "since_s": 1.0,
            "retry_in_s": None,
            "width": s.info.width if s else 0,
            "height": s.info.height if s else 0,
            "capture_fps": round(s.capture_fps, 1) if s else 0.0,
            "processed_fps": round(s.fps, 1) if s else 0.0,
            "dropped": s.dropped if s else 0,
            "latency_ms": {"p50": round(s.latency.p50 * 1e3, 1), "p95": round(s.latency.p95 * 1e3, 1)}
            if s
            else {"p50": 0, "p95": 0},
            "stages_ms": stages,
            "faces": s.faces if s else 0,
        }
        return {"type": "sources", "sources": [sample, *cams.values()]}

    cams: dict[str, Any] = {}

    @app.middleware("http")
    async def headers(request: Any, call: Any) -> Any:
        answer = await call(request)
        answer.headers["Content-Security-Policy"] = CSP
        return answer

    @app.get("/v1/info")
    def info() -> dict[str, Any]:
        labels = backend.spec.labels
        return {
            "version": "0.1.0",
            "labels": labels,
            "colors": {x: "#%02x%02x%02x" % rgb(x) for x in (*labels, UNCERTAIN)},
            "model": {"name": config.model.stem},
            "detector": "MediaPipe BlazeFace",
            "backend": backend.name,
            "reason": backend.reason,
            "notice": "For lawful uses only: the EU AI Act, Article 5(1)(f), forbids emotion recognition at work and in education.",
            "camera": True,
            "add_sources": True,
            "thumbnails": False,
            "stored": [],
            "sample": True,
        }

    @app.get("/v1/sources")
    def get_sources() -> dict[str, Any]:
        return {"sources": sources()["sources"]}

    @app.post("/v1/sources", status_code=201)
    def add(body: dict[str, Any]) -> Any:
        if body.get("target") != "sample":
            return Response(
                '{"detail": "this server does not allow this source; start it with --allow-source"}',
                403,
                media_type="application/json",
            )
        if not state["on"]:
            state["on"].append(1)
            threading.Thread(target=play, daemon=True).start()
        return sources()["sources"][0]

    @app.delete("/v1/sources/{id}", status_code=204)
    def remove(id: str) -> None:
        state["on"].clear()

    @app.patch("/v1/sources/{id}")
    def patch(id: str, body: dict[str, Any]) -> Any:
        return sources()["sources"][0] | {"state": "stopped" if body.get("state") == "stopped" else "live"}

    @app.get("/v1/sources/{id}/snapshot.jpg")
    def snapshot(id: str) -> Response:
        frame = hub.newest("Sample clip")
        return Response(frame.jpeg() if frame else b"", media_type="image/jpeg")

    @app.get("/v1/sources/{id}/records")
    def records(id: str, seconds: float = 60, format: str = "json") -> Response:
        found = hub.records("Sample clip", seconds)
        if format == "json":
            return Response('{"records":[' + ",".join(found) + "]}", media_type="application/json")
        return Response("\n".join(found) + "\n", media_type="application/x-ndjson")

    @app.websocket("/v1/live")
    async def live(ws: WebSocket) -> None:
        await ws.accept()
        loop, ready, fresh = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        watching: list[str] = []
        end = hub.listen(lambda frame: loop.call_soon_threadsafe(fresh.set))

        async def read() -> None:
            async for text in ws.iter_text():
                message = json.loads(text)
                if message["type"] == "watch":
                    watching[:] = [message["source"]]
                    ready.set()
                else:
                    ready.set()

        async def tell() -> None:
            while True:
                await ws.send_text(json.dumps(sources()))
                await asyncio.sleep(1)

        async def show() -> None:
            last: LiveFrame | None = None
            while True:
                await ready.wait()
                await fresh.wait()
                fresh.clear()
                frame = hub.newest("Sample clip") if watching == ["s1"] else None
                if frame is None or frame is last:
                    continue
                last = frame
                ready.clear()
                picture = await loop.run_in_executor(None, frame.jpeg)
                await ws.send_bytes(frame.message("s1", picture))

        tasks = [asyncio.create_task(t()) for t in (read, tell, show)]
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        end()
        for task in tasks:
            task.cancel()

    @app.websocket("/v1/camera")
    async def camera(ws: WebSocket) -> None:
        await ws.accept()
        hello = json.loads(await ws.receive_text())
        state["cams"] += 1
        id = f"b{state['cams']}"
        pipeline = build_pipeline(config, backend)
        cams[id] = {
            "id": id,
            "name": hello.get("name") or "Camera",
            "kind": "browser",
            "state": "live",
            "reason": "",
            "since_s": 0,
            "retry_in_s": None,
            "width": hello.get("width"),
            "height": hello.get("height"),
            "capture_fps": 0.0,
            "processed_fps": 0.0,
            "dropped": 0,
            "latency_ms": {"p50": 0.0, "p95": 0.0},
            "stages_ms": {},
            "faces": 0,
        }
        await ws.send_text(json.dumps({"type": "source", "id": id}))
        begin, index = time.monotonic(), 0
        out: list[LiveFrame] = []
        keep = Hub(backend.spec.labels)
        keep.listen(out.append)
        from leaf_rt.types import SourceInfo

        source = SourceInfo(id, id, "camera", 0, 0, is_live=True)

        def step(data: bytes) -> bytes:
            sent = struct.unpack("<d", data[:8])[0]
            image = cv2.imdecode(np.frombuffer(data[8:], np.uint8), cv2.IMREAD_COLOR)
            frame = Frame(image, index, time.monotonic() - begin, id, 0, time.time())
            keep.client_times[id] = lambda _: sent
            keep.write(source, frame, pipeline.step(frame), 0.0)
            return out.pop().message(id)

        try:
            while True:
                data = await ws.receive_bytes()
                await ws.send_bytes(await asyncio.to_thread(step, data))
                index += 1
        except (WebSocketDisconnect, RuntimeError, KeyError):
            pass
        finally:
            cams.pop(id, None)
            pipeline.close()

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    app.mount("/static", StaticFiles(directory=STATIC, check_dir=False))
    print(f"http://127.0.0.1:{port}/", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", ws_per_message_deflate=False)


if __name__ == "__main__":
    import sys

    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
