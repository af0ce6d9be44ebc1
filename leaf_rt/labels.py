"""The emotion sets and their order. Imports nothing."""

from __future__ import annotations

# Order of the vote columns of FERPlus (Barsoum et al., 2016); the bundled model answers in it.
FERPLUS8 = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
# Order of the label numbers 1 to 7 of RAF-DB's list files.
RAFDB7 = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
# Order of the label numbers of AffectNet; its 7-class form leaves contempt out.
AFFECTNET8 = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
AFFECTNET7 = AFFECTNET8[:7]
# Order of the label numbers of FER2013's csv.
FER2013_7 = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")

UNCERTAIN = "uncertain"  # shown where no class leads clearly; index -1 in Estimates.emotion

# RGB colours for drawings and plots, one per emotion of any set above.
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


def rgb(label: str) -> tuple[int, int, int]:
    """The colour of a label, each part 0 to 255; a grey for one that no set above has."""
    return COLORS.get(label, (170, 170, 170))
