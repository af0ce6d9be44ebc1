"""Reads one source: in a thread that can be abandoned and replaced when it hangs.

Knows sources; must not know pipelines or sinks.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from leaf_rt.errors import ConnectionLost, LeafError, TimedOut
from leaf_rt.sources.base import Decodes, Source, SourceOptions, Target
from leaf_rt.stream.connection import Connection
from leaf_rt.stream.context import RunContext
from leaf_rt.stream.decode_control import DecodeControl
from leaf_rt.stream.frame_buffer import CapturedFrame, FrameBuffer
from leaf_rt.stream.stats import EventKind, SourceStats
from leaf_rt.types import Frame, SourceInfo

Opener: TypeAlias = Callable[[str, SourceOptions], Source]


class Capture:
    """Captures one target for the loop of a run, and watches the thread that does it.

    Args:
        context: The run.
        target: What to read.
        name: Name of the source in this run.
        info: What is known of the source so far.
        opener: Opens the target after every loss.
        rng: For the jitter of the delays.

    Attributes:
        stats: The counters of the source.
        buffer: Its frames.
    """

    def __init__(
        self, context: RunContext, target: Target, name: str, info: SourceInfo, opener: Opener, rng: random.Random
    ) -> None:
        self.stats = SourceStats(info)
        self.buffer = FrameBuffer(context, self.stats)
        self._context, self._target, self._opener = context, target, opener
        self._connection = Connection(context, name, self.stats, target.options.max_reconnects, rng)
        self._threads: list[CaptureThread] = []  # the last one is in charge; those before it are cancelled

    @property
    def error(self) -> Exception | None:
        """What ended the source for good."""
        return self._connection.error

    @property
    def ended(self) -> bool:
        """Whether no frame is left and none will come. Call under the lock."""
        return self.stats.state == "ended" and not self.buffer

    def start(self, first: Source | LeafError | None) -> None:
        """Start to capture from an open source, or open it: after a delay if there was an error, or now."""
        self._threads = [capture for capture in self._threads if capture.thread.is_alive()]
        # A target that never opened is tried once, unless it may become available later.
        retries = first is not None or (self._target.address.is_live and (self._target.options.wait or self._was_open))
        capture = CaptureThread(
            self._context, self._target, self._opener, self._connection, self.buffer, first, retries
        )
        self._threads.append(capture)
        capture.thread.start()

    def stop(self) -> None:
        """Capture no more frames; those in the buffer can still be taken. Call under the lock."""
        self._cancel()
        self._connection.cut()
        self._context.ready.notify_all()

    def pause(self) -> None:
        """Capture no more frames until ``resume``. Call under the lock."""
        if self.stats.state != "ended":
            self._cancel()
            self.buffer.drop_all()
            self._connection.pause()

    def resume(self) -> None:
        """Open the source again after ``pause``."""
        with self._context.lock:
            self._connection.resume()
        self.start(None)

    def fail(self, error: Exception, reason: str) -> None:
        """End the source because its frames cannot be used, and drop those in the buffer."""
        with self._context.lock:
            self.stop()
            self._connection.error = error
            self.buffer.drop_all()
        self._connection.report("error", EventKind.FAILED, reason, error)

    def watch(self, captured: CapturedFrame) -> None:
        """Look whether the picture of a live source stands still. Not under the lock: it reads the picture."""
        self._connection.watch(captured.frame, captured.captured)

    def join(self, timeout: float) -> None:
        """Wait up to ``timeout`` s for the threads. One that hangs in a read ends later, by itself."""
        deadline = time.monotonic() + timeout
        for capture in self._threads:
            capture.thread.join(max(deadline - time.monotonic(), 0.0))

    @property
    def _was_open(self) -> bool:
        return self.stats.last_frame is not None

    @property
    def deadline(self) -> float | None:
        """When the next frame is due at the latest, s; None while none is expected. Call under the lock."""
        return self._threads[-1].deadline if self._threads else None

    def check(self, now: float) -> None:
        """Replace a thread that has missed its deadline. Call under the lock."""
        deadline = self.deadline
        if deadline is not None and now >= deadline:
            self.stats.stalls += 1
            self._cancel()
            timeout = self._target.options.stall_timeout
            self.start(TimedOut(f"{self.stats.info.target}: sent no frame for {timeout:g} s"))

    def _cancel(self) -> None:
        if self._threads:
            self._threads[-1].cancel()


class CaptureThread:
    """One thread that reads a source, and opens it again after a loss.

    It ends with the source, or soon after ``cancel``. A cancelled thread changes nothing any more.

    Attributes:
        thread: The thread.
        deadline: When the next frame is due at the latest, s; None while none is expected. Under the lock.
    """

    def __init__(
        self,
        context: RunContext,
        target: Target,
        opener: Opener,
        connection: Connection,
        buffer: FrameBuffer,
        first: Source | LeafError | None,
        retries: bool,
    ) -> None:
        self.deadline: float | None = None
        self._retries = retries  # whether to try again if the source does not open
        self._context, self._address, self._options = context, target.target, target.options
        self._opener, self._connection, self._buffer = opener, connection, buffer
        self._cancelled = False
        self._wake = threading.Event()  # not the lock of the run: many replays sleep between their frames
        self.thread = threading.Thread(target=self._run, args=(first,), name=f"capture {connection.name}", daemon=True)

    def cancel(self) -> None:
        """Make the thread end. Call under the lock."""
        self._cancelled = True
        self.deadline = None
        self._wake.set()
        self._buffer.space.notify_all()

    def _run(self, first: Source | LeafError | None) -> None:
        """Read until the source ends or the thread is cancelled."""
        source, error = (None, first) if isinstance(first, LeafError) else (first, None)
        try:
            while error is None or self._wait_to_retry(error):
                error = self._capture(source)
                if error is None:
                    return
                source = None
        except Exception as e:  # noqa: BLE001 a bug: it ends this source, and run() raises it or returns it in the counters
            self._end(e)
        except BaseException as e:  # noqa: BLE001 such as SystemExit from an iterable of the caller: the run must not wait for ever
            failure = RuntimeError(f"{self._connection.name}: the source raised {type(e).__name__}")
            failure.__cause__ = e
            self._end(failure)

    def _capture(self, source: Source | None) -> LeafError | None:
        """Open the source unless it is open, and read it to its end.

        Returns:
            The loss to recover from; None if there is nothing to recover.
        """
        reconnects = self._retries
        try:
            if source is None:
                self._expect_open()
                source = self._opener(self._address, self._options)
            self._retries = reconnects = source.info.reconnects
            if not self._opened(source.info) or not self._read(source):
                return None
            if reconnects:
                return ConnectionLost(f"{source.info.target}: the stream ended")
        except LeafError as e:
            if reconnects:
                return e
            self._end(e)
            return None
        finally:
            if source is not None:
                source.close()
        self._end(None)
        return None

    def _read(self, source: Source) -> bool:
        """Put every frame into the buffer; returns False if the thread was cancelled before the end."""
        info = source.info
        if not (info.is_live and isinstance(source, Decodes)):
            return self._read_all(source, None)
        with DecodeControl(source.decoding, self._context.budget, info.fps or 25.0) as control:
            return self._read_all(source, control)

    def _read_all(self, source: Source, control: DecodeControl | None) -> bool:
        info, now = source.info, self._context.now
        replay = info.kind == "file" and info.is_live
        begin: tuple[float, float] | None = None  # when the first frame of a replay came, and its media time, s
        reported = damaged = 0  # warnings; damage
        reported_load = False
        frames = iter(source)
        while True:
            start = now()
            frame = next(frames, None)
            captured = now()
            for text in source.warnings[reported:]:
                self._connection.report("warning", EventKind.DAMAGED, text)
            reported = len(source.warnings)
            if source.damaged > damaged and not self._cancelled:
                self._connection.damaged(source.damaged - damaged, captured, report=info.reconnects)
                damaged = source.damaged
            if frame is None:
                return True
            decode_time = captured - start if source.decode_time is None else source.decode_time
            if not info.is_live:  # a live frame may never be looked at
                _ = frame.image
                decode_time += now() - captured
            if replay:
                begin = begin or (captured, frame.timestamp)
                if not self._sleep(begin[0] + frame.timestamp - begin[1] - captured):
                    return False
                captured = now()
            replaced = self._put(frame, info, captured, decode_time, 0 if control is None else control.left_out())
            if replaced is None:
                return False
            if control is not None and control.update(captured, frame.timestamp, replaced) and not reported_load:
                reported_load = True
                text = "leaves out pictures when decoding, because not all frames can be processed in time"
                self._connection.report("info", EventKind.LOAD, text)

    def _put(self, frame: Frame, info: SourceInfo, now: float, decode_time: float, left_out: int) -> bool | None:
        """Put a frame into the buffer; returns whether it replaced one, or None if the thread is cancelled."""
        with self._context.lock:
            while not info.is_live and self._buffer.is_full and not self._cancelled:
                self._buffer.space.wait()
            if self._cancelled:
                return None
            self._connection.left_out(left_out)
            stamped = self._connection.stamp(frame, info, now)
            replaced = self._buffer.put(CapturedFrame(stamped, now, decode_time), info.is_live)
            if self.deadline is not None:
                self.deadline = now + self._options.stall_timeout
        return replaced

    def _expect_open(self) -> None:
        """Set the deadline for opening the source and its first frame."""
        with self._context.lock:
            if not self._cancelled:
                self.deadline = self._context.now() + self._options.open_timeout + self._options.stall_timeout

    def _opened(self, info: SourceInfo) -> bool:
        """Note that the source is open; returns False if the thread is cancelled."""
        with self._context.lock:
            if self._cancelled:
                return False
            is_reconnect = self._connection.opened(info)
            self.deadline = self._context.now() + self._options.stall_timeout if info.reconnects else None
            number = self._connection.stats.generation + 1
        if is_reconnect:
            self._connection.report("info", EventKind.RECONNECTED, f"reconnected (connection {number})")
        return True

    def _wait_to_retry(self, error: LeafError) -> bool:
        """Wait before the next attempt; returns False if there is none or the thread is cancelled."""
        with self._context.lock:
            if self._cancelled:
                return False
            self.deadline = None
            reason = self._connection.without_address(str(error))
            delay = self._connection.lost(reason)
        if delay is None:
            self._end(error)
            return False
        self._connection.report("warning", EventKind.LOST, f"{reason}; retrying in {delay:.1f} s")
        return self._sleep(delay)

    def _sleep(self, seconds: float) -> bool:
        """Wait; returns False as soon as the thread is cancelled."""
        deadline = self._context.now() + seconds
        while not self._cancelled and (left := deadline - self._context.now()) > 0:
            self._wake.wait(left)
        return not self._cancelled

    def _end(self, error: Exception | None) -> None:
        """End the source for good."""
        with self._context.lock:
            if self._cancelled:
                return
            self.deadline = None
            self._connection.ended(error)
            self._context.ready.notify_all()
        if error is not None:
            self._connection.report("error", EventKind.FAILED, str(error), error)
