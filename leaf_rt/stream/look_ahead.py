"""Looks for the faces in the next frames of a file, in order, while the frames before them are classified.

Knows frames and what is found in them; must not know pipelines or sinks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field

from leaf_rt.recognition.stages import Found
from leaf_rt.stream.context import RunContext
from leaf_rt.stream.frame_buffer import CapturedFrame, FrameBuffer

DEPTH = 4  # frames; a classification takes as long as the search of about two


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """A frame whose faces are looked for, or have been found.

    Attributes:
        begun: When that began, s.
        found: Its faces.
    """

    begun: float
    found: Future[Found] = field(default_factory=Future)


class LookAhead:
    """Searches the first frames of a buffer, where they stay until they are taken.

    One thread of the pool at a time searches frame after frame, as long as there are some. Handing over each of them
    would let it wait for the loop.

    Args:
        context: The run.
        buffer: The frames of a file.
        detect: Finds the faces of a frame.
    """

    def __init__(self, context: RunContext, buffer: FrameBuffer, detect: Callable[[CapturedFrame], Found]) -> None:
        self._context, self._buffer, self._detect = context, buffer, detect
        self._frames: deque[Searched] = deque()  # the first frames of the buffer
        self._allowed = self._running = False

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def is_ready(self) -> bool:
        """Whether the faces of the next frame are known. Call under the lock of the run."""
        return bool(self._frames) and self._frames[0].found.done()

    def take(self) -> Searched | None:
        """Remove and return what is known of the next frame. Call under the lock.

        Returns:
            None if its search has not begun. The caller searches it then, and no other frame is begun with meanwhile.
        """
        if not self._frames:
            self._allowed = False
            return None
        return self._frames.popleft()

    def go_on(self, pool: Executor) -> None:
        """Search the next frames, from now on. The frame that was taken last must have been searched."""
        with self._context.lock:
            self._allowed = True
            if self._running or not self._has_work:
                return
            self._running = True
        pool.submit(self._search)

    def hold(self) -> None:
        """Begin with no other frame."""
        self._allowed = False

    def drop(self) -> None:
        """Forget what was found, and wait until the pipeline is free. Not under the lock. Then drop the frames too."""
        with self._context.lock:
            self._allowed = False
            frames = list(self._frames)
        wait([searched.found for searched in frames])
        with self._context.lock:
            self._frames.clear()

    @property
    def _has_work(self) -> bool:
        return self._allowed and len(self._frames) < min(DEPTH, len(self._buffer))

    def _search(self) -> None:
        while (begun := self._begin()) is not None:
            searched, captured = begun
            try:
                searched.found.set_result(self._detect(captured))
            except BaseException as e:  # noqa: BLE001 whoever asks for the result gets it
                searched.found.set_exception(e)
            with self._context.lock:
                self._context.ready.notify_all()

    def _begin(self) -> tuple[Searched, CapturedFrame] | None:
        """Begin with the next frame; None if there is none, which ends the thread's work."""
        with self._context.lock:
            if not self._has_work:
                self._running = False
                return None
            searched, captured = Searched(self._context.now()), self._buffer.peek(len(self._frames))
            self._frames.append(searched)
        return searched, captured
