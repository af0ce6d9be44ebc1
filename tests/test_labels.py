"""Colors of labels."""

from __future__ import annotations

from leaf_rt.labels import FERPLUS8, rgb


def test_the_classes_of_users_have_colors_of_their_own() -> None:
    assert rgb("happy") == rgb("Happiness") == rgb("happiness")
    assert len({rgb(label) for label in ("happy", "sad", "surprised", "neutral", "angry")}) == 5
    assert rgb("boredom") == rgb("boredom")
    assert len({rgb(label) for label in FERPLUS8}) == len(FERPLUS8)
