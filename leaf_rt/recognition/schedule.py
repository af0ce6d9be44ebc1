"""Decides which faces of a frame are classified, so that a second of video costs the same at every frame rate."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from leaf_rt.recognition.config import PipelineOptions
from leaf_rt.types import I64, Tracks


@dataclass(slots=True)
class _Budget:
    """Limits the classifications of all faces together to a rate."""

    time: float | None = None  # s, of the last frame that showed a face
    credit: float = 0.0  # classifications

    def grant(self, now: float, rate: float, new: int, due: int) -> int:
        """Return how many faces may be classified now. Unused credit is not saved up.

        Args:
            now: Media time, s.
            rate: Classifications per second.
            new: Faces that are due for the first time. They are always granted, and not paid back later.
            due: All faces that are due.
        """
        gain = 0.0 if self.time is None else rate * min(max(now - self.time, 0.0), 1.0)
        self.time = now
        self.credit = min(self.credit + gain, gain + 1.0)
        granted = min(due, max(new, int(self.credit)))
        self.credit = max(self.credit - granted, 0.0)
        return granted


class ClassificationSchedule:
    """Decides for every frame of one source which faces to classify.

    Every face is due at a fixed interval. If more faces are due than the options allow, new faces go first, then those
    that have waited longest.
    """

    def __init__(self) -> None:
        self._due: dict[int, float] = {}  # track id -> s, when the face is due next
        self._budget = _Budget()

    def reset(self) -> None:
        """Forget all faces."""
        self._due.clear()
        self._budget = _Budget()

    def choose(self, tracks: Tracks, answered: Collection[int], now: float, options: PipelineOptions) -> I64:
        """Choose the faces to classify in a frame.

        Args:
            tracks: All living tracks. Only those that were detected in this frame can be chosen.
            answered: Ids of the tracks that have been classified before.
            now: Media time of the frame, s.
            options: Limits on the work per frame.

        Returns:
            (K,) int64, the rows of ``tracks`` to classify, in ascending order.
        """
        ids = tracks.track_id.tolist()
        for ended in self._due.keys() - ids:
            del self._due[ended]
        rows = [row for row, index in enumerate(tracks.detection_index.tolist()) if index >= 0]
        if not rows:  # the detector may have skipped this frame: save its share of the budget for the next one
            return np.zeros(0, np.int64)
        for row in rows:
            self._due.setdefault(ids[row], now)
        waiting = sorted(
            (ids[row] in answered, self._due[ids[row]], row) for row in rows if self._due[ids[row]] <= now + 1e-6
        )
        period = 1.0 / options.classify_fps if options.classify_fps > 0 else 0.0
        if period > 0:
            waiting = waiting[: options.max_per_frame]
        if period > 0 and options.max_classify_fps > 0:
            guaranteed = min(options.min_classify_fps, options.classify_fps) * len(self._due)
            rate = max(options.max_classify_fps, guaranteed)
            new = sum(not is_answered for is_answered, _, _ in waiting)
            waiting = waiting[: self._budget.grant(now, rate, new, len(waiting))]
        chosen = sorted(row for _, _, row in waiting)
        for row in chosen:
            # A fixed interval keeps the mean rate. A face that is late by more than one interval starts a new one.
            due = self._due[ids[row]] + period
            self._due[ids[row]] = due if due > now else now + period
        return np.array(chosen, dtype=np.int64)
