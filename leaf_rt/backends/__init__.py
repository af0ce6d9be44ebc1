"""Runs a model file: ONNX Runtime, OpenVINO, TensorRT, and the choice between them.

Knows models and arrays. It must not know where faces come from.
"""

__all__ = ["base", "benchmark", "onnxruntime", "openvino", "parity", "plan_cache", "selection", "tensorrt"]
