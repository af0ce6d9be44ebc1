"""Decides from all pictures of a track whether it shows a face, so that a single doubtful picture loses no face.

A face in profile, or one that looks down, scores below 0 now and then; a hand or the back of a head does so all the
time. Knows tracks, evidence and times. Does not know images or networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from leaf_rt.types import F32

TIME_CONSTANT = 0.3  # s, of the filter


class FaceEvidence:
    """Filters the evidence for faces over time, for the tracks of one source."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[float, float]] = {}  # track to evidence and its time

    def keep_only(self, track_ids: set[int]) -> None:
        """Forget all tracks except these."""
        for ended in [t for t in self._known if t not in track_ids]:
            del self._known[ended]

    def filtered(self, track_ids: Sequence[int], evidence: F32, timestamp: float) -> F32:
        """Take note of new evidence.

        Args:
            track_ids: The K tracks.
            evidence: (K,) float32, see ``Calibration.evidence``.
            timestamp: Media time, s.

        Returns:
            (K,) float32, above 0 for a face.
        """
        filtered = []
        for track_id, new in zip(track_ids, evidence.tolist(), strict=True):
            old, then = self._known.get(track_id, (new, timestamp))
            weight = math.exp(-max(timestamp - then, 0.0) / TIME_CONSTANT)
            now = weight * old + (1.0 - weight) * new if math.isfinite(new) else old
            self._known[track_id] = now, timestamp
            filtered.append(now)
        return np.array(filtered, np.float32)
