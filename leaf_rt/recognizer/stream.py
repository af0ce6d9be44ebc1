"""Iterates over the results of a source, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator

from leaf_rt.recognizer.background import BackgroundRun, FrameQueue, close_with
from leaf_rt.recognizer.faces import Faces, FrameResult
from leaf_rt.system.closing import Closing


class Stream(Iterator[FrameResult], Closing):
    """Results of a source, frame by frame; made by ``Recognizer.stream``. An iterator and a context manager.

    A file gives every frame in order; reading waits while the caller is slow. A live source (camera, network stream,
    ``realtime=True``) gives the newest frame; frames in between are dropped. The run ends when the loop is left, with
    ``close()``, at the end of a ``with`` block, or when the recognizer is closed.
    """

    def __init__(self, owner: object, run: BackgroundRun, frames: FrameQueue, labels: tuple[str, ...]) -> None:
        self._owner = owner  # keeps the recognizer alive
        self._run, self._frames, self._labels = run, frames, labels
        self._finalizer = close_with(self, run.close)

    def __next__(self) -> FrameResult:
        """The next frame.

        Raises:
            LeafError: The source or the model failed.
            StopIteration: The source has ended, or the stream is closed.
        """
        try:
            item = self._frames.get()
        except BaseException:  # Ctrl-C
            self.close()
            raise
        if item is None:
            closed = not self._finalizer.alive
            self.close()
            if self._run.error is not None and not closed:
                raise self._run.error
            raise StopIteration
        frame = item.frame
        faces = Faces(item.estimates, self._labels, image=frame.image)
        return FrameResult(
            time=frame.timestamp,
            index=frame.index,
            source=frame.source,
            faces=faces,
            image=frame.image,
            latency=item.latency,
            captured_at=frame.captured_at,
            connection=frame.generation,
            shot=item.estimates.shot,
        )

    def close(self) -> None:
        """Stop the run and wait for its threads. May be called twice."""
        self._finalizer.detach()
        self._run.close()
