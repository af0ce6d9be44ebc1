"""The face detector in ONNX Runtime, OpenVINO and PyTorch finds what MediaPipe's Tasks detector finds."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from leaf_rt.backends import networks
from leaf_rt.backends.networks import NAMES, RUNTIMES, open_network
from leaf_rt.errors import BackendError, ModelError
from leaf_rt.faces import detectors
from leaf_rt.faces.blazeface import SIDE, anchors, letterbox
from leaf_rt.faces.detectors import check_answers, choose_detector, difference, load_reference
from leaf_rt.faces.mediapipe_detector import NOTICE
from leaf_rt.faces.search import ModelKind
from leaf_rt.models.detectors import DETECTORS, check_detector
from leaf_rt.system.native_stderr import suppress_native_stderr
from leaf_rt.types import U8, Detections
from train.data.cropper import BORDER, DETECTION_SIDE, MIN_CONFIDENCE

KINDS: tuple[ModelKind, ...] = ("short", "full")
MEDIA_FRAMES = 10  # of each clip, spread over it
TORCH_STEP = 7  # PyTorch looks at every 7th image: on a CPU it needs four times as long as the others
Find = Callable[[U8], Detections]


class Tasks:
    """MediaPipe's detector, called as its documentation says. Boxes are in whole px and inside the image."""

    def __init__(self, kind: ModelKind, min_confidence: float) -> None:
        import mediapipe
        from mediapipe.tasks.python import vision

        data = check_detector(DETECTORS[kind].tflite).read_bytes()
        options = vision.FaceDetectorOptions(
            base_options=mediapipe.tasks.BaseOptions(model_asset_buffer=data),
            running_mode=vision.RunningMode.IMAGE,
            min_detection_confidence=min_confidence,
        )
        self._mediapipe = mediapipe
        with suppress_native_stderr():
            self._detector = vision.FaceDetector.create_from_options(options)

    def __call__(self, image: U8) -> Detections:
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        picture = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=rgb)
        with suppress_native_stderr():
            found = self._detector.detect(picture).detections
        boxes = [f.bounding_box for f in found]
        points = [[(p.x * image.shape[1], p.y * image.shape[0]) for p in f.keypoints] for f in found]
        return Detections(
            np.array([[b.origin_x, b.origin_y, b.origin_x + b.width, b.origin_y + b.height] for b in boxes], np.float32)
            .reshape(-1, 4),
            np.array([f.categories[0].score for f in found], np.float32),
            np.array(points, np.float32).reshape(-1, 6, 2),
            np.zeros((len(found), 0), np.float32),
        )  # fmt: skip

    def close(self) -> None:
        with suppress_native_stderr():
            self._detector.close()


def as_tasks(found: Detections, image: U8) -> Detections:
    """Cut boxes to whole px and to the image, as MediaPipe's detection_transformation_calculator.cc does."""
    limit = np.array(image.shape[1::-1], np.float32)
    corner = np.clip(np.trunc(found.xyxy[:, :2]), 0, limit)
    size = np.clip(np.trunc(found.xyxy[:, 2:] - found.xyxy[:, :2]), 0, limit)
    return replace(found, xyxy=np.hstack([corner, corner + size]).astype(np.float32))


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> ModelKind:
    return request.param


def tasks(kind: ModelKind, min_confidence: float) -> Iterator[Tasks]:
    detector = Tasks(kind, min_confidence)
    yield detector
    detector.close()


def media_images(media: Path) -> Iterator[tuple[str, U8]]:
    """All pictures of the folder and frames of its clips, as they are and shrunk as the search shrinks them."""
    for path in sorted(media.iterdir()):
        images: list[Any] = []
        if path.suffix in (".mp4", ".mov"):
            with av.open(str(path)) as container:
                frames = container.streams.video[0].frames
                step = max(frames // MEDIA_FRAMES, 1)
                for i, frame in enumerate(container.decode(video=0)):
                    if i % step == 0:
                        images.append(frame.to_ndarray(format="bgr24"))
        elif path.suffix in (".jpg", ".jpeg", ".png"):
            images = [cv2.imread(str(path))]
        for number, image in enumerate(images):
            scale = 512 / max(image.shape[:2])
            for size, picture in (("whole", image), ("512 px", cv2.resize(image, None, fx=scale, fy=scale))):
                yield f"{path.name}, frame {number}, {size}", np.asarray(picture, np.uint8)


def training_images(media: Path) -> Iterator[tuple[str, U8]]:
    """500 faces of FERPlus with a border, enlarged, as data preparation does it."""
    with zipfile.ZipFile(media.parent / "data" / "ferplus" / "images.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        for name in names[:: len(names) // 500][:500]:
            image = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR)
            border = round(BORDER * max(image.shape[:2]))  # 12 px
            image = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REPLICATE)
            image = cv2.resize(image, (DETECTION_SIDE, DETECTION_SIDE), interpolation=cv2.INTER_CUBIC)
            yield name, np.asarray(image, np.uint8)


def compare(images: Iterator[tuple[str, U8]], kind: ModelKind, min_confidence: float) -> tuple[int, int]:
    """Compare every runtime with MediaPipe; return the number of images and of faces."""
    models = {name: choose_detector(name).open(kind, min_confidence) for name in NAMES}
    wrong: dict[str, str] = {}
    count = faces = 0
    for reference in tasks(kind, min_confidence):
        for name, image in images:
            expected = reference(image)
            for runtime, model in models.items():
                if runtime == "torch" and count % TORCH_STEP:
                    continue
                (found,) = model.find([image])
                if problem := difference(as_tasks(found, image), expected):
                    wrong[f"{name}, {runtime}"] = problem
            count, faces = count + 1, faces + len(expected)
    assert wrong == {}
    return count, faces


@pytest.mark.slow
def test_all_media_show_the_faces_that_mediapipe_finds(media, kind):
    count, faces = compare(media_images(media), kind, 0.4)
    assert count > 100
    assert faces > 50


@pytest.mark.slow
def test_500_training_pictures_show_the_faces_that_mediapipe_finds(media, kind):
    count, faces = compare(training_images(media), kind, MIN_CONFIDENCE)
    assert count == 500
    assert faces > 250


@pytest.mark.parametrize("runtime", NAMES)
def test_a_batch_gives_what_single_images_give(runtime, kind):
    model = choose_detector(runtime).open(kind)
    image, _ = load_reference()
    images = [image, image[:, ::-1], np.zeros((40, 500, 3), np.uint8), image[20:], cv2.resize(image, (300, 300))]
    batch = model.find(images)
    for together, picture in zip(batch, images, strict=True):
        (alone,) = model.find([picture])
        assert len(together) == len(alone)
        assert together.keypoints == pytest.approx(alone.keypoints, abs=1e-3)
    assert [len(found) for found in batch[:3]] == [1, 1, 0]
    assert [len(found) for found in model.find([image] * 19)] == [1] * 19  # more than one call takes
    assert model.find([]) == []


def test_the_anchors_are_the_centers_of_the_cells(kind):
    grids = {"short": ((16, 2), (8, 6)), "full": ((48, 1),)}[kind]
    expected = [
        ((x + 0.5) / cells, (y + 0.5) / cells)
        for cells, count in grids
        for y in range(cells)
        for x in range(cells)
        for _ in range(count)
    ]
    assert anchors(kind) == pytest.approx(np.array(expected, np.float32))


@pytest.mark.parametrize("size", [(288, 512), (512, 288), (256, 256), (128, 128), (77, 301), (1, 500), (30, 20)])
@pytest.mark.parametrize("side", list(SIDE.values()))
def test_letterbox_samples_the_image_in_steps_of_a_32nd_of_a_pixel(size, side):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    height, width = size
    longer = max(size)
    steps = [np.rint((np.arange(side) * longer / side - (longer - n) / 2) * 32).astype(int) for n in size]
    padded = np.zeros((height + 2, width + 2, 3), np.int64)
    padded[1:-1, 1:-1] = image
    (row, fy), (column, fx) = (np.divmod(step, 32) for step in steps)
    inside = np.outer((row >= -1) & (row < height), (column >= -1) & (column < width))
    row, column = row.clip(-1, height - 1) + 1, column.clip(-1, width - 1) + 1
    total = np.zeros((side, side, 3), np.int64)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weights = np.outer(fy if down else 32 - fy, fx if right else 32 - fx)
        total += padded[np.ix_(row + down, column + right)] * weights[..., None]
    expected = np.where(inside[..., None], (total + 512) >> 10, 0)
    out = np.full((side, side, 3), 7, np.uint8)
    letterbox(image, out)
    assert np.abs(out.astype(int) - expected).max() == 0


def test_auto_takes_the_next_runtime_where_answers_differ_and_says_so(monkeypatch, leaf, face):
    real = networks.open_network

    def broken(path: Path, runtime: str) -> networks.Network:
        network = real(path, runtime)
        return (
            (lambda images: [out * np.float32(1.02) for out in network(images)]) if runtime == RUNTIMES[0] else network
        )

    monkeypatch.setattr(detectors, "open_network", broken)
    detectors._automatic.cache_clear()
    try:
        choice = choose_detector("auto")
        assert choice.name == "openvino"
        assert "onnxruntime: its answers differ from those of MediaPipe (short range:" in choice.notes[0]
        done = leaf("image", face, "--no-save-picture", "--no-jsonl")
        assert "the face detector does not use onnxruntime: its answers differ" in " ".join(done.err.split())
        with pytest.raises(BackendError, match="differ from those of MediaPipe"):
            check_answers(choose_detector("onnxruntime").open)
    finally:
        detectors._automatic.cache_clear()


def test_without_a_runtime_the_error_gives_every_reason(monkeypatch):
    def missing(path: Path, runtime: str) -> networks.Network:
        raise BackendError(f"{runtime} is gone")

    monkeypatch.setattr(detectors, "open_network", missing)
    detectors._automatic.cache_clear()
    with pytest.raises(BackendError, match=r"onnxruntime: onnxruntime is gone; openvino: openvino is gone"):
        choose_detector("auto")
    with pytest.raises(BackendError, match="onnxruntime is gone"):
        choose_detector("onnxruntime")
    with pytest.raises(BackendError, match="--detector dlib: unknown; choose one of auto, onnxruntime, openvino"):
        choose_detector("dlib")


def test_sources_share_one_network_per_process(kind):
    path = check_detector(DETECTORS[kind].onnx)
    assert open_network(path, "onnxruntime") is open_network(path, "onnxruntime")


@pytest.mark.slow
def test_pytorch_runs_the_detector_when_it_is_named(leaf, face, tmp_path, monkeypatch):
    found = []
    for name in ("onnxruntime", "torch"):
        done = leaf("image", face, "--no-save-picture", "--jsonl", tmp_path / f"{name}.jsonl", "--detector", name)
        assert done.code == 0
        found.append(json.loads((tmp_path / f"{name}.jsonl").read_text()))
    assert "PyTorch" in done.err
    assert "requested with --detector" in " ".join(done.err.split())
    assert found[1]["box"] == pytest.approx(found[0]["box"], abs=0.1)
    assert "torch" not in RUNTIMES  # so "auto" never takes it
    monkeypatch.setattr("leaf_rt.backends.registry.BackendEntry.version", lambda _: None)
    monkeypatch.setattr(networks, "_opened", {})
    done = leaf("image", face, "--no-save-picture", "--no-jsonl", "--detector", "torch")
    assert done.code == 10
    assert 'not installed; install it from a clone of leaf-rt with: pip install ".[train]"' in " ".join(
        done.err.split()
    )


def test_a_damaged_reference_is_an_error(monkeypatch, tmp_path):
    reference = tmp_path / "reference.json"
    reference.with_suffix(".png").write_bytes(detectors.DETECTOR_REFERENCE.with_suffix(".png").read_bytes())
    monkeypatch.setattr(detectors, "DETECTOR_REFERENCE", reference)
    for text in ("", "[]", "{}", json.dumps({"short": {}, "full": {}})):
        reference.write_text(text)
        with pytest.raises(ModelError, match="missing or damaged; install leaf-rt again"):
            load_reference()


def test_mediapipe_says_what_it_sends(leaf, face):
    done = leaf("image", face, "--no-save-picture", "--no-jsonl", "--detector", "mediapipe")
    assert done.code == 0
    assert NOTICE in " ".join(done.err.split())


def test_the_bundled_networks_are_what_the_converter_makes(tmp_path):
    from engines.detectors import make_detectors

    result = make_detectors(tmp_path)
    for name, sha256 in result.sha256.items():
        assert sha256 == DETECTORS[name].onnx[1], f"{name}: run `python -m engines detectors`"
        graph = onnx.load(str(tmp_path / DETECTORS[name].onnx[0])).graph
        weights = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        large = [t for t in weights.values() if t.size > 64 and t.dtype == np.float32]
        assert len(large) <= 1  # of the first layer; all others are stored as float16
        assert {n.op_type for n in graph.node} <= {
            "Add", "Cast", "Concat", "Conv", "DepthToSpace", "Identity", "MaxPool", "Relu", "Reshape", "Resize", "Sub",
            "Transpose",
        }  # fmt: skip


def test_the_converter_refuses_what_it_does_not_know(monkeypatch):
    from engines import tflite_import

    data = check_detector(DETECTORS["short"].tflite).read_bytes()
    monkeypatch.delattr(tflite_import._Converter, "_max_pool_2d")
    with pytest.raises(ValueError, match="the operator MAX_POOL_2D is not supported"):
        tflite_import.convert(data)
