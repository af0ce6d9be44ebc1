"""Probabilities over time: a filter with a time constant, and a shown label that does not flicker.

Every duration is in seconds and times may be irregular, so a clip gives the same curve at 10, 30 and 60 frames/s.
Knows numpy; must not know faces, models or clocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leaf_rt.types import F32, I64

UNCERTAIN_INDEX = -1


@dataclass(frozen=True, slots=True)
class SmoothOptions:
    """How fast the answer follows the face.

    Attributes:
        time_constant: s until the filter has covered 63 % of a step; larger is calmer and later. 0 filters nothing.
        max_gap: s without an answer after which the filter starts afresh.
        margin: Lead in probability that a new label needs over the shown one.
        min_dwell: s that a label stays at least.
        uncertain_below: A leading probability below this counts as "uncertain".
    """

    time_constant: float = 0.3
    max_gap: float = 1.0
    margin: float = 0.1
    min_dwell: float = 0.4
    uncertain_below: float = 0.4

    def __post_init__(self) -> None:
        for name in ("time_constant", "max_gap", "margin", "min_dwell", "uncertain_below"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"SmoothOptions.{name}: wanted a finite number >= 0, got {value!r}")


@dataclass(slots=True)
class _State:
    """One person: newest raw answer and filter state at ``time``, and the shown label since ``since``."""

    time: float
    raw: F32  # (C,)
    value: F32  # (C,)
    emotion: int
    since: float


class Smoother:
    """Filters the answers of many tracks of one source; a track's state is freed with ``keep_only``."""

    def __init__(self, num_classes: int, options: SmoothOptions | None = None) -> None:
        self.num_classes = num_classes
        self.options = options or SmoothOptions()
        self._states: dict[int, _State] = {}

    def __len__(self) -> int:
        return len(self._states)

    def reset(self) -> None:
        """Forget every track."""
        self._states.clear()

    def keep_only(self, track_ids: I64) -> None:
        """Forget every track but these (M,)."""
        alive = set(track_ids.tolist())
        for track_id in [t for t in self._states if t not in alive]:
            del self._states[track_id]

    def update(self, track_id: int, probs: F32, timestamp: float) -> None:
        """Take a new answer for a track.

        The filter is first order, dy/dt = (p - y) / time_constant, solved exactly for answers that run in a straight
        line from one sample to the next. The step is a convex combination, so rows stay probabilities. An answer that
        is not finite, or that is not newer than the last, changes nothing.

        Args:
            track_id: The track.
            probs: (C,) float32, sums to 1.
            timestamp: s, media time.
        """
        if not np.isfinite(probs).all():
            return
        state = self._states.get(track_id)
        if state is None or timestamp - state.time > self.options.max_gap:
            emotion = self._leader(probs)
            since = timestamp
            if state is not None and timestamp - state.since < self.options.min_dwell:
                emotion, since = state.emotion, state.since
            self._states[track_id] = _State(timestamp, probs, probs, emotion, since)
            return
        if timestamp <= state.time:
            return
        state.value = self._filtered(state, probs, timestamp)
        state.raw, state.time = probs, timestamp
        if timestamp - state.since >= self.options.min_dwell:
            candidate = self._leader(state.value)
            if self._score(state.value, candidate) >= self._score(state.value, state.emotion) + self.options.margin:
                state.emotion, state.since = candidate, timestamp

    def at(self, track_id: int, timestamp: float) -> tuple[F32, int]:
        """The filtered probabilities (C,) and the shown class at a time at or after the newest answer.

        Between answers the newest one is taken to hold. A track without any finite answer is uniform and uncertain.
        """
        state = self._states.get(track_id)
        if state is None:
            return np.full(self.num_classes, 1.0 / self.num_classes, np.float32), UNCERTAIN_INDEX
        if timestamp <= state.time:
            return state.value, state.emotion
        return state.raw + (state.value - state.raw) * self._decay(timestamp - state.time), state.emotion

    def _decay(self, dt: float) -> np.float32:
        tau = self.options.time_constant
        return np.float32(np.exp(-dt / tau) if tau > 0 else 0.0)

    def _filtered(self, state: _State, probs: F32, timestamp: float) -> F32:
        tau = self.options.time_constant
        if tau == 0:
            return probs
        r = (timestamp - state.time) / tau
        decay, mean = np.exp(-r), -np.expm1(-r) / r  # mean: of the weight exp(-s) over the interval
        value = decay * state.value + (mean - decay) * state.raw + (1.0 - mean) * probs
        return np.asarray(value / value.sum(), dtype=np.float32)

    def _leader(self, value: F32) -> int:
        top = int(value.argmax())
        return top if value[top] >= self.options.uncertain_below else UNCERTAIN_INDEX

    def _score(self, value: F32, emotion: int) -> float:
        """The standing of a class; "uncertain" takes part with the threshold as its probability."""
        return self.options.uncertain_below if emotion == UNCERTAIN_INDEX else float(value[emotion])
