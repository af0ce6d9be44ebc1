"""Recognizes people who come back within one source, after a short absence or a cut.

A person is described by the colors of the head (``leaf_rt.faces.appearance``) and, where a face-recognition network is
given, by its vector. The thresholds favor precision: a doubtful match is none, because two numbers for one person do
less harm than one number for two people. Whoever comes in at the edge of the picture is seen only in part at first. So
a track that matches nobody has a number of its own until it does, for ``PATIENCE`` at most; after that its number never
changes. Descriptions stay in memory and are forgotten after ``seconds``.

Knows tracks, descriptions and times. Does not know images or networks.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from leaf_rt.faces.appearance import difference, likeness
from leaf_rt.types import F32

MAX_DIFFERENCE = 15.0  # of two heads of the same person, see ``appearance.difference``
MIN_LIKENESS = 0.85  # of two heads of the same person, see ``appearance.likeness``; colors alone say little in grey
MIN_SIMILARITY = 0.55  # cosine of the vectors of the same person; 0.5 accepts 5 of a million pairs of other people
MIN_AGREEMENT = 0.25  # cosine below which heads that look alike are not the same person
PATIENCE = 0.5  # s from the first description of a track, in which it may still become a person who is back
CLEAR = 0.9  # the best match must be this much better than the second best
EXAMPLES = 8  # descriptions per person
EXAMPLE_INTERVAL = 0.5  # s between two of them, once there are so many; the oldest is then dropped
MAX_PEOPLE = 300  # remembered at the same time


@dataclass(slots=True, eq=False)
class _Person:
    """What is known of a person.

    Attributes:
        person_id: Id of the first track.
        began: When the newest track was first described, s.
        seen: When the person was last described, s.
        heads: Appearances, (A,) each, with their times, s.
        vectors: Vectors of the face-recognition network, (D,) each, with their times, s.
        described: When ``heads`` got its newest entry, s.
    """

    person_id: int
    began: float
    seen: float
    heads: deque[tuple[float, F32]] = field(default_factory=lambda: deque(maxlen=EXAMPLES))
    vectors: deque[tuple[float, F32]] = field(default_factory=lambda: deque(maxlen=EXAMPLES))
    described: float = -np.inf

    def add(self, head: F32, vector: F32, now: float) -> None:
        """Add a description; ``vector`` is empty if there is none."""
        self.seen = now
        if len(self.heads) < EXAMPLES or now - self.described >= EXAMPLE_INTERVAL:
            self.described = now
            self.heads.append((now, head))
        if len(vector) and (not self.vectors or now == self.described):
            self.vectors.append((now, vector))

    def forget_since(self, time: float) -> None:
        """Forget the descriptions from a time on, s."""
        for described in (self.heads, self.vectors):
            while described and described[-1][0] >= time:
                described.pop()


class PeopleMemory:
    """Gives every track of one source the number of its person.

    Args:
        seconds: How long a person who is gone is remembered.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._present: dict[int, _Person] = {}  # track id -> person
        self._gone: list[_Person] = []

    def __len__(self) -> int:
        return len(self._present) + len(self._gone)

    def keep_only(self, track_ids: set[int], now: float) -> None:
        """Take note of the living tracks. The people of all others are gone."""
        for track_id in [t for t in self._present if t not in track_ids]:
            self._gone.append(self._present.pop(track_id))
        self._gone = [person for person in self._gone if 0.0 <= now - person.seen <= self.seconds][-MAX_PEOPLE:]

    def forget_since(self, time: float) -> None:
        """Forget the descriptions of all people from a time on, s. Nobody can match who has no other."""
        for person in (*self._present.values(), *self._gone):
            person.forget_since(time)

    def person_id(self, track_id: int) -> int:
        """Return the number of the person of a track: the id of the person's first track."""
        person = self._present.get(track_id)
        return track_id if person is None else person.person_id

    def wants_vector(self, track_id: int, now: float) -> bool:
        """Whether a vector of this track would be used now."""
        person = self._present.get(track_id)
        if person is None or not person.vectors or self.is_open(track_id, now):
            return True
        return now - person.described >= EXAMPLE_INTERVAL

    def is_open(self, track_id: int, now: float) -> bool:
        """Whether a description of this track may show that it is a person who is back."""
        person = self._present.get(track_id)
        if person is None:
            return True
        is_own = person.person_id == track_id  # nobody matched so far
        return is_own and now - person.began <= PATIENCE and any(other.seen < person.began for other in self._gone)

    def observe(self, track_ids: list[int], heads: F32, vectors: list[F32], now: float) -> None:
        """Process descriptions of faces of one frame, and recognize those whose tracks are new or still open.

        Args:
            track_ids: N living tracks.
            heads: (N, A) float32, their appearances; NaN where a head is outside the frame.
            vectors: N unit vectors (D,) float32 of a face-recognition network; empty where there is none.
            now: Media time, s.
        """
        unknown = [k for k, track_id in enumerate(track_ids) if self.is_open(track_id, now)]
        for k in unknown:
            self._present.setdefault(track_ids[k], _Person(track_ids[k], now, now))
        began = [self._present[track_id].began for track_id in track_ids]
        matches = {k: self._find(heads[k], vectors[k], began[k]) for k in unknown}
        for k in sorted(unknown, key=lambda k: matches[k][0]):
            person = matches[k][1]
            if person is not None and any(person is other for other in self._gone):  # not taken by another face
                self._gone = [other for other in self._gone if other is not person]
                person.began = began[k]
                self._present[track_ids[k]] = person
        for track_id, head, vector in zip(track_ids, heads, vectors, strict=True):
            self._present[track_id].add(head, vector, now)

    def _find(self, head: F32, vector: F32, began: float) -> tuple[float, _Person | None]:
        """Return the cost of the best match and the person, or None.

        Args:
            head: (A,) float32.
            vector: (D,) float32, or empty.
            began: When the track was first described, s. Whoever was seen at that time or later is somebody else.
        """
        people = [person for person in self._gone if person.seen < began]
        costs = [_cost(person, head, vector) for person in people]
        order = sorted(range(len(people)), key=costs.__getitem__)
        if not order or costs[order[0]] > 1.0:
            return np.inf, None
        if len(order) > 1 and costs[order[0]] > CLEAR * costs[order[1]]:
            return np.inf, None
        return costs[order[0]], people[order[0]]


def _cost(person: _Person, head: F32, vector: F32) -> float:
    """Return how badly a description fits a person; up to 1 is a match."""
    heads = np.inf
    if person.heads:
        known = np.stack([head for _, head in person.heads])
        apart = difference(known, head[None])
        heads = float(apart[likeness(known, head[None]) >= MIN_LIKENESS].min(initial=np.inf)) / MAX_DIFFERENCE
    if not len(vector) or not person.vectors:
        return heads if len(head) else np.inf
    similarity = float((np.stack([known for _, known in person.vectors]) @ vector).max())
    by_vector = (1.0 - similarity) / (1.0 - MIN_SIMILARITY)
    return min(by_vector, heads) if similarity >= MIN_AGREEMENT else np.inf
