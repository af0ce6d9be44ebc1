"""Runs model files with ONNX Runtime, OpenVINO, TensorRT or PyTorch, and chooses between them.

Knows models and arrays. It must not know where faces come from.
"""

__all__ = [
    "base",
    "benchmark",
    "half_file",
    "networks",
    "onnxruntime",
    "opening",
    "openvino",
    "parity",
    "plan_cache",
    "plans",
    "programs",
    "registry",
    "selection",
    "tflite",
    "variants",
]
