"""Faces in pictures and frames: the MediaPipe adapter, the only module that imports mediapipe.

Search proposes, a close-up decides. The search (the whole picture, then tile by tile) only names places; every place
is then looked at in a close-up by one and the same model, the short-range one, in which the face is large whatever its
size in the frame. So all faces, near and far, come with the same geometry, a false find has to deceive two looks, and
a known face is found again without a search. Close-ups of up to four faces share one call as a mosaic.

Cost of a video: per frame one close-up call for up to four known faces, and a share of the search, whose regions take
turns, each coming about once per ``SCAN_PERIOD`` (``EMPTY_PERIOD`` while nobody is known; ``HIDE_PERIOD`` where nobody
may be overlooked for longer, at two to three times the cost). Of more than four faces, as
many are looked at per frame as it takes to see each every 0.2 s: at 25 frames/s twenty faces cost as many calls as one.

Must not know tracks: ids are the tracker's.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from importlib import resources
from typing import Any, Literal, get_args

import cv2
import numpy as np

from leaf_rt.errors import BackendError, ModelError
from leaf_rt.faces.appearance import describe
from leaf_rt.faces.regions import Mosaic, Region, Window, iou, join, moved, same_face, suppress, tiles
from leaf_rt.faces.revisit import FORGET, KEEP, PER_CALL, REVISIT, RevisitScheduler
from leaf_rt.models.spec import DETECTORS
from leaf_rt.system.closing import Closing
from leaf_rt.system.native_stderr import suppress_native_stderr
from leaf_rt.types import U8, Detections, Frame

Range = Literal["auto", "short", "full"]
Kind = Literal["short", "full"]

MIN_SIDE = 16  # px; no search in pictures below
SEARCH_SIDE = 512  # px; what is searched is first shrunk to this, the models see 128 or 192 px
CLOSE_UP_SIDE = 256  # px; boxes come in whole px, so twice the model's 128 px
PROPOSE = 0.5  # confidence of a place worth a close-up
AGREE = 0.4  # intersection over union of a proposal and what its close-up shows
SCAN_PERIOD = 0.8  # s in which the search of a video visits every region once
EMPTY_PERIOD = 0.3  # s, the same while nobody is known
HIDE_PERIOD = 0.15  # s, the same where faces are hidden: so long may one be seen that comes in


class DetectorModel:
    """One MediaPipe detector with a clock of its own: one look at one picture, without any search.

    Args:
        kind: ``short`` sees faces wider than about a tenth of the picture, ``full`` smaller ones.
        video: Whether pictures follow one another, so that the detector may track; otherwise each stands alone.
        min_confidence: Finds below are left out; the search's own limits come on top.

    Raises:
        BackendError: MediaPipe cannot be loaded.
        ModelError: The bundled model is missing or damaged.
    """

    def __init__(self, kind: Kind, video: bool, min_confidence: float = min(PROPOSE, KEEP) - 0.1) -> None:
        data = _verified(kind)
        mediapipe, vision = _library()
        self._mediapipe = mediapipe
        self._video = video
        self._clock_ms = 0
        options = vision.FaceDetectorOptions(
            base_options=mediapipe.tasks.BaseOptions(model_asset_buffer=data),
            running_mode=vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE,
            min_detection_confidence=min_confidence,
        )
        with suppress_native_stderr():
            self._detector: Any = vision.FaceDetector.create_from_options(options)
            self.find(np.zeros((128, 128, 3), np.uint8))  # the first call logs, too

    def find(self, image: U8) -> Detections:
        """The faces in a picture (H, W, 3) uint8 BGR."""
        picture = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        )
        with suppress_native_stderr():  # LiteRT warns of unaligned memory at any call, as memory happens to lie
            result = self._run(picture)
        return _converted(result.detections, image.shape[1], image.shape[0])

    def _run(self, picture: Any) -> Any:
        if not self._video:
            return self._detector.detect(picture)
        # MediaPipe wants whole milliseconds that strictly grow. Nothing in the detector depends on elapsed time, so a
        # tick per call will do, and no repeated, jumping or restarted media time can ever break it.
        self._clock_ms += 1
        return self._detector.detect_for_video(picture, self._clock_ms)

    def close(self) -> None:
        """Free it; its last words are kept off the terminal."""
        with suppress_native_stderr():
            self._detector.close()


class FaceDetector(Closing):
    """Finds the faces in the frames of one source, or in single pictures. A context manager.

    Args:
        range: ``short`` searches the whole frame with the short-range model (faces wider than about a tenth of the
            frame), ``full`` the whole and its tiles with the full-range model, ``auto`` both in turn.
        min_confidence: Mean confidence in [0, 1] of proposal and close-up from which on a new face counts.
        detect_every: In a video, look at every n-th frame only; the frames between have no detections, and each face
            of a crowd is looked at n times less often.
        scan_period: s of video in which the search visits every region once; no longer than ``EMPTY_PERIOD`` while
            nobody is known.

    Attributes:
        lag: s since some known face was last looked for, as of the newest frame; 0 where all were looked for in it.

    Raises:
        BackendError: MediaPipe cannot be loaded.
        ModelError: A bundled model is missing or damaged.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        range: Range = "auto",  # noqa: A002 - the word users know from the command line
        min_confidence: float = 0.6,
        detect_every: int = 1,
        scan_period: float = SCAN_PERIOD,
    ) -> None:
        if range not in get_args(Range):
            raise ValueError(f"FaceDetector.range: wanted one of {', '.join(get_args(Range))}, got {range!r}")
        if not 0.0 <= min_confidence <= 1.0:
            raise ValueError(f"FaceDetector.min_confidence: wanted 0 to 1, got {min_confidence!r}")
        if detect_every < 1:
            raise ValueError(f"FaceDetector.detect_every: wanted at least 1, got {detect_every!r}")
        if not scan_period > 0.0:
            raise ValueError(f"FaceDetector.scan_period: wanted more than 0, got {scan_period!r}")
        self.reach: Range = range
        self.min_confidence = min_confidence
        self.detect_every = detect_every
        self._search_every = detect_every  # frames, at the effort of now
        self.scan_period = scan_period
        _library()
        for kind in get_args(Kind):  # a damaged one is found now, not when it is first needed
            _verified(kind)
        self._models: dict[tuple[Kind, bool], DetectorModel] = {}
        self._closed = False
        self.reset()

    def close(self) -> None:
        """Free the models; may be called twice."""
        self._closed = True
        while self._models:
            self._models.popitem()[1].close()

    def warm_up(self) -> None:
        """Load now what a video needs, not at its first frame: the models, and OpenCV's colour tables."""
        describe(np.zeros((MIN_SIDE, MIN_SIDE, 3), np.uint8), np.array([[0, 0, MIN_SIDE, MIN_SIDE]], np.float32))
        for kind in get_args(Kind):
            if kind == "short" or self.reach != "short":  # close-ups are the short-range model's, whatever the reach
                self._model(kind, video=True)

    def reduce_effort(self, level: int) -> float:
        """Skip ``level`` more frames between two searches; 0 restores full effort. See ``pipeline.Detector``."""
        self._search_every = self.detect_every + level
        return self._search_every / self.detect_every

    def reset(self) -> None:
        """Forget all faces and places, after a reconnect."""
        self._watch = RevisitScheduler()
        self._plan: list[tuple[Kind, Region]] = []
        self._size = (0, 0)
        self._turn = 1  # of the search: the next entry of the plan, which goes round
        self._due = 0.0  # entries that should have been visited by now
        self._skipped = 0  # frames since the last one that was looked at
        self._looked = -math.inf  # s
        self.lag = 0.0

    def detect(self, frame: Frame) -> Detections:
        """The faces in the next frame of a video.

        Of many known faces, only those whose turn it is are looked at and returned. The first frame, and the first one
        of another size, is searched everywhere.

        Args:
            frame: Its size and the step in time may differ from the last one's.
        """
        image, now = frame.image, frame.timestamp
        if image.shape[:2] != self._size:
            self.reset()
            self._size = (image.shape[0], image.shape[1])
            self._plan = _plan(image.shape[0], image.shape[1], self.reach)
        self._skipped += 1
        if self._skipped < self._search_every and math.isfinite(self._looked):
            self.lag = self._watch.lag(now)
            return Detections.empty()
        self._skipped = 0

        due = self._watch.turn(now, REVISIT * self._search_every)
        parts = self._look(image, [known.aim(now) for known in due], video=True)
        found, lost = self._watch.settle(due, parts, now)
        regions = self._next_regions(now - self._looked, lost)
        self._looked = now
        proposals = join([self._propose(image, kind, region, video=True) for kind, region in regions])
        new = self._confirm(image, proposals, now)
        self._watch.add(new.xyxy, now)
        self.lag = self._watch.lag(now)
        faces = join([found, new])
        return replace(faces, appearance=describe(image, faces.xyxy))

    def detect_picture(self, image: U8) -> Detections:
        """The faces in a single picture, searched everywhere: the whole and two levels of overlapping tiles.

        Args:
            image: (H, W, 3) uint8, BGR.
        """
        height, width = image.shape[:2]
        if min(height, width) < MIN_SIDE:
            return Detections.empty()
        whole = (0, 0, width, height)
        plan: list[tuple[Kind, Region]] = []
        if self.reach != "full":
            plan.append(("short", whole))
        if self.reach != "short":
            plan += [("full", region) for region in [whole, *tiles(height, width, levels=2)]]
        proposals = join([self._propose(image, kind, region, video=False) for kind, region in plan])
        proposals = proposals[suppress(proposals, min_iou=0.5)]
        return self._close_ups(image, proposals, video=False)

    def _model(self, kind: Kind, video: bool) -> DetectorModel:
        if self._closed:
            raise ValueError("FaceDetector: it is closed; make a new one")
        model = self._models.get((kind, video))
        if model is None:
            model = self._models[kind, video] = DetectorModel(kind, video)
        return model

    def _next_regions(self, step: float, lost: bool) -> list[tuple[Kind, Region]]:
        """What to search now, ``step`` s after the last look.

        All of it at first and after a gap, the whole frame where a face was just lost, else as many regions as are
        due, mostly one or none.
        """
        if not 0 <= step <= FORGET:
            self._due = 0.0
            return list(dict.fromkeys(self._plan))  # each once, however often its turn comes
        period = self.scan_period * self._search_every if len(self._watch) else min(self.scan_period, EMPTY_PERIOD)
        self._due += min(step / period, 1.0) * len(self._plan)
        turns = range(self._turn, self._turn + int(self._due))
        self._turn += len(turns)
        self._due -= len(turns)
        regions = list(dict.fromkeys(self._plan[k % len(self._plan)] for k in turns))
        if lost and self._plan and self._plan[0] not in regions:
            regions.insert(0, self._plan[0])
        return regions

    def _propose(self, image: U8, kind: Kind, region: Region, video: bool) -> Detections:
        """OutputPaths that may be faces, in px of the picture."""
        x0, y0, x1, y1 = region
        part = image[y0:y1, x0:x1]
        scale = max(part.shape[:2]) / SEARCH_SIDE
        if scale > 1.0:
            size = (max(round(part.shape[1] / scale), 1), max(round(part.shape[0] / scale), 1))
            part = cv2.resize(part, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
        found = self._model(kind, video).find(part)
        return moved(found[found.confidence >= PROPOSE], max(scale, 1.0), np.array([x0, y0], np.float32))

    def _confirm(self, image: U8, proposals: Detections, now: float) -> Detections:
        """The proposals that are faces, without those just found or known and waiting for their turn."""
        if not len(proposals):
            return proposals
        taken = self._watch.boxes(now)
        proposals = proposals[~same_face(proposals.xyxy, taken).any(axis=1)]
        new = self._close_ups(image, proposals[suppress(proposals)], video=True)
        return new[~same_face(new.xyxy, taken).any(axis=1)]

    def _close_ups(self, image: U8, proposals: Detections, video: bool) -> Detections:
        """The faces that close-ups of proposals show, each once."""
        windows = [Window.around(box) for box in proposals.xyxy]
        faces: list[Detections] = []
        for k, part in enumerate(self._look(image, windows, video)):
            overlap = iou(proposals.xyxy[[k]], part.xyxy)[0]
            mean = (part.confidence + proposals.confidence[k]) / 2
            part = part[(overlap >= AGREE) & (part.confidence >= PROPOSE) & (mean >= self.min_confidence)]
            if len(part):
                faces.append(part[[int(part.confidence.argmax())]])
        found = join(faces)
        return found[suppress(found)]

    def _look(self, image: U8, windows: list[Window], video: bool) -> list[Detections]:
        """What the short-range model finds in each window; pictures have the time for a call per window."""
        parts: list[Detections] = []
        step = PER_CALL if video else 1
        for start in range(0, len(windows), step):
            mosaic = Mosaic.of(image, windows[start : start + step], CLOSE_UP_SIDE)
            parts += mosaic.split(self._model("short", video).find(mosaic.image))
        return parts


def _plan(height: int, width: int, reach: Range) -> list[tuple[Kind, Region]]:
    """What the search of a video visits in turn; the whole frame comes first."""
    if min(height, width) < MIN_SIDE:
        return []
    whole = (0, 0, width, height)
    if reach == "short":
        return [("short", whole)]
    plan: list[tuple[Kind, Region]] = [("full", region) for region in [whole, *tiles(height, width)]]
    if reach == "auto":  # near faces come and go fastest: the whole frame is searched for them after every two others
        for start in range(len(plan) - len(plan) % 2, -1, -2):
            plan.insert(start, ("short", whole))
    return plan


def _library() -> tuple[Any, Any]:
    """The modules mediapipe and mediapipe.tasks.python.vision."""
    try:
        import mediapipe
        from mediapipe.tasks.python import vision
    except (ImportError, OSError) as error:  # not installed, or a system library that it needs is not
        raise BackendError(
            f"MediaPipe, which finds the faces, cannot be loaded ({error}); install it again."
        ) from error
    return mediapipe, vision


def _verified(kind: Kind) -> bytes:
    """The bytes of a bundled model."""
    name, sha256 = DETECTORS[kind]
    path = resources.files("leaf_rt") / "models" / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"The face detector {path} cannot be read ({error.strerror}); install leaf-rt again."
        ) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ModelError(f"The face detector {path} is damaged (its sha256 differs); install leaf-rt again.")
    return data


def _converted(detections: list[Any], width: int, height: int) -> Detections:
    """MediaPipe's detections as ours, in px of the picture; what is not finite or has no size is left out."""
    n = len(detections)
    xyxy = np.zeros((n, 4), np.float32)
    confidence = np.zeros(n, np.float32)
    keypoints = np.zeros((n, 6, 2), np.float32)
    for i, detection in enumerate(detections):
        box = detection.bounding_box
        xyxy[i] = (box.origin_x, box.origin_y, box.origin_x + box.width, box.origin_y + box.height)
        confidence[i] = detection.categories[0].score
        keypoints[i] = [(p.x * width, p.y * height) for p in detection.keypoints]
    # MediaPipe sets a negative corner to 0 and leaves width and height alone, which shifts the box of a face that is
    # cut off by the left or upper border. Its true centre is where eyes, nose and mouth are on average.
    size = xyxy[:, 2:] - xyxy[:, :2]
    corner = np.minimum(keypoints[:, :4].mean(axis=1) - size / 2, 0.0)
    xyxy[:, :2] = np.where(xyxy[:, :2] == 0.0, corner, xyxy[:, :2])
    xyxy[:, 2:] = xyxy[:, :2] + size
    good = np.isfinite(xyxy).all(1) & np.isfinite(keypoints).all((1, 2)) & (size > 0).all(1)
    return Detections(xyxy, confidence, keypoints, np.zeros((n, 0), np.float32))[good]
