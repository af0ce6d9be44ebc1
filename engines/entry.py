"""``export``: from a trained run to the model file that a runtime loads.

Knows the steps of an export and their order. It must not print or exit: the caller gets a result or an exception.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from engines.descriptions import record_accuracy
from engines.evaluation_faces import CALIBRATION_FACES, select_faces
from engines.onnx_export import LoadedCheckpoint, export_onnx, load_checkpoint, spec_of
from engines.openvino_export import export_openvino
from engines.parity import FP16_GRAPH, FP32, ParityReport, check_parity, program_row
from engines.quantization import Int8Verdict, quantize, require_openvino_quantizer
from engines.triton import write_repository
from leaf_rt.backends.base import ProgressCallback, silent
from leaf_rt.backends.half_file import find_half_file
from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.parity import golden_faces
from leaf_rt.backends.plans import write_plan
from leaf_rt.backends.programs import write_program
from leaf_rt.backends.registry import GPU_BACKENDS, PLAN_BACKENDS, find_backend
from leaf_rt.errors import BackendError, ModelError
from leaf_rt.models.spec import load_spec, save_spec, variant_path
from train.loop.checkpoint import unfinished

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
TARGETS = ("onnx", "tensorrt", "tensorrt-rtx", "torch", "openvino", "triton")
DATA_HINT = "--data PATH (labelled faces in a layout of the trainer)"


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What to export.

    Attributes:
        source: Folder of a run, a checkpoint (.pt), or an fp32 .onnx file of an earlier export.
        out: Folder for the files; created if it does not exist.
        name: Name of the files without suffix; "" means that of the run's folder or of the .onnx file.
        precision: One of ``PRECISIONS``. "int8" needs ``data``. "fp16" and "bf16" need a run, a checkpoint, or
            NAME-fp16.onnx beside NAME.onnx. "bf16" is for the target "torch" only.
        target: One of ``TARGETS``: the runtime or server that will load the file.
        net_side: Input size of the network, px; None keeps that of the checkpoint.
        flip: Average the outputs over each face and its mirror image, which doubles the time.
        batch_sizes: Smallest, most frequent and largest batch of a TensorRT plan.
        licence: Licence of the weights, stored in the description.
        data: Labelled faces, for accuracy and for the calibration of int8; None takes the crops of the package.
        layout: Layout of ``data``, as for the trainer.
        cache: Folder of the crop cache of ``data``; "" means that of the trainer.
        limit: Evaluate on at most this many faces; None takes all.
        threads: CPU threads for inference; 0 leaves the choice to the back end.

    Raises:
        BackendError: The precision or target is unknown, or they do not go together.
        ModelError: ``source`` cannot be exported with this precision.
    """

    source: Path
    out: Path
    name: str = ""
    precision: str = "fp32"
    target: str = "onnx"
    net_side: int | None = None
    flip: bool = True
    batch_sizes: tuple[int, int, int] = (1, 4, 32)
    licence: str = "not stated"
    data: Path | None = None
    layout: str = "auto"
    cache: str = ""
    limit: int | None = None
    threads: int = 0

    def __post_init__(self) -> None:
        for name in ("source", "out", "data"):  # texts are welcome as paths
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, Path(getattr(self, name)))
        if self.precision not in PRECISIONS:
            raise BackendError(f"--precision {self.precision}: unknown; choose one of {', '.join(PRECISIONS)}")
        if self.target not in TARGETS:
            raise BackendError(f"--target {self.target}: unknown; choose one of {', '.join(TARGETS)}")
        if self.precision == "int8" and self.data is None:
            raise BackendError(f"--precision int8: is calibrated on real training faces; give {DATA_HINT}")
        if self.precision == "int8" and self.target in GPU_BACKENDS:
            raise BackendError(f"--precision int8 --target {self.target}: int8 is for the CPU; use fp16")
        if self.precision == "fp16" and self.target == "openvino":
            raise BackendError("--precision fp16 --target openvino: CPUs compute fp16 slower than fp32; use int8")
        if self.precision == "bf16" and self.target != "torch":
            raise BackendError("--precision bf16: is for --target torch only; use fp16")
        if self.needs_half and self.from_onnx and not variant_path(self.source, "fp16").is_file():
            raise ModelError(
                f"--precision {self.precision}: needs the run or checkpoint, or "
                f"{variant_path(self.source, 'fp16').name} beside the .onnx file; give the run"
            )

    @property
    def from_onnx(self) -> bool:
        """Whether the source is an .onnx file instead of a run or checkpoint."""
        return self.source.suffix == ".onnx"

    @property
    def needs_half(self) -> bool:
        """Whether the float16 graph is needed. It says which tensors are short, also for bfloat16."""
        return self.precision in ("fp16", "bf16")


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export made.

    Attributes:
        path: The file for the target, or the model's folder in a Triton repository.
        written: All model files and the parity report. Each model file has a JSON description beside it.
        parity: The model in every runtime available here, compared with the reference.
        accuracy: Accuracy of the exported precision as a share; None without labelled faces.
        int8: Calibration and accuracy of the int8 file; None for other precisions.
        notes: What the user should know, one sentence each.
    """

    path: Path
    written: tuple[Path, ...]
    parity: ParityReport
    accuracy: float | None
    int8: Int8Verdict | None
    notes: tuple[str, ...]


def export(config: ExportConfig, notify: ProgressCallback = silent) -> ExportResult:
    """Export a model and check it against the original.

    The fp32 .onnx file is always written; it is the reference for every other file.

    Args:
        config: What to export.
        notify: Called with one sentence about each slow step, and with the notes as soon as they are known.

    Returns:
        The files, the parity report and the accuracy.

    Raises:
        LeafError: The source or the data cannot be read, the target cannot be built on this machine, the exported
            model is not accurate enough, or a file cannot be written.

    Example:
        >>> result = export(ExportConfig(Path("runs/mine"), Path("models")))  # doctest: +SKIP
        >>> result.path  # doctest: +SKIP
        PosixPath('models/mine.onnx')
    """
    if config.precision == "int8" and config.target == "openvino":
        require_openvino_quantizer()
    checkpoint, notes = None, []
    if not config.from_onnx:
        checkpoint = load_checkpoint(config.source, flip=config.flip, net_side=config.net_side)
        if progress := unfinished(checkpoint.meta):
            run = config.source if config.source.is_dir() else config.source.parent
            notes.append(f"{config.source} is unfinished, {progress}; resume it with: leaf-rt train --resume {run}")
            notify(f"note: {notes[-1]}")
    # All problems with the data must be found before a file is written.
    spec = load_spec(config.source) if checkpoint is None else spec_of(checkpoint)
    evaluation, calibration = select_faces(
        config.data, config.layout, spec, run=None if checkpoint is None else config.source, cache=config.cache,
        limit=config.limit, calibration=CALIBRATION_FACES,
    )  # fmt: skip
    model = _copy_onnx(config, notify) if checkpoint is None else _write_onnx(config, checkpoint)
    file, int8 = model, None
    if config.needs_half:
        file = variant_path(model, "fp16")
    elif config.precision == "int8":
        file, int8 = quantize(
            model, calibration, evaluation, openvino=config.target == "openvino", threads=config.threads
        )
    path = _convert(config, model, file, notify)
    parity = check_parity(model, evaluation, checkpoint, config.threads, path if config.target == "torch" else None)
    report = model.with_name(f"{model.stem}-parity.json")
    parity.save(report)
    accuracy = parity.accuracy(FP32)
    if accuracy is not None:
        record_accuracy(model, accuracy, evaluation.name, len(evaluation))
    if int8 is not None:
        accuracy = int8.accuracy
    elif config.target == "torch":
        accuracy = parity.accuracy(program_row(config.precision))
    elif config.precision == "fp16":
        accuracy = parity.accuracy(FP16_GRAPH)
    written = tuple(dict.fromkeys((model, file, path, report)))
    return ExportResult(path, written, parity, accuracy, int8, tuple(notes))


def _write_onnx(config: ExportConfig, checkpoint: LoadedCheckpoint) -> Path:
    """Write the fp32 file and, for fp16, the fp16 file beside it; return the fp32 file."""
    # Named after the run, so that it cannot be taken for the bundled model or for the model of another run.
    run = config.source if config.source.is_dir() else config.source.parent
    model = config.out / f"{config.name or run.resolve().name}.onnx"
    faces = golden_faces(checkpoint.preparation.side)
    for precision in ("fp32", "fp16") if config.needs_half else ("fp32",):
        export_onnx(checkpoint, model, faces, precision, config.licence)
    open_backend(model, "onnxruntime", config.threads).close()  # it must load before anything is made from it
    return model


def _copy_onnx(config: ExportConfig, notify: ProgressCallback) -> Path:
    """Copy an exported fp32 .onnx file, with its description and its fp16 file if needed; return the copy."""
    source, model = config.source, config.out / f"{config.name or config.source.stem}.onnx"
    spec = load_spec(source)
    if spec.precision != "fp32":
        raise ModelError(f"{source}: is {spec.precision}; export the fp32 file, the run or the checkpoint instead")
    open_backend(source, "onnxruntime", config.threads).close()  # it must load before anything is written
    half = find_half_file(source, spec, notify, config.precision) if config.needs_half else None
    if model.resolve() != source.resolve():
        config.out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, model)
        save_spec(spec, model)
        if half is not None:
            shutil.copyfile(half[0], variant_path(model, "fp16"))
            save_spec(half[1], variant_path(model, "fp16"))
    return model


def _convert(config: ExportConfig, model: Path, file: Path, notify: ProgressCallback) -> Path:
    """Convert a file to the format of the target.

    Args:
        config: What to export.
        model: The fp32 .onnx file.
        file: The file in the precision of the export; an int8 file for OpenVINO is in its format already.
        notify: See ``export``.

    Returns:
        The converted file, or the model's folder in a Triton repository.
    """
    if config.target == "triton":
        return write_repository(file, load_spec(file), config.out / "triton", model.stem)
    if config.target == "openvino" and config.precision != "int8":
        return export_openvino(file)
    if config.target == "torch":
        program = variant_path(model, config.precision, ".pt2")
        write_program(file, model, program, config.precision, notify)
        return program
    if config.target in PLAN_BACKENDS:
        plan = file.with_name(f"{file.stem}-{config.target}.plan")
        write_plan(find_backend(config.target), file, model, plan, config.batch_sizes, notify)
        return plan
    return file
