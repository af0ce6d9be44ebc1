"""Runs model files with ONNX Runtime, OpenVINO or TensorRT, and chooses between them.

Knows models and arrays. It must not know where faces come from.
"""

__all__ = [
    "base",
    "benchmark",
    "networks",
    "onnxruntime",
    "opening",
    "openvino",
    "parity",
    "plan_cache",
    "plans",
    "registry",
    "selection",
    "variants",
]
