"""Everything that travels with the package, made from one run in one go: ``python -m engines bundle RUN --data ...``.

Knows the exporter, the quantisers and the parity report; must not know how people ask. All files are made in a folder
of their own first: the models that stand there now are replaced by a whole new set or not at all.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from engines.evaluation_faces import Faces
from engines.onnx_export import Loaded, export
from engines.parity import Report, report
from engines.quantization import MAX_LOSS, quantize_onnxruntime, quantize_openvino
from leaf_rt.backends.parity import golden_faces
from leaf_rt.errors import LeafError, ModelError, NoPermission, OutputError
from leaf_rt.models.spec import load_spec, save_spec, sha256_of, spec_path, variant_path
from leaf_rt.types import U8

BEGIN, END = "<!-- parity: made by `python -m engines bundle` -->", "<!-- /parity -->"
TORCH = "PyTorch, not fused"
# Row of the report, suffix of the file that it proves.
QUANTISED = {"ONNX Runtime int8": ".onnx", "OpenVINO int8": ".xml"}
HALF = "fp16 graph (on CPU, for proof alone)"


def bundle(
    loaded: Loaded, out: Path, name: str, calibration: U8, test: Faces, *, licence: str, threads: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Report:  # fmt: skip
    """Make NAME.onnx, its fp16 and int8 forms, their descriptions, the parity report and the table in the model card.

    A form that loses more than ``MAX_LOSS`` of accuracy against fp32 on the test faces is left out, and so said.

    Args:
        loaded: The checkpoint.
        out: Folder of the models.
        name: Of the files, without suffix.
        calibration: (N, S, S, 3) uint8 BGR, training faces.
        test: Labelled faces of the test split.
        licence: Of the weights.
        threads: As for ``open_backend``.
        say: Told what is being done, a sentence at a time.

    Returns:
        The parity of all that was made, the forms that were left out among ``left_out``.

    Raises:
        ModelError: fp32 answers otherwise than PyTorch.
        LeafError: See ``export`` and the quantisers.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / f"{name}.onnx"
        crops = golden_faces(loaded.preparation.side)
        say("exporting fp32 and fp16")
        export(loaded, made, crops, licence=licence)
        lost: list[str] = []
        try:
            export(loaded, made, crops, "fp16", licence)
        except ModelError as e:  # its activations are too large for float16
            lost.append(str(e))
        for suffix, quantise in ((".onnx", quantize_onnxruntime), (".xml", quantize_openvino)):
            say(f"quantising on {len(calibration)} faces ({suffix})")
            path = variant_path(made, "int8", suffix)
            quantise(made, path, calibration)
            spec = load_spec(made)
            save_spec(replace(spec, precision="int8", sha256=sha256_of(path), parent=spec.sha256), path)
        say(f"comparing on {len(test)} faces ({test.name})")
        result = report(made, test, loaded, threads)
        result = replace(result, left_out=(*lost, *judge(result, made), *result.left_out))
        _describe(result, made)
        result.save(made.with_name(f"{name}-parity.json"))
        place(made, out / made.name)
    card = out / f"{name}.md"
    if card.is_file():
        card.write_text(with_table(card.read_text(encoding="utf-8"), result), encoding="utf-8")
    return result


def with_table(card: str, result: Report) -> str:
    """A model card with the parity table between its marks, or at its end where it has none."""
    title, _, *table = result.text().splitlines()
    against = title.partition("against ")[2]
    faces = f"All {result.count:,} faces of {result.faces}, against {against}:"
    block = "\n".join([BEGIN, "## Runtimes and precisions", "", faces, "", *table, END])
    before, mark, rest = card.partition(BEGIN)
    if not mark:
        return f"{card.rstrip()}\n\n{block}\n"
    _, mark, after = rest.partition(END)
    if not mark:
        raise ModelError(f"the model card holds {BEGIN} without {END}; put it in, the table stands between them")
    return f"{before}{block}{after}"


def judge(result: Report, model: Path) -> list[str]:
    """Delete what is not exact enough; why, for each."""
    rows = {row.name: row for row in result.rows}
    exact, torch = rows["ONNX Runtime fp32"], rows[TORCH]
    if exact.agreement < 1 or exact.probs > 1e-3:
        raise ModelError(f"{model.name}: ONNX Runtime answers otherwise than PyTorch ({exact}); nothing was replaced")
    said = []
    paths = {name: variant_path(model, "int8", suffix) for name, suffix in QUANTISED.items()}
    for name, path in {**paths, HALF: variant_path(model, "fp16")}.items():
        if name not in rows:  # it did not even run: the report says why
            _delete(path)
            continue
        loss = (torch.accuracy or 0.0) - (rows[name].accuracy or 0.0)
        if loss > MAX_LOSS:
            said.append(f"{name}: loses {100 * loss:.2f} points of accuracy, at most {100 * MAX_LOSS:.1f} are allowed")
            _delete(path)
    return said


def _describe(result: Report, model: Path) -> None:
    """Write into the description of each file what was measured with it."""
    files = {"ONNX Runtime fp32": model, HALF: variant_path(model, "fp16")}
    files |= {name: variant_path(model, "int8", suffix) for name, suffix in QUANTISED.items()}
    for row in result.rows:
        path = files.get(row.name)
        if path is not None and path.is_file() and row.accuracy is not None:
            spec = load_spec(path)
            measured = {"accuracy": round(row.accuracy, 4), "faces": result.count}
            save_spec(replace(spec, metrics={result.faces: measured}), path)


def place(made: Path, model: Path) -> None:
    """Put the new set in place of the old one; forms that only the old one had do not stay beside it."""
    folder = model.parent
    parts = {path: folder / f".{path.name}.part" for path in sorted(made.parent.iterdir())}
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path, part in parts.items():  # what needs room comes first: a full disk leaves the old set whole
                shutil.copyfile(path, part)
            forms = (variant_path(model, "int8", suffix) for suffix in QUANTISED.values())
            for path in (model, variant_path(model, "fp16"), *forms):
                _delete(path)
            for path, part in parts.items():
                part.replace(folder / path.name)
        finally:
            for part in parts.values():
                with contextlib.suppress(OSError):  # the reason that follows is the one that counts
                    part.unlink(missing_ok=True)
    except PermissionError as e:
        raise NoPermission(f"--out {folder}: may not be written; choose another folder") from e
    except OSError as e:
        raise OutputError(f"--out {folder}: could not be written ({e.strerror or e})") from e


def _delete(path: Path) -> None:
    for file in (path, spec_path(path), path.with_suffix(".bin")):
        file.unlink(missing_ok=True)


def licence_of(model: Path) -> str:
    """What the description of a model that stands there now says; "not stated" where there is none."""
    try:
        return load_spec(model).licence
    except LeafError:
        return "not stated"
