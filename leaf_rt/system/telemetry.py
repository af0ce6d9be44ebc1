"""Switches off what the libraries would report to their makers. Imports nothing of leaf-rt.

``leaf_rt/__init__.py`` calls it, so that it comes before every library that any entry loads.
"""

from __future__ import annotations

import os
import sys


def switch_off() -> None:
    """Make the libraries of this process, and of the processes that it starts, report nothing.

    - ONNX Runtime sends events to Microsoft, and keeps a device id and a queue of events in the user's cache folder.
      Its Privacy.md documents the variable, which must be set before it loads. If the program loaded it earlier, only
      the events after this call can be stopped.
    - OpenVINO and NNCF report to Google Analytics through the package openvino_telemetry, and keep a client id in the
      user's home. Both work without the package, so it is made impossible to import.

    PyTorch, ONNX, TensorBoard, OpenCV, PyAV and matplotlib report nothing. tests/test_silence.py watches all of them.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    onnxruntime = sys.modules.get("onnxruntime")
    if onnxruntime is not None and hasattr(onnxruntime, "disable_telemetry_events"):
        onnxruntime.disable_telemetry_events()
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # import then raises ImportError
