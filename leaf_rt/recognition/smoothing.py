"""Smooths probabilities over time, and chooses a label that does not flicker.

A talking mouth makes the probabilities swing without a change of expression. The filter measures how much of
their movement takes itself back, and becomes slower with it. A change in one direction, however large, is no swing.

All durations are in seconds and timestamps may be irregular, so a clip gives the same curve at 10, 30 and 60 frames/s.
Does not know faces, models or clocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from leaf_rt.types import F32, I64

UNCERTAIN_INDEX = -1

_LONGEST_STEP = 1 / 30  # s
_SWING_MEMORY = 0.5  # s, time constant of the measure of swings
_SWING_LOW = 0.01  # swings up to this size change nothing
_SWING_HIGH = 0.03  # swings from this size on are those of talking


@dataclass(frozen=True, slots=True)
class SmoothOptions:
    """How fast the result follows the face.

    Attributes:
        time_constant: Seconds in which the filter covers 63 % of a step. Larger values are smoother but slower. 0
            switches the filter off.
        max_gap: Seconds without a classification after which the filter starts again.
        margin: How much more probable a new label must be than the shown one.
        min_dwell: Shortest time for which a label is shown, s.
        uncertain_below: If the largest probability is below this, the label is "uncertain".
        talking_time_constant: The time constant while the probabilities swing as those of a talking face, s. No effect
            if it is not above ``time_constant``; 0 switches it off.
    """

    time_constant: float = 0.3
    max_gap: float = 1.0
    margin: float = 0.1
    min_dwell: float = 0.4
    uncertain_below: float = 0.4
    talking_time_constant: float = 1.2

    def __post_init__(self) -> None:
        for name in ("time_constant", "max_gap", "margin", "min_dwell", "uncertain_below", "talking_time_constant"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"SmoothOptions.{name}: wanted a finite number >= 0, got {value!r}")


@dataclass(slots=True)
class _State:
    """The filter of one track."""

    time: float  # s, of the newest result
    raw: F32  # (C,), the newest result
    value: F32  # (C,), filtered up to ``time``
    emotion: int  # shown label
    since: float  # s, when the label was first shown
    drift: F32  # (C,), recent mean of raw - value
    travel: F32  # (C,), recent mean of |raw - value|


class Smoother:
    """Smooths the results of all tracks of one source. Call ``keep_only`` to free ended tracks.

    Args:
        num_classes: C.
        options: How to smooth.
    """

    def __init__(self, num_classes: int, options: SmoothOptions | None = None) -> None:
        self.num_classes = num_classes
        self.options = options or SmoothOptions()
        fast, slow = self.options.time_constant, self.options.talking_time_constant
        self._is_fixed = fast == 0 or slow <= fast  # whether the time constant is always the same
        self._states: dict[int, _State] = {}

    def __len__(self) -> int:
        return len(self._states)

    def reset(self) -> None:
        """Forget all tracks."""
        self._states.clear()

    def keep_only(self, track_ids: I64) -> None:
        """Forget all tracks except these, (M,) int64."""
        alive = set(track_ids.tolist())
        for track_id in [t for t in self._states if t not in alive]:
            del self._states[track_id]

    def update(self, track_id: int, probs: F32, timestamp: float) -> None:
        """Add a new result of a track.

        The filter is of first order, dy/dt = (p - y) / time_constant, solved exactly for results that are linear
        between two samples. Each step is a convex combination, so the values stay probabilities. A result that is not
        finite, or not newer than the last one, is ignored.

        Args:
            track_id: The track.
            probs: (C,) float32, sums to 1.
            timestamp: Media time, s.
        """
        if not np.isfinite(probs).all():
            return
        state = self._states.get(track_id)
        if state is None or timestamp - state.time > self.options.max_gap:
            emotion = self._leader(probs)
            since = timestamp
            if state is not None and timestamp - state.since < self.options.min_dwell:
                emotion, since = state.emotion, state.since
            still = np.zeros(self.num_classes, np.float32)
            self._states[track_id] = _State(timestamp, probs, probs, emotion, since, still, still)
            return
        if timestamp <= state.time:
            return
        self._advance(state, probs, timestamp)
        if timestamp - state.since >= self.options.min_dwell:
            candidate = self._leader(state.value)
            if self._score(state.value, candidate) >= self._score(state.value, state.emotion) + self.options.margin:
                state.emotion, state.since = candidate, timestamp

    def at(self, track_id: int, timestamp: float) -> tuple[F32, int]:
        """Return the smoothed probabilities of a track at a time, and its shown label.

        After the newest result, that result is assumed to continue. A track without results is uniform and uncertain.

        Args:
            track_id: The track.
            timestamp: Media time, s, not before the newest result.

        Returns:
            (C,) float32, and the index of the label; ``UNCERTAIN_INDEX`` for "uncertain".
        """
        state = self._states.get(track_id)
        if state is None:
            return np.full(self.num_classes, 1.0 / self.num_classes, np.float32), UNCERTAIN_INDEX
        if timestamp <= state.time:
            return state.value, state.emotion
        tau = self._time_constant(state, state.raw)
        decay = np.float32(math.exp(-(timestamp - state.time) / tau) if tau > 0 else 0.0)
        return state.raw + (state.value - state.raw) * decay, state.emotion

    def _advance(self, state: _State, probs: F32, timestamp: float) -> None:
        """Move a filter on to a new result, in steps so short that its time constant hardly changes in one."""
        dt, start = timestamp - state.time, state.raw
        steps = 1 if self._is_fixed else max(1, math.ceil(dt / _LONGEST_STEP - 1e-6))
        dt /= steps
        keep = math.exp(-dt / _SWING_MEMORY)
        ahead = start - state.value
        for step in range(1, steps + 1):
            raw = probs if step == steps else start + (probs - start) * np.float32(step / steps)
            state.value = self._filtered(state, raw, dt)
            state.raw = raw
            if not self._is_fixed:
                before, ahead = ahead, raw - state.value
                state.drift = np.asarray(keep * state.drift + (1 - keep) / 2 * (before + ahead), np.float32)
                travel = np.abs(before) + np.abs(ahead)
                state.travel = np.asarray(keep * state.travel + (1 - keep) / 2 * travel, np.float32)
        state.time = timestamp

    def _time_constant(self, state: _State, probs: F32) -> float:
        """Return the time constant for a step towards ``probs``, (C,) float32, in s.

        It is longer, the more those classes swing that gain by the step. So a talking face that begins to smile is
        followed at once: happiness did not swing.
        """
        options = self.options
        if self._is_fixed:
            return options.time_constant
        gain = np.maximum(probs - state.value, 0.0)
        swing = float(gain @ (state.travel - np.abs(state.drift))) / max(float(gain.sum()), 1e-6)
        talking = min(max((swing - _SWING_LOW) / (_SWING_HIGH - _SWING_LOW), 0.0), 1.0)
        return options.time_constant + talking * (options.talking_time_constant - options.time_constant)

    def _filtered(self, state: _State, probs: F32, dt: float) -> F32:
        """Return the value after ``dt`` s in which the raw result moved to ``probs``, (C,) float32."""
        tau = self._time_constant(state, probs)
        if tau == 0:
            return probs
        r = dt / tau
        decay, mean = math.exp(-r), -math.expm1(-r) / r  # mean: of the weight exp(-s) over the interval
        value = decay * state.value + (mean - decay) * state.raw + (1.0 - mean) * probs
        return np.asarray(value / value.sum(), dtype=np.float32)

    def _leader(self, value: F32) -> int:
        top = int(value.argmax())
        return top if value[top] >= self.options.uncertain_below else UNCERTAIN_INDEX

    def _score(self, value: F32, emotion: int) -> float:
        """Return the probability of a label. For "uncertain" this is the threshold."""
        return self.options.uncertain_below if emotion == UNCERTAIN_INDEX else float(value[emotion])
