"""Prove on one CUDA GPU, without TensorRT, what no CPU can show. Needs no network, and less than six minutes.

    PYTHONPATH=. python tests/device_check.py          # on the machine with the GPU
    PYTHONPATH=. python tests/device_check.py --cpu    # here, to try the checks themselves

Each check prints one line of JSON, and a failure does not stop the others; the exit code is 1 if one failed. The lines
also go to checks.jsonl in $OUT, or in the folder that --out names.

The check of NVIDIA's video decoder needs PyAV, and is left out where it is missing. To take it along, before:

    pip download --python-version 3.12 --only-binary=:all: --no-deps av -d wheels    # 35 MB
    pip install --no-index --no-deps wheels/av-*.whl                                 # on the machine with the GPU
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from device_decoding import LeftOut, decoding
from device_engine import engine_runner, faces_per_s
from train_fakes import write_folder

from experiments.gpu import time_crops
from experiments.training_step import bench, noise
from leaf_rt.backends.networks import open_network
from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.parity import compare, golden_faces
from leaf_rt.backends.pytorch.crops import TorchCropper
from leaf_rt.backends.reference import fp32_answers
from leaf_rt.faces.alignment import crop_faces
from leaf_rt.faces.blazeface import SIDE
from leaf_rt.faces.crops import plan_crops
from leaf_rt.faces.detectors import check_answers, choose_detector
from leaf_rt.models.detectors import DETECTORS, check_detector
from leaf_rt.models.spec import DEFAULT_MODEL, load_spec
from leaf_rt.types import Prediction
from train.entry import train
from train.loop.distributed import DistributedContext
from train.loop.run_log import read_log
from train.loop.training import Training
from train.recipes.loading import load_recipe

Values = dict[str, Any]
START = time.monotonic()
FIRST = 3  # losses that are compared with those of the CPU
BUDGET = 330.0  # s; checks that have not begun by then are left out
LIMIT = 360.0  # s; then the process ends, and says where it was


class Checks:
    """Runs checks one after the other, and reports each."""

    def __init__(self, out: Path, budget: float = float("inf")) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.log, self.failed, self.budget = out / "checks.jsonl", 0, budget

    def run(self, name: str, check: Callable[[], Values]) -> None:
        begin = time.monotonic()
        if begin - START > self.budget:
            self.say(name, ok=None, error="left out: the time is up")
            return
        try:
            values = {"ok": True, **check()}
        except LeftOut as e:
            values = {"ok": None, "error": f"left out: {e}"}
        except Exception as e:  # noqa: BLE001 - the others must run
            self.failed += 1
            values = {"ok": False, "error": repr(e)[:400], "trace": traceback.format_exc()[-900:]}
        self.say(name, seconds=round(time.monotonic() - begin, 1), **values)

    def say(self, name: str, **values: object) -> None:
        line = json.dumps({"check": name, **values}, default=str)
        print(line, flush=True)  # noqa: T201
        with self.log.open("a", encoding="utf-8") as log:
            log.write(line + "\n")


def environment(device: str) -> Values:
    found = {}
    for name in ("tensorrt", "onnxruntime", "cuda.bindings", "cv2", "av", "mediapipe", "platformdirs"):
        try:
            module = __import__(name, fromlist=["x"])
            found[name] = getattr(module, "__version__", "installed")
        except ImportError:
            found[name] = "missing"
    about: Values = {"python": sys.version.split()[0], "torch": torch.__version__, "cores": os.cpu_count(), **found}
    if device == "cuda":
        from leaf_rt.backends.tensorrt.cuda import driver_problem, probe

        assert driver_problem() is None
        about |= {"gpu": str(probe()), "bf16": torch.cuda.is_bf16_supported(including_emulation=False)}
    return about


def back_end(device: str, precision: str, batches: tuple[int, ...]) -> Values:
    """`--backend torch` on the bundled model. It checks every batch size when it opens; here in any order."""
    begin = time.perf_counter()
    # On a CPU that others use, two threads wait for each other most of the time.
    backend = open_backend(DEFAULT_MODEL, "torch", 0 if device == "cuda" else 1, precision=precision)
    about: Values = {"reason": backend.reason, "seconds_to_open": round(time.perf_counter() - begin, 2)}
    try:
        assert backend.device == device
        faces = golden_faces(backend.spec.side)
        reference = fp32_answers(DEFAULT_MODEL, load_spec(DEFAULT_MODEL))
        for count in (*batches, *reversed(batches), 3):
            crops, probs, features = (
                np.roll(rows, count, 0)[:count] for rows in (faces, reference.probs, reference.features)
            )
            parity = compare(Prediction(probs, features), backend.infer(crops))
            assert parity.probs < 0.02, f"batch {count}: {parity}"
        problems: list[BaseException] = []

        def elsewhere() -> None:
            try:
                backend.infer(faces[:5])
            except BaseException as e:  # noqa: BLE001 - of another thread
                problems.append(e)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert not problems, problems
        about["faces_per_s"] = {n: faces_per_s(backend.infer, faces, n, 30 if device == "cuda" else 1) for n in batches}
        if device == "cuda":
            about["GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    finally:
        backend.close()
    return about


def frame_and_faces(height: int = 1080, width: int = 1920) -> tuple[np.ndarray, np.ndarray]:
    """A frame (H, W, 3) of soft noise, and the keypoints of 8 faces anywhere in it."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (height // 12, width // 12, 3), dtype=np.uint8)
    keypoints = rng.uniform((0, 0), (width, height), (8, 1, 2)) + rng.normal(0, height / 13, (8, 6, 2))
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), keypoints.astype(np.float32)


def crops(device: str) -> Values:
    """All crops of a frame at once: the same as one by one on the CPU, and how long both take."""
    frame, keypoints = frame_and_faces()
    wanted = crop_faces(frame, keypoints, 64, 0.05)
    got = TorchCropper(device)(frame, plan_crops(keypoints, 64, 0.05, *frame.shape[:2])[0], 64)
    difference = int(np.abs(got.astype(int) - wanted.astype(int)).max())
    assert difference <= 1, difference
    sizes = ((1, 360, 640), (8, 1080, 1920)) if device == "cuda" else ((8, 90, 160),)
    calls = 50 if device == "cuda" else 1
    return {"difference": difference, **{f"{n} at {h}p": time_crops(device, n, h, w, calls) for n, h, w in sizes}}


def detector(device: str) -> Values:
    """`--detector torch` finds what MediaPipe finds in the stored picture, and how long a call takes, in ms."""
    choice = choose_detector("torch")
    check_answers(choice.open)
    about: Values = {"reason": choice.reason}
    assert ("GPU" in choice.reason) == (device == "cuda")
    for kind, side in SIDE.items():
        path = check_detector(DETECTORS[kind].onnx)
        images = np.random.default_rng(0).integers(0, 256, (8, side, side, 3), np.uint8)
        for name in ("torch", "onnxruntime"):
            network = open_network(path, name)
            counts, calls = ((1, 4, 8), 30) if device == "cuda" else ((1,), 1)
            per_s = {n: faces_per_s(network, images, n, calls) for n in counts}
            about[f"{kind}, {name}, images/s"] = per_s
    return about


def side_by_side(device: str) -> Values:
    """Crops, detection and classification of four threads at once give what each gives alone."""
    frame, keypoints = frame_and_faces() if device == "cuda" else frame_and_faces(180, 320)
    cropper, plans = TorchCropper(device), plan_crops(keypoints, 64, 0.05, *frame.shape[:2])[0]
    network = open_network(check_detector(DETECTORS["short"].onnx), "torch")
    images = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), np.uint8)
    runtime, precision = ("torch", "fp16") if device == "cuda" else ("onnxruntime", "fp32")
    backend = open_backend(DEFAULT_MODEL, runtime, precision=precision)
    faces = golden_faces(backend.spec.side)[:5]
    problems: list[str] = []
    alone = [cropper(frame, plans, 64), *network(images), backend.infer(faces).probs]

    def work(lock: threading.Lock) -> None:
        try:
            for _ in range(50 if device == "cuda" else 1):
                found = [cropper(frame, plans, 64), *network(images)]
                with lock:  # a back end is not thread-safe
                    found.append(backend.infer(faces).probs)
                worst = [float(np.abs(a.astype(float) - b).max()) for a, b in zip(found, alone, strict=True)]
                if max(worst) > 1e-3:
                    problems.append(str(worst))
        except BaseException as e:  # noqa: BLE001 - of another thread
            problems.append(repr(e))

    lock = threading.Lock()
    threads = [threading.Thread(target=work, args=(lock,)) for _ in range(4)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    backend.close()
    assert not problems, problems[:3]
    return {"seconds_together": round(time.perf_counter() - begin, 2)}


def losses(folder: Path, device: str, steps: int, amp: str, **more: object) -> list[float]:
    """The loss of every step of a short run of LEAF without random numbers of the device."""
    given = {
        "data.cache": str(folder / "cache"), "data.side": 64, "data.align": False, "split.kind": "balanced",
        "split.labels": 60, "model.weights": "", "model.dropout": 0.0, "method.noise": False,
        "method.unsupervised_start_step": 0, "optim.schedule": "constant", "optim.warmup": 0, "run.epochs": 1,
        "run.steps": steps, "run.device": device, "run.amp": amp, "run.log_every": 1, "run.compare": "none", **more,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder) as out:
        train("own", data=folder / "data", out=Path(out) / "run", overrides=given)
        return [record["loss"] for record in read_log(Path(out) / "run") if record["event"] == "step"]


def leaf(folder: Path, device: str, steps: int, amp: str, tolerance: float, **more: object) -> Values:
    """LEAF on the device: the first losses are those of the CPU, and the loss falls."""
    wanted = losses(folder, "cpu", FIRST, "off", **more)
    begin = time.perf_counter()
    got = losses(folder, device, steps, amp, **more)
    seconds = time.perf_counter() - begin
    differences = [abs(a - b) / abs(a) for a, b in zip(wanted, got, strict=False)]
    about = {
        "cpu": wanted,
        "first": got[:FIRST],
        "last": got[-1],
        "steps": len(got),
        "seconds_in_all": round(seconds, 1),
    }
    assert np.isfinite(got).all(), about
    assert len(differences) == FIRST, about
    assert max(differences) < tolerance, about
    if steps >= 100:
        assert np.mean(got[-20:]) < np.mean(got[:20]), about
    return {**about, "largest_difference": max(differences)}


def stalls(device: str, **small: object) -> Values:
    """Steps of LEAF wait for the GPU nowhere: PyTorch raises an error where the host would read from it."""
    recipe = load_recipe("own", {"model.weights": "", "run.device": device, "run.amp": "off", **small})
    training = Training(recipe, noise(recipe), DistributedContext(0, 1, torch.device(device)), Path())
    side, steps = training.schedule.input_size(0), 5 if device == "cuda" else 2
    try:
        for step in range(steps + 2):
            if step == 2 and device == "cuda":  # cuDNN has chosen its kernels by then
                torch.cuda.set_sync_debug_mode("error")
            training.train_step(side)
            training.state.step += 1
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    return {"steps": steps}


def speed(device: str, **more: object) -> Values:
    given = {"model.weights": "", "run.device": device, **{k.replace("__", "."): v for k, v in more.items()}}
    return bench(load_recipe("own", given), 10)


def process(rank: int, port: int, device: str) -> None:
    """One of two processes on one GPU; with gloo, because NCCL refuses to share a GPU."""
    import torch.distributed as dist

    from train.loop import distributed

    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    start = dist.init_process_group
    dist.init_process_group = lambda backend, **options: start("gloo", **options)
    small = {"run.batch": 4, "run.batch_unlabelled": 4, "run.input_sizes": [32]} if device == "cpu" else {}
    recipe = load_recipe("own", {"run.device": device, "model.weights": "", "run.amp": "off", **small})
    with distributed.distributed_context(recipe.run.device) as context:
        training = Training(recipe, noise(recipe, 128), context, Path())
        for _ in range(2):
            training.train_step(training.schedule.input_size(0))
            training.state.step += 1
        total = sum(float(p.double().abs().sum()) for p in training.state.student.parameters())
        print(json.dumps({"rank": rank, "sum": total}), flush=True)  # noqa: T201


def two_processes(device: str) -> Values:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--port", str(port)] + (["--cpu"] if device == "cpu" else [])
    both = [
        subprocess.Popen(
            [sys.executable, __file__, *options, "--rank", str(rank)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    said = []
    for one in both:
        try:
            out, err = one.communicate(timeout=300 if device == "cpu" else 90)
        except subprocess.TimeoutExpired:
            one.kill()
            out, err = one.communicate()
        assert one.returncode == 0, err[-700:]
        said.append(json.loads(out.strip().splitlines()[-1]))
    sums = [one["sum"] for one in said]
    assert abs(sums[0] - sums[1]) < 1e-6 * sums[0], said
    return {"processes": said}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="try the checks on the CPU")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "device-check")))
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = "cpu" if given.cpu else "cuda"
    if given.rank is not None:
        process(given.rank, given.port, device)
        return 0
    checks = Checks(given.out, BUDGET if device == "cuda" else float("inf"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["LEAF_RT_CACHE"] = str(folder / "engines")  # nothing of earlier runs
        per_class, unlabelled = (24, 80) if device == "cuda" else (14, 20)
        write_folder(folder / "data", per_class, unlabelled)
        checks.run("environment", lambda: environment(device))
        if device == "cpu":
            tiny = {"run.batch": 8, "run.batch_unlabelled": 8, "run.input_sizes": [32], "run.threads": 1}
            checks.run("back end fp32", lambda: back_end("cpu", "fp32", (1, 4)))
            checks.run("crops", lambda: crops("cpu"))
            checks.run("decoding", lambda: decoding("cpu"))
            checks.run("detector", lambda: detector("cpu"))
            checks.run("side by side", lambda: side_by_side("cpu"))
            checks.run("LEAF fp32", lambda: leaf(folder, "cpu", FIRST, "off", 1e-9, **tiny))
            checks.run("stalls", lambda: stalls("cpu", **tiny))
            checks.run("two processes", lambda: two_processes("cpu"))
            return 1 if checks.failed else 0
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        batches = (1, 2, 4, 8, 16, 32, 64, 128, 256)
        for precision in ("fp16", "fp32", "bf16"):
            checks.run(f"back end {precision}", lambda p=precision: back_end("cuda", p, batches))  # type: ignore[misc]
        checks.run("engine runner", engine_runner)
        checks.run("crops", lambda: crops("cuda"))
        checks.run("decoding", lambda: decoding("cuda"))
        checks.run("detector", lambda: detector("cuda"))
        checks.run("side by side", lambda: side_by_side("cuda"))
        checks.run("LEAF fp32", lambda: leaf(folder, "cuda", 200, "off", 0.02))
        checks.run("LEAF bf16", lambda: leaf(folder, "cuda", 200, "bf16", 0.1))
        checks.run("LEAF fp16", lambda: leaf(folder, "cuda", 40, "fp16", 0.1))
        checks.run("stalls", lambda: stalls("cuda"))
        checks.run("two processes", lambda: two_processes("cuda"))
        checks.run("speed bf16", lambda: speed("cuda", run__amp="bf16", run__batch=128, run__batch_unlabelled=256))
        checks.run("speed fp32", lambda: speed("cuda", run__amp="off", run__batch=128, run__batch_unlabelled=256))
        large = {"model__backbone": "resnet18", "data__side": 224, "run__input_sizes": [224], "run__batch": 64}
        checks.run("speed resnet18", lambda: speed("cuda", run__amp="bf16", run__batch_unlabelled=64, **large))
        # Last, because a compiler may be missing there.
        checks.run("speed compiled", lambda: speed("cuda", run__amp="bf16", run__compile=True))
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
