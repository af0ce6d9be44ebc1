"""The ASGI application: routes, page, health, metrics, and the guards around them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse
from starlette.types import ASGIApp

from leaf_rt.errors import ConnectionLost, LeafError, NotFound
from leaf_rt.web.bounds import BodyBounds, Turns
from leaf_rt.web.hub import Hub
from leaf_rt.web.jobs import Jobs
from leaf_rt.web.live import Live
from leaf_rt.web.manager import SourceManager
from leaf_rt.web.metrics import Exposition, health
from leaf_rt.web.options import WebOptions
from leaf_rt.web.parts import Parts
from leaf_rt.web.pictures import PictureRecognizer
from leaf_rt.web.routes import add_routes
from leaf_rt.web.security import Guard, Refusal

STATIC = Path(__file__).parent / "static"
CHARTS = Path(__file__).parents[1] / "render" / "assets" / "uplot"  # shared with the report


def build_app(
    options: WebOptions,
    token: str,
    hub: Hub,
    manager: SourceManager,
    pictures: PictureRecognizer,
    metrics: Exposition,
    info: dict[str, Any],
) -> ASGIApp:
    """Build the application of one server. Call it in the event loop that will run it.

    Args:
        options: How the server is set up.
        token: What clients must know; "" if nothing.
        hub: Keeps frames and records.
        manager: Changes the sources of the run.
        pictures: Recognizes pictures.
        metrics: The metrics of the run.
        info: The answer to ``/v1/info``.
    """
    limits = options.limits
    live = Live(hub, manager, limits)
    jobs = Jobs(manager, info["labels"], limits)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(live.run())
        yield
        task.cancel()
        await jobs.close()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    app = FastAPI(
        title="leaf-rt",
        version=info["version"],
        description="Facial-expression recognition: sources, records, events, pictures and clips.",
        docs_url=None,  # they would load scripts from the network
        redoc_url=None,
        lifespan=lifespan,
    )
    router = APIRouter()
    add_routes(router, Parts(hub, manager, live, jobs, pictures, Turns(limits.uploads), info, info["labels"], limits))

    @router.get("/healthz", tags=["server"], responses={503: {"description": "A source or an output fails."}})
    def healthz() -> JSONResponse:
        """Whether all sources and outputs work."""
        healthy, body = health(manager.visible_stats, time.monotonic(), may_be_idle=True)
        return JSONResponse(body, 200 if healthy else 503)

    @router.get("/metrics", tags=["server"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def metrics_text() -> Response:
        """Metrics for Prometheus."""
        return Response(metrics.text(), headers={"Content-Type": metrics.media_type})

    @router.get("/", include_in_schema=False)
    def page() -> FileResponse:
        if not (STATIC / "index.html").is_file():
            raise Refusal(404, "the page is missing in this installation; install leaf-rt again")
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    app.include_router(router)
    app.mount("/static/vendor/uplot", StaticFiles(directory=CHARTS))
    app.mount("/static", StaticFiles(directory=STATIC, check_dir=False))
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(LeafError, _failed)
    app.add_exception_handler(TimeoutError, _timed_out)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _malformed)
    return Guard(BodyBounds(app, limits), options, token)


def _answer(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return _answer(error.status, error.detail)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    status = 404 if isinstance(error, NotFound) else 503 if isinstance(error, ConnectionLost) else 422
    return _answer(status, str(error))


async def _timed_out(_: Request, error: Exception) -> JSONResponse:
    return _answer(503, "the run is too busy; try again later")


_PLAIN = {  # for the answers of Starlette, which are no sentences
    "Not Found": "there is nothing at this address; /openapi.json lists all requests",
    "Method Not Allowed": "this address does not accept this method; /openapi.json lists all requests",
}


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    answer = _answer(error.status_code, _PLAIN.get(detail, detail))
    answer.headers.update(error.headers or {})
    return answer


async def _malformed(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    if any(e["loc"] == ("body",) and e["type"] in ("model_attributes_type", "missing") for e in error.errors()):
        return _answer(422, "the body must be a JSON object; send the header Content-Type: application/json with it")
    problems = [f"{'.'.join(str(part) for part in e['loc'][1:]) or e['loc'][0]}: {e['msg']}" for e in error.errors()]
    return _answer(422, "; ".join(problems))
