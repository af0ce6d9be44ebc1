"""The words that options of the command line accept. Knows no option."""

from __future__ import annotations

from enum import StrEnum


class Range(StrEnum):
    """Range of the face detector."""

    AUTO = "auto"
    SHORT = "short"
    FULL = "full"


class Detector(StrEnum):
    """What runs the networks of the face detector."""

    AUTO = "auto"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    TORCH = "torch"
    MEDIAPIPE = "mediapipe"


class PriorName(StrEnum):
    """How frequent the classes are taken to be."""

    NATURAL = "natural"
    BALANCED = "balanced"


class Decode(StrEnum):
    """What decodes files and network streams."""

    CPU = "cpu"
    AUTO = "auto"
    NVDEC = "nvdec"


class Transport(StrEnum):
    """Transport protocol of RTSP packets."""

    TCP = "tcp"
    UDP = "udp"


class Precision(StrEnum):
    """Precision of the inference; "auto" leaves it to the back end."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


class Format(StrEnum):
    """Format of the records of a batch."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
