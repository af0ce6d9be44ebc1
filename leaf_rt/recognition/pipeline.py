"""One source's way from a frame to its estimates: find, follow, cut, classify, smooth.

Synchronous and deterministic: the same frames give the same estimates. Starts no thread, opens nothing; the clock it
is given serves the timings alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from leaf_rt.backends.base import Backend
from leaf_rt.faces.alignment import crop_faces, is_low_quality
from leaf_rt.models.spec import ModelSpec
from leaf_rt.recognition.smoothing import Smoother, SmoothOptions
from leaf_rt.types import F32, I64, U8, Detections, Estimates, Frame, Prediction, Tracks

STAGES = ("detect", "track", "align", "infer", "smooth")


class Detector(Protocol):
    """Finds faces in the frames of one source; ``leaf_rt.faces.detector.FaceDetector`` is the real one.

    Attributes:
        lag: s since some known face was last looked for, as of the newest frame; 0 where all were looked for in it.
    """

    lag: float

    def detect(self, frame: Frame) -> Detections:
        """The faces in a frame."""
        ...

    def reduce_effort(self, level: int) -> float:
        """Skip ``level`` more frames between two searches; 0 restores full effort.

        Returns:
            How many times longer than at full effort a face now waits between two searches.
        """
        ...

    def reset(self) -> None:
        """Start anew, after a reconnect."""
        ...

    def close(self) -> None:
        """Free resources."""
        ...


class Tracker(Protocol):
    """Gives faces their ids; ``leaf_rt.faces.tracker.FaceTracker`` is the real one."""

    def update(self, detections: Detections, timestamp: float) -> Tracks:
        """Every living track at this time, coasting ones included; an id that is absent is gone for good."""
        ...

    def reset(self) -> None:
        """Drop all tracks; ids go on counting."""
        ...


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """What one frame may cost.

    Attributes:
        emotion_hz: Answers per second and face; 0 classifies every face in every frame.
        total_hz: Answers per second of all faces together; a crowd shares them in turn, whoever waited longest first.
            A face's first answer is given at once all the same. 0 sets no limit. Without effect where ``emotion_hz``
            is 0.
        min_hz: Answers per second that a face gets in the largest crowd, as far as ``max_per_frame`` allows; fewer, and
            the filter has nothing to smooth.
        max_per_frame: Faces classified in one frame at most, unless ``emotion_hz`` is 0.
        max_faces: People reported per frame at most, the largest first; 0 sets no limit.
        max_coast: s for which a face is still reported after it was last found, not counting the time in which it was
            not looked for.
        may_skip: Whether the detector may leave out frames where there is more to do than can be done. Not where faces
            are hidden: who comes in meanwhile would be shown.
    """

    emotion_hz: float = 10.0
    total_hz: float = 40.0
    min_hz: float = 1.5
    max_per_frame: int = 16
    max_faces: int = 0
    max_coast: float = 0.2
    may_skip: bool = True


@dataclass(slots=True)
class _Person:
    """What the pipeline remembers of a living track."""

    due: float  # s, when the next answer is wanted
    confidence: float
    probs: F32 | None  # (C,), the newest raw answer
    low_quality: bool


@dataclass(slots=True)
class _Budget:
    """How many faces may be classified now, so that a second of media costs the same at every frame rate."""

    time: float | None = None  # s, of the last frame that showed a face
    credit: float = 0.0  # answers

    def grant(self, now: float, rate: float, firsts: int, wanted: int) -> int:
        """Answers for a frame at ``now`` of the ``wanted`` ones, ``firsts`` of which wait for nothing.

        ``rate`` is in answers per second. What is not used is not saved up, and first answers are not paid back.
        """
        gain = 0.0 if self.time is None else rate * min(max(now - self.time, 0.0), 1.0)
        self.time = now
        self.credit = min(self.credit + gain, gain + 1.0)
        granted = min(wanted, max(firsts, int(self.credit)))
        self.credit = max(self.credit - granted, 0.0)
        return granted


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """A frame between its two halves: crops (K, side, side, 3) uint8 of the tracks ``rows`` wait for an answer.

    ``seen`` is as in ``Estimates``.
    """

    frame: Frame
    tracks: Tracks
    rows: I64
    crops: U8
    seen: F32


class Pipeline:
    """Turns the frames of one source into estimates.

    ``step`` does all of it. A shell that serves several sources calls ``prepare`` for each, one ``backend.infer`` over
    all crops, and ``finish`` for each.
    """

    def __init__(
        self,
        detector: Detector,
        tracker: Tracker,
        backend: Backend,
        smooth: SmoothOptions | None = None,
        options: PipelineOptions | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.detector = detector
        self.tracker = tracker
        self.backend = backend
        self.spec: ModelSpec = backend.spec
        self.options = options or PipelineOptions()  # in effect now; see reduce_effort
        self._full_options = self.options
        self.smoother = Smoother(len(self.spec.labels), smooth)
        self.timings: dict[str, float] = dict.fromkeys(STAGES, 0.0)  # s, of the newest frame
        self._people: dict[int, _Person] = {}
        self._generation = 0
        self._budget = _Budget()
        self._clock = clock

    def step(self, frame: Frame) -> Estimates:
        """Everything for one frame."""
        pending = self.prepare(frame)
        start = self._clock()
        prediction = self.backend.infer(pending.crops)
        self.timings["infer"] = self._clock() - start
        return self.finish(pending, prediction)

    def prepare(self, frame: Frame) -> Pending:
        """Find, follow, and cut out the faces whose turn it is."""
        if frame.generation != self._generation:
            self.reset()
            self._generation = frame.generation
        t0 = self._clock()
        detections = self.detector.detect(frame)
        t1 = self._clock()
        tracks = self.tracker.update(detections, frame.timestamp)
        self._remember(tracks, detections, frame.timestamp)
        t2 = self._clock()
        rows = self._due(tracks, frame.timestamp)
        keypoints = detections.keypoints[tracks.detection_index[rows]]
        crops = crop_faces(frame.image, keypoints, self.spec.side, self.spec.margin)
        for row, poor in zip(rows.tolist(), is_low_quality(keypoints, crops).tolist(), strict=True):
            self._people[int(tracks.track_id[row])].low_quality = poor
        t3 = self._clock()
        self.timings.update(detect=t1 - t0, track=t2 - t1, align=t3 - t2, infer=0.0)
        seen = np.concatenate([detections.xyxy, tracks.xyxy[tracks.detection_index < 0]])
        return Pending(frame, tracks, rows, crops, seen)

    def finish(self, pending: Pending, prediction: Prediction) -> Estimates:
        """Smooth the answers (K rows, in the order of ``pending.rows``) and report every visible person."""
        start = self._clock()
        tracks, now = pending.tracks, pending.frame.timestamp
        for row, probs in zip(pending.rows.tolist(), prediction.probs, strict=True):
            track_id = int(tracks.track_id[row])
            if np.isfinite(probs).all():
                self._people[track_id].probs = probs
            self.smoother.update(track_id, probs, now)
        estimates = self._report(pending, now)
        self.timings["smooth"] = self._clock() - start
        return estimates

    def reduce_effort(self, level: int) -> None:
        """Do less work per frame, from the next frame on.

        Each level halves the classifications per second, but leaves every face ``PipelineOptions.min_hz``. It also
        makes the detector skip one more frame between two searches, if ``PipelineOptions.may_skip`` allows that. The
        frames that are searched may then use the classifications of the skipped ones, so that a crowd does not lose
        them twice.

        Args:
            level: 0 is full effort.
        """
        full = self._full_options
        longer = self.detector.reduce_effort(level) if full.may_skip else 1.0
        if level == 0:
            self.options = full
            return
        rate = full.emotion_hz if full.emotion_hz > 0 else 20.0
        self.options = replace(
            full,
            emotion_hz=max(rate / 2**level, min(rate, full.min_hz)),
            total_hz=full.total_hz / 2**level,
            max_per_frame=round(full.max_per_frame * longer),
        )

    def reset(self) -> None:
        """Forget everybody, after a reconnect."""
        self.detector.reset()
        self.tracker.reset()
        self.smoother.reset()
        self._people.clear()
        self._budget = _Budget()

    def close(self) -> None:
        """Free the detector; the back end belongs to whoever opened it."""
        self.detector.close()

    def _remember(self, tracks: Tracks, detections: Detections, now: float) -> None:
        alive = set(tracks.track_id.tolist())
        for gone in [t for t in self._people if t not in alive]:
            del self._people[gone]
        self.smoother.keep_only(tracks.track_id)
        for track_id, index in zip(tracks.track_id.tolist(), tracks.detection_index.tolist(), strict=True):
            if index >= 0:
                confidence = float(detections.confidence[index])
                person = self._people.get(track_id)
                if person is None:
                    self._people[track_id] = _Person(now, confidence, None, False)
                else:
                    person.confidence = confidence

    def _due(self, tracks: Tracks, now: float) -> I64:
        """Rows (K,) of the tracks to classify now, in order of rows."""
        if not (tracks.detection_index >= 0).any():  # not searched, perhaps: its share of answers is for the next frame
            return np.zeros(0, np.int64)
        period = 1.0 / self.options.emotion_hz if self.options.emotion_hz > 0 else 0.0
        waiting = [
            (self._people[track_id].probs is not None, self._people[track_id].due, row)
            for row, (track_id, index) in enumerate(
                zip(tracks.track_id.tolist(), tracks.detection_index.tolist(), strict=True)
            )
            if index >= 0 and self._people[track_id].due <= now + 1e-6
        ]
        waiting.sort()
        if period > 0:
            waiting = waiting[: self.options.max_per_frame]
        if period > 0 and self.options.total_hz > 0:
            rate = max(self.options.total_hz, min(self.options.min_hz, self.options.emotion_hz) * len(self._people))
            allowed = self._budget.grant(
                now, rate, firsts=sum(not known for known, _, _ in waiting), wanted=len(waiting)
            )
            waiting = waiting[:allowed]
        chosen = sorted(row for _, _, row in waiting)
        for row in chosen:
            person = self._people[int(tracks.track_id[row])]
            # On a fixed beat, so that the mean rate is kept; a face that waited longer than a beat starts a new one.
            person.due = person.due + period if person.due + period > now else now + period
        return np.array(chosen, dtype=np.int64)

    def _report(self, pending: Pending, now: float) -> Estimates:
        tracks = pending.tracks
        patience = self.options.max_coast + self.detector.lag
        visible = [
            row
            for row, track_id in enumerate(tracks.track_id.tolist())
            if tracks.time_since_update[row] <= patience
            and track_id in self._people
            and self._people[track_id].probs is not None
        ]
        if 0 < self.options.max_faces < len(visible):
            size = tracks.xyxy[:, 2:] - tracks.xyxy[:, :2]
            area = size[:, 0] * size[:, 1]
            visible = sorted(sorted(visible, key=lambda row: -float(area[row]))[: self.options.max_faces])
        classified = set(pending.rows.tolist())
        ids = tracks.track_id[visible]
        people = [self._people[track_id] for track_id in ids.tolist()]
        smoothed = [self.smoother.at(track_id, now) for track_id in ids.tolist()]
        shape = (len(visible), len(self.spec.labels))
        return Estimates(
            timestamp=now,
            track_id=ids,
            xyxy=tracks.xyxy[visible],
            confidence=np.array([p.confidence for p in people], np.float32),
            probs=np.array([p.probs for p in people], np.float32).reshape(shape),
            smoothed=np.array([value for value, _ in smoothed], np.float32).reshape(shape),
            emotion=np.array([emotion for _, emotion in smoothed], np.int64),
            classified=np.array([row in classified for row in visible], np.bool_),
            low_quality=np.array([p.low_quality for p in people], np.bool_),
            seen=pending.seen,
        )
