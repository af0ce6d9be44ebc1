"""Static int8 quantisation for CPUs, by the tool of each runtime, calibrated on real faces.

Knows ONNX Runtime's and OpenVINO's quantisers; must not know checkpoints. Only what lies between the first convolution
and the pooled features is quantised: the pixels' preparation and the heads are cheap, and exact in float32.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from leaf_rt.errors import BackendError, install_hint
from leaf_rt.types import U8

CALIBRATION = 512  # faces
BATCH = 8
MAX_LOSS = 0.005  # of accuracy, as a share; a model that loses more is not offered


def allowed_loss(count: int) -> float:
    """``MAX_LOSS``, or one face where there are too few to tell less."""
    return max(MAX_LOSS, 1 / count + 1e-9)


def need_openvino_quantiser() -> None:
    """See that ``quantize_openvino`` can run.

    Raises:
        BackendError: OpenVINO or its quantiser nncf is not installed.
    """
    for name in ("openvino", "nncf"):
        if find_spec(name) is None:
            raise BackendError(
                f"--precision int8 --target openvino: {name} is missing; {install_hint('openvino,quantize')}"
            )


def quantize_onnxruntime(model: Path, out: Path, faces: U8, *, reduce_range: bool = False) -> None:
    """Write a QDQ model for ONNX Runtime.

    Args:
        model: The fp32 .onnx file.
        out: The int8 .onnx file.
        faces: (N, S, S, 3) uint8 BGR, training faces.
        reduce_range: 7-bit weights, for processors with AVX2 but without VNNI.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[dict[str, U8]] = iter(
                [{"faces": faces[i : i + BATCH]} for i in range(0, len(faces), BATCH)]
            )

        def get_next(self) -> dict[str, U8] | None:
            return next(self.batches, None)

    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # the quantiser logs through the root logger
    try:
        with tempfile.TemporaryDirectory() as folder:
            prepared, made = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
            quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(made),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Add", "Clip", "Relu", "MaxPool", "MatMul"],
                nodes_to_exclude=_outside_encoder(onnx.load(str(prepared))),
                per_channel=True,
                reduce_range=reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"CalibMovingAverage": True},
            )
            out.write_bytes(made.read_bytes())
    finally:
        logging.root.setLevel(level)


def quantize_openvino(model: Path, out: Path, faces: U8) -> None:
    """Write an int8 model in OpenVINO's format, NAME.xml and NAME.bin.

    Args:
        model: The fp32 .onnx file.
        out: The .xml file.
        faces: (N, S, S, 3) uint8 BGR, training faces.

    Raises:
        BackendError: OpenVINO or its quantiser nncf is not installed.
    """
    need_openvino_quantiser()
    try:
        import nncf
        import openvino as ov
    except ImportError as e:
        raise BackendError(f"--precision int8 --target openvino: cannot be loaded ({e}); install its parts anew") from e

    nncf.set_log_level(logging.ERROR)
    graph = ov.Core().read_model(str(model))
    batches = nncf.Dataset([{"faces": faces[i : i + 1]} for i in range(len(faces))])
    quantised = nncf.quantize(
        graph,
        batches,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(faces),
        ignored_scope=nncf.IgnoredScope(names=_ov_outside(graph), validate=False),
    )
    ov.save_model(quantised, str(out), compress_to_fp16=False)


def write_openvino(model: Path, out: Path) -> None:
    """Convert an .onnx file to OpenVINO's format without changing a number.

    Raises:
        BackendError: OpenVINO is not installed.
    """
    try:
        import openvino as ov
    except ImportError as e:
        raise BackendError(f"--target openvino: openvino is missing; {install_hint('openvino')}") from e
    ov.save_model(ov.Core().read_model(str(model)), str(out), compress_to_fp16=False)


def accuracy(probs: np.ndarray[Any, np.dtype[np.float32]], label: np.ndarray[Any, np.dtype[np.int64]]) -> float:
    """Share of right answers among the faces whose truth is known; (N, C) float32 and (N,) int64."""
    known = label >= 0
    return float((probs[known].argmax(1) == label[known]).mean())


def _outside_encoder(proto: onnx.ModelProto) -> list[str]:
    """Names of the nodes before the first convolution and after the pooling."""
    nodes = list(proto.graph.node)
    convolutions = [i for i, node in enumerate(nodes) if node.op_type == "Conv"]
    if not convolutions:
        return []
    first, last = convolutions[0], convolutions[-1]
    pools = [i for i, node in enumerate(nodes) if i > last and node.op_type in ("ReduceMean", "GlobalAveragePool")]
    end = pools[0] if pools else len(nodes)
    return [node.name for i, node in enumerate(nodes) if i < first or i >= end]


def _ov_outside(graph: Any) -> list[str]:
    """The same for OpenVINO's graph."""
    nodes = list(graph.get_ordered_ops())
    kinds = [node.get_type_name() for node in nodes]
    if "Convolution" not in kinds:
        return []
    weights = ("Constant", "Parameter", "Result")
    convolutions = [i for i, kind in enumerate(kinds) if kind in ("Convolution", "GroupConvolution")]
    first, last = convolutions[0], convolutions[-1]
    pools = [i for i, kind in enumerate(kinds) if i > last and kind == "ReduceMean"]
    end = pools[0] if pools else len(nodes)
    return [
        node.get_friendly_name() for i, node in enumerate(nodes) if (i < first or i >= end) and kinds[i] not in weights
    ]
