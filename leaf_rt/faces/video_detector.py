"""Face detection in video: looks at known faces again, and spreads the search for new ones over the frames.

A known face is found again by a close-up of the place where it should be, without a search. Per frame this costs one
call of the model for up to four known faces. Of more than four, a frame shows as many as it takes to see each one every
``REVISIT_PERIOD`` seconds: at 25 frames/s twenty faces cost as many calls as one.

The search for new faces visits the regions of the frame in turn, each about once per ``SCAN_PERIOD``. It is faster
while no face is known (``EMPTY_PERIOD``) and where new faces must be found soon (``HIDE_PERIOD``, at two to three times
the cost).

Does not know tracks: the tracker assigns the ids.
"""

from __future__ import annotations

import math

from leaf_rt.faces.appearance import describe, load_tables
from leaf_rt.faces.detectors import choose_detector
from leaf_rt.faces.regions import concatenate, non_max_suppression, tiles
from leaf_rt.faces.revisit import FORGET_AFTER, PER_CALL, REVISIT_PERIOD, RevisitScheduler
from leaf_rt.faces.search import MIN_SIDE, DetectorRange, FaceSearch, SearchStep
from leaf_rt.geometry import same_face
from leaf_rt.system.closing import Closing
from leaf_rt.types import U8, Detections, Frame

SCAN_PERIOD = 0.8  # s in which the search visits every region once
EMPTY_PERIOD = 0.3  # s, the same while no face is known
MAX_SKIP = 0.6  # s; at reduced effort, a frame this long after the last look is not skipped, so that tracks live on
STEPS = 8  # of the search in one look, at most; each level of reduced effort halves this
HIDE_PERIOD = 0.15  # s, the same where faces are hidden: a new face may be visible for this long


class VideoFaceDetector(Closing):
    """Finds the faces in the frames of one source. Keeps state from frame to frame.

    Args:
        range: ``short`` searches the whole frame with the short-range model, which finds faces wider than about a
            tenth of the frame. ``full`` searches the whole frame and its tiles with the full-range model. ``auto``
            does both in turn.
        min_confidence: Mean confidence in [0, 1] of proposal and close-up that a new face needs.
        detect_every: Look at every n-th frame only. The frames between have no detections, and each face of a crowd is
            looked at n times less often.
        scan_period: Seconds of video in which the search visits every region once. While no face is known, at most
            ``EMPTY_PERIOD``.
        detector: What runs the networks; see ``choose_detector``.

    Attributes:
        lag: Seconds since the known face that waits longest was last looked for, as of the newest frame. 0 if all
            known faces were looked for in that frame.

    Raises:
        BackendError: See ``choose_detector``.
        ModelError: A bundled model is missing or damaged.
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        range: DetectorRange = "auto",  # noqa: A002 - the name of the command-line option
        min_confidence: float = 0.6,
        detect_every: int = 1,
        scan_period: float = SCAN_PERIOD,
        detector: str = "auto",
    ) -> None:
        if detect_every < 1:
            raise ValueError(f"face detector: detect_every: wanted at least 1, got {detect_every!r}")
        if not scan_period > 0.0:
            raise ValueError(f"face detector: scan_period: wanted more than 0, got {scan_period!r}")
        self._search = FaceSearch(choose_detector(detector).open, range, min_confidence)
        self.detect_every = detect_every
        self._current_every = detect_every  # frames; more than ``detect_every`` at reduced effort
        self._level = 0  # of reduced effort
        self.scan_period = scan_period
        self.reset()

    def close(self) -> None:
        """Free the models. May be called twice."""
        self._search.close()

    def warm_up(self) -> None:
        """Load the models, and OpenCV's color tables, now rather than at the first frame."""
        load_tables()
        self._search.warm_up()

    def reduce_effort(self, level: int) -> float:
        """Skip ``level`` more frames between two looks. 0 restores full effort. See ``pipeline.Detector``."""
        self._level, self._current_every = level, self.detect_every + level
        return self._current_every / self.detect_every

    def reset(self) -> None:
        """Forget all faces, after a reconnect."""
        self._revisits = RevisitScheduler()
        self._plan: list[SearchStep] = []  # visited in turn, over and over
        self._size = (0, 0)
        self._next_step = 1  # position in the plan
        self._steps_due = 0.0  # steps of the plan that should have been made by now
        self._skipped = 0  # frames since the last one that was looked at
        self._last_look = -math.inf  # s
        self.lag = 0.0

    def detect(self, frame: Frame) -> Detections:
        """Find the faces in the next frame.

        Of many known faces, only those whose turn it is are looked at and returned. The first frame, and the first
        frame of another size, are searched completely.

        Args:
            frame: Its size, and its distance in time, may differ from the last one's.
        """
        image, now = frame.image, frame.timestamp
        if image.shape[:2] != self._size:
            self.reset()
            self._size = (image.shape[0], image.shape[1])
            self._plan = _plan(image.shape[0], image.shape[1], self._search.range)
        self._skipped += 1
        every = self._current_every if now - self._last_look < MAX_SKIP else self.detect_every
        if self._skipped < every and math.isfinite(self._last_look):
            self.lag = self._revisits.lag(now)
            return Detections.empty()
        self._skipped = 0

        due = self._revisits.next_faces(now, REVISIT_PERIOD * self._current_every, self._patience)
        close_ups = self._search.look(image, [face.next_window(now) for face in due], PER_CALL)
        known, lost = self._revisits.update(due, close_ups, now)
        proposals = self._search.propose(image, self._next_steps(now - self._last_look, lost))
        self._last_look = now
        new = self._confirm(image, proposals, now)
        self._revisits.add(new.xyxy, now)
        self.lag = self._revisits.lag(now)
        faces = concatenate([known, new])
        return Detections.unchecked(faces.xyxy, faces.confidence, faces.keypoints, describe(image, faces.xyxy))

    @property
    def _patience(self) -> float:
        """Seconds after which a lost face is forgotten."""
        return FORGET_AFTER * self._current_every / self.detect_every

    def _next_steps(self, interval: float, lost: bool) -> list[SearchStep]:
        """Return the steps of the search for this frame, ``interval`` seconds after the last look.

        These are all steps at first and after a gap, the whole frame if a face was just lost, and else as many steps
        as are due, mostly one or none. At reduced effort they are bounded: where few frames can be processed, each of
        them would otherwise cost a whole search, and even fewer could be.
        """
        if not 0 <= interval <= FORGET_AFTER and (self._level == 0 or math.isinf(interval)):
            self._steps_due = 0.0
            return list(dict.fromkeys(self._plan))  # each step once, even if the plan contains it more often
        period = self.scan_period * self._current_every if len(self._revisits) else min(self.scan_period, EMPTY_PERIOD)
        self._steps_due += min(max(interval, 0.0) / period, 1.0) * len(self._plan)
        due = int(self._steps_due)
        self._steps_due -= due
        positions = range(self._next_step, self._next_step + (min(due, STEPS >> self._level) if self._level else due))
        self._next_step += len(positions)
        steps = list(dict.fromkeys(self._plan[k % len(self._plan)] for k in positions))
        if lost and self._plan and self._plan[0] not in steps:
            steps.insert(0, self._plan[0])
        return steps

    def _confirm(self, image: U8, proposals: Detections, now: float) -> Detections:
        """Return the proposals that are faces, without known faces."""
        if not len(proposals):
            return proposals
        known = self._revisits.boxes(now)
        is_known = same_face(proposals.xyxy, known).any(axis=1)
        if is_known.all():  # as in most frames
            return Detections.empty()
        proposals = proposals[~is_known]
        new = self._search.confirm(image, proposals[non_max_suppression(proposals)], PER_CALL)
        return new[~same_face(new.xyxy, known).any(axis=1)]


def _plan(height: int, width: int, detector_range: DetectorRange) -> list[SearchStep]:
    """Return the steps of a search; the first one covers the whole frame."""
    if min(height, width) < MIN_SIDE:
        return []
    whole = (0, 0, width, height)
    if detector_range == "short":
        return [("short", whole)]
    plan: list[SearchStep] = [("full", region) for region in [whole, *tiles(height, width)]]
    if detector_range == "auto":  # near faces come and go fastest: search for them after every two other steps
        for start in range(len(plan) - len(plan) % 2, -1, -2):
            plan.insert(start, ("short", whole))
    return plan
