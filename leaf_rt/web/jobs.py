"""``POST /v1/video``: clips as jobs. Each job is one more source of the run, whose records stay in memory.

Knows clips and runs; must not know HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from leaf_rt.errors import LeafError
from leaf_rt.media.ffmpeg import Bounds
from leaf_rt.results.records import frame_records
from leaf_rt.sources.base import Source, SourceOptions, Target
from leaf_rt.sources.video_file import VideoFileSource
from leaf_rt.stream.control import Addition
from leaf_rt.types import Estimates, Frame, SourceInfo
from leaf_rt.web.manager import SourceManager
from leaf_rt.web.options import Limits
from leaf_rt.web.security import Refusal

_KEEP_SECONDS = 600.0  # s for which a result can be fetched
_MAX_RESULT = 64 << 20  # bytes of records of one job
_POLL = 0.1  # s
# What a clip may begin with. FFmpeg also reads playlists, which name other files and addresses: these are refused.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg"  # names of FFmpeg; a first byte can deceive
_HEADS = ((4, b"ftyp"), (0, b"\x1aE\xdf\xa3"), (0, b"RIFF"), (0, b"\x47"), (0, b"\x00\x00\x01\xba"))


@dataclass(slots=True, eq=False)
class Job:
    """One clip.

    Attributes:
        id: Random, so that nobody guesses the job of somebody else.
        state: "queued", "running", "done" or "failed".
        reason: Why it failed, or what is missing in the result.
        records: Its records, one JSON text each.
        frames: Frames that were processed.
        of: Expected number of frames, if known.
        ended: When it ended, s on the monotonic clock.
    """

    id: str = field(default_factory=lambda: secrets.token_hex(16))
    state: str = "queued"
    reason: str = ""
    records: list[str] = field(default_factory=list)
    frames: int = 0
    of: int | None = None
    ended: float | None = None
    task: asyncio.Task[None] | None = None

    def describe(self) -> dict[str, Any]:
        """The job, ready for JSON."""
        progress = 1.0 if self.state == "done" else min(self.frames / self.of, 1.0) if self.of else None
        return {
            "id": self.id,
            "state": self.state,
            "progress": progress if progress is None else round(progress, 3),
            "reason": self.reason,
            "frames": self.frames,
            "faces": len(self.records),
        }


class Jobs:
    """All jobs. The event loop of the server calls it.

    Args:
        manager: Adds their sources to the run.
        labels: Class names in the order of the model.
        limits: Their bounds.
    """

    def __init__(self, manager: SourceManager, labels: Sequence[str], limits: Limits) -> None:
        self._manager, self._labels, self._limits = manager, labels, limits
        self._jobs: dict[str, Job] = {}
        self._receiving = 0
        self._one = asyncio.Lock()  # one clip at a time, so that live sources keep their frame rate

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place for one clip while it is received and until it is started.

        Raises:
            Refusal: No further clip is taken now.
        """
        self._forget_old()
        if self._receiving + sum(job.ended is None for job in self._jobs.values()) >= self._limits.jobs:
            raise Refusal(503, "too many clips are waiting; try again later")
        self._receiving += 1
        try:
            yield
        finally:
            self._receiving -= 1

    def start(self, folder: TemporaryDirectory[str], clip: Path) -> Job:
        """Process a clip in the background, then delete its folder."""
        job = Job()
        self._jobs[job.id] = job
        job.task = asyncio.create_task(self._run(job, folder, clip))
        return job

    def find(self, job_id: str) -> Job:
        """A job by its id.

        Raises:
            Refusal: There is none.
        """
        self._forget_old()
        job = self._jobs.get(job_id)
        if job is None:
            raise Refusal(404, "there is no such job; results are kept for ten minutes")
        return job

    async def remove(self, job_id: str) -> None:
        """Stop a job and forget its result."""
        job = self.find(job_id)
        del self._jobs[job_id]
        await _cancel(job)

    async def close(self) -> None:
        """Stop all jobs."""
        for job in self._jobs.values():
            await _cancel(job)
        self._jobs.clear()

    async def _run(self, job: Job, folder: TemporaryDirectory[str], clip: Path) -> None:
        try:
            async with self._one:
                job.state = "running"
                await self._process(job, clip)
                job.state = "done"
        except (LeafError, Refusal, TimeoutError) as e:
            job.state = "failed"
            job.reason = (str(e) or "the run is too busy").replace(str(clip), "the clip")
        except Exception as e:  # noqa: BLE001 a decoder may fail in any way
            job.state, job.reason = "failed", f"the clip cannot be processed ({type(e).__name__})"
        finally:
            job.ended = time.monotonic()
            await asyncio.to_thread(folder.cleanup)

    async def _process(self, job: Job, clip: Path) -> None:
        source = await asyncio.to_thread(_open, clip, f"job {job.id}", self._limits)
        job.of = source.info.frame_count
        sink = _Records(job, self._labels)
        name = await self._manager.add_job(
            Addition(Target(str(clip), SourceOptions(name=source.info.name)), source, [sink])
        )
        try:
            while not sink.closed:
                if job.frames >= self._limits.video_frames:
                    raise Refusal(413, f"the clip has too many frames; send at most {self._limits.video_frames}")
                await asyncio.sleep(_POLL)
            counters = self._manager.job(name)
            if counters is not None and counters.reason:
                raise Refusal(422, counters.reason)
            if source.warnings:
                job.reason = source.warnings[0].replace(str(clip), "the clip")
        finally:
            with contextlib.suppress(Exception):  # the run may be over
                await asyncio.shield(self._manager.remove_job(name))

    def _forget_old(self) -> None:
        oldest = time.monotonic() - _KEEP_SECONDS
        self._jobs = {k: job for k, job in self._jobs.items() if job.ended is None or job.ended >= oldest}
        finished = [k for k, job in self._jobs.items() if job.ended is not None]
        for key in finished[: -self._limits.jobs]:
            del self._jobs[key]


class _Records:
    """A ``Sink`` that keeps the records of one job."""

    wants_image = False

    def __init__(self, job: Job, labels: Sequence[str]) -> None:
        self.name, self.closed = f"job {job.id}", False
        self._job, self._labels, self._size = job, labels, 0

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        self._job.frames += 1
        for record in frame_records(source, frame, estimates, self._labels, latency):
            text = json.dumps(record | {"source": "clip"}, ensure_ascii=False, separators=(",", ":"))
            self._size += len(text)
            if self._size > _MAX_RESULT:
                self._job.reason = "the result is incomplete: it holds the first 64 MiB of records"
                return
            self._job.records.append(text)

    def close(self) -> None:
        self.closed = True


def check_head(head: bytes) -> None:
    """Refuse what is not a clip, by its first bytes.

    Raises:
        Refusal: It is none.
    """
    if not any(head[at : at + len(magic)] == magic for at, magic in _HEADS):
        raise Refusal(415, "not a clip that can be read; send an MP4, MOV, MKV, WebM, AVI or MPEG file")


def _open(clip: Path, name: str, limits: Limits) -> Source:
    bounds = Bounds(_FORMATS, limits.video_pixels)
    source = VideoFileSource(clip, SourceOptions(name=name, end=limits.video_seconds), bounds)
    with VideoFileSource(clip, SourceOptions(), bounds) as whole:  # says how long it is, without the end
        width, height, length = whole.info.width, whole.info.height, whole.info.duration
    problem = ""
    if width * height > limits.video_pixels:
        problem = f"frames of {width}x{height} px are too large; send at most {limits.video_pixels} px"
    if length is not None and length > limits.video_seconds:
        problem = f"the clip lasts {length:.0f} s; send at most {limits.video_seconds:.0f} s"
    if problem:
        source.close()
        raise Refusal(413, problem)
    return source


async def _cancel(job: Job) -> None:
    if job.task is not None:
        job.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await job.task
