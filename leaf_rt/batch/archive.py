"""One start of a batch: what is left to do, who does it, and what is kept of it."""

from __future__ import annotations

import contextlib
import time
from bisect import insort
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from leaf_rt.batch.job import Clip, Job, Outcome, Ready, Runner
from leaf_rt.batch.manifest import Manifest
from leaf_rt.errors import LeafError, OutputError
from leaf_rt.system.files import save_json
from leaf_rt.system.signals import StopSignal, stop_on_signals

SUMMARY = "leaf-batch.json"


@dataclass(slots=True)
class Totals:
    """What one start of a batch came to.

    Attributes:
        files: Files of the batch.
        skipped: Those that were done before.
        done: Those that are done now.
        failed: Those that failed now.
        frames: Frames that were processed now.
        faces: Records that were written now.
        seconds: Time since the first worker was ready, s.
        stopped: Whether a signal ended it.
        failures: Those that failed, by name, with their reasons.
        started_at: UTC.
    """

    files: int
    skipped: int = 0
    done: int = 0
    failed: int = 0
    frames: int = 0
    faces: int = 0
    seconds: float = 0.0
    stopped: bool = False
    failures: list[Outcome] = field(default_factory=list)
    started_at: str = field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    )

    @property
    def left(self) -> int:
        """Files that are neither done nor failed."""
        return self.files - self.skipped - self.done - self.failed

    @property
    def files_per_second(self) -> float:
        """Files that were done or failed per second."""
        return (self.done + self.failed) / self.seconds if self.seconds > 0 else 0.0

    @property
    def frames_per_second(self) -> float:
        """Frames of all workers per second."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def add(self, outcome: Outcome) -> None:
        """Count a file."""
        self.frames += outcome.frames
        self.faces += outcome.faces
        if outcome.state == "done":
            self.done += 1
        else:
            self.failed += 1
            insort(self.failures, outcome, key=lambda each: each.clip.name)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        names = ("skipped", "done", "failed", "left")
        return {
            "schema_version": 1,
            "started_at": self.started_at,
            "files": {"all": self.files, **{name: getattr(self, name) for name in names}},
            "frames": self.frames,
            "faces": self.faces,
            "seconds": round(self.seconds, 3),
            "files_per_second": round(self.files_per_second, 4),
            "frames_per_second": round(self.frames_per_second, 2),
            "stopped": self.stopped,
            "failures": [
                {"file": each.clip.name, "reason": each.reason, "exit_code": each.exit_code} for each in self.failures
            ],
        }


@dataclass(frozen=True, slots=True)
class Watch:
    """Functions that a batch calls; they must return quickly.

    Attributes:
        begins: What is left, before the first worker starts.
        ready: A worker has loaded its model.
        outcome: A file is done or has failed; it is in the manifest already.
    """

    begins: Callable[[Totals, Sequence[Clip]], None]
    ready: Callable[[Ready], None]
    outcome: Callable[[Outcome, Totals], None]


def run_archive(job: Job, clips: Sequence[Clip], runner: Runner, watch: Watch, *, redo: bool = False) -> Totals:
    """Process all files that are not done, and keep the totals beside the results.

    Args:
        job: What all files have in common.
        clips: The files.
        runner: Starts the workers.
        watch: Is told what happens.
        redo: Do those again whose results were made with other options.

    Raises:
        LeafError: Nothing could be started, or nothing more can be written. What is done stays done.
    """
    options = job.options()
    stop = StopSignal(started=True)
    with Manifest(Path(job.out)) as manifest, stop_on_signals(stop):
        before = manifest.options
        differs = before is not None and before != options
        if differs and not redo:
            raise OutputError(_changed(job.out, before or {}, options))
        manifest.start(options, redo=differs)
        left = manifest.left(clips)
        totals = Totals(len(clips), skipped=len(clips) - len(left))
        watch.begins(totals, left)
        try:
            _process(job, left, runner, watch, manifest, totals, stop)
        except BaseException:
            with contextlib.suppress(LeafError):  # the reason for the end matters more
                _save(job, totals)
            raise
        _save(job, totals)
    return totals


def _process(
    job: Job, left: Sequence[Clip], runner: Runner, watch: Watch, manifest: Manifest, totals: Totals, stop: StopSignal
) -> None:
    """Let the workers process what is left, and keep what becomes of it."""
    start = time.perf_counter()

    def ready(first: Ready) -> None:
        nonlocal start
        start = time.perf_counter()
        watch.ready(first)

    outcomes = runner(job, left, ready, stop) if left else iter(())
    try:
        for outcome in outcomes:
            manifest.add(outcome, job.version)
            totals.add(outcome)
            totals.seconds = time.perf_counter() - start
            watch.outcome(outcome, totals)
            if outcome.fatal:
                raise OutputError(f"{outcome.reason}; then the same command goes on")
    finally:
        totals.stopped = stop.is_set()
        totals.seconds = time.perf_counter() - start
        if isinstance(outcomes, Generator):
            outcomes.close()  # now, not when the error has been reported: it ends the workers


def _save(job: Job, totals: Totals) -> None:
    save_json(Path(job.out) / SUMMARY, {**totals.as_json(), "version": job.version})


def _changed(out: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    """Say which options differ from those of the results that are there."""
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    listed = ", ".join(f"{name} was {_short(before.get(name))} and is {_short(now.get(name))}" for name in names)
    return (
        f"--out {out}: its results were made with other options ({listed}); use the same, choose another --out, or "
        "do all files again with --redo"
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
