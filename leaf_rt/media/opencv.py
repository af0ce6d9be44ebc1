"""How many threads OpenCV uses, in the whole process."""

from __future__ import annotations

import cv2


def use_one_thread() -> None:
    """Let OpenCV run in the threads of its callers, where several of them fill the cores anyway.

    Its own threads spin before they sleep: on two cores that costs a millisecond of CPU per frame of 1920x1080.
    """
    cv2.setNumThreads(1)
