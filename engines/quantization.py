"""Static int8 quantization for CPUs with the tools of ONNX Runtime and OpenVINO, calibrated on real faces.

Knows both quantizers and which loss of accuracy is accepted; must not know checkpoints. Only the layers from
the first convolution to the pooling are quantized: preprocessing and heads are cheap, and exact in float32.
ONNX Runtime gives a whole layer one scale, and the channels of the first convolution differ too much for that in some
networks, so for ONNX Runtime it stays in float32 too.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from engines.descriptions import describe_variant, record_accuracy
from engines.evaluation_faces import Faces, predict
from leaf_rt.backends.opening import open_backend
from leaf_rt.errors import BackendError, ModelError, install_hint
from leaf_rt.models.spec import spec_path, variant_path
from leaf_rt.types import I64, U8
from train.metrics import chance

BATCH = 8
MAX_LOSS = 0.005  # a larger loss of accuracy, as a share, is accepted only if it may be chance
SURE = 0.05  # p value below which a loss is more than chance
Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Int8Verdict:
    """The accuracy of an int8 file that was accepted.

    Attributes:
        calibration_faces: Number of faces that it was calibrated on.
        evaluation_faces: Number of other faces that both files were evaluated on.
        evaluated_on: Name of these faces.
        accuracy: Accuracy of the int8 file, as a share.
        fp32_accuracy: Accuracy of the fp32 file, as a share.
        max_loss: Loss of accuracy that is accepted even if it is more than chance, as a share.
    """

    calibration_faces: int
    evaluation_faces: int
    evaluated_on: str
    accuracy: float
    fp32_accuracy: float
    max_loss: float


def too_lossy(fp32: Mask, int8: Mask) -> bool:
    """Whether an int8 file loses more accuracy than ``MAX_LOSS``, and more than by chance on these faces.

    Args:
        fp32: (N,) bool, the faces that the fp32 file gets right.
        int8: (N,) bool, those that the int8 file gets right.
    """
    gained, lost = int((int8 & ~fp32).sum()), int((fp32 & ~int8).sum())
    return (lost - gained) / max(len(fp32), 1) > MAX_LOSS and chance(gained, lost) < SURE


def quantize(
    model: Path, calibration: Faces, evaluation: Faces, *, openvino: bool = False, threads: int = 0
) -> tuple[Path, Int8Verdict]:
    """Write the int8 file of a model, and keep it only if it is accurate enough.

    Args:
        model: The fp32 .onnx file.
        calibration: Faces to calibrate on.
        evaluation: Other faces with labels; fp32 and int8 are compared on them.
        openvino: Use OpenVINO's quantizer and format instead of ONNX Runtime's.
        threads: As for ``open_backend``.

    Returns:
        The int8 file and its accuracy.

    Raises:
        ModelError: The int8 file is ``too_lossy``; it was deleted.
        BackendError: OpenVINO or its quantizer is not installed.
    """
    out = variant_path(model, "int8", ".xml" if openvino else ".onnx")
    (quantize_openvino if openvino else quantize_onnxruntime)(model, out, calibration.images)
    describe_variant(out, model, "int8")
    right = [_right(path, "openvino" if openvino else "onnxruntime", evaluation, threads) for path in (model, out)]
    fp32, int8 = (float(answers.mean()) for answers in right)
    if too_lossy(*right):
        delete_model(out)
        raise ModelError(
            f"int8: loses {100 * (fp32 - int8):.2f} points of accuracy on {len(evaluation)} faces "
            f"({evaluation.name}), more than {100 * MAX_LOSS:.1f} and more than by chance; use fp32 for this model"
        )
    record_accuracy(out, int8, evaluation.name, len(evaluation))
    return out, Int8Verdict(len(calibration), len(evaluation), evaluation.name, int8, fp32, MAX_LOSS)


def delete_model(path: Path) -> None:
    """Delete a model file with its description and, for OpenVINO, its weights. Missing files are ignored."""
    for file in (path, spec_path(path), path.with_suffix(".bin")):
        file.unlink(missing_ok=True)


def require_openvino_quantizer() -> None:
    """Check that ``quantize_openvino`` can run.

    Raises:
        BackendError: OpenVINO or its quantizer nncf is not installed.
    """
    for name in ("openvino", "nncf"):
        if find_spec(name) is None:
            raise BackendError(
                f"--precision int8 --target openvino: {name} is not installed; {install_hint('openvino,quantize')}"
            )


def quantize_onnxruntime(model: Path, out: Path, faces: U8, *, reduce_range: bool = False) -> None:
    """Write an int8 model for ONNX Runtime, in QDQ format.

    Args:
        model: The fp32 .onnx file.
        out: The int8 .onnx file.
        faces: (N, S, S, 3) uint8 BGR, training faces for calibration.
        reduce_range: Use 7-bit weights, for processors with AVX2 but without VNNI.
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
    logging.root.setLevel(logging.ERROR)  # the quantizer logs to the root logger
    try:
        with tempfile.TemporaryDirectory() as folder:
            prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
            quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(quantized),
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
            out.write_bytes(quantized.read_bytes())
    finally:
        logging.root.setLevel(level)


def quantize_openvino(model: Path, out: Path, faces: U8) -> None:
    """Write an int8 model in OpenVINO's format, NAME.xml and NAME.bin.

    Args:
        model: The fp32 .onnx file.
        out: The .xml file.
        faces: (N, S, S, 3) uint8 BGR, training faces for calibration.

    Raises:
        BackendError: OpenVINO or its quantizer nncf is not installed.
    """
    require_openvino_quantizer()
    try:
        import nncf
        import openvino as ov
    except ImportError as e:
        raise BackendError(
            f"--precision int8 --target openvino: cannot be loaded ({e}); reinstall openvino and nncf"
        ) from e

    nncf.set_log_level(logging.ERROR)
    graph = ov.Core().read_model(str(model))
    batches = nncf.Dataset([{"faces": faces[i : i + 1]} for i in range(len(faces))])
    quantized = nncf.quantize(
        graph,
        batches,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(faces),
        ignored_scope=nncf.IgnoredScope(names=_openvino_outside_encoder(graph), validate=False),
    )
    ov.save_model(quantized, str(out), compress_to_fp16=False)


def _right(model: Path, backend: str, faces: Faces, threads: int) -> Mask:
    """(N,) bool: the faces that a model gets right."""
    opened = open_backend(model, backend, threads)
    try:
        answers: I64 = predict(opened.infer, faces.images).probs.argmax(1)
        return np.asarray(answers == faces.label, np.bool_)
    finally:
        opened.close()


def _outside_encoder(proto: onnx.ModelProto) -> list[str]:
    """Names of the nodes up to the first convolution, unless it is the only one, and from the pooling on."""
    nodes = list(proto.graph.node)
    convolutions = [i for i, node in enumerate(nodes) if node.op_type == "Conv"]
    if not convolutions:
        return []
    first, last = convolutions[0], convolutions[-1]
    pools = [i for i, node in enumerate(nodes) if i > last and node.op_type in ("ReduceMean", "GlobalAveragePool")]
    end = pools[0] if pools else len(nodes)
    begin = first if first == last else first + 1
    return [node.name for i, node in enumerate(nodes) if i < begin or i >= end]


def _openvino_outside_encoder(graph: Any) -> list[str]:
    """Names of the nodes before the first convolution and from the pooling on, in OpenVINO's graph."""
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
