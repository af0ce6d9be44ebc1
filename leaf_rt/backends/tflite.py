"""Runs TFLite networks that a user gives, in OpenCV: no other package is needed. Knows arrays, not what they mean."""

from __future__ import annotations

import threading
from typing import Any

import cv2
import numpy as np

from leaf_rt.errors import BackendError, ModelError, first_line
from leaf_rt.system.native_stderr import suppress_native_stderr
from leaf_rt.types import F32


class TfliteNetwork:
    """A network with one input. May be called from several threads, which take turns.

    Args:
        data: The content of a .tflite file.

    Raises:
        ModelError: It is no network that OpenCV can load.
    """

    def __init__(self, data: bytes) -> None:
        try:
            with suppress_native_stderr():
                self._network: Any = cv2.dnn.readNetFromTFLite(np.frombuffer(data, np.uint8))
            self._outputs = self._network.getUnconnectedOutLayersNames()
        except cv2.error as e:
            raise ModelError(f"OpenCV cannot load a .tflite network ({first_line(e)}); get a fresh copy") from e
        self._lock = threading.Lock()

    def __call__(self, values: F32) -> list[F32]:
        """Run the network.

        Args:
            values: Of the shape that the file states; pictures are (N, H, W, 3).

        Returns:
            The outputs in the order of the file.

        Raises:
            BackendError: OpenCV failed.
        """
        if values.ndim == 4:  # OpenCV changes the graph so that it takes planes
            values = values.transpose(0, 3, 1, 2)
        try:
            with self._lock:
                self._network.setInput(np.ascontiguousarray(values))
                return [np.array(out, np.float32) for out in self._network.forward(self._outputs)]
        except cv2.error as e:
            raise BackendError(f"OpenCV failed on an input {values.shape} ({first_line(e)})") from e
