"""Learns how each face looks at rest, and takes that out of its answers.

Some faces look sad or angry while they rest. The first ``seconds`` in which the answers for a face hardly move and
neutral has a share in them show how far its rest is from the usual one; from then on its answers are shifted by that.
Knows tracks, shares and times. Does not know images or networks.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from leaf_rt.errors import ModelError
from leaf_rt.models.calibration import SMALLEST, Calibration, normalized
from leaf_rt.models.spec import ModelSpec
from leaf_rt.types import F32

NEUTRAL = "neutral"
STILL = 0.15  # mean distance of the answers from their mean, as a share, up to which a face rests
MIN_NEUTRAL = 0.15  # mean share of neutral that a resting face has; a smile that is held has less
USUAL_NEUTRAL = 0.9  # share of neutral in the answer for a usual rest, if the model does not know it
MAX_SHIFT = float(np.log(4.0))  # of a class: beside neutral it can become at most four times less likely
SHOWN = 0.05  # share that a class must have in the look at rest to be corrected
MIN_ANSWERS = 3
MAX_GAP = 0.25  # of ``seconds``: the first and the newest answer may fall short of it by so much


@dataclass(slots=True, eq=False)
class _Face:
    """One track: its newest answers until it was seen at rest, and then the shift."""

    times: deque[float] = field(default_factory=deque)
    answers: deque[F32] = field(default_factory=deque)  # (C,) each
    shift: F32 | None = None  # (C,), is added to the logarithms of the shares


class RestingFaces:
    """Corrects the answers for the faces of one source.

    Args:
        seconds: How long a face must rest before it is corrected.
        spec: The model; it needs the class "neutral".

    Raises:
        ModelError: The model has no such class.
    """

    def __init__(self, seconds: float, spec: ModelSpec) -> None:
        if NEUTRAL not in spec.labels:
            raise ModelError(
                f"--calibrate: needs a model with the class {NEUTRAL}; this one knows {', '.join(spec.labels)}"
            )
        self.seconds = seconds
        self._neutral = spec.labels.index(NEUTRAL)
        usual = np.full(len(spec.labels), (1.0 - USUAL_NEUTRAL) / (len(spec.labels) - 1), np.float32)
        usual[self._neutral] = USUAL_NEUTRAL
        self._usual = np.log(np.array(Calibration.of(spec).resting or usual, np.float32))  # answer for a usual rest
        self._faces: dict[int, _Face] = {}

    def keep_only(self, track_ids: set[int]) -> None:
        """Forget all faces except these."""
        for ended in [t for t in self._faces if t not in track_ids]:
            del self._faces[ended]

    def is_known(self, track_id: int) -> bool:
        """Whether a face was seen at rest."""
        face = self._faces.get(track_id)
        return face is not None and face.shift is not None

    def corrected(self, track_id: int, shares: F32, timestamp: float) -> F32:
        """Take note of an answer, and return it as it is for a face that rests as most do.

        Args:
            track_id: The track.
            shares: (C,) float32, of a picture that shows a face.
            timestamp: Media time, s.
        """
        face = self._faces.setdefault(track_id, _Face())
        if face.shift is None:
            face.times.append(timestamp)
            face.answers.append(shares)
            while timestamp - face.times[0] > self.seconds:
                face.times.popleft()
                face.answers.popleft()
            face.shift = self._shift(face)
            if face.shift is None:
                return shares
            face.times.clear()
            face.answers.clear()
        return np.asarray(normalized((np.log(np.maximum(shares, SMALLEST)) + face.shift)[None])[0], np.float32)

    def _shift(self, face: _Face) -> F32 | None:
        """The shift of a face that has rested long enough, (C,) float32."""
        if len(face.times) < MIN_ANSWERS or face.times[-1] - face.times[0] < (1.0 - MAX_GAP) * self.seconds:
            return None
        answers = np.array(face.answers)
        mean = answers.mean(axis=0)
        moved = np.abs(answers - mean).sum(axis=1).mean() / 2
        if moved > STILL or mean[self._neutral] < MIN_NEUTRAL:
            return None
        own = np.log(np.maximum(answers, SMALLEST)).mean(axis=0)
        shift = self._usual - own
        shift -= shift[self._neutral]
        shift = np.where(mean >= SHOWN, np.clip(shift, -MAX_SHIFT, 0.0), 0.0)
        return np.asarray(shift, np.float32)
