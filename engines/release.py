"""The model files that ship with the package, all made from one run: ``python -m engines bundle RUN --data ...``.

Knows export, quantization and parity check; must not know the command line. All files are made in a temporary folder:
the present files are replaced by a complete new set or not at all.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from engines.descriptions import describe_variant
from engines.evaluation_faces import CALIBRATION_FACES, Faces, load_faces
from engines.onnx_export import LoadedCheckpoint, export_onnx, load_checkpoint, spec_of
from engines.parity import FP16_GRAPH, FP32, PYTORCH, ParityReport, check_parity
from engines.quantization import MAX_LOSS, delete_model, quantize_onnxruntime, quantize_openvino
from leaf_rt.backends.base import ProgressCallback, silent
from leaf_rt.backends.parity import golden_faces
from leaf_rt.errors import LeafError, ModelError, NoPermission, OutputError
from leaf_rt.models.spec import DEFAULT_MODEL, MODELS, load_spec, save_spec, variant_path
from leaf_rt.types import U8

BEGIN, END = "<!-- parity: made by `python -m engines bundle` -->", "<!-- /parity -->"
# Row of the parity report to the suffix of its file.
INT8_FILES = {"ONNX Runtime int8": ".onnx", "OpenVINO int8": ".xml"}


@dataclass(frozen=True, slots=True)
class BundleConfig:
    """Which run becomes the bundled model.

    Attributes:
        source: Folder of a run, or a checkpoint (.pt).
        data: A data set with a training and a test split, for calibration and evaluation.
        out: Folder for the files.
        name: Name of the files without suffix.
        layout: Layout of ``data``, as for the trainer.
        cache: Folder of the crop cache of ``data``; "" means that of the trainer.
        limit: Evaluate on at most this many faces; None takes all.
        net_side: Input size of the network, px; None keeps that of the checkpoint.
        flip: Average the outputs over each face and its mirror image.
        licence: Licence of the weights; "" keeps that of the file that is replaced.
        threads: As for ``open_backend``.
    """

    source: Path
    data: Path
    out: Path = MODELS
    name: str = DEFAULT_MODEL.stem
    layout: str = "auto"
    cache: str = ""
    limit: int | None = None
    net_side: int | None = None
    flip: bool = True
    licence: str = ""
    threads: int = 0


@dataclass(frozen=True, slots=True)
class BundleResult:
    """What was made.

    Attributes:
        parity: Parity of all files. ``left_out`` names the variants that were not accurate enough.
        files: All files of this name in the output folder.
    """

    parity: ParityReport
    files: tuple[Path, ...]


def bundle(config: BundleConfig, notify: ProgressCallback = silent) -> BundleResult:
    """Make all model files that ship with the package, their parity report and the table in the model card.

    Args:
        config: Which run, and where to.
        notify: Called with one sentence about each step.

    Raises:
        LeafError: The run or the data cannot be read, fp32 differs from PyTorch, or a file cannot be written.
    """
    checkpoint = load_checkpoint(config.source, flip=config.flip, net_side=config.net_side)
    spec = spec_of(checkpoint)
    calibration = load_faces(
        config.data, config.layout, "train", spec, cache=config.cache, limit=CALIBRATION_FACES
    ).images  # fmt: skip
    test = load_faces(config.data, config.layout, "test", spec, cache=config.cache, limit=config.limit)
    licence = config.licence or _licence_of(config.out / f"{config.name}.onnx")
    parity = make_files(
        checkpoint, config.out, config.name, calibration, test, licence=licence, threads=config.threads, notify=notify
    )
    return BundleResult(parity, tuple(sorted(config.out.glob(f"{config.name}*"))))


def make_files(
    checkpoint: LoadedCheckpoint, out: Path, name: str, calibration: U8, test: Faces, *, licence: str,
    threads: int = 0, notify: ProgressCallback = silent,
) -> ParityReport:  # fmt: skip
    """Make NAME.onnx, its fp16 and int8 variants, their descriptions, the parity report and the model card's table.

    A variant that loses more than ``MAX_LOSS`` of accuracy on the test faces is left out.

    Args:
        checkpoint: The checkpoint.
        out: Folder for the files.
        name: Name of the files without suffix.
        calibration: (N, S, S, 3) uint8 BGR, training faces.
        test: Labelled faces of the test split.
        licence: Licence of the weights.
        threads: As for ``open_backend``.
        notify: Called with one sentence about each step.

    Returns:
        Parity of all files. ``left_out`` names the variants that were left out.

    Raises:
        ModelError: fp32 differs from PyTorch.
        LeafError: See ``export_onnx`` and the quantizers.
    """
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / f"{name}.onnx"
        crops = golden_faces(checkpoint.preparation.side)
        notify("exporting fp32 and fp16")
        export_onnx(checkpoint, model, crops, licence=licence)
        left_out: list[str] = []
        try:
            export_onnx(checkpoint, model, crops, "fp16", licence)
        except ModelError as e:  # activations are too large for float16
            left_out.append(str(e))
        for suffix, quantize in ((".onnx", quantize_onnxruntime), (".xml", quantize_openvino)):
            notify(f"quantizing on {len(calibration)} faces ({suffix})")
            path = variant_path(model, "int8", suffix)
            quantize(model, path, calibration)
            describe_variant(path, model, "int8")
        notify(f"comparing on {len(test)} faces ({test.name})")
        parity = check_parity(model, test, checkpoint, threads)
        parity = replace(parity, left_out=(*left_out, *delete_inaccurate(parity, model), *parity.left_out))
        _record_accuracy(parity, model)
        parity.save(model.with_name(f"{name}-parity.json"))
        install(model, out / model.name)
    card = out / f"{name}.md"
    if card.is_file():
        card.write_text(with_table(card.read_text(encoding="utf-8"), parity), encoding="utf-8")
    return parity


def with_table(card: str, parity: ParityReport) -> str:
    """Put the parity table into a model card: between its marks, or at the end if it has none."""
    title, _, *table = parity.text().splitlines()
    against = title.partition("against ")[2]
    faces = f"All {parity.count:,} faces of {parity.faces}, against {against}:"
    block = "\n".join([BEGIN, "## Runtimes and precisions", "", faces, "", *table, END])
    before, mark, rest = card.partition(BEGIN)
    if not mark:
        return f"{card.rstrip()}\n\n{block}\n"
    _, mark, after = rest.partition(END)
    if not mark:
        raise ModelError(f"the model card contains {BEGIN} without {END}; add it; the table goes between them")
    return f"{before}{block}{after}"


def delete_inaccurate(parity: ParityReport, model: Path) -> list[str]:
    """Delete the variants of a model that did not run or lose too much accuracy.

    Returns:
        One sentence for each variant that loses too much.

    Raises:
        ModelError: fp32 differs from PyTorch.
    """
    rows = {row.name: row for row in parity.rows}
    fp32, pytorch = rows[FP32], rows[PYTORCH]
    if fp32.agreement < 1 or fp32.probs > 1e-3:
        raise ModelError(f"{model.name}: ONNX Runtime differs from PyTorch ({fp32}); nothing was replaced")
    sentences = []
    paths = {name: variant_path(model, "int8", suffix) for name, suffix in INT8_FILES.items()}
    for name, path in {**paths, FP16_GRAPH: variant_path(model, "fp16")}.items():
        if name not in rows:  # it did not run; the report contains the reason
            delete_model(path)
            continue
        loss = (pytorch.accuracy or 0.0) - (rows[name].accuracy or 0.0)
        if loss > MAX_LOSS:
            sentences.append(
                f"{name}: loses {100 * loss:.2f} points of accuracy, at most {100 * MAX_LOSS:.1f} are allowed"
            )
            delete_model(path)
    return sentences


def _record_accuracy(parity: ParityReport, model: Path) -> None:
    """Write the measured accuracy into the description of each file; it replaces earlier measurements."""
    files = {FP32: model, FP16_GRAPH: variant_path(model, "fp16")}
    files |= {name: variant_path(model, "int8", suffix) for name, suffix in INT8_FILES.items()}
    for row in parity.rows:
        path = files.get(row.name)
        if path is not None and path.is_file() and row.accuracy is not None:
            measured = {"accuracy": round(row.accuracy, 4), "faces": parity.count}
            save_spec(replace(load_spec(path), metrics={parity.faces: measured}), path)


def install(model: Path, target: Path) -> None:
    """Move a new set of files to its folder and delete variants that only the old set had.

    Args:
        model: The new NAME.onnx; all files of its folder belong to the set.
        target: The old NAME.onnx, which need not exist.

    Raises:
        NoPermission, OutputError: The folder cannot be written; the old set is complete.
    """
    folder = target.parent
    parts = {path: folder / f".{path.name}.part" for path in sorted(model.parent.iterdir())}
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path, part in parts.items():  # copy everything first, so that a full disk leaves the old set complete
                shutil.copyfile(path, part)
            variants = (variant_path(target, "int8", suffix) for suffix in INT8_FILES.values())
            for path in (target, variant_path(target, "fp16"), *variants):
                delete_model(path)
            for path, part in parts.items():
                part.replace(folder / path.name)
        finally:
            for part in parts.values():
                with contextlib.suppress(OSError):  # must not hide the first error
                    part.unlink(missing_ok=True)
    except PermissionError as e:
        raise NoPermission(f"--out {folder}: no permission to write there; choose another folder") from e
    except OSError as e:
        raise OutputError(f"--out {folder}: could not be written ({e.strerror or e})") from e


def _licence_of(model: Path) -> str:
    try:
        return load_spec(model).licence
    except LeafError:
        return "not stated"
