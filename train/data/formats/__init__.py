"""Data layouts: which images a data set has, in which split and with which label.

One module per group of layouts; ``index`` holds what they share. Knows folders, lists and annotations.
It must not decode an image or know a model.
"""

from train.data.formats.index import MAJORITY, NO_VOTES, SPLITS, STRICT_MAJORITY, TEST, TRAIN, VALIDATION, DatasetIndex
from train.data.formats.reading import guess_layout, read_index

__all__ = [
    "MAJORITY",
    "NO_VOTES",
    "SPLITS",
    "STRICT_MAJORITY",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "DatasetIndex",
    "guess_layout",
    "read_index",
]
