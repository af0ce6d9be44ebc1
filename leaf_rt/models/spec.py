"""ModelSpec: what a model file is, in a JSON beside it, checked whenever the model is loaded.

Knows JSON, hashes and the bundled default model; must not know any inference runtime.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from leaf_rt.errors import ModelError, NotFound

SPEC_VERSION = 1
PRECISIONS = ("fp32", "fp16", "int8")
MODELS = Path(__file__).parent
DEFAULT_MODEL = MODELS / "leaf-mobilefacenet.onnx"
# The face detectors as they stand inside the mediapipe 0.10.21 wheel: file and sha256, by the name of their range.
DETECTORS = {
    "short": (
        "face_detection_short_range.tflite",
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
    ),
    "full": (
        "face_detection_full_range_sparse.tflite",
        "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
    ),
}
# Crops of real faces on which every engine built here is compared with its fp32 model: a square picture of tiles.
GOLDEN = MODELS / "golden.jpg"
GOLDEN_ROW, GOLDEN_SIDE, GOLDEN_MARGIN = 16, 64, 0.05


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything the runtime must know to use a model rightly.

    The graph takes raw crops, ``faces`` (N, side, side, 3) uint8 BGR, does colour, resizing and normalisation itself,
    and gives ``probs`` (N, C) float32, rows summing to 1, and ``features`` (N, D) float32.

    Attributes:
        labels: Class names in the order of the output.
        side: Side of the crops, px.
        margin: Margin of the crop geometry, see ``leaf_rt.faces.alignment.template``.
        color: "grey" or "rgb": what the network sees inside the graph.
        net_side: Side to which the graph resizes the crops before the network, px.
        mean: Per-channel mean in [0, 1] that the graph subtracts.
        std: Per-channel deviation by which it divides.
        flip: Whether the graph averages over the crop and its mirror image.
        feature_dim: D.
        precision: "fp32", "fp16", "int8".
        opset: ONNX opset; 0 for a TensorRT plan.
        sha256: Of the model file beside the JSON.
        training: Data, protocol, start and seed, in words and figures.
        metrics: What was measured with this very file, by name.
        licence: Of the weights.
        tensorrt: For plans: version, GPU, compute capability and the like; empty otherwise.
        parent: sha256 of the fp32 model that this file was made from; empty for an fp32 model itself.
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
    version: int = SPEC_VERSION

    def __post_init__(self) -> None:
        def wrong(name: str, wanted: str) -> ModelError:
            return ModelError(f"ModelSpec.{name}: wanted {wanted}, got {getattr(self, name)!r}; export the model again")

        if self.version != SPEC_VERSION:
            raise wrong("version", str(SPEC_VERSION))
        if not all(isinstance(name, str) and name for name in self.labels):
            raise wrong("labels", "names")
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise wrong("labels", "at least two different names")
        if self.side < 16:
            raise wrong("side", "at least 16 px")
        if self.net_side < 16:
            raise wrong("net_side", "at least 16 px")
        if self.feature_dim < 1:
            raise wrong("feature_dim", "at least 1")
        if not 0 <= self.margin <= 1:
            raise wrong("margin", "a share between 0 and 1")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise wrong("std", "three positive numbers, as many as in mean")
        if self.color not in ("grey", "rgb"):
            raise wrong("color", "'grey' or 'rgb'")
        if self.precision not in PRECISIONS:
            raise wrong("precision", " or ".join(PRECISIONS))


def sha256_of(path: Path) -> str:
    """Hex digest of a model file's bytes; for OpenVINO's .xml also of the .bin that holds its weights.

    Raises:
        ModelError: The .bin is missing.
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
    """Where the same model in another precision lies: beside it, as NAME-int8.onnx beside NAME.onnx.

    OpenVINO's own format, suffix ".xml", has a name of its own, for the description beside it: NAME-int8-openvino.xml.
    """
    own = "-openvino" if suffix == ".xml" else ""
    return model.with_name(f"{model.stem}-{precision}{own}{suffix or model.suffix}")


def spec_path(model: Path) -> Path:
    """The JSON beside a model file."""
    return model.with_suffix(".json")


def save_spec(spec: ModelSpec, model: Path) -> None:
    """Write the JSON beside ``model``, readable by people."""
    spec_path(model).write_text(json.dumps(asdict(spec), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_spec(model: Path) -> ModelSpec:
    """Read and check the JSON beside a model, and the model's hash against it.

    Raises:
        NotFound: There is no such model.
        ModelError: The JSON is missing or broken, lacks or has foreign fields, or the hash disagrees.
    """
    if not model.is_file():
        raise NotFound(f"model {model}: no such file; give a file that `leaf-rt export` wrote")
    path = spec_path(model)
    if not path.is_file():
        raise ModelError(f"model {model}: its description {path.name} is missing; keep the two files together")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as e:
        raise ModelError(f"{path}: not valid JSON ({e}); export the model again") from e
    known = {f.name for f in fields(ModelSpec)}
    needed = {f.name for f in fields(ModelSpec) if f.default is MISSING and f.default_factory is MISSING}
    if not isinstance(raw, dict) or set(raw) - known or needed - set(raw):
        odd = sorted(set(raw) - known | needed - set(raw)) if isinstance(raw, dict) else ["not an object"]
        raise ModelError(f"{path}: is no leaf-rt model description (fields that differ: {', '.join(odd)})")
    try:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        spec = ModelSpec(**values)
    except TypeError as e:
        raise ModelError(f"{path}: a field has the wrong type ({e}); export the model again") from e
    actual = sha256_of(model)
    if actual != spec.sha256:
        raise ModelError(
            f"{model}: its bytes do not match {path.name} (sha256 {actual[:12]}..., "
            f"described {spec.sha256[:12]}...); the file is damaged or foreign, export it again"
        )
    return spec
