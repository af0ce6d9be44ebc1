"""The emotion sets, the order of their labels, and their colors; the names of movements of a face."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

# Order of the vote columns of FERPlus (Barsoum et al., 2016). The bundled model uses it.
FERPLUS8 = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
# Order of the labels 1 to 7 in RAF-DB's list files.
RAFDB7 = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
# Order of the labels in AffectNet. Its variant with 7 classes has no contempt.
AFFECTNET8 = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
AFFECTNET7 = AFFECTNET8[:7]
# Order of the labels in FER2013's CSV file.
FER2013_7 = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")

# Movements of a face in the order of MediaPipe's network, without its first output, which means nothing. Left and right
# are as seen by the person.
BLENDSHAPES = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen",
    "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight",
    "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight",
    "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft",
    "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
)  # fmt: skip

MAX_LABELS = 256  # of a model
UNCERTAIN = "uncertain"  # shown if no class is probable enough; index -1 in Estimates.emotion

# RGB colors for drawings and plots.
COLORS: dict[str, tuple[int, int, int]] = {
    "neutral": (150, 150, 150),
    "happiness": (242, 183, 5),
    "surprise": (242, 116, 5),
    "sadness": (64, 120, 220),
    "anger": (214, 40, 40),
    "disgust": (88, 150, 60),
    "fear": (130, 80, 180),
    "contempt": (160, 110, 70),
    UNCERTAIN: (200, 200, 200),
}


# Common names of classes in data sets of users.
_SYNONYMS = {
    "neutrality": "neutral",
    "happy": "happiness",
    "joy": "happiness",
    "joyful": "happiness",
    "surprised": "surprise",
    "sad": "sadness",
    "angry": "anger",
    "disgusted": "disgust",
    "afraid": "fear",
    "fearful": "fear",
    "scared": "fear",
    "contemptuous": "contempt",
}
# For all other labels, chosen by their names, so that a label has the same color in every run.
_OTHER_COLORS = ((0, 160, 160), (220, 90, 150), (120, 140, 40), (60, 60, 140), (200, 150, 110), (110, 190, 240))


def rgb(label: str) -> tuple[int, int, int]:
    """Return the RGB color of a label, 0 to 255 each."""
    name = usual_name(label)
    return COLORS.get(name) or _OTHER_COLORS[zlib.crc32(name.encode()) % len(_OTHER_COLORS)]


def usual_name(label: str) -> str:
    """Return the name of a label in small letters, and a common synonym as the name that the bundled model uses."""
    name = label.strip().lower()
    return _SYNONYMS.get(name, name)


def match(wanted: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """Find labels in another set of labels: by the same name first, then by synonym. No two share one.

    Args:
        wanted: The labels to find.
        known: The set to search.

    Returns:
        For each wanted label its index in ``known``, or None.
    """
    found: list[int | None] = [known.index(label) if label in known else None for label in wanted]
    usual = [usual_name(label) for label in known]
    for i, label in enumerate(wanted):
        name = usual_name(label)
        if found[i] is None and name in usual and usual.index(name) not in found:
            found[i] = usual.index(name)
    return found
