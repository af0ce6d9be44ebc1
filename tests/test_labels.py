"""Colors and names of labels."""

from __future__ import annotations

from leaf_rt.labels import FERPLUS8, match, rgb


def test_the_classes_of_users_have_colors_of_their_own() -> None:
    assert rgb("happy") == rgb("Happiness") == rgb("happiness")
    assert len({rgb(label) for label in ("happy", "sad", "surprised", "neutral", "angry")}) == 5
    assert rgb("boredom") == rgb("boredom")
    assert len({rgb(label) for label in FERPLUS8}) == len(FERPLUS8)


def test_classes_are_found_by_name_and_by_synonym() -> None:
    assert match(["Angry", "boredom", "happy", "neutral"], FERPLUS8) == [4, None, 1, 0]
    assert match(FERPLUS8, FERPLUS8) == list(range(8))
    assert match(["joy", "happiness"], FERPLUS8) == [None, 1], "no two classes share one, and the same name comes first"
    assert match(["happiness"], ["sad", "Happy"]) == [1]
