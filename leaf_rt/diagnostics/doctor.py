"""Checks what leaf-rt can do on this machine, and how to fix what it cannot.

The checks open the model once like "auto" does, which may time the CPU back ends and store the winner. They build no
engine and change nothing else. Must not know terminals. A GPU is detected with CUDA, because TensorRT crashes on a
machine without a driver.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from leaf_rt.backends.base import LOAD_ERRORS
from leaf_rt.backends.networks import RUNTIMES, runtime_version
from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.plan_cache import cache_folder, folder_problem
from leaf_rt.backends.plans import engine_states, find_gpu
from leaf_rt.backends.registry import BACKENDS, BackendEntry, find_backend
from leaf_rt.credentials import mask
from leaf_rt.errors import GpuProblem, GpuUnavailable, LeafError, first_line, install_hint
from leaf_rt.faces.detectors import check_answers, choose_detector
from leaf_rt.models.spec import DEFAULT_MODEL, ModelSpec, load_spec, variant_path
from leaf_rt.render.window import why_no_window
from leaf_rt.system.cpu import cpu_count, cpu_features, cpu_name
from leaf_rt.text import counted

Status = Literal["ok", "limited", "missing"]
OK: Status = "ok"
LIMITED: Status = "limited"
MISSING: Status = "missing"
_CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp")
_REINSTALL = "install leaf-rt again"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        topic: What was checked.
        status: "ok"; "limited" if an optional part is missing; "missing" if leaf-rt cannot work without it.
        found: What was found.
        remedy: What to do; empty if nothing needs to be done.
    """

    topic: str
    status: Status
    found: str
    remedy: str = ""


def examine(model: Path = DEFAULT_MODEL) -> list[Finding]:
    """Check everything.

    Args:
        model: The model file to check.

    Returns:
        The findings, the most general first.
    """
    checks: tuple[Callable[[], Finding | list[Finding]], ...] = (
        _python,
        _processor,
        _gpu,
        _cpu_runtimes,
        _tensorrt,
        lambda: _models(model),
        _cache,
        _detectors,
        _mediapipe,
        _video,
        _timeline,
        _window,
        _cameras,
        _training,
    )
    findings: list[Finding] = []
    for check in checks:
        result = check()
        findings += result if isinstance(result, list) else [result]
    return findings


def version_of(distribution: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Finding:
    found = f"Python {platform.python_version()}, {platform.platform()}, leaf-rt {version_of('leaf-rt') or 'unpacked'}"
    return Finding("system", OK, found)


def _processor() -> Finding:
    available = cpu_features()
    features = " ".join(name for name in _CPU_FEATURES if name in available)
    name = cpu_name() or platform.machine()
    found = f"{name}, {counted(cpu_count(), 'core')}, {features or 'no vector features reported'}"
    return Finding("processor", OK, found)


def _gpu() -> Finding:
    try:
        gpu = find_gpu()
    except GpuUnavailable as e:
        if e.reason is GpuProblem.NO_BINDINGS:  # most machines have no NVIDIA GPU and need nothing
            return Finding("GPU", LIMITED, e.problem, f"if this machine has an NVIDIA GPU, {e.remedy}")
        return Finding("GPU", LIMITED, e.problem, e.remedy)
    memory = f"{gpu.memory / 2**30:.0f} GiB"
    return Finding("GPU", OK, f"{gpu.name}, compute capability {gpu.capability}, {memory}, driver {gpu.driver}")


def _package(name: str, absent: Status) -> Finding:
    """Check a package; an optional one is installed by the extra of the same name."""
    version = version_of(name)
    if version is not None:
        return Finding(name, OK, version)
    hint = install_hint() if absent == MISSING else f"if you want it, {install_hint(name)}"
    return Finding(name, absent, "not installed", hint)


def _cpu_runtimes() -> list[Finding]:
    backends = [backend for backend in reversed(BACKENDS) if backend.device == "cpu"]
    return [_package(backend.name, LIMITED if backend.extra else MISSING) for backend in backends]


def _tensorrt() -> Finding:
    installed = [v for backend in BACKENDS if backend.builds and (v := backend.version()) is not None]
    if installed:
        return Finding("TensorRT", OK, ", ".join(installed))
    hint = f"if this machine has an NVIDIA GPU, {install_hint('tensorrt')}"
    return Finding("TensorRT", LIMITED, "not installed", hint)


def _models(path: Path) -> list[Finding]:
    """The model and its checksum, its other files, and the back end that would run it."""
    try:
        spec = load_spec(path)
        inference = _inference(path, spec)
    except LeafError as e:
        return [
            Finding(f"model {mask(path.name)}", MISSING, str(e), f"{_REINSTALL}, or give another file with --model")
        ]
    findings = [Finding(f"model {path.name}", OK, f"{len(spec.labels)} classes, {_file(path, spec)}")]
    files = (variant_path(path, "fp16"), variant_path(path, "int8"), variant_path(path, "int8", ".xml"))
    findings += [_variant(file, path, spec) for file in files if file.is_file()]
    return [*findings, *inference]


def _variant(file: Path, model: Path, spec: ModelSpec) -> Finding:
    """A file of the model in another precision."""
    topic = f"model {file.name}"
    try:
        file_spec = load_spec(file)
    except LeafError as e:
        return Finding(topic, LIMITED, str(e), f"{_REINSTALL}, or export the file again")
    if file_spec.parent != spec.sha256:
        return Finding(topic, LIMITED, f"was not made from {model.name}", "export it again")
    return Finding(topic, OK, _file(file, file_spec))


def _inference(path: Path, spec: ModelSpec) -> list[Finding]:
    """What would run the model, and whether its GPU engine is built. Builds no engine.

    Raises:
        LeafError: Nothing can run it here.
    """
    findings: list[Finding] = []
    for backend in BACKENDS:
        if not backend.builds or path.suffix != ".onnx" or spec.precision not in backend.precisions:
            continue
        if backend.problem() is not None:
            continue
        topic = f"{backend.title} engine"
        try:
            finding = _engine(backend, topic, path, spec)
        except (LeafError, *LOAD_ERRORS) as e:
            remedy = f"install {backend.name} again, or do nothing: another back end runs the model"
            findings.append(Finding(topic, LIMITED, f"cannot be used ({first_line(e)})", remedy))
            continue
        findings.append(finding)
        if finding.status == LIMITED:
            return [*findings, Finding("inference", OK, f"{backend.title}, once the engine is built")]
        break
    opened = open_backend(path, build=False)
    opened.close()
    return [*findings, Finding("inference", OK, opened.reason)]


def _engine(backend: BackendEntry, topic: str, path: Path, spec: ModelSpec) -> Finding:
    """Which engines of a model are in the cache, and whether a run would build one."""
    first, *others = engine_states(backend, path, spec)
    also = "".join(f"; {state.precision} is in the cache too" for state in others if state.cached)
    if first.cached:
        return Finding(topic, OK, f"{first.precision} is in the cache{also}")
    state = f"cannot be used: {first.problem}" if first.problem else "is not built yet"
    when = "the first run builds it" if folder_problem(cache_folder()) is None else "every run builds it"
    return Finding(topic, LIMITED, f"{first.precision} {state}{also}", f"nothing to do: {when}, which can take minutes")


def _file(path: Path, spec: ModelSpec) -> str:
    weights = path.with_suffix(".bin") if path.suffix == ".xml" else path
    measured = {name: m["accuracy"] for name, m in spec.metrics.items() if isinstance(m, dict) and "accuracy" in m}
    measured = {name: accuracy for name, accuracy in measured.items() if isinstance(accuracy, int | float)}
    scores = [f"{name} {100 * accuracy:.1f} %" for name, accuracy in measured.items()]
    size = f"{weights.stat().st_size / 2**20:.1f} MiB"
    return ", ".join([spec.precision, size, f"sha256 {spec.sha256[:12]} is correct", *scores])


def _cache() -> Finding:
    folder = cache_folder()
    problem = folder_problem(folder)
    if problem is None:
        return Finding("engine cache", OK, str(folder))
    remedy = "set LEAF_RT_CACHE to a folder that you own; until then, engines are built for every run"
    return Finding("engine cache", LIMITED, problem, remedy)


def _detectors() -> list[Finding]:
    """The networks of the face detector, what runs them, and what else could."""
    findings: list[Finding] = []
    on_gpu = ("torch",) if find_backend("torch").gpu_problem() is None else ()  # importing it takes seconds
    for name in ("auto", *RUNTIMES, *on_gpu):
        topic = "face detector" if name == "auto" else f"face detector, {name}"
        if name != "auto" and runtime_version(name) is None:
            continue
        try:
            choice = choose_detector(name)
            if name != "auto":
                check_answers(choice.open)
        except LeafError as e:
            status = MISSING if name == "auto" else LIMITED
            findings.append(Finding(topic, status, str(e), _REINSTALL if name == "auto" else "use another --detector"))
            continue
        found = choice.reason if name == "auto" else "gives the same answer as MediaPipe on a test picture"
        findings.append(Finding(topic, OK, found))
    return findings


def _mediapipe() -> Finding:
    """MediaPipe, which only ``--detector mediapipe`` uses. It is not imported."""
    version = version_of("mediapipe")
    if version is not None:
        return Finding("mediapipe", OK, f"{version}, only used with --detector mediapipe")
    return Finding("mediapipe", LIMITED, "not installed", "nothing to do: only --detector mediapipe needs it")


def _timeline() -> Finding:
    """Matplotlib, which only the timeline needs. It is not imported."""
    version = version_of("matplotlib")
    if version is not None:
        return Finding("timelines", OK, f"Matplotlib {version}")
    return Finding("timelines", LIMITED, "Matplotlib is not installed", "to draw them: pip install matplotlib")


def _video() -> Finding:
    if find_spec("av") is None:
        return Finding("video files", MISSING, "PyAV is not installed", "pip install av")
    import av

    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    unsupported = [name for name in ("h264", "hevc", "vp9", "av1") if name not in av.codecs_available]
    found = f"PyAV {av.__version__}, libavcodec {ffmpeg}"
    if "libx264" not in av.codecs_available:
        return Finding("video files", LIMITED, f"{found}, no H.264 encoder", "pip install --force-reinstall av")
    if unsupported:
        return Finding("video files", LIMITED, f"{found}, cannot read {', '.join(unsupported)}", "pip install -U av")
    return Finding("video files", OK, f"{found}, reads H.264, HEVC, VP9, AV1; writes H.264")


def _window() -> Finding:
    reason = why_no_window()
    if reason is None:
        return Finding("window", OK, "there is a display, --show works")
    return Finding("window", LIMITED, reason, "nothing to do unless you want --show")


def _cameras() -> Finding:
    if sys.platform != "linux":
        return Finding("cameras", OK, "found when `leaf-rt webcam` opens one")
    devices = sorted(Path("/dev").glob("video*"))
    if not devices:
        return Finding("cameras", LIMITED, "no /dev/video*", "connect one, or pass it into the container with --device")
    denied = [str(d) for d in devices if not os.access(d, os.R_OK | os.W_OK)]
    if denied:
        return Finding(
            "cameras", LIMITED, f"no permission for {', '.join(denied)}", "add your user to the group 'video'"
        )
    return Finding("cameras", OK, ", ".join(map(str, devices)))


def _training() -> Finding:
    version = version_of("torch")
    if version is None:
        hint = f"to train or export, {install_hint('train')}"
        return Finding("training", LIMITED, "PyTorch is not installed", hint)
    on_gpu = ", which also runs models on the GPU" if find_backend("torch").gpu_problem() is None else ""
    return Finding("training", OK, f"PyTorch {version}{on_gpu}")
