"""The emotion sets and the order of their labels. Imports nothing."""

from __future__ import annotations

# Order of the vote columns of FERPlus (Barsoum et al., 2016). The bundled model uses it.
FERPLUS8 = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
# Order of the labels 1 to 7 in RAF-DB's list files.
RAFDB7 = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
# Order of the labels in AffectNet. Its variant with 7 classes has no contempt.
AFFECTNET8 = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
AFFECTNET7 = AFFECTNET8[:7]
# Order of the labels in FER2013's CSV file.
FER2013_7 = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")

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


def rgb(label: str) -> tuple[int, int, int]:
    """Return the RGB color of a label, 0 to 255 each. Unknown labels are gray."""
    return COLORS.get(label, (170, 170, 170))
