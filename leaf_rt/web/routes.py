"""The HTTP routes of the API; ``/openapi.json`` describes them.

They turn requests into calls of the manager, the hub and the jobs, and do no work of their own.
"""

from __future__ import annotations

import asyncio
import csv
import errno
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response, WebSocket
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.responses import StreamingResponse

from leaf_rt.results.records import column_names, extra_columns, table_row
from leaf_rt.web.feeds import feed
from leaf_rt.web.jobs import check_head
from leaf_rt.web.parts import Parts
from leaf_rt.web.security import Refusal

Format = Literal["json", "jsonl", "csv"]
Id = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9]{1,64}$", description="Id of the source or job.")]
Wanted = Annotated[Format, Query(description="`json`, `jsonl` (one record per line) or `csv`.")]
_TYPES = {"json": "application/json", "jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}

_PIECE = 200  # records that are sent together


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="One sentence.")


class Percentiles(BaseModel):
    """Percentiles over the newest frames, ms."""

    p50: float
    p95: float


class SourceState(BaseModel):
    """One source."""

    id: str
    name: str
    kind: Literal["camera", "stream", "file", "browser"]
    state: Literal["connecting", "live", "offline", "frozen", "ended", "refused", "stopped"]
    reason: str = Field(description="Why it is offline or refused; empty if all is well.")
    since_s: float = Field(description="For how long the state has lasted, s.")
    retry_in_s: float | None = Field(description="When it will be opened again, s.")
    width: int
    height: int
    capture_fps: float
    processed_fps: float
    dropped: int
    latency_ms: Percentiles
    stages_ms: dict[str, float] = Field(
        description="Mean time of each stage per frame, ms, over the newest frames of all sources."
    )
    faces: int


class SourceList(BaseModel):
    """All sources."""

    sources: list[SourceState]


class NewSource(BaseModel):
    """A source to add."""

    model_config = ConfigDict(extra="forbid")
    target: str = Field(min_length=1, max_length=2000, description="`sample`, a camera (`0`), or an allowed address.")
    name: str | None = Field(default=None, min_length=1, max_length=60, pattern=r"^[^\x00-\x1f\x7f]*$")


class Change(BaseModel):
    """A change of a source."""

    model_config = ConfigDict(extra="forbid")
    state: Literal["stopped", "running"]


class Recognized(BaseModel):
    """The faces of a picture."""

    width: int
    height: int
    records: list[dict[str, Any]] = Field(description="Records as in docs/records.md.")


class JobState(BaseModel):
    """One clip."""

    id: str
    state: Literal["queued", "running", "done", "failed"]
    progress: float | None = Field(description="0 to 1; null if the length is unknown.")
    reason: str = Field(description="Why it failed, or what is missing in the result.")
    frames: int
    faces: int = Field(description="Number of records.")


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Problem} for code in (400, 401, 403, 421, 422, 503, *codes)}


def _upload(kind: str) -> dict[str, Any]:
    """The two forms of an upload, for the OpenAPI document."""
    binary = {"type": "string", "format": "binary"}
    form = {"type": "object", "properties": {"file": binary}, "required": ["file"]}
    content = {"multipart/form-data": {"schema": form}, kind: {"schema": binary}}
    return {"requestBody": {"required": True, "content": content}}


_FORMATS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The records.",
        "content": {
            "application/json": {"schema": {"type": "object", "properties": {"records": {"type": "array"}}}},
            "application/x-ndjson": {"schema": {"type": "string"}},
            "text/csv": {"schema": {"type": "string"}},
        },
    }
}
_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


def add_routes(router: APIRouter, parts: Parts) -> None:
    """Add all routes under ``/v1``."""
    manager, hub, live, jobs = parts.manager, parts.hub, parts.live, parts.jobs

    @router.get("/v1/info", tags=["server"], responses=_problems())
    def info() -> dict[str, Any]:
        """What runs here."""
        return parts.info

    @router.get("/v1/sources", tags=["sources"], responses=_problems())
    def sources() -> SourceList:
        """All sources."""
        return SourceList.model_validate({"sources": manager.describe()})

    @router.post("/v1/sources", status_code=201, tags=["sources"], responses=_problems(404, 429))
    async def add_source(new: NewSource) -> SourceState:
        """Add a source that the operator allows."""
        return SourceState.model_validate(await manager.add(new.target, new.name))

    @router.patch("/v1/sources/{source_id}", tags=["sources"], responses=_problems(404, 409))
    async def change_source(source_id: Id, change: Change) -> SourceState:
        """Stop or start a source."""
        return SourceState.model_validate(await manager.set_running(source_id, change.state == "running"))

    @router.delete("/v1/sources/{source_id}", status_code=204, tags=["sources"], responses=_problems(404))
    async def remove_source(source_id: Id) -> Response:
        """Remove a source."""
        await manager.remove(source_id)
        return Response(status_code=204)

    @router.get(
        "/v1/sources/{source_id}/records",
        tags=["sources"],
        responses=_problems(404) | _FORMATS,
        response_class=Response,
    )
    def source_records(
        source_id: Id,
        seconds: Annotated[float, Query(gt=0, le=600, description="How far back, s.")] = 60.0,
        format: Wanted = "json",  # noqa: A002 the name in the address
    ) -> Response:
        """The records of the last seconds, from memory."""
        return _records(hub.records(manager.name_of(source_id), seconds), format, parts.labels)

    @router.get(
        "/v1/sources/{source_id}/snapshot.jpg",
        tags=["sources"],
        responses=_problems(404) | {200: {"content": {"image/jpeg": {}}}},
        response_class=Response,
    )
    async def snapshot(source_id: Id) -> Response:
        """The newest picture."""
        frame = hub.newest(manager.name_of(source_id))
        if frame is None:
            raise Refusal(404, "this source has sent no picture yet")
        return Response(await live.picture(frame), media_type="image/jpeg")

    @router.get("/v1/records", tags=["live"], responses=_problems(404) | _STREAM, response_class=Response)
    async def records(
        source: Annotated[str | None, Query(max_length=64, description="Id of a source.")] = None,
    ) -> Response:
        """Server-sent events: every record, as it is made."""
        return feed(parts.live, None if source is None else manager.name_of(source), "record", lambda f: f.records)

    @router.get("/v1/events", tags=["live"], responses=_problems(404) | _STREAM, response_class=Response)
    async def events(
        source: Annotated[str | None, Query(max_length=64, description="Id of a source.")] = None,
    ) -> Response:
        """Server-sent events: when a person begins or stops to show an expression."""
        return feed(parts.live, None if source is None else manager.name_of(source), "event", lambda f: f.events)

    @router.post("/v1/image", tags=["files"], responses=_problems(408, 413, 415), openapi_extra=_upload("image/jpeg"))
    async def image(request: Request) -> Recognized:
        """Recognize the faces of one picture."""
        with parts.picture_turns.place():
            data = await _body(request)
            async with parts.picture_turns.one:
                found = await asyncio.to_thread(parts.pictures.recognize, data, "picture")
        return Recognized.model_validate(found)

    @router.post(
        "/v1/video",
        status_code=202,
        tags=["files"],
        responses=_problems(408, 413, 415, 507),
        openapi_extra=_upload("video/mp4"),
    )
    async def video(request: Request) -> JobState:
        """Recognize the faces of a clip, as a job."""
        with jobs.place():
            folder = TemporaryDirectory(prefix="leaf-rt-")
            try:
                clip = Path(folder.name) / "clip"
                await _store(request, clip)
                job = jobs.start(folder, clip)
            except BaseException as e:
                folder.cleanup()
                if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise Refusal(507, "the server has no space for this clip; try again later") from e
                raise
        return JobState.model_validate(job.describe())

    @router.get("/v1/jobs/{job_id}", tags=["files"], responses=_problems(404))
    async def job_state(job_id: Id) -> JobState:
        """How far a job is."""
        return JobState.model_validate(jobs.find(job_id).describe())

    @router.get(
        "/v1/jobs/{job_id}/records", tags=["files"], responses=_problems(404, 409) | _FORMATS, response_class=Response
    )
    async def job_records(job_id: Id, format: Wanted = "json") -> Response:  # noqa: A002 the name in the address
        """The records of a finished job."""
        job = jobs.find(job_id)
        if job.state != "done":
            raise Refusal(409, f"the job is {job.state}; {job.reason or 'ask again when it is done'}")
        return _records(job.records, format, parts.labels)

    @router.delete("/v1/jobs/{job_id}", status_code=204, tags=["files"], responses=_problems(404))
    async def remove_job(job_id: Id) -> Response:
        """Stop a job and forget its result."""
        await jobs.remove(job_id)
        return Response(status_code=204)

    @router.websocket("/v1/live")
    async def watch(socket: WebSocket) -> None:
        await live.view(socket)

    @router.websocket("/v1/camera")
    async def camera(socket: WebSocket) -> None:
        await live.film(socket)


def _records(texts: Sequence[str], wanted: Format, labels: Sequence[str]) -> Response:
    """Send records piece by piece: all of a clip together may have 64 MiB."""
    headers = {} if wanted == "json" else {"Content-Disposition": f'attachment; filename="records.{wanted}"'}
    return StreamingResponse(_pieces(texts, wanted, labels), media_type=_TYPES[wanted], headers=headers)


def _pieces(texts: Sequence[str], wanted: Format, labels: Sequence[str]) -> Iterator[str]:
    if wanted == "json":
        yield '{"records":['
    elif wanted == "csv":
        first = json.loads(texts[0]) if texts else {}
        yield _lines([column_names(labels, extra_columns(pose="yaw" in first, blendshapes="blendshapes" in first))])
    for start in range(0, len(texts), _PIECE):
        some = texts[start : start + _PIECE]
        if wanted == "json":
            yield ("," if start else "") + ",".join(some)
        elif wanted == "jsonl":
            yield "".join(f"{text}\n" for text in some)
        else:
            yield _lines([table_row(json.loads(text)) for text in some])
    if wanted == "json":
        yield "]}"


def _lines(rows: Sequence[Sequence[Any]]) -> str:
    table = io.StringIO(newline="")
    csv.writer(table, lineterminator="\n").writerows(rows)
    return table.getvalue()


async def _form_file(request: Request) -> UploadFile | None:
    """The field ``file`` of a multipart body; None if the body is the file itself."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return None
    try:
        form = await request.form(max_files=1, max_fields=4)
    except MultiPartException as e:
        raise Refusal(400, f"the multipart body is malformed ({e.message})") from e
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise Refusal(422, "the multipart body has no file in the field `file`")
    return file


async def _body(request: Request) -> bytes:
    """The picture that was sent. ``BodyBounds`` limits its size."""
    file = await _form_file(request)
    data = await request.body() if file is None else await file.read()
    if not data:
        raise Refusal(422, "the body is empty; send the file as the body or in the field `file`")
    return data


async def _store(request: Request, path: Path) -> None:
    """Write the clip that was sent to a temporary file. ``BodyBounds`` limits its size."""
    file = await _form_file(request)
    with path.open("wb") as out:
        if file is None:
            first = True
            async for chunk in request.stream():
                if first and len(chunk) >= 16:
                    check_head(chunk[:16])
                    first = False
                out.write(chunk)
        else:
            while chunk := await file.read(1 << 20):
                out.write(chunk)
    with path.open("rb") as written:
        head = written.read(16)
    if not head:
        raise Refusal(422, "the body is empty; send the file as the body or in the field `file`")
    check_head(head)
