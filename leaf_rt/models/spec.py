"""``ModelSpec``: the description of a model file, stored as JSON beside it and checked whenever the model is loaded.

Knows JSON, hashes and the bundled models; must not know any inference runtime.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from leaf_rt.errors import ModelError, NoPermission, NotFound
from leaf_rt.labels import MAX_LABELS
from leaf_rt.system.parsing import is_json, read_json
from leaf_rt.text import printable

SPEC_VERSION = 1
_MAX_SPEC = 16 << 20  # bytes of a description
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
MODELS = Path(__file__).parent
DEFAULT_MODEL = MODELS / "leaf-mobilefacenet.onnx"
# Crops of real faces, on which every engine is compared with its fp32 model: a square picture of tiles.
GOLDEN = MODELS / "golden.jpg"
GOLDEN_ROW, GOLDEN_SIDE, GOLDEN_MARGIN = 16, 64, 0.05


# Names of the fields of ``ModelSpec``, their type, and the type in words.
_KINDS: tuple[tuple[tuple[str, ...], type | tuple[type, ...], str], ...] = (
    (("side", "net_side", "feature_dim", "opset", "version"), int, "a whole number"),
    (("color", "precision", "sha256", "licence", "parent"), str, "a text"),
    (("labels", "mean", "std", "answers"), tuple, "a list"),
    (("training", "metrics", "tensorrt", "calibration"), dict, "an object"),
    (("margin",), (int, float), "a number"),
    (("flip",), bool, "true or false"),
)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def check_metrics(metrics: object) -> None:
    """Check the numbers of a model that are shown to people.

    Args:
        metrics: Results by name of the data set, as in ``ModelSpec.metrics``.

    Raises:
        ValueError: One of them is no such number; the text names it.
    """
    if not isinstance(metrics, dict):
        raise ValueError("metrics: wanted an object")
    for data, measured in metrics.items():
        for name, largest in (("accuracy", 1.0), ("calibration_error", 1.0), ("faces", 1e15)):
            value = measured.get(name) if isinstance(measured, dict) else None
            if value is not None and not (_is_number(value) and 0 <= value <= largest):
                raise ValueError(f"metrics, {printable(str(data))}: {name} must be a number from 0 to {largest:g}")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything the runtime must know to use a model.

    The input of the graph is ``faces`` (N, side, side, 3) uint8 BGR, raw crops; the graph itself converts colours,
    resizes and normalizes. Its outputs are ``probs`` (N, C) float32, whose rows sum to 1, and ``features`` (N, D)
    float32.

    Attributes:
        labels: Class names in the order of ``probs``.
        side: Side of the crops, px.
        margin: Margin of the crops as a share of their side, see ``leaf_rt.faces.alignment.template``.
        color: Input of the network inside the graph: "grey" or "rgb".
        net_side: Side to which the graph resizes the crops before the network, px.
        mean: Per-channel mean that the graph subtracts, for pixels in [0, 1].
        std: Per-channel standard deviation by which the graph divides.
        flip: Whether the graph averages the predictions of the crop and its mirror image.
        feature_dim: Number of features D.
        precision: "fp32", "fp16", "bf16" or "int8".
        opset: ONNX opset; 0 for a TensorRT plan or a program of PyTorch.
        sha256: Hash of the model file.
        training: Data, protocol, initial weights and seed.
        metrics: Results measured with this file, by name of the data set.
        licence: Licence of the weights.
        tensorrt: What a TensorRT plan depends on, such as version and GPU; empty for other files.
        parent: sha256 of the fp32 model that this file was made from; empty for the fp32 model itself.
        answers: What the fp32 model answers for the first stored crops: rows of probabilities. Only in the description
            of a file that runs without that model, such as a TensorRT plan, and must be checked against it.
        calibration: How its answers become shares that hold; see ``leaf_rt.models.calibration``. Empty if the model was
            not calibrated.
        version: Version of this format.
    """

    labels: tuple[str, ...]
    side: int
    margin: float
    color: str
    net_side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    flip: bool
    feature_dim: int
    precision: str
    opset: int
    sha256: str
    training: dict[str, Any]
    metrics: dict[str, Any]
    licence: str
    tensorrt: dict[str, Any] = field(default_factory=dict)
    parent: str = ""
    answers: tuple[Any, ...] = ()
    calibration: dict[str, Any] = field(default_factory=dict)
    version: int = SPEC_VERSION

    def __post_init__(self) -> None:
        def wrong(name: str, expected: str) -> ModelError:
            value = getattr(self, name)
            got = printable(repr(value)[:200])
            return ModelError(f"ModelSpec.{name}: wanted {expected}, got {got}; export the model again")

        for names, kind, expected in _KINDS:
            for name in names:
                value = getattr(self, name)
                if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                    raise wrong(name, expected)
        if not all(_is_number(value) for value in (self.margin, *self.mean, *self.std)):
            raise wrong("std", "finite numbers, as in mean and margin")
        if self.version != SPEC_VERSION:
            raise wrong("version", str(SPEC_VERSION))
        if not all(isinstance(name, str) and name for name in self.labels):
            raise wrong("labels", "names")
        for name in ("labels", "training", "metrics", "licence", "tensorrt"):
            if not is_json(getattr(self, name)):
                raise wrong(name, "finite numbers and text in UTF-8")
        try:
            check_metrics(self.metrics)
        except ValueError as e:
            raise wrong("metrics", str(e)) from e
        if any(printable(name) != name for name in self.labels):
            raise wrong("labels", "names without control characters")
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise wrong("labels", "at least two different names")
        if len(self.labels) > MAX_LABELS:
            raise wrong("labels", f"at most {MAX_LABELS} names")
        if self.side < 16:
            raise wrong("side", "at least 16 px")
        if self.net_side < 16:
            raise wrong("net_side", "at least 16 px")
        if self.feature_dim < 1:
            raise wrong("feature_dim", "at least 1")
        if not 0 <= self.margin <= 1:
            raise wrong("margin", "a number between 0 and 1")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise wrong("std", "three positive numbers, as many as in mean")
        if self.color not in ("grey", "rgb"):
            raise wrong("color", "'grey' or 'rgb'")
        if not all(isinstance(row, list) and all(map(_is_number, row)) for row in self.answers):
            raise wrong("answers", "rows of numbers")
        if self.precision not in PRECISIONS:
            raise wrong("precision", " or ".join(PRECISIONS))


def sha256_of(path: Path) -> str:
    """Hash of a model file. For an OpenVINO .xml file, it includes the .bin file with the weights.

    Returns:
        The hex digest.

    Raises:
        ModelError: The .bin file is missing.
    """
    files = [path]
    if path.suffix == ".xml":
        files.append(path.with_suffix(".bin"))
        if not files[1].is_file():
            raise ModelError(f"model {path}: its weights {files[1].name} are missing; keep the files together")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as f:
            while block := f.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def variant_path(model: Path, precision: str, suffix: str = "") -> Path:
    """The path of a model in another precision: NAME-int8.onnx for NAME.onnx.

    A file in the format of OpenVINO or PyTorch is called NAME-int8-openvino.xml or NAME-fp16-torch.pt2, so that its
    JSON description has its own name.

    Args:
        model: The fp32 model.
        precision: The other precision.
        suffix: Suffix of the other file; "" for that of ``model``.
    """
    runtime = {".xml": "-openvino", ".pt2": "-torch"}.get(suffix, "")
    return model.with_name(f"{model.stem}-{precision}{runtime}{suffix or model.suffix}")


def spec_path(model: Path) -> Path:
    """The path of the JSON file beside a model file."""
    return model.with_suffix(".json")


def save_spec(spec: ModelSpec, model: Path) -> None:
    """Write the JSON file beside ``model``."""
    spec_path(model).write_text(json.dumps(asdict(spec), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_spec(model: Path) -> ModelSpec:
    """Read the description of a model, and check it and the hash of the model file.

    Raises:
        NotFound: The model file does not exist.
        ModelError: The JSON file is missing or invalid, or the hash is wrong.
    """
    if not model.name or not model.is_file():
        raise NotFound(f"model {model}: no such file; give a file that `leaf-rt export` has written")
    path = spec_path(model)
    if not path.is_file():
        raise ModelError(f"model {model}: its description {path.name} is missing; keep the two files together")
    try:
        raw = read_json(path, _MAX_SPEC)
    except ValueError as e:
        raise ModelError(f"{path}: not valid JSON ({e}); export the model again") from e
    except PermissionError as e:
        raise NoPermission(f"{path}: no permission to read it; change its permissions") from e
    except OSError as e:
        raise ModelError(f"{path}: cannot be read ({e.strerror}); export the model again") from e
    known = {f.name for f in fields(ModelSpec)}
    required = {f.name for f in fields(ModelSpec) if f.default is MISSING and f.default_factory is MISSING}
    if not isinstance(raw, dict) or set(raw) - known or required - set(raw):
        differing = sorted(set(raw) - known | required - set(raw)) if isinstance(raw, dict) else ["not an object"]
        raise ModelError(f"{path}: is not a leaf-rt model description (fields that differ: {', '.join(differing)})")
    try:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        spec = ModelSpec(**values)
    except TypeError as e:
        raise ModelError(f"{path}: a field has the wrong type ({e}); export the model again") from e
    actual = sha256_of(model)
    if actual != spec.sha256:
        raise ModelError(
            f"{model}: its bytes do not match {path.name} (sha256 {actual[:12]}..., "
            f"described {spec.sha256[:12]}...); the file is damaged or was changed; export it again"
        )
    return spec
