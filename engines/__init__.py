"""Export of trained models to ONNX, OpenVINO, TensorRT and Triton; int8 quantization, parity checks, benchmarks.

Knows checkpoints and data sets of the trainer, and the back ends. It must not know the command line.
"""

__all__ = ["bench", "calibration", "detectors", "entry", "model_card", "parity", "parity_faces", "release"]
