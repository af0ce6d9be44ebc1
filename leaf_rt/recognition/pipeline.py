"""The pipeline of one source: detect faces, track them, classify them, smooth the results.

Synchronous and deterministic: the same frames give the same estimates. Starts no threads and opens no files. The clock
is used for timings only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from leaf_rt.backends.base import Backend
from leaf_rt.faces.alignment import is_low_quality
from leaf_rt.faces.crops import cut_crops
from leaf_rt.faces.pose import head_pose
from leaf_rt.faces.quality import quality
from leaf_rt.labels import BLENDSHAPES
from leaf_rt.models.calibration import Prior
from leaf_rt.models.spec import ModelSpec
from leaf_rt.recognition.answers import Answers
from leaf_rt.recognition.config import PipelineOptions
from leaf_rt.recognition.evidence import FaceEvidence
from leaf_rt.recognition.last_faces import LastFaces
from leaf_rt.recognition.parts import Detector, Encoder, Landmarker, Tracker
from leaf_rt.recognition.people import PeopleMemory
from leaf_rt.recognition.resting import RestingFaces
from leaf_rt.recognition.schedule import ClassificationSchedule
from leaf_rt.recognition.shots import Change, ShotDetector
from leaf_rt.recognition.smoothing import Smoother, SmoothOptions
from leaf_rt.recognition.stages import Found, Pending
from leaf_rt.types import F32, I64, Detections, Estimates, Frame, Prediction, Tracks

STAGES = ("detect", "track", "align", "infer", "smooth")


@dataclass(slots=True)
class _Person:
    """What the pipeline remembers of a living track."""

    confidence: float
    probs: F32 | None = None  # (C,), the newest raw result
    low_quality: bool = False
    pose: F32 | None = None  # (3,), when the face was last detected; with a landmarker, last classified
    blendshapes: F32 | None = None  # (B,), when it was last classified
    quality: float = np.nan  # of its newest classified picture


class Pipeline:
    """Turns the frames of one source into estimates.

    ``step`` processes a frame completely. To share a back end between sources, call ``prepare`` for each source, then
    ``backend.infer`` once for all crops, then ``finish`` for each source.

    To use several cores for one source, call the two halves of ``prepare``: ``detect`` for the next frames, one after
    the other, may run in another thread beside everything else.

    Args:
        detector: Finds the faces. The pipeline closes it.
        tracker: Assigns ids to them.
        backend: Classifies them. The caller closes it.
        smooth: How to smooth the results over time.
        options: Limits on the work per frame.
        shots: Finds cuts, at which all tracks end. None takes the whole video as one shot.
        people: Recognizes people who come back. None gives every track a person of its own.
        encoder: Describes faces for ``people``. None leaves it with the appearance of heads.
        clock: Returns the time in s, for ``timings``.
        pose: Whether to compute the head pose.
        landmarker: Finds blendshapes and the head pose. None leaves both to ``pose``.
        prior: How frequent the classes are taken to be; see ``Calibration.shares``.
        resting: Takes the look of each face at rest out of its answers. None leaves them.

    Attributes:
        options: The options in effect; see ``reduce_effort``.
        timings: Seconds that each of ``STAGES`` took for the newest frame.

    Example:
        >>> for frame in source:
        ...     estimates = pipeline.step(frame)
    """

    def __init__(
        self,
        detector: Detector,
        tracker: Tracker,
        backend: Backend,
        smooth: SmoothOptions | None = None,
        options: PipelineOptions | None = None,
        shots: ShotDetector | None = None,
        people: PeopleMemory | None = None,
        encoder: Encoder | None = None,
        clock: Callable[[], float] = time.perf_counter,
        pose: bool = False,
        landmarker: Landmarker | None = None,
        prior: Prior = "natural",
        resting: RestingFaces | None = None,
    ) -> None:
        self.detector, self.tracker = detector, tracker
        self.backend = backend
        self.spec: ModelSpec = backend.spec
        self.options = options or PipelineOptions()
        self._full_options = self.options
        self.smoother = Smoother(len(self.spec.labels), smooth)
        self.timings: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self._people: dict[int, _Person] = {}
        self._schedule = ClassificationSchedule()
        self._generation = 0
        self._size: tuple[int, ...] | None = None  # height and width of the newest frame
        self._shots = shots
        self._memory = people
        self._encoder = encoder
        self._shot = 0  # number of the shot, in this generation
        self._restarts, self._cuts = False, 0  # before the next frame that ``detect`` returns
        self._last = LastFaces()
        # Crops and their quality, where no face is classified.
        self._nothing = np.zeros((0, self.spec.side, self.spec.side, 3), np.uint8), np.zeros(0, np.float32)
        self._clock = clock
        self._wants_pose, self._landmarker = pose, landmarker
        self._answers, self._evidence, self._resting = Answers(self.spec, prior), FaceEvidence(), resting

    def step(self, frame: Frame) -> Estimates:
        """Process one frame."""
        pending = self.prepare(frame)
        start = self._clock()
        prediction = self.backend.infer(pending.crops)
        self.timings["infer"] = self._clock() - start
        return self.finish(pending, prediction)

    def prepare(self, frame: Frame) -> Pending:
        """Detect and track the faces of a frame, and crop those that are due for classification."""
        return self.plan(self.detect(frame))

    def detect(self, frame: Frame) -> Found:
        """Find the faces of a frame: the first half of ``prepare``. It shares nothing with ``plan`` and ``finish``."""
        if frame.generation != self._generation:
            self._generation, self._size = frame.generation, None
            self._restarts = True
            self._forget_faces()
            if self._shots is not None:
                self._shots.reset()
        start = self._clock()
        change = Change.SAME if self._shots is None else self._shots.compare(frame.image, frame.timestamp)
        size, self._size = self._size, frame.image.shape[:2]
        if size not in (None, self._size):  # what is known of faces is in pixels of the frames before
            change = Change.CUT
        if change in (Change.CUT, Change.FADE):
            self._cuts += 1
            self._forget_faces()
        detections = self.detector.detect(frame)
        if change in (Change.DOUBTFUL, Change.SUDDEN) and self._none_goes_on(change, detections):
            self._cuts += 1
            self._forget_faces()
            detections = self.detector.detect(frame)
        self._last.add(detections)
        restarts, cuts, self._restarts, self._cuts = self._restarts, self._cuts, False, 0
        since = self._shots.fading_since if self._shots is not None and change is Change.FADE else math.inf
        return Found(frame, detections, self.detector.lag, self._clock() - start, restarts, cuts, since)

    def plan(self, found: Found) -> Pending:
        """Track the faces of a frame, and crop those that are due: the second half of ``prepare``."""
        frame, detections = found.frame, found.detections
        if found.restarts or found.cuts:
            self._end_tracks()
            if self._memory is not None:  # what was seen in a dissolve is a mixture of two people
                self._memory.forget_since(found.fading_since)
            self._shot = (0 if found.restarts else self._shot) + (found.cuts if self._shots is not None else 0)
        t1 = self._clock()
        tracks = self.tracker.update(detections, frame.timestamp)
        self._update_people(tracks, detections)
        t2 = self._clock()
        answered = {track_id for track_id, person in self._people.items() if person.probs is not None}
        rows = self._schedule.choose(tracks, answered, frame.timestamp, self.options)
        crops, clear = self._nothing
        if len(rows):  # in most frames nobody is due
            keypoints = detections.keypoints[tracks.detection_index[rows]]
            crops = cut_crops(frame.image, keypoints, self.spec.side, self.spec.margin, self.backend.cropper)
            for row, low_quality in zip(rows.tolist(), is_low_quality(keypoints, crops).tolist(), strict=True):
                self._people[int(tracks.track_id[row])].low_quality = low_quality
            clear = quality(crops)
            if self._landmarker is not None:
                self._measure(self._landmarker, frame, tracks, detections, rows)
        if self._memory is not None:
            self._recognize(self._memory, frame, tracks, detections, rows)
        t3 = self._clock()
        self.timings.update(detect=found.seconds, track=t2 - t1, align=t3 - t2, infer=0.0)
        seen = np.concatenate([detections.xyxy, tracks.xyxy[tracks.detection_index < 0]])
        return Pending(frame, tracks, rows, crops, clear, found.lag, seen, self._shot)

    def finish(self, pending: Pending, prediction: Prediction) -> Estimates:
        """Smooth the results of a frame, and report every visible person.

        Args:
            pending: What ``prepare`` returned.
            prediction: K rows, in the order of ``pending.rows``.
        """
        start = self._clock()
        now = pending.frame.timestamp
        if len(pending.rows):
            self._take_answers(pending, prediction, now)
        estimates = self._report(pending, now)
        self.timings["smooth"] = self._clock() - start
        return estimates

    def _take_answers(self, pending: Pending, prediction: Prediction, now: float) -> None:
        """Judge the answers for the faces that were classified, and smooth them."""
        ids = pending.tracks.track_id[pending.rows].tolist()
        confidence = np.array([self._people[track_id].confidence for track_id in ids], np.float32)
        evidence = self._answers.calibration.evidence(prediction.features, confidence)
        evidence = self._evidence.filtered(ids, evidence, now)
        shares, quality_of = self._answers.judge(prediction, pending.quality, evidence)
        for track_id, probs, clear in zip(ids, shares, quality_of.tolist(), strict=True):
            if np.isfinite(probs).all():
                if self._resting is not None and clear > 0:
                    probs = self._resting.corrected(track_id, probs, now)
                self._people[track_id].probs, self._people[track_id].quality = probs, clear
            self.smoother.update(track_id, probs, now)

    def reduce_effort(self, level: int) -> None:
        """Do less work per frame, from the next frame on.

        Each level halves the classifications per second, but every face keeps ``PipelineOptions.min_classify_fps``. It
        also makes the detector skip one more frame between two searches, if ``PipelineOptions.may_skip`` allows that.
        The frames that are searched may then use the classifications of the skipped ones, so that a crowd does not
        lose them twice.

        Args:
            level: 0 is full effort.
        """
        full = self._full_options
        longer = self.detector.reduce_effort(level) if full.may_skip else 1.0
        if level == 0:
            self.options = full
            return
        rate = full.classify_fps if full.classify_fps > 0 else 20.0
        self.options = replace(
            full,
            classify_fps=max(rate / 2**level, min(rate, full.min_classify_fps)),
            max_classify_fps=full.max_classify_fps / 2**level,
            max_per_frame=round(full.max_per_frame * longer),
        )

    def _forget_faces(self) -> None:
        """Forget the faces of the last frame, before those of the next one are looked for."""
        self._last.reset()
        self.detector.reset()

    def _end_tracks(self) -> None:
        """End all tracks, with everything that was kept of them."""
        self.tracker.reset()
        self.smoother.reset()
        self._people.clear()
        self._schedule.reset()

    def close(self) -> None:
        """Free the detector. The back end stays open."""
        self.detector.close()

    def _none_goes_on(self, change: Change, detections: Detections) -> bool:
        """Whether there were faces in the last frame, all were looked for again, and none was found."""
        return self.detector.lag == 0.0 and self._last.are_gone(detections, by_look=change is Change.SUDDEN)

    def _recognize(self, memory: PeopleMemory, frame: Frame, tracks: Tracks, detections: Detections, rows: I64) -> None:
        """Describe faces to recognize people who come back: those that are classified in this frame, or still open."""
        now = frame.timestamp
        memory.keep_only(set(tracks.track_id.tolist()), now)
        classified = set(tracks.track_id[rows].tolist())
        described = [
            row
            for row, track_id in enumerate(tracks.track_id.tolist())
            if tracks.detection_index[row] >= 0 and (track_id in classified or memory.is_open(track_id, now))
        ]
        if not described:
            return
        ids = tracks.track_id[described].tolist()
        indices = tracks.detection_index[described]
        vectors = [np.zeros(0, np.float32)] * len(ids)
        if self._encoder is not None:
            clear = [k for k, t in enumerate(ids) if t in classified and not self._people[t].low_quality]
            wanted = [k for k in clear if memory.wants_vector(ids[k], now)]
            keypoints = detections.keypoints[indices[wanted]]
            for k, vector in zip(wanted, self._encoder.encode(frame.image, keypoints), strict=True):
                vectors[k] = vector
        memory.observe(ids, detections.appearance[indices], vectors, now)

    def _measure(self, landmarker: Landmarker, frame: Frame, tracks: Tracks, detections: Detections, rows: I64) -> None:
        """Find the landmarks of the faces that are classified in this frame."""
        faces = detections[tracks.detection_index[rows]]
        found = landmarker.measure(frame.image, faces.xyxy, faces.keypoints)
        for track_id, pose, shapes in zip(tracks.track_id[rows].tolist(), found.pose, found.blendshapes, strict=True):
            self._people[track_id].pose, self._people[track_id].blendshapes = pose, shapes

    def _update_people(self, tracks: Tracks, detections: Detections) -> None:
        """Drop people whose tracks have ended, and add those whose tracks are new."""
        alive = set(tracks.track_id.tolist())
        for ended in [t for t in self._people if t not in alive]:
            del self._people[ended]
        self.smoother.keep_only(tracks.track_id)
        self._evidence.keep_only(alive)
        if self._resting is not None:
            self._resting.keep_only(alive)
        poses = head_pose(detections.keypoints) if self._wants_pose and self._landmarker is None else None
        for track_id, index in zip(tracks.track_id.tolist(), tracks.detection_index.tolist(), strict=True):
            if index >= 0:
                confidence = float(detections.confidence[index])
                person = self._people.setdefault(track_id, _Person(confidence))
                person.confidence = confidence
                if poses is not None:
                    person.pose = poses[index]

    def _report(self, pending: Pending, now: float) -> Estimates:
        """Return the estimates of all visible people."""
        tracks = pending.tracks
        recent = (tracks.time_since_update <= self.options.max_coast + pending.lag).tolist()
        visible = [
            row
            for row, track_id in enumerate(tracks.track_id.tolist())
            if recent[row] and track_id in self._people and self._people[track_id].probs is not None
        ]
        if 0 < self.options.max_faces < len(visible):
            size = tracks.xyxy[:, 2:] - tracks.xyxy[:, :2]
            area = size[:, 0] * size[:, 1]
            visible = sorted(sorted(visible, key=lambda row: -float(area[row]))[: self.options.max_faces])
        classified = set(pending.rows.tolist())
        track_ids = tracks.track_id[visible]
        ids = track_ids.tolist()
        people = [self._people[track_id] for track_id in ids]
        smoothed = [self.smoother.at(track_id, now) for track_id in ids]
        shape = (len(visible), len(self.spec.labels))
        return Estimates(
            timestamp=now,
            track_id=track_ids,
            xyxy=tracks.xyxy[visible],
            confidence=np.array([p.confidence for p in people], np.float32),
            probs=np.array([p.probs for p in people], np.float32).reshape(shape),
            smoothed=np.array([value for value, _ in smoothed], np.float32).reshape(shape),
            emotion=np.array([emotion for _, emotion in smoothed], np.int64),
            classified=np.array([row in classified for row in visible], np.bool_),
            low_quality=np.array([p.low_quality for p in people], np.bool_),
            quality=np.array([p.quality for p in people], np.float32),
            seen=pending.seen,
            shot=pending.shot,
            person_id=track_ids
            if self._memory is None
            else np.array([self._memory.person_id(track_id) for track_id in ids], np.int64),
            pose=_columns([p.pose for p in people], 3 if self._wants_pose or self._landmarker is not None else 0),
            blendshapes=_columns([p.blendshapes for p in people], 0 if self._landmarker is None else len(BLENDSHAPES)),
        )


def _columns(rows: list[F32 | None], width: int) -> F32:
    """Return rows as an array (N, width); one that is not known is NaN."""
    if width == 0:
        return np.zeros((len(rows), 0), np.float32)
    unknown = np.full(width, np.nan, np.float32)
    return np.array([unknown if row is None else row for row in rows], np.float32).reshape(len(rows), width)
