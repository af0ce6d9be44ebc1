"""TFLite networks that a user gives: in OpenVINO where it is installed, else in OpenCV, which is always there.

OpenVINO needs a third of the time. Knows arrays; must not know what they mean.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from leaf_rt.backends.base import load_errors
from leaf_rt.backends.networks import THREADS
from leaf_rt.backends.registry import find_backend
from leaf_rt.errors import BackendError, ModelError, first_line
from leaf_rt.system.native_stderr import suppress_native_stderr
from leaf_rt.types import F32

RUNTIMES = ("openvino", "opencv")


class TfliteNetwork(Protocol):
    """A loaded network with one input. May be called from several threads."""

    def __call__(self, values: F32) -> list[F32]:
        """Run the network.

        Args:
            values: Of the shape that the file states; pictures are (N, H, W, 3).

        Returns:
            The outputs in the order of the file, float32.

        Raises:
            BackendError: The runtime failed.
        """
        ...


def best_runtime() -> str:
    """The faster one of ``RUNTIMES`` that is installed."""
    return "opencv" if find_backend("openvino").problem() is not None else "openvino"


def open_tflite(data: bytes, runtime: str = "") -> TfliteNetwork:
    """Load a network.

    Args:
        data: The content of a .tflite file.
        runtime: One of ``RUNTIMES``; "" for the best one.

    Raises:
        BackendError: The runtime cannot be loaded.
        ModelError: It is no network that the runtime can run.
    """
    if (runtime or best_runtime()) == "opencv":
        return OpenCvNetwork(data)
    with load_errors("openvino"):
        from leaf_rt.backends.openvino import OpenVinoNetwork

        with tempfile.TemporaryDirectory() as folder:  # OpenVINO reads this format only from files
            path = Path(folder) / "network.tflite"
            path.write_bytes(data)
            return OpenVinoNetwork(path, THREADS)


class OpenCvNetwork:
    """Runs a .tflite file in OpenCV; see ``TfliteNetwork``."""

    def __init__(self, data: bytes) -> None:
        try:
            with suppress_native_stderr():
                self._network: Any = cv2.dnn.readNetFromTFLite(np.frombuffer(data, np.uint8))
            self._outputs = self._network.getUnconnectedOutLayersNames()
        except cv2.error as e:
            raise ModelError(f"OpenCV cannot load a .tflite network ({first_line(e)}); get a fresh copy") from e
        self._lock = threading.Lock()

    def __call__(self, values: F32) -> list[F32]:
        """Run the network; see ``TfliteNetwork``."""
        if values.ndim == 4:  # OpenCV changes the graph so that it takes planes
            values = values.transpose(0, 3, 1, 2)
        try:
            with self._lock:
                self._network.setInput(np.ascontiguousarray(values))
                return [np.array(out, np.float32) for out in self._network.forward(self._outputs)]
        except cv2.error as e:
            raise BackendError(f"OpenCV failed on an input {values.shape} ({first_line(e)})") from e
