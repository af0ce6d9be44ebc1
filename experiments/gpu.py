"""``python -m experiments gpu``: training, inference and whole runs on this machine's GPU, against eager PyTorch.

Each part is measured by the benchmark that it has already. A part that cannot run here is left out with its reason. The
same runs on a CPU, so that it can be tried where there is no GPU.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.training_step import bench, noise
from leaf_rt.backends.benchmark import REPEATS, measure_backends
from leaf_rt.backends.networks import NAMES, open_network
from leaf_rt.backends.pytorch.crops import TorchCropper
from leaf_rt.backends.pytorch.graph import OnnxGraph
from leaf_rt.errors import LeafError, first_line
from leaf_rt.faces.alignment import crop_faces
from leaf_rt.faces.blazeface import SIDE
from leaf_rt.faces.crops import plan_crops
from leaf_rt.faces.search import ModelKind
from leaf_rt.models.detectors import DETECTORS, check_detector
from leaf_rt.models.spec import DEFAULT_MODEL
from leaf_rt.system.cpu import cpu_name
from leaf_rt.text import counted
from leaf_rt.types import U8
from train.loop.distributed import DistributedContext
from train.loop.training import Training
from train.recipes.loading import load_recipe
from train.recipes.schema import Recipe

NETWORKS = (("resnet18", 224), ("mobilefacenet", 96))
# A CPU shows that the benchmark works; its figures are in docs/speed.md already.
SMALL = {"run.batch": 4, "run.batch_unlabelled": 4, "run.input_sizes": [32], "data.side": 32, "run.threads": 1}


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement.

    Attributes:
        part: "training", "inference", "detector", "crops", "decoding" or "end to end".
        what: What was measured.
        figure: The result for users, or why there is none.
        values: The result as numbers.
    """

    part: str
    what: str
    figure: str
    values: dict[str, Any]


def measure_gpu(*, cpu: bool = False, clip: Path | None = None, steps: int = 20) -> Iterator[Row]:
    """Measure everything, and yield each row as soon as it is known.

    Args:
        cpu: Measure a small part of it on the CPU.
        clip: A video file for the whole runs; None leaves them out.
        steps: Steps of the training to measure.
    """
    device = "cpu" if cpu else "cuda"
    yield from _training(device, steps)
    yield from _inference(device)
    yield from _detectors(device)
    for faces, height, width in ((1, 360, 640), (8, 1080, 1920)):
        what = f"{counted(faces, 'face')} of a frame of {width}x{height}"
        yield _try("crops", what, lambda n=faces, h=height, w=width: _crops(device, n, h, w))  # type: ignore[misc]
    if clip is not None:
        for decode in ("cpu",) if cpu else ("cpu", "nvdec"):
            yield _try("decoding", f"{clip.name}, {decode}", lambda d=decode: _decoding(clip, d))  # type: ignore[misc]
        for sources in (1, 2) if cpu else (1, 8, 64):
            for detector in ("auto",) if cpu else ("auto", "torch"):
                what = f"{sources} x {clip.name}" + (f", detector {detector}" if detector != "auto" else "")
                yield _try("end to end", what, lambda n=sources, d=detector: _end_to_end(clip, n, d))  # type: ignore[misc]


def report(rows: list[Row], **facts: object) -> str:
    """All rows as one Markdown table, and everything as one line of JSON after it."""
    lines = ["| part | what | figure |", "|---|---|---|"]
    lines += [f"| {row.part} | {row.what} | {row.figure} |" for row in rows]
    values = [{"part": row.part, "what": row.what, **(row.values or {"left_out": row.figure})} for row in rows]
    return "\n".join([*lines, "", json.dumps({"bench": "gpu", **facts, "rows": values}, ensure_ascii=False)])


def machine(*, cpu: bool = False) -> dict[str, object]:
    """What was measured on."""
    about: dict[str, object] = {
        "processor": cpu_name(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if not cpu:
        about |= {"gpu": torch.cuda.get_device_name(0), "cuda": torch.version.cuda}
    return about


def _training(device: str, steps: int) -> Iterator[Row]:
    """LEAF and supervised, two networks, fp32 and bf16; compiled for LEAF in bf16 only, because that takes minutes."""
    kinds = [("leaf", "off", False), ("leaf", "bf16", False), ("leaf", "bf16", True)]
    kinds += [("supervised", "off", False), ("supervised", "bf16", False)]
    if device == "cpu":
        kinds = [("leaf", "off", False)]
    for backbone, side in NETWORKS if device == "cuda" else (("mobilefacenet", 32),):
        for method, amp, compiled in kinds:
            given = {
                "model.backbone": backbone, "model.weights": "", "method.name": method, "run.amp": amp,
                "run.compile": compiled, "run.device": device, "run.input_sizes": [side], "data.side": side,
                "run.batch": 128, "run.batch_unlabelled": 128,
            }  # fmt: skip
            recipe = load_recipe("own", given if device == "cuda" else given | SMALL)
            name = f"{method}, {backbone} at {side} px, {'fp32' if amp == 'off' else amp}"
            yield _try("training", name + (", compiled" if compiled else ""), lambda r=recipe: _step(r, steps))  # type: ignore[misc]


def _step(recipe: Recipe, steps: int) -> tuple[str, dict[str, Any]]:
    values = bench(recipe, steps)
    values["plain_eager_images_per_s"] = values.pop("plain_images_per_s")
    values["idle_share"] = idle = _idle_share(recipe) if recipe.run.device == "cuda" else None
    figure = f"{values['images_per_s']:.0f} images/s, {values['speedup']:.2f} times a plain eager loop in fp32"
    return figure + ("" if idle is None else f", GPU idle {idle:.0%}"), values


def _idle_share(recipe: Recipe, steps: int = 5) -> float:
    """Share of the wall time of some steps in which no kernel runs on the GPU."""
    device = torch.device(recipe.run.device)
    training = Training(recipe, noise(recipe), DistributedContext(0, 1, device), Path())
    side = training.schedule.input_size(0)

    def run(count: int) -> float:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(count):
            training.train_step(side)
            training.state.step += 1
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    run(3)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        wall = run(steps)
    events = profile.events() or []
    busy: float = sum(e.time_range.elapsed_us() for e in events if e.device_type.name == "CUDA") / 1e6
    return round(max(0.0, 1.0 - busy / wall), 3)


def _inference(device: str) -> Iterator[Row]:
    """Every back end at each batch size, and the same graph in eager PyTorch."""
    batches = (1, 4, 8, 32, 64, 256) if device == "cuda" else (1, 4)
    network = OnnxGraph(DEFAULT_MODEL).eval().to(device)

    def eager(faces: U8) -> object:
        with torch.inference_mode():
            probs, features = network(torch.from_numpy(faces).to(device))
            return probs.cpu(), features.cpu()

    try:
        others = {("PyTorch eager", "fp32"): eager}
        measured = measure_backends(DEFAULT_MODEL, batches, repeats=REPEATS if device == "cuda" else 5, others=others)
    except LeafError as e:
        yield Row("inference", DEFAULT_MODEL.name, f"left out: {e}", {})
        return
    base = {row.batch: row.faces_per_s for row in measured.rows if row.runtime == "PyTorch eager"}
    for row in measured.rows:
        figure = f"{row.faces_per_s:.0f} faces/s, p50 {row.latency_ms:.2f} ms, p95 {row.p95_ms:.2f} ms"
        values = {
            "batch": row.batch, "faces_per_s": round(row.faces_per_s, 1), "p50_ms": round(row.latency_ms, 3),
            "p95_ms": round(row.p95_ms, 3), "against_eager": round(row.faces_per_s / base[row.batch], 2),
        }  # fmt: skip
        yield Row("inference", f"{row.runtime} {row.precision}, batch {row.batch}", figure, values)
    for text in measured.left_out:
        yield Row("inference", text.partition(":")[0], f"left out: {text.partition(':')[2].strip()}", {})


def _detectors(device: str) -> Iterator[Row]:
    """One image and four, in every runtime of the face detector."""
    for kind, images, name in product(SIDE, (1, 4), NAMES):
        what = f"{kind} range, {counted(images, 'image')}, {name}"
        yield _try("detector", what, lambda k=kind, i=images, n=name: _detector(device, k, i, n))  # type: ignore[misc]


def _detector(device: str, kind: ModelKind, images: int, runtime: str) -> tuple[str, dict[str, Any]]:
    network = open_network(check_detector(DETECTORS[kind].onnx), runtime)
    batch = np.random.default_rng(0).integers(0, 256, (images, SIDE[kind], SIDE[kind], 3), np.uint8)
    took = _milliseconds(lambda: network(batch), 100 if device == "cuda" else 3)
    return f"{took:.2f} ms on {network.device}", {"images": images, "ms": took}


def _crops(device: str, faces: int, height: int, width: int) -> tuple[str, dict[str, Any]]:
    values = time_crops(device, faces, height, width, 50 if device == "cuda" else 3)
    one, other = values.values()
    return f"{one:.2f} ms one by one on the CPU, {other:.2f} ms at once on {device} with all copies", dict(values)


def time_crops(device: str, faces: int, height: int, width: int, calls: int) -> dict[str, float]:
    """Median times for the crops of a frame, in ms: on the CPU, and on the device with both copies."""
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    centers = rng.uniform((0, 0), (width, height), (faces, 1, 2))
    keypoints = (centers + rng.normal(0, height / 16, (faces, 6, 2))).astype(np.float32)
    cropper = TorchCropper(device)

    def at_once() -> object:
        return cropper(frame, plan_crops(keypoints, 64, 0.05, height, width)[0], 64)

    return {
        "cpu_ms": _milliseconds(lambda: crop_faces(frame, keypoints, 64, 0.05), calls),
        f"{device}_at_once_ms": _milliseconds(at_once, calls),
    }


def _decoding(clip: Path, decode: str) -> tuple[str, dict[str, Any]]:
    values = time_decoding(clip, decode)
    return f"{values['frames_per_s']:.0f} frames/s, {values['cpu_ms']:.2f} ms of the CPU each", dict(values)


def time_decoding(clip: Path, decode: str, **options: Any) -> dict[str, float]:
    """Frames per second, and the CPU time of one in ms, with the conversion to BGR; arguments of ``SourceOptions``."""
    from leaf_rt.sources.base import SourceOptions
    from leaf_rt.sources.opening import open_source

    with open_source(str(clip), SourceOptions(decode=decode, **options)) as source:
        begin, cpu, frames = time.perf_counter(), time.process_time(), 0
        for frame in source:
            _ = frame.image
            frames += 1
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return {"frames_per_s": round(frames / wall, 1), "cpu_ms": round(cpu / frames * 1e3, 2)}


def _milliseconds(run: Callable[[], object], calls: int) -> float:
    """Median time of some calls after three others, ms."""
    took = []
    for _ in range(calls + 3):
        begin = time.perf_counter()
        run()
        took.append((time.perf_counter() - begin) * 1e3)
    return round(statistics.median(took[3:]), 3)


def _end_to_end(clip: Path, sources: int, detector: str) -> tuple[str, dict[str, Any]]:
    """Decode, detect and classify the same clip in several sources at once; nothing is written."""
    from leaf_rt.faces.tracker import FaceTracker
    from leaf_rt.faces.video_detector import VideoFaceDetector
    from leaf_rt.recognition.config import RecognitionConfig
    from leaf_rt.recognition.pipeline import Pipeline
    from leaf_rt.sources.base import Target
    from leaf_rt.stream.options import RunOptions
    from leaf_rt.stream.runner import run
    from leaf_rt.types import SourceInfo

    config = RecognitionConfig()
    backend = config.open_backend()

    def pipeline(_: SourceInfo) -> Pipeline:
        options = config.pipeline_options(backend)
        return Pipeline(VideoFaceDetector(detector=detector), FaceTracker(), backend, config.smooth, options)

    try:
        stats = run([Target(str(clip))] * sources, pipeline, backend, options=RunOptions(handle_signals=False))
    finally:
        backend.close()
    return f"{stats.fps:.0f} frames/s in all", {"sources": sources, "frames_per_s": round(stats.fps, 1)}


def _try(part: str, what: str, measure: Callable[[], tuple[str, dict[str, Any]]]) -> Row:
    """A row; one that cannot be measured here does not cost the others."""
    try:
        return Row(part, what, *measure())
    except (LeafError, ImportError, RuntimeError) as e:  # also CUDA's errors, such as too little memory
        return Row(part, what, f"left out: {first_line(e)}", {})
