"""Decodes image files in memory to BGR. Knows OpenCV's decoder; must not know files, detectors or models."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np

from leaf_rt.types import U8

_FULL = {"uint8": 255.0, "uint16": 65535.0}  # the value of an opaque pixel


class Decoded(NamedTuple):
    """An image as a viewer shows it, and as the file stores it.

    Attributes:
        image: (H, W, 3) uint8 BGR, rotated as its EXIF tag says, transparent parts on white; None if OpenCV cannot
            decode the file to 8 bits.
        raw: The stored values, any shape and type; None for JPEG, and if OpenCV cannot decode the file.
    """

    image: U8 | None
    raw: np.ndarray[Any, Any] | None


def decode_image(data: bytes) -> Decoded:
    """Decode an image file. Grey images become colour, 16-bit images become 8-bit.

    Args:
        data: Content of the file.

    Raises:
        cv2.error: The data is empty, or the image has too many pixels.
    """
    encoded = np.frombuffer(data, np.uint8)
    is_jpeg = data.startswith(b"\xff\xd8")  # has no alpha channel
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)  # the caller reports what is wrong
    try:
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        raw = None if is_jpeg else cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if image is None:
        return Decoded(None, raw)
    bgr = np.asarray(image, np.uint8)
    if raw is not None and raw.ndim == 3 and raw.shape[2] == 4 and raw.shape[:2] == bgr.shape[:2]:
        alpha = np.clip(raw[..., 3:].astype(np.float32) / _FULL.get(raw.dtype.name, 1.0), 0.0, 1.0)
        bgr = (bgr * alpha + 255.0 * (1.0 - alpha) + 0.5).astype(np.uint8)
    return Decoded(bgr, raw)
